"""What a GGUF header is made of: value types, tensor types, file types, values.

Facts and values only; nothing here opens a file. `GgmlType` and `FileType` are
enums, so that a number from a file, a name from a person and ctypes are served.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from types import MappingProxyType
from typing import Self, TypeAlias

__all__ = [
    "GGML_TYPES",
    "WEIGHT_TYPES",
    "ArrayValue",
    "Field",
    "FileType",
    "GgmlType",
    "Scalar",
    "Split",
    "TensorInfo",
    "Value",
    "ValueType",
    "row_size",
]


class ValueType(IntEnum):
    """What a metadata value is.

    Source: llama.cpp 0c1e57098, ggml/include/gguf.h, enum gguf_type.
    """

    UINT8 = 0
    INT8 = 1
    UINT16 = 2
    INT16 = 3
    UINT32 = 4
    INT32 = 5
    FLOAT32 = 6
    BOOL = 7
    STRING = 8
    ARRAY = 9
    UINT64 = 10
    INT64 = 11
    FLOAT64 = 12


class GgmlType(IntEnum):
    """A tensor's element type: `block_size` elements lie in `type_size` bytes.

    Numbers that are missing belonged to types that were removed from the format.
    Source: llama.cpp 0c1e57098, ggml/include/ggml.h:389 (numbers), ggml/src/ggml.c:632
    (`type_traits`) and the size assertions of ggml/src/ggml-common.h (blocks).
    """

    block_size: int
    type_size: int

    def __new__(cls, number: int, block_size: int = 1, type_size: int = 0) -> Self:
        member = int.__new__(cls, number)
        member._value_ = number
        member.block_size = block_size
        member.type_size = type_size
        return member

    F32 = 0, 1, 4
    F16 = 1, 1, 2
    Q4_0 = 2, 32, 18
    Q4_1 = 3, 32, 20
    Q5_0 = 6, 32, 22
    Q5_1 = 7, 32, 24
    Q8_0 = 8, 32, 34
    Q8_1 = 9, 32, 36
    Q2_K = 10, 256, 84
    Q3_K = 11, 256, 110
    Q4_K = 12, 256, 144
    Q5_K = 13, 256, 176
    Q6_K = 14, 256, 210
    Q8_K = 15, 256, 292
    IQ2_XXS = 16, 256, 66
    IQ2_XS = 17, 256, 74
    IQ3_XXS = 18, 256, 98
    IQ1_S = 19, 256, 50
    IQ4_NL = 20, 32, 18
    IQ3_S = 21, 256, 110
    IQ2_S = 22, 256, 82
    IQ4_XS = 23, 256, 136
    I8 = 24, 1, 1
    I16 = 25, 1, 2
    I32 = 26, 1, 4
    I64 = 27, 1, 8
    F64 = 28, 1, 8
    IQ1_M = 29, 256, 56
    BF16 = 30, 1, 2
    TQ1_0 = 34, 256, 54
    TQ2_0 = 35, 256, 66
    MXFP4 = 39, 32, 17
    NVFP4 = 40, 64, 36
    Q1_0 = 41, 128, 18
    Q2_0 = 42, 64, 18


GGML_TYPES: Mapping[int, GgmlType] = MappingProxyType({int(t): t for t in GgmlType})

# The types a weight matrix may have. The others are integers, activations or
# scratch formats: llama.cpp loads them and aborts when it multiplies by them.
# Source: llama.cpp 0c1e57098, ggml/src/ggml-cpu/ops.cpp:5371 (get_rows).
WEIGHT_TYPES = frozenset(GgmlType) - {
    GgmlType.F64,
    GgmlType.I8,
    GgmlType.I16,
    GgmlType.I32,
    GgmlType.I64,
    GgmlType.Q8_1,
    GgmlType.Q8_K,
}


class FileType(IntEnum):
    """The mix of tensor types a file was quantized to; its name is the quant.

    Source: llama.cpp 0c1e57098, include/llama.h:117, enum llama_ftype.
    """

    F32 = 0
    F16 = 1
    Q4_0 = 2
    Q4_1 = 3
    Q8_0 = 7
    Q5_0 = 8
    Q5_1 = 9
    Q2_K = 10
    Q3_K_S = 11
    Q3_K_M = 12
    Q3_K_L = 13
    Q4_K_S = 14
    Q4_K_M = 15
    Q5_K_S = 16
    Q5_K_M = 17
    Q6_K = 18
    IQ2_XXS = 19
    IQ2_XS = 20
    Q2_K_S = 21
    IQ3_XS = 22
    IQ3_XXS = 23
    IQ1_S = 24
    IQ4_NL = 25
    IQ3_S = 26
    IQ3_M = 27
    IQ2_S = 28
    IQ2_M = 29
    IQ4_XS = 30
    IQ1_M = 31
    BF16 = 32
    TQ1_0 = 36
    TQ2_0 = 37
    MXFP4_MOE = 38
    NVFP4 = 39
    Q1_0 = 40
    Q2_0 = 41


Scalar: TypeAlias = int | float | bool


@dataclass(frozen=True, slots=True)
class ArrayValue:
    """An array left in the file: `size` bytes of elements from `offset` on."""

    type: ValueType
    length: int
    offset: int
    size: int


Value: TypeAlias = Scalar | str | ArrayValue


@dataclass(frozen=True, slots=True)
class Field:
    """Where a metadata value lies in the file, without its key and type."""

    type: ValueType
    offset: int
    size: int


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """One tensor: `shape` with the row length first, `offset` from the data section.

    `size` is in bytes, without padding.
    """

    name: str
    shape: tuple[int, ...]
    type: GgmlType
    offset: int
    size: int


@dataclass(frozen=True, slots=True)
class Split:
    """The place of a file in a model that was split: `number` counts from 0."""

    number: int
    count: int
    tensors: int | None


def row_size(type: GgmlType, length: int) -> int:
    """Count the bytes of a row of `length` elements.

    Raises: ValueError when the row is not a whole number of blocks.
    """
    blocks, rest = divmod(length, type.block_size)
    if rest or length < 0:
        raise ValueError(
            f"a row of {length} elements is no multiple of {type.name}'s block "
            f"of {type.block_size}"
        )
    return blocks * type.type_size
