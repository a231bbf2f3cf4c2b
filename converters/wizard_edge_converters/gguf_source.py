"""A GGUF file, whole or split, as a checkpoint that can be quantized again.

Tensors are read where they lie, metadata are copied as they are encoded, but for
what llama.cpp's quantizer changes.

Source: llama.cpp 0c1e57098, src/llama-quant.cpp, `llama_model_quantize_impl`.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Self

from wizard_edge.gguf import DEFAULT_ALIGNMENT, QUALITY_PREFIX, Header, read_fields
from wizard_edge.gguf_parts import read_parts
from wizard_edge.gguf_types import FileType, GgmlType, TensorInfo, ValueType
from wizard_edge.names import RelPath
from wizard_edge.receipts import Check, CheckedFile
from wizard_edge_converters.checkpoint import StoredTensor
from wizard_edge_converters.entries import Entry
from wizard_edge_converters.header import encode_value
from wizard_edge_converters.metadata import QUANTIZATION_VERSION
from wizard_edge_converters.model import Model
from wizard_edge_converters.rules import TensorRule
from wizard_edge_converters.source_files import SourceFile
from wizard_edge_converters.tensors import Match

_ALIGNMENT = "general.alignment"
_VERSION = "general.quantization_version"
_FILE_TYPE = "general.file_type"
# What speaks of the old file only, or is written anew.
_DROPPED = frozenset(
    {"split.no", "split.count", "split.tensors.count", _VERSION, _FILE_TYPE}
)


class GgufCheckpoint:
    """The tensors of a GGUF file or of all parts of a split one; a context manager.

    The experts of a tensor are tensors of their own.
    """

    is_remote = False

    def __init__(self, headers: Sequence[Header]) -> None:
        """Open the files of headers that `read_parts` gave, in their order."""
        self.headers = tuple(headers)
        self.name = str(headers[0].path)
        self._files: dict[str, SourceFile] = {}
        with contextlib.ExitStack() as opened:
            for number, header in enumerate(headers, start=1):
                file = SourceFile(header.path)
                opened.callback(file.close)
                self._files[_file_name(header.path, number)] = file
            opened.pop_all()
        self.tensors: Mapping[str, StoredTensor] = {
            tensor.name: tensor
            for file, header in zip(self._files, headers, strict=True)
            for info in header.tensors
            for tensor in _slices(info, file, header.data_offset)
        }

    @property
    def paths(self) -> tuple[Path, ...]:
        """The files it is read from."""
        return tuple(header.path for header in self.headers)

    @property
    def identity(self) -> str:
        return json.dumps([self.name, *(f.identity for f in self._files.values())])

    @property
    def size(self) -> int:
        return sum(file.size for file in self._files.values())

    def label(self, name: str) -> str:
        return str(self._files[name].path)

    def small(self, name: str) -> bytes | None:
        return None

    def read(self, tensor: StoredTensor, start: int, count: int) -> bytes:
        kind = tensor.type
        return self._files[tensor.file].read(
            tensor.offset + start // kind.block_size * kind.type_size,
            count // kind.block_size * kind.type_size,
        )

    def mark(self, file: str) -> str:
        return ""

    def resume(self, file: str, mark: str) -> None:
        """Do nothing: the files can be read anywhere."""

    def finish(self, file: str) -> CheckedFile:
        # There is no sum in a GGUF file.
        return CheckedFile(RelPath.parse(file), self._files[file].size, Check.SIZE)

    def others(self) -> Sequence[CheckedFile]:
        return ()

    def close(self) -> None:
        for file in self._files.values():
            file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def open_gguf(path: Path) -> GgufCheckpoint:
    """Open a GGUF file, or a split model by its first part.

    Raises: as `gguf_parts.read_parts`.
    """
    return GgufCheckpoint(read_parts(path))


def gguf_model(checkpoint: GgufCheckpoint, *, allow_requantize: bool = False) -> Model:
    """Describe what is to be made of an open GGUF file. Raises: Corrupt."""
    first = checkpoint.headers[0]
    encoded = read_fields(first)
    kept = tuple(
        _kept(key, first.fields[key].type, value)
        for key, value in encoded.items()
        if key not in _DROPPED and not key.startswith(QUALITY_PREFIX)
    )

    def describe(quant: str) -> tuple[Entry, ...]:
        return (
            *kept,
            Entry(_VERSION, ValueType.UINT32, QUANTIZATION_VERSION),
            Entry(_FILE_TYPE, ValueType.UINT32, int(FileType[quant])),
        )

    own = {info.name: info.type for info in _infos(checkpoint.headers)}
    return Model(
        architecture=first.architecture,
        matches=tuple(
            match
            for info in _infos(checkpoint.headers)
            for match in _matches(info, checkpoint.tensors)
        ),
        between=own,
        describe=describe,
        skeleton=describe(GgmlType.F32.name),
        is_plain=False,
        allow_requantize=allow_requantize,
    )


def _file_name(path: Path, number: int) -> str:
    # A file of the user's may have a name that no journal could hold.
    return path.name if RelPath.fits(path.name) else f"part-{number}"


def _kept(key: str, kind: ValueType, value: bytes) -> Entry:
    # We align as everybody does: a file that says otherwise would be read wrong.
    if key == _ALIGNMENT:
        value = encode_value(kind, DEFAULT_ALIGNMENT)
    return Entry(key, kind, value)


def _infos(headers: Sequence[Header]) -> Iterator[TensorInfo]:
    for header in headers:
        yield from header.tensors


def _matches(info: TensorInfo, stored: Mapping[str, StoredTensor]) -> Iterator[Match]:
    names = _slice_names(info)
    for part, name in enumerate(names):
        tensor = stored[name]
        rule = TensorRule(name, info.name, tensor.shape, part=part, parts=len(names))
        yield Match(rule, tensor)


def _slices(info: TensorInfo, file: str, start: int) -> Iterator[StoredTensor]:
    names = _slice_names(info)
    shape = _shape(info)
    size = info.size // len(names)
    for part, name in enumerate(names):
        offset = start + info.offset + part * size
        yield StoredTensor(
            name, info.type, shape[1:] if len(names) > 1 else shape, file, offset
        )


def _slice_names(info: TensorInfo) -> list[str]:
    """Name the matrices of a tensor: itself, or one for each expert."""
    shape = _shape(info)
    # An importance matrix has columns of its own for each expert.
    if len(shape) != 3:
        return [info.name]
    return [f"{info.name}[{part}]" for part in range(shape[0])]


def _shape(info: TensorInfo) -> tuple[int, ...]:
    """Return the sizes with the row length last, without leading ones.

    llama.cpp counts dimensions so when it writes a file again.
    Source: llama.cpp 0c1e57098, ggml/src/ggml.c, `ggml_n_dims`.
    """
    sizes = info.shape
    while len(sizes) > 1 and sizes[-1] == 1:
        sizes = sizes[:-1]
    return sizes[::-1]
