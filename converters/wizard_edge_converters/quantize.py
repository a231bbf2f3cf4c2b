"""Turns stored rows into ggml rows: one block of whole rows at a time.

Between the number types of a checkpoint and F32, F16, BF16 numpy does it; into
quantized types ggml itself, through f32 rows, as llama.cpp's quantizer goes. What
was written is read back and compared with its source.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wizard_edge._llama import ggml
from wizard_edge.gguf_types import GgmlType, row_size
from wizard_edge_converters.plan import Block, Step
from wizard_edge_converters.quality import Deviation, measure
from wizard_edge_converters.tensors import undo_rotary_order

Rows = NDArray[np.generic]
Weights = Mapping[str, NDArray[np.float32]]
"""GGUF tensor -> how much each column counts, (parts * columns,) of float32."""

# How the three number types lie in a buffer; numpy has no bfloat16.
_STORED: Mapping[GgmlType, np.dtype[np.generic]] = {
    GgmlType.F32: np.dtype("<f4"),
    GgmlType.F16: np.dtype("<f2"),
    GgmlType.BF16: np.dtype("<u2"),
}
NUMBER_TYPES = frozenset(_STORED)
# An exponent of all ones is an infinity or no number at all.
_EXPONENTS = {GgmlType.F16: 0x7C00, GgmlType.BF16: 0x7F80}


class NotFinite(ValueError):
    """A weight is infinite or no number, or becomes so in the target type."""


@dataclass(frozen=True, slots=True)
class Encoded:
    """The bytes for one place, and how far they are from their source."""

    data: memoryview
    deviation: Deviation


def encode_block(
    data: bytes, step: Step, block: Block, importance: Weights | None = None
) -> list[Encoded]:
    """Turn the stored rows of a block into the bytes of each of its places.

    Raises: NotFinite.
    """
    source = step.source.type
    rows = _as_rows(data, source, block.rows, step.columns)
    if step.head_rows:
        rows = undo_rotary_order(rows, block.rows // step.head_rows)
    # Most tensors go to one place, or are copied: widened when somebody asks.
    wide: NDArray[np.float32] | None = None
    results = []
    for place in step.places:
        if place.type is source:
            results.append(Encoded(_bytes_of(rows), Deviation()))
            continue
        if wide is None:
            wide = _widen(rows, source, step.columns)
        weights = _weights_of(importance, place.name, place.part, step.columns)
        results.append(_encode(wide, place.type, weights))
    return results


def _encode(
    wide: NDArray[np.float32], target: GgmlType, weights: NDArray[np.float32] | None
) -> Encoded:
    written = encode_rows(wide, target, weights)
    if target is GgmlType.F32:
        return Encoded(_bytes_of(written), Deviation())
    back = _widen(written, target, wide.shape[1])
    return Encoded(_bytes_of(written), measure(wide, back))


def encode_rows(
    rows: NDArray[np.float32],
    target: GgmlType,
    weights: NDArray[np.float32] | None = None,
) -> Rows:
    """Convert (rows, columns) of finite numbers to rows of a tensor type.

    Raises: NotFinite when a number is too large for the target.
    """
    if target is GgmlType.F32:
        return rows
    if target in _STORED:
        result: Rows = to_f16(rows) if target is GgmlType.F16 else to_bf16(rows)
        valid = is_finite(result, target)
    else:
        packed = ggml.quantize_rows(rows, target, weights)
        result, valid = packed, ggml.is_valid(packed, target)
    if not valid:
        raise NotFinite(f"holds a number too large for {target.name}")
    return result


def widen(data: bytes, kind: GgmlType) -> NDArray[np.float32]:
    """Widen stored F32, F16 or BF16 numbers to (count,) float32, exactly."""
    return to_f32(np.frombuffer(data, dtype=_STORED[kind]), kind)


def _as_rows(data: bytes, kind: GgmlType, count: int, columns: int) -> Rows:
    """View stored bytes as (count, columns) numbers, or as rows of packed bytes."""
    if kind in _STORED:
        rows: Rows = np.frombuffer(data, dtype=_STORED[kind]).reshape(count, columns)
        finite = is_finite(rows, kind)
    else:
        packed = np.frombuffer(data, np.uint8).reshape(count, row_size(kind, columns))
        rows, finite = packed, ggml.is_valid(packed, kind)
    if not finite:
        raise NotFinite("holds an infinity or a NaN")
    return rows


def _widen(rows: Rows, source: GgmlType, columns: int) -> NDArray[np.float32]:
    if source is GgmlType.F16:
        return ggml.half_to_float(rows.astype(np.float16, copy=False))
    if source in _STORED:
        return to_f32(rows, source)
    return ggml.dequantize_rows(rows.astype(np.uint8, copy=False), source, columns)


def _weights_of(
    importance: Weights | None, name: str, part: int, columns: int
) -> NDArray[np.float32] | None:
    if importance is None or name not in importance:
        return None
    return importance[name][part * columns : (part + 1) * columns]


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
