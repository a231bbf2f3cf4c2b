"""Asks llama.cpp which type it gives every tensor of a model in a quant.

There is no table of ours: llama.cpp's quantizer runs dry on a skeleton of the model,
a header followed by a hole as large as the weights, and says in its log what it
would do. That takes 30 ms and reads no weights.

Source: llama.cpp 0c1e57098, src/llama-quant.cpp, `llama_model_quantize_impl`.
"""

from __future__ import annotations

import ctypes
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Lock

from wizard_edge._llama import ggml
from wizard_edge._llama.library import forget, listen, load, reason
from wizard_edge.errors import BackendError
from wizard_edge.gguf_types import FileType, GgmlType

# `[   1/  39] output.weight   - [256, 259, 1, 1], type =    f16, size = 0.1 MiB ->
# 0.05 MiB (q6_K)`; without an arrow the type stays.
_LINE = re.compile(
    r"^\[ *\d+/ *\d+\] (?P<name>\S+) +- \[[\d, ]+\], type = +(?P<old>\w+), "
    r"size = +[\d.]+ MiB(?: -> +[\d.]+ MiB \((?P<new>\w+)\))?$",
    re.MULTILINE,
)
_NEEDS_IMATRIX = "will require an imatrix"

# The log is one for the whole process: two dry runs at once would mix their lines.
_one_at_a_time = Lock()


@dataclass(frozen=True, slots=True)
class TypeDecision:
    """What llama.cpp would do: the type of every tensor by name."""

    types: Mapping[str, GgmlType]
    needs_imatrix: bool


def decide_types(
    header: bytes, size: int, file_type: FileType, names: Iterable[str]
) -> TypeDecision:
    """Let llama.cpp choose the types for a file of `size` bytes that begins so.

    `header` describes the unquantized model, its tensors in the types they would
    have in it; `names` are those tensors.
    Raises: BackendError when llama.cpp refuses or does not name every tensor.
    """
    with _one_at_a_time, TemporaryDirectory(prefix="wizard-edge-") as folder:
        skeleton = Path(folder, "skeleton.gguf")
        with skeleton.open("wb") as file:
            file.write(header)
            file.truncate(size)
        log = _run_dry(skeleton, file_type)
    found = {
        match["name"]: _find_type(match["new"] or match["old"])
        for match in _LINE.finditer(log)
    }
    wanted = set(names)
    if found.keys() != wanted:
        strange = sorted(found.keys() ^ wanted)
        raise BackendError(
            f"llama.cpp's dry run did not decide on {len(strange)} tensors, "
            f"{strange[0]!r} among them",
            hint="its log may have changed: this needs another llama-cpp-python",
        )
    return TypeDecision(found, _NEEDS_IMATRIX in log)


def _run_dry(skeleton: Path, file_type: FileType) -> str:
    library = load()
    parameters = library.llama_model_quantize_default_params()
    parameters.ftype = int(file_type)
    parameters.dry_run = True
    parameters.nthread = 1
    forget()
    with listen() as lines:
        failed = library.llama_model_quantize(
            os.fsencode(skeleton),
            os.fsencode(skeleton.with_suffix(".out")),
            ctypes.byref(parameters),
        )
    if failed:
        raise BackendError(
            f"llama.cpp cannot quantize this model to {file_type.name}: {reason()}"
        )
    return "".join(lines)


def _find_type(name: str) -> GgmlType:
    try:
        return ggml.find_type(name)
    except KeyError as err:
        raise BackendError(f"llama.cpp chose an unknown tensor type {name!r}") from err
