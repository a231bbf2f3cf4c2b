"""Turns stored rows into ggml rows: one block of whole rows at a time.

Between the number types of a checkpoint and F32, F16, BF16 numpy does it; into
quantized types ggml itself, through f32 rows, as llama.cpp's quantizer goes.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from wizard_edge._llama import ggml
from wizard_edge.gguf_types import GgmlType
from wizard_edge_converters.plan import Block, Step
from wizard_edge_converters.tensors import undo_rotary_order

# How the three number types lie in a buffer; numpy has no bfloat16.
_STORED: Mapping[GgmlType, np.dtype[np.generic]] = {
    GgmlType.F32: np.dtype("<f4"),
    GgmlType.F16: np.dtype("<f2"),
    GgmlType.BF16: np.dtype("<u2"),
}
# An exponent of all ones is an infinity or no number at all.
_EXPONENTS = {GgmlType.F16: 0x7C00, GgmlType.BF16: 0x7F80}


class NotFinite(ValueError):
    """A weight is infinite or no number, or becomes so in the target type."""


def encode_block(data: bytes, step: Step, block: Block) -> memoryview:
    """Turn the stored rows of a block into the bytes to be written.

    Raises: NotFinite.
    """
    stored = np.frombuffer(data, dtype=_STORED[step.source.type])
    rows = stored.reshape(block.rows, step.columns)
    if not is_finite(rows, step.source.type):
        raise NotFinite("holds an infinity or a NaN")
    if step.head_rows:
        rows = undo_rotary_order(rows, block.rows // step.head_rows)
    return encode_rows(rows, step.source.type, step.type)


def encode_rows(
    rows: NDArray[np.generic], source: GgmlType, target: GgmlType
) -> memoryview:
    """Convert (rows, columns) of finite numbers from one tensor type to another.

    Raises: NotFinite when a number is too large for the target.
    """
    if source is target:
        return _bytes_of(rows)
    if target in _STORED:
        result, valid = _convert(to_f32(rows, source), target)
    else:
        result = ggml.quantize_rows(_widen(rows, source), target)
        valid = ggml.is_valid(result, target)
    if not valid:
        raise NotFinite(f"holds a number too large for {target.name}")
    return _bytes_of(result)


def _convert(
    rows: NDArray[np.float32], target: GgmlType
) -> tuple[NDArray[np.generic], bool]:
    if target is GgmlType.F32:
        return rows, True
    result = to_f16(rows) if target is GgmlType.F16 else to_bf16(rows)
    return result, is_finite(result, target)


def _widen(rows: NDArray[np.generic], source: GgmlType) -> NDArray[np.float32]:
    if source is GgmlType.F16:
        return ggml.half_to_float(rows.astype(np.float16, copy=False))
    return to_f32(rows, source)


def is_finite(rows: NDArray[np.generic], kind: GgmlType) -> bool:
    """Whether all numbers of an array of a stored type are finite."""
    if kind is GgmlType.F32:
        return bool(np.isfinite(rows).all())
    mask = np.uint16(_EXPONENTS[kind])
    return not bool(((rows.view("<u2") & mask) == mask).any())


def to_f32(rows: NDArray[np.generic], kind: GgmlType) -> NDArray[np.float32]:
    """Widen to float32, exactly."""
    if kind is GgmlType.BF16:
        wide: NDArray[np.uint32] = rows.astype(np.uint32)
        wide <<= np.uint32(16)
        return wide.view(np.float32)
    return rows.astype(np.float32, copy=False)


def to_f16(rows: NDArray[np.float32]) -> NDArray[np.float16]:
    """Round to nearest even; what is too large becomes infinite."""
    with np.errstate(over="ignore"):
        return rows.astype("<f2")


def to_bf16(rows: NDArray[np.float32]) -> NDArray[np.uint16]:
    """Round finite numbers to the upper half of their bits, to nearest even.

    Source: llama.cpp 0c1e57098, ggml/src/ggml-impl.h, `ggml_compute_fp32_to_bf16`.
    """
    bits = rows.view(np.uint32)
    odd = (bits >> np.uint32(16)) & np.uint32(1)
    odd += np.uint32(0x7FFF)
    odd += bits
    odd >>= np.uint32(16)
    return odd.astype("<u2")


def _bytes_of(rows: NDArray[np.generic]) -> memoryview:
    return np.ascontiguousarray(rows).reshape(-1).view(np.uint8).data
