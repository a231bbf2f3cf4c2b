"""llama.cpp's own quantizer as tests call it, and the matrices it is given."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Mapping, Sequence
from math import prod
from pathlib import Path
from struct import pack
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from wizard_edge._llama.library import load
from wizard_edge.gguf import read_header
from wizard_edge.gguf_types import FileType, GgmlType

Matrix = Mapping[str, NDArray[np.float32]]


# Any: fields of a struct of the binding.
def quantize_theirs(source: Path, output: Path, quant: str, **options: Any) -> None:
    """Run llama.cpp's own quantizer on a file, or on the first part of a split one."""
    assert answer_of_theirs(source, output, quant, **options) == 0


def answer_of_theirs(
    source: Path,
    output: Path,
    quant: str,
    *,
    importance: Matrix | None = None,
    override: tuple[str, GgmlType] | None = None,
    **options: Any,
) -> int:
    """Run it and return its answer, 0 where it made the file."""
    library = load()
    parameters = library.llama_model_quantize_default_params()
    parameters.ftype = int(FileType[quant])
    parameters.nthread = 2
    for name, value in options.items():
        setattr(parameters, name, value)
    # Both lists end with an entry of zeros.
    if importance is not None:
        entries = (library.llama_model_imatrix_data * (len(importance) + 1))()
        for entry, (name, values) in zip(entries, importance.items(), strict=False):
            entry.name = name.encode()
            entry.data = values.ctypes.data_as(ctypes.POINTER(ctypes.c_float))
            entry.size = values.size
        parameters.imatrix = entries
    if override is not None:
        overrides = (library.llama_model_tensor_override * 2)()
        overrides[0].pattern, overrides[0].type = override[0].encode(), override[1]
        parameters.tt_overrides = overrides
    answer: int = library.llama_model_quantize(
        os.fsencode(source), os.fsencode(output), ctypes.byref(parameters)
    )
    return answer


def random_importance(
    model: Path, *, seed: int, prefix: str = ""
) -> dict[str, NDArray[np.float32]]:
    """Draw (columns * experts,) for every matrix of a file whose name begins so."""
    random = np.random.RandomState(seed)
    return {
        tensor.name: random.gamma(
            0.5, size=tensor.shape[0] * prod(tensor.shape[2:])
        ).astype("<f4")
        for tensor in read_header(model).tensors
        if tensor.name.startswith(prefix) and len(tensor.shape) > 1
    }


def legacy_matrix(
    entries: Sequence[tuple[str | bytes, int, ArrayLike]],
    tail: bytes = b"",
    *,
    count: int | None = None,
) -> bytes:
    """Encode the older form: names, calls and sums, then what `legacy_tail` gives.

    Source: llama.cpp 0c1e57098, tools/quantize/quantize.cpp, `load_legacy_imatrix`.
    """
    parts = [pack("<i", len(entries) if count is None else count)]
    for name, calls, values in entries:
        data = name.encode() if isinstance(name, str) else name
        numbers = np.asarray(values, dtype="<f4")
        parts.append(pack("<i", len(data)) + data)
        parts.append(pack("<ii", calls, numbers.size) + numbers.tobytes())
    return b"".join(parts) + tail


def legacy_tail(chunks: int, dataset: bytes) -> bytes:
    """Encode what a newer writer of the older form says of the text it read."""
    return pack("<ii", chunks, len(dataset)) + dataset
