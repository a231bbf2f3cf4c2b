"""ggml's row quantizers through ctypes. Every call lets other threads run.

Knows rows and tensor types, no files. The block sizes of `gguf_types` are compared
with those of the library once per type, before it writes into our memory.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from importlib import import_module

# What ctypes takes for the type of a result or an argument has no common base.
from typing import Any, TypeAlias, cast

import numpy as np
from numpy.typing import NDArray

from wizard_edge._llama.library import load
from wizard_edge.errors import BackendError
from wizard_edge.gguf_types import GgmlType, row_size

_TO_FLOAT = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64)


class _TypeTraits(ctypes.Structure):
    """Source: llama.cpp 0c1e57098, ggml/include/ggml.h, struct ggml_type_traits."""

    _fields_ = (
        ("type_name", ctypes.c_char_p),
        ("blck_size", ctypes.c_int64),
        ("blck_size_interleave", ctypes.c_int64),
        ("type_size", ctypes.c_size_t),
        ("is_quantized", ctypes.c_bool),
        ("to_float", _TO_FLOAT),
        ("from_float_ref", ctypes.c_void_p),
    )


# Name -> result, arguments.
Functions: TypeAlias = Mapping[str, tuple[Any, Sequence[Any]]]

# Source: llama.cpp 0c1e57098, ggml/include/ggml.h.
_FUNCTIONS: Functions = {
    "ggml_blck_size": (ctypes.c_int64, [ctypes.c_int]),
    "ggml_type_size": (ctypes.c_size_t, [ctypes.c_int]),
    "ggml_type_name": (ctypes.c_char_p, [ctypes.c_int]),
    "ggml_get_type_traits": (ctypes.POINTER(_TypeTraits), [ctypes.c_int]),
    "ggml_is_quantized": (ctypes.c_bool, [ctypes.c_int]),
    "ggml_quantize_requires_imatrix": (ctypes.c_bool, [ctypes.c_int]),
    "ggml_fp16_to_fp32_row": (
        None,
        [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64],
    ),
    "ggml_quantize_chunk": (
        ctypes.c_size_t,
        [
            ctypes.c_int,
            ctypes.c_void_p,
            ctypes.c_void_p,
            ctypes.c_int64,
            ctypes.c_int64,
            ctypes.c_int64,
            ctypes.c_void_p,
        ],
    ),
    "ggml_validate_row_data": (
        ctypes.c_bool,
        [ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t],
    ),
}


def quantize_rows(
    rows: NDArray[np.float32],
    target: GgmlType,
    importance: NDArray[np.float32] | None = None,
) -> NDArray[np.uint8]:
    """Quantize (rows, columns) float32 to (rows, row bytes) of `target`.

    `importance` weighs the columns: (columns,) float32 for all rows, or (experts,
    columns) where the rows are those of one expert after another, equally many. The
    result equals that of llama.cpp's quantizer of the same library, row by row.
    Several threads may call at once: ggml makes its tables under a lock of its own.
    Raises: ValueError when rows are no whole blocks, for importance of another shape,
    or for none where `requires_importance`; BackendError.
    """
    _check_type(target)
    count, columns = rows.shape
    source = np.ascontiguousarray(rows)
    result = np.empty((count, row_size(target, columns)), dtype=np.uint8)
    if importance is None:
        if requires_importance(target):
            raise ValueError(f"{target.name} needs the importance of every column")
        _quantize(source, target, None, result)
        return result
    weights = np.ascontiguousarray(np.atleast_2d(importance), dtype=np.float32)
    experts = len(weights)
    if weights.shape[1:] != (columns,) or count % experts:
        raise ValueError(
            f"importance of shape {importance.shape} for rows of shape {rows.shape}"
        )
    parts = source.reshape(experts, -1, columns), result.reshape(experts, -1)
    for part, expert_weights, quantized in zip(
        parts[0], weights, parts[1], strict=True
    ):
        _quantize(part, target, expert_weights, quantized)
    return result


def requires_importance(target: GgmlType) -> bool:
    """Whether ggml aborts the process when it quantizes to `target` without weights."""
    required: bool = _library().ggml_quantize_requires_imatrix(target)
    return required


def is_quantized(kind: GgmlType) -> bool:
    """Whether ggml calls this a quantized type, as opposed to a number type."""
    quantized: bool = _library().ggml_is_quantized(kind)
    return quantized


def is_valid(rows: NDArray[np.uint8], kind: GgmlType) -> bool:
    """Whether llama.cpp would take these bytes for numbers: no NaN, no infinity.

    The library itself also says so on stderr when they are not.
    """
    _check_type(kind)
    valid: bool = _library().ggml_validate_row_data(kind, rows.ctypes.data, rows.nbytes)
    return valid


def half_to_float(rows: NDArray[np.float16]) -> NDArray[np.float32]:
    """Widen float16 to float32, exactly; several times as fast as numpy does it."""
    source = np.ascontiguousarray(rows)
    result = np.empty(rows.shape, dtype=np.float32)
    _widen_halves()(source.ctypes.data, result.ctypes.data, source.size)
    return result


def dequantize_rows(
    rows: NDArray[np.uint8], kind: GgmlType, columns: int
) -> NDArray[np.float32]:
    """Widen rows of any quantized type to (rows, columns) float32.

    `rows` is (rows, row bytes). Raises: BackendError for a type ggml cannot read.
    """
    convert = _to_float(kind)
    source = np.ascontiguousarray(rows)
    if source.shape[1] != row_size(kind, columns):
        raise ValueError(f"rows of {source.shape[1]} bytes of {kind.name}")
    result = np.empty((len(source), columns), dtype=np.float32)
    convert(source.ctypes.data, result.ctypes.data, result.size)
    return result


def find_type(name: str) -> GgmlType:
    """Return the tensor type that llama.cpp's log calls `name`, such as q4_K.

    Raises: KeyError.
    """
    return _types_by_name()[name]


def open_library(functions: Functions) -> ctypes.CDLL:
    """Return ggml with its functions declared.

    Raises: BackendError where it does not load or lacks one of them.
    """
    load()
    module = import_module("llama_cpp._ggml")
    library: ctypes.CDLL = module.libggml
    try:
        for name, (result, arguments) in functions.items():
            function = getattr(library, name)
            function.restype = result
            function.argtypes = arguments
    except AttributeError as err:
        raise BackendError(f"this llama.cpp does not export {err}") from err
    return library


@cache
def _library() -> ctypes.CDLL:
    return open_library(_FUNCTIONS)


def _quantize(
    rows: NDArray[np.float32],
    target: GgmlType,
    importance: NDArray[np.float32] | None,
    result: NDArray[np.uint8],
) -> None:
    """Quantize contiguous rows into `result`, which has their bytes."""
    count, columns = rows.shape
    written = _library().ggml_quantize_chunk(
        target,
        rows.ctypes.data,
        result.ctypes.data,
        0,
        count,
        columns,
        None if importance is None else importance.ctypes.data,
    )
    if written != result.nbytes:
        raise BackendError(f"ggml wrote {written} bytes of {target.name}")


@cache
def _check_type(kind: GgmlType) -> None:
    library = _library()
    theirs = library.ggml_blck_size(kind), library.ggml_type_size(kind)
    if theirs != (kind.block_size, kind.type_size):
        raise BackendError(
            f"this llama.cpp stores {kind.name} in blocks of {theirs}, "
            f"not {(kind.block_size, kind.type_size)}"
        )


@cache
def _widen_halves() -> Callable[[int, int, int], None]:
    """Return the processor's own way, where ggml has it, else the portable one."""
    library = _library()
    # Source: llama.cpp 0c1e57098, ggml/include/ggml-cpu.h.
    function = getattr(library, "ggml_cpu_fp16_to_fp32", None)
    if function is None:
        portable: Callable[[int, int, int], None] = library.ggml_fp16_to_fp32_row
        return portable
    function.restype = None
    function.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64]
    return cast("Callable[[int, int, int], None]", function)


@cache
def _to_float(kind: GgmlType) -> Callable[[int, int, int], None]:
    _check_type(kind)
    traits = _library().ggml_get_type_traits(kind).contents
    sizes = traits.blck_size, traits.type_size
    if sizes != (kind.block_size, kind.type_size) or not traits.to_float:
        raise BackendError(f"this llama.cpp cannot read {kind.name} back")
    function: Callable[[int, int, int], None] = traits.to_float
    return function


@cache
def _types_by_name() -> dict[str, GgmlType]:
    library = _library()
    return {library.ggml_type_name(kind).decode(): kind for kind in GgmlType}
