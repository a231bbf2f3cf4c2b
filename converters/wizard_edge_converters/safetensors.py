"""Reads safetensors files: the header only, bounded; tensors stay in the file.

Eight bytes of header length (little endian), a JSON header, then the tensors'
bytes. The ranges in the header MUST cover those bytes without gap or overlap.

Source: https://huggingface.co/docs/safetensors/index, section Format.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from math import prod
from typing import NoReturn

from wizard_edge.errors import CannotConvert, Corrupt
from wizard_edge.gguf_types import GgmlType
from wizard_edge.receipts import CheckedFile
from wizard_edge_converters.checkpoint import StoredTensor
from wizard_edge_converters.source_files import (
    ByteSource,
    parse_json,
    refuse_pointer,
    shown,
)

# The format allows 100 MB; 8 MiB hold 50,000 tensors, and JSON grows tenfold when read.
MAX_HEADER = 8 << 20
_LENGTH = struct.Struct("<Q")
_METADATA = "__metadata__"

TYPES: Mapping[str, GgmlType] = {
    "F32": GgmlType.F32,
    "F16": GgmlType.F16,
    "BF16": GgmlType.BF16,
}


class SafetensorsFile:
    """A safetensors file over its bytes, called `name` inside its checkpoint.

    Takes over `source` and closes it.
    Raises: Corrupt; CannotConvert for a type of number that no language model of
    ours is stored in.
    """

    def __init__(self, source: ByteSource, name: str) -> None:
        self._file = source
        self.size = source.size
        try:
            self.tensors = _read_tensors(source, name)
        except BaseException:
            source.close()
            raise

    def read(self, tensor: StoredTensor, start: int, count: int) -> bytes:
        width = tensor.type.type_size
        return self._file.read(tensor.offset + start * width, count * width)

    def mark(self) -> str:
        return self._file.mark()

    def resume(self, mark: str) -> None:
        self._file.resume(mark, sums=False)

    def finish(self) -> CheckedFile:
        # The format carries no sums.
        return self._file.finish(sums=False)

    def close(self) -> None:
        self._file.close()


def _read_tensors(file: ByteSource, name: str) -> tuple[StoredTensor, ...]:
    refuse_pointer(file)
    (length,) = _LENGTH.unpack(file.peek(0, _LENGTH.size))
    if length > MAX_HEADER:
        raise Corrupt(file.path, f"a header of {length} bytes, at most {MAX_HEADER}")
    data_offset = _LENGTH.size + length
    header = parse_json(file.peek(_LENGTH.size, length), str(file.path))
    header.pop(_METADATA, None)
    found = [
        (*_read_range(file, tensor, entry), tensor, entry)
        for tensor, entry in header.items()
    ]
    found.sort(key=lambda item: item[:2])
    end = 0
    tensors = []
    for first, last, tensor, entry in found:
        if first != end:
            _fail(file, tensor, "overlaps or leaves a gap after the one before")
        end = last
        stored = _read_tensor(file, name, tensor, entry, data_offset + first)
        if stored.size != last - first:
            _fail(file, tensor, f"{stored.size} bytes expected, {last - first} stated")
        tensors.append(stored)
    if data_offset + end != file.size:
        raise Corrupt(
            file.path,
            f"has {file.size} bytes, its tensors end at {data_offset + end}",
            hint="the file is cut off: fetch it again",
        )
    return tuple(tensors)


def _read_range(file: ByteSource, tensor: str, entry: object) -> tuple[int, int]:
    offsets = entry.get("data_offsets") if isinstance(entry, dict) else None
    if not isinstance(offsets, list) or list(map(type, offsets)) != [int, int]:
        _fail(file, tensor, "has no data_offsets")
    first, last = offsets
    if not 0 <= first <= last:
        _fail(file, tensor, f"lies from {first} to {last}")
    return first, last


def _read_tensor(
    file: ByteSource, name: str, tensor: str, entry: object, offset: int
) -> StoredTensor:
    match entry:
        case {"dtype": str() as kind, "shape": [*sizes]}:
            pass
        case _:
            _fail(file, tensor, "has no dtype or shape")
    shape = tuple(size for size in sizes if type(size) is int and 0 <= size < 1 << 48)
    if len(shape) != len(sizes) or len(shape) > 8 or prod(shape) >= 1 << 60:
        _fail(file, tensor, f"has the shape {shown(sizes)}")
    if kind not in TYPES:
        raise CannotConvert(
            f"tensor {shown(tensor)} of {file.path} is stored as {shown(kind)}",
            hint=f"weights can be stored as {', '.join(TYPES)}",
        )
    return StoredTensor(tensor, TYPES[kind], shape, name, offset)


def _fail(file: ByteSource, tensor: str, problem: str) -> NoReturn:
    raise Corrupt(file.path, problem, where=f"tensor {shown(tensor)}")
