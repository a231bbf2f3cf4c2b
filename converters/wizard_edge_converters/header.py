"""Encodes the header of a GGUF file, version 3: everything before the tensor data.

Pure. The layout is described where it is read, in `wizard_edge.gguf`.

Source: GGUF specification, https://github.com/ggml-org/ggml/blob/master/docs/gguf.md.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import numpy as np

from wizard_edge.gguf import DEFAULT_ALIGNMENT, align
from wizard_edge.gguf_types import GgmlType, ValueType, row_size
from wizard_edge_converters.entries import Entry, Scalar

MAGIC = b"GGUF"
VERSION = 3

_FORMATS = {
    ValueType.UINT16: "<H",
    ValueType.UINT32: "<I",
    ValueType.INT32: "<i",
    ValueType.FLOAT32: "<f",
    ValueType.BOOL: "<?",
}
_ARRAY_TYPES = {
    ValueType.UINT32: "<u4",
    ValueType.INT32: "<i4",
    ValueType.FLOAT32: "<f4",
}


@dataclass(frozen=True, slots=True)
class TensorEntry:
    """A tensor of the file; `shape` has the row length last, as in the checkpoint."""

    name: str
    shape: tuple[int, ...]
    type: GgmlType

    @property
    def size(self) -> int:
        """The bytes of its data. Raises: ValueError when rows are no whole blocks."""
        return row_size(self.type, self.shape[-1]) * prod(self.shape[:-1])


@dataclass(frozen=True, slots=True)
class Layout:
    """An encoded header, padded to the tensor data, and where each tensor lies.

    `offsets` are offsets in the file; `size` is that of the whole file.
    """

    header: bytes
    offsets: dict[str, int]
    size: int


def lay_out(entries: Sequence[Entry], tensors: Sequence[TensorEntry]) -> Layout:
    """Encode a header and place the tensors one after another."""
    offsets: dict[str, int] = {}
    end = 0
    parts = [
        MAGIC,
        struct.pack("<IQQ", VERSION, len(tensors), len(entries)),
        *map(_encode_entry, entries),
    ]
    for tensor in tensors:
        parts.append(_encode_tensor(tensor, end))
        offsets[tensor.name] = end
        end = align(end + tensor.size, DEFAULT_ALIGNMENT)
    header = b"".join(parts)
    header += bytes(align(len(header), DEFAULT_ALIGNMENT) - len(header))
    start = len(header)
    return Layout(
        header, {name: start + at for name, at in offsets.items()}, start + end
    )


def _encode_tensor(tensor: TensorEntry, offset: int) -> bytes:
    sizes = tensor.shape[::-1]
    return _encode_text(tensor.name) + struct.pack(
        f"<I{len(sizes)}QIQ", len(sizes), *sizes, tensor.type, offset
    )


def _encode_entry(entry: Entry) -> bytes:
    head = _encode_text(entry.key) + struct.pack("<I", entry.type)
    if isinstance(entry.value, bytes):
        return head + entry.value
    if entry.type is not ValueType.ARRAY:
        return head + encode_value(entry.type, entry.value)
    if entry.elements is None or not isinstance(entry.value, Sequence):
        raise TypeError(f"{entry.key} is no array with a type of its elements")
    head += struct.pack("<IQ", entry.elements, len(entry.value))
    return head + _encode_elements(entry.elements, entry.value)


def encode_value(kind: ValueType, value: Scalar | Sequence[Scalar]) -> bytes:
    """Encode one value that is no array."""
    if kind is ValueType.STRING:
        return _encode_text(str(value))
    return struct.pack(_FORMATS[kind], value)


def _encode_elements(kind: ValueType, values: Sequence[Scalar]) -> bytes:
    if kind is ValueType.STRING:
        return b"".join(_encode_text(str(value)) for value in values)
    return np.array(values, dtype=_ARRAY_TYPES[kind]).tobytes()


def _encode_text(text: str) -> bytes:
    data = text.encode("utf-8")
    return struct.pack("<Q", len(data)) + data
