"""Reads the header of a GGUF file: metadata and tensor list, never tensor data.

Bounded in time and memory whatever the bytes say. What a readable header *means*
is judged in `gguf_rules`.

Layout, little endian: magic, version u32, tensor count u64, entry count u64;
each entry: key, value type u32, value; each tensor: name, dimension count u32,
sizes u64 (row length first), type u32, offset u64 from the data section, which
begins at the next multiple of `general.alignment`. A string is its length in
bytes as u64, then UTF-8; an array is its element type u32, length u64, elements.

Source: llama.cpp 0c1e57098, ggml/include/gguf.h and ggml/src/gguf.cpp; GGUF
specification, https://github.com/ggml-org/ggml/blob/master/docs/gguf.md.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from struct import Struct
from typing import NoReturn

from wizard_edge.errors import Corrupt
from wizard_edge.gguf_cursor import U32, U64, Cursor, opened, shown
from wizard_edge.gguf_types import (
    GGML_TYPES,
    ArrayValue,
    Field,
    FileType,
    GgmlType,
    Scalar,
    Split,
    TensorInfo,
    Value,
    ValueType,
    row_size,
)

__all__ = [
    "DEFAULT_ALIGNMENT",
    "GGML_TYPES",
    "KEY_LICENSES",
    "KEY_NOTICES",
    "KEY_TEMPLATE",
    "NOT_SAID",
    "QUALITY_PREFIX",
    "ArrayValue",
    "Field",
    "FileType",
    "GgmlType",
    "Header",
    "Scalar",
    "Split",
    "TensorInfo",
    "Value",
    "ValueType",
    "align",
    "read_array",
    "read_fields",
    "read_header",
    "read_numbers",
    "read_strings",
    "row_size",
]

MAGIC = b"GGUF"
# Version 1 had 32-bit lengths; llama.cpp no longer reads it either.
VERSIONS = (2, 3)
DEFAULT_ALIGNMENT = 32
# Below 32 llama.cpp aborts on a mapped file ("buffer pointer must be aligned").
# Source: llama.cpp 0c1e57098, ggml/src/ggml-impl.h:44, ggml-backend.cpp:2527.
MIN_ALIGNMENT = 32
MAX_ALIGNMENT = 1 << 20
# Source: llama.cpp 0c1e57098, ggml/include/ggml.h, GGML_MAX_DIMS, GGML_MAX_NAME.
MAX_DIMENSIONS = 4
MAX_NAME_SIZE = 63
# Source: GGUF specification, `gguf_metadata_kv_t`: at most 2^16-1 bytes.
MAX_KEY_SIZE = (1 << 16) - 1
# Counts of elements are int64 in ggml.
MAX_ELEMENTS = (1 << 63) - 1

# Our own bounds, well above the largest models that this program runs: Llama 3's
# 128,256 tokens with 280,147 merges, and 1,000 tensors.
MAX_ENTRIES = 1 << 14
MAX_TENSORS = 1 << 16
MAX_ARRAY_LENGTH = 64 << 20

# Keys that our converter writes beside the usual ones; the licences are their
# ids in one string, separated by spaces.
KEY_TEMPLATE = "wizard_edge.template"
KEY_LICENSES = "wizard_edge.licenses"
KEY_NOTICES = "wizard_edge.notices"
QUALITY_PREFIX = "wizard_edge.quality."
# What stands there when nobody named a template or a licence.
NOT_SAID = "none"

_KEY_ALIGNMENT = "general.alignment"
_KEY_TOKENS = "tokenizer.ggml.tokens"
_FILE_TYPES = {int(file_type): file_type for file_type in FileType}

_COUNTS = Struct("<QQ")
_TYPE_AND_OFFSET = Struct("<IQ")
_SIZES = tuple(Struct(f"<{count}Q") for count in range(MAX_DIMENSIONS + 1))
_VALUE_TYPES = {int(value_type): value_type for value_type in ValueType}
_SCALARS: Mapping[ValueType, Struct] = {
    ValueType.UINT8: Struct("<B"),
    ValueType.INT8: Struct("<b"),
    ValueType.UINT16: Struct("<H"),
    ValueType.INT16: Struct("<h"),
    ValueType.UINT32: U32,
    ValueType.INT32: Struct("<i"),
    ValueType.FLOAT32: Struct("<f"),
    ValueType.BOOL: Struct("<B"),
    ValueType.UINT64: U64,
    ValueType.INT64: Struct("<q"),
    ValueType.FLOAT64: Struct("<d"),
}


@dataclass(frozen=True, slots=True)
class Header:
    """Everything a GGUF file says before its tensor data.

    `data_offset` is where the tensor data begins, or would. The properties give
    None (`architecture`: "") for what the file does not say and raise Corrupt
    where it says it in a wrong type.
    """

    path: Path
    version: int
    alignment: int
    metadata: Mapping[str, Value]
    fields: Mapping[str, Field]
    tensors: tuple[TensorInfo, ...]
    data_offset: int
    file_size: int

    @property
    def architecture(self) -> str:
        return self.text("general.architecture") or ""

    @property
    def name(self) -> str | None:
        return self.text("general.name")

    @property
    def context_length(self) -> int | None:
        return self.integer(f"{self.architecture}.context_length")

    @property
    def block_count(self) -> int | None:
        return self.integer(f"{self.architecture}.block_count")

    @property
    def embedding_length(self) -> int | None:
        return self.integer(f"{self.architecture}.embedding_length")

    @property
    def vocabulary_size(self) -> int | None:
        """The number of tokens listed, else the number the file states."""
        tokens = self.metadata.get(_KEY_TOKENS)
        if isinstance(tokens, ArrayValue):
            return tokens.length
        return self.integer(f"{self.architecture}.vocab_size")

    @property
    def file_type(self) -> FileType | None:
        number = self.integer("general.file_type")
        return None if number is None else _FILE_TYPES.get(number)

    @property
    def quant(self) -> str | None:
        """The name of the file type, such as Q4_K_M."""
        return None if self.file_type is None else self.file_type.name

    @property
    def tokenizer(self) -> str | None:
        """The kind of tokenizer: `llama` is SentencePiece, `gpt2` byte-level BPE."""
        return self.text("tokenizer.ggml.model")

    @property
    def chat_template(self) -> str | None:
        """The Jinja text some files carry: to be recognised, never compiled."""
        return self.text("tokenizer.chat_template")

    @property
    def license(self) -> str | None:
        return self.text("general.license")

    @property
    def template(self) -> str | None:
        """The id of the prompt template, as our converter writes it."""
        named = self.text(KEY_TEMPLATE)
        return None if named == NOT_SAID else named

    @property
    def licenses(self) -> tuple[str, ...]:
        """The ids of the licences, as our converter writes them."""
        named = self.text(KEY_LICENSES) or NOT_SAID
        return () if named == NOT_SAID else tuple(named.split())

    @property
    def quality(self) -> dict[str, float]:
        """The figures that our converter measured, such as `rms_error.Q4_K`."""
        return {
            key.removeprefix(QUALITY_PREFIX): value
            for key, value in self.metadata.items()
            if key.startswith(QUALITY_PREFIX) and isinstance(value, float)
        }

    @property
    def split(self) -> Split | None:
        """The place in a split model; None for a whole one."""
        count = self.integer("split.count") or 0
        if count < 2:
            return None
        number = self.integer("split.no") or 0
        return Split(number, count, self.integer("split.tensors.count"))

    def text(self, key: str) -> str | None:
        """Give a string, None where the key is missing. Raises: Corrupt."""
        value = self.metadata.get(key)
        if value is not None and not isinstance(value, str):
            self.fail(key, f"is {self.kind(key)}, should be string")
        return value

    def integer(self, key: str) -> int | None:
        """Give an integer, None where the key is missing. Raises: Corrupt."""
        value = self.metadata.get(key)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int):
            self.fail(key, f"is {self.kind(key)}, should be an integer")
        return value

    def kind(self, key: str) -> str:
        """Name the type of a value: `uint32`, `array of string`."""
        value = self.metadata[key]
        if isinstance(value, ArrayValue):
            return f"array of {value.type.name.lower()}"
        return self.fields[key].type.name.lower()

    def fail(self, key: str, problem: str) -> NoReturn:
        """Raise Corrupt for a metadata key, naming it and where its value lies."""
        field = self.fields.get(key)
        place = f", offset {field.offset}" if field else ""
        raise Corrupt(self.path, problem, where=f"key {shown(key)}{place}")


def read_header(path: str | os.PathLike[str]) -> Header:
    """Read metadata and tensor list of a GGUF file; arrays are stepped over.

    Raises: MissingFile; UsageError for what is no regular file or cannot be
    opened; Corrupt naming the offset and the key or tensor.
    """
    with opened(Path(path)) as cursor:
        return _read_header(cursor)


def read_strings(header: Header, key: str) -> list[str]:
    """Read an array of strings. Raises: KeyError where it is missing; Corrupt."""
    array = _array(header, key)
    if array.type is not ValueType.STRING:
        header.fail(key, f"is {header.kind(key)}, should be array of string")
    data = _read_elements(header, key, array)
    pieces = []
    position = 0
    size_at = U64.unpack_from
    try:
        for _ in range(array.length):
            start = position + 8
            position = start + size_at(data, position)[0]
            pieces.append(data[start:position])
    except (struct.error, OverflowError):
        position = -1
    if position != len(data):
        header.fail(key, "changed since the header was read")
    try:
        return list(map(bytes.decode, pieces))
    except UnicodeDecodeError as error:
        index = pieces.index(error.object)
        header.fail(key, f"element {index} is not UTF-8: {shown(error.object)}")


def read_numbers(header: Header, key: str) -> list[Scalar]:
    """Read an array of numbers or bools.

    Raises: KeyError where it is missing; Corrupt.
    """
    array = _array(header, key)
    if array.type is ValueType.STRING:
        header.fail(key, "is array of string, should hold numbers")
    data = _read_elements(header, key, array)
    if array.type is ValueType.BOOL:
        return [byte != 0 for byte in data]
    code = _SCALARS[array.type].format[-1]
    return list(struct.unpack(f"<{array.length}{code}", data))


def read_array(header: Header, key: str) -> list[Scalar] | list[str]:
    """Read an array, whatever it holds. Raises: as `read_strings`."""
    if _array(header, key).type is ValueType.STRING:
        return read_strings(header, key)
    return read_numbers(header, key)


def read_fields(header: Header) -> dict[str, bytes]:
    """Read every metadata value as it is encoded in the file, in the file's order.

    An array begins with the type and the number of its elements. Raises: Corrupt.
    """
    if not header.fields:
        return {}
    places = header.fields.values()
    start = min(field.offset for field in places)
    end = max(field.offset + field.size for field in places)
    data = _read_range(header, "metadata", start, end - start)
    return {
        key: data[field.offset - start : field.offset - start + field.size]
        for key, field in header.fields.items()
    }


def align(offset: int, alignment: int) -> int:
    """Round an offset up to the next multiple."""
    return -(-offset // alignment) * alignment


def _read_header(cursor: Cursor) -> Header:
    if cursor.file_size < len(MAGIC):
        cursor.fail(f"no GGUF file: it has {cursor.file_size} bytes")
    start = cursor.take(len(MAGIC))
    magic = bytes(cursor.buffer[start : cursor.position])
    if magic != MAGIC:
        cursor.fail(f"no GGUF file: it begins with {magic!r}", start)
    _check_version(version := cursor.number(), cursor)
    tensor_count, entry_count = cursor.pair(_COUNTS)
    if tensor_count > MAX_TENSORS:
        cursor.fail(f"{tensor_count} tensors, at most {MAX_TENSORS} are allowed", 8)
    if entry_count > MAX_ENTRIES:
        cursor.fail(f"{entry_count} metadata entries, at most {MAX_ENTRIES}", 16)

    metadata, fields = _read_metadata(cursor, entry_count)
    alignment = _read_alignment(cursor, metadata, fields)
    tensors = _read_tensors(cursor, tensor_count)
    return Header(
        path=cursor.path,
        version=version,
        alignment=alignment,
        metadata=metadata,
        fields=fields,
        tensors=tensors,
        data_offset=align(cursor.position, alignment),
        file_size=cursor.file_size,
    )


def _check_version(version: int, cursor: Cursor) -> None:
    if version in VERSIONS:
        return
    if version & 0xFFFF == 0:
        cursor.fail(f"version {version:#010x}: a big-endian file", 4)
    known = " and ".join(map(str, VERSIONS))
    cursor.fail(f"GGUF version {version}; only {known} can be read", 4)


def _read_metadata(
    cursor: Cursor, count: int
) -> tuple[dict[str, Value], dict[str, Field]]:
    metadata: dict[str, Value] = {}
    fields: dict[str, Field] = {}
    for index in range(count):
        cursor.item = f"metadata entry {index}"
        start = cursor.position
        key = cursor.string(MAX_KEY_SIZE)
        if not key or "\0" in key:
            cursor.fail(f"{shown(key)} is no key", start)
        if key in metadata:
            cursor.fail(f"key {shown(key)} is there twice", start)
        cursor.item = f"key {shown(key)}"
        value_type = _read_value_type(cursor)
        start = cursor.position
        metadata[key] = _read_value(cursor, value_type)
        fields[key] = Field(value_type, start, cursor.position - start)
    return metadata, fields


def _read_value_type(cursor: Cursor) -> ValueType:
    number = cursor.number()
    value_type = _VALUE_TYPES.get(number)
    if value_type is None:
        cursor.fail(f"unknown value type {number}", cursor.position - 4)
    return value_type


def _read_value(cursor: Cursor, value_type: ValueType) -> Value:
    if value_type is ValueType.STRING:
        return cursor.string()
    if value_type is ValueType.ARRAY:
        return _skip_array(cursor)
    layout = _SCALARS[value_type]
    start = cursor.take(layout.size)
    value: int | float = layout.unpack_from(cursor.buffer, start)[0]
    if value_type is not ValueType.BOOL:
        return value
    if value not in (0, 1):
        cursor.fail(f"a bool that is {value}", start)
    return value == 1


def _skip_array(cursor: Cursor) -> ArrayValue:
    at = cursor.position
    element_type = _read_value_type(cursor)
    length = cursor.number(U64)
    if element_type is ValueType.ARRAY:
        cursor.fail("an array of arrays", at)
    if length > MAX_ARRAY_LENGTH:
        cursor.fail(f"an array of {length}, at most {MAX_ARRAY_LENGTH}", at)
    start = cursor.position
    if element_type is ValueType.STRING:
        cursor.skip_strings(length)
    else:
        cursor.skip(length * _SCALARS[element_type].size)
    return ArrayValue(element_type, length, start, cursor.position - start)


def _read_alignment(
    cursor: Cursor, metadata: Mapping[str, Value], fields: Mapping[str, Field]
) -> int:
    if _KEY_ALIGNMENT not in metadata:
        return DEFAULT_ALIGNMENT
    value, field = metadata[_KEY_ALIGNMENT], fields[_KEY_ALIGNMENT]
    cursor.item = f"key {_KEY_ALIGNMENT!r}"
    if not isinstance(value, int) or field.type is not ValueType.UINT32:
        cursor.fail(f"is {field.type.name.lower()}, should be uint32", field.offset)
    if value & (value - 1) or not MIN_ALIGNMENT <= value <= MAX_ALIGNMENT:
        cursor.fail(
            f"{value} is no power of two from {MIN_ALIGNMENT} to {MAX_ALIGNMENT}",
            field.offset,
        )
    return value


def _read_tensors(cursor: Cursor, count: int) -> tuple[TensorInfo, ...]:
    tensors: dict[str, TensorInfo] = {}
    for index in range(count):
        cursor.item = f"tensor {index}"
        start = cursor.position
        name = cursor.string(MAX_NAME_SIZE)
        if not name or "\0" in name:
            cursor.fail(f"{shown(name)} is no name", start)
        if name in tensors:
            cursor.fail(f"tensor {shown(name)} is there twice", start)
        cursor.item = f"tensor {shown(name)}"
        tensors[name] = _read_tensor(cursor, name)
    return tuple(tensors.values())


def _read_tensor(cursor: Cursor, name: str) -> TensorInfo:
    start = cursor.position
    dimensions = cursor.number()
    if not 1 <= dimensions <= MAX_DIMENSIONS:
        cursor.fail(f"{dimensions} dimensions, 1 to {MAX_DIMENSIONS} allowed", start)
    layout = _SIZES[dimensions]
    shape = layout.unpack_from(cursor.buffer, cursor.take(layout.size))
    elements = prod(shape)
    if not 0 < elements <= MAX_ELEMENTS:
        cursor.fail(f"a shape of {shape}", start)
    number, offset = cursor.pair(_TYPE_AND_OFFSET)
    ggml_type = GGML_TYPES.get(number)
    if ggml_type is None:
        cursor.fail(f"unknown tensor type {number}", start + 4 + layout.size)
    try:
        size = row_size(ggml_type, shape[0]) * (elements // shape[0])
    except ValueError as error:
        cursor.fail(str(error), start)
    return TensorInfo(name, shape, ggml_type, offset, size)


def _array(header: Header, key: str) -> ArrayValue:
    value = header.metadata[key]
    if not isinstance(value, ArrayValue):
        header.fail(key, f"is {header.kind(key)}, should be an array")
    return value


def _read_elements(header: Header, key: str, array: ArrayValue) -> bytes:
    return _read_range(header, f"key {shown(key)}", array.offset, array.size)


def _read_range(header: Header, item: str, offset: int, size: int) -> bytes:
    with opened(header.path) as cursor:
        cursor.item = item
        if cursor.file_size != header.file_size:
            cursor.fail("the file changed since its header was read", offset)
        return cursor.read_at(offset, size)
