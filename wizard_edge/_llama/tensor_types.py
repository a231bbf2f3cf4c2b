"""Asks llama.cpp which type it gives every tensor of a model in a quant.

There is no table of ours: llama.cpp's quantizer runs dry on a skeleton of the model,
a header followed by a hole as large as the weights, and says in its log what it
would do. That takes 30 ms and reads no weights.

Whether a tensor needs an importance matrix hangs on its name, its type and the quant
alone, so it is asked on a skeleton of just that tensor, its type forced.

Source: llama.cpp 0c1e57098, src/llama-quant.cpp, `llama_model_quantize_impl` and
`tensor_requires_imatrix`.
"""

from __future__ import annotations

import ctypes
import os
import re
import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Lock

# A struct of the binding, whose types are not annotated for checkers.
from typing import Any, TypeAlias

from wizard_edge._llama import ggml
from wizard_edge._llama.library import forget, listen, load, reason
from wizard_edge.errors import BackendError, CannotConvert, UsageError
from wizard_edge.gguf import DEFAULT_ALIGNMENT, MAGIC, align
from wizard_edge.gguf_cursor import shown
from wizard_edge.gguf_types import FileType, GgmlType, ValueType, row_size

# `[   1/  39] output.weight   - [256, 259, 1, 1], type =    f16, size = 0.1 MiB ->
# 0.05 MiB (q6_K)`; without an arrow the type stays.
_LINE = re.compile(
    r"^\[ *\d+/ *\d+\] (?P<name>\S+) +- \[ *(?P<columns>\d+)[\d, ]*\], "
    r"type = +(?P<old>\w+), "
    r"size = +[\d.]+ MiB(?: -> +[\d.]+ MiB \((?P<new>\w+)\))?$",
    re.MULTILINE,
)
_NEEDS_IMATRIX = "will require an imatrix"
_FAILED = "failed to quantize: "

# Pattern and type: the first pattern found in a tensor's name decides.
Override: TypeAlias = tuple[str, GgmlType]

# A model of one block, as small as its loader takes it.
_PROBE_ENTRIES: Mapping[str, int | float | str] = {
    "general.architecture": "llama",
    "llama.block_count": 1,
    "llama.context_length": 1,
    "llama.embedding_length": 256,
    "llama.feed_forward_length": 256,
    "llama.attention.head_count": 1,
    "llama.vocab_size": 1,
    "llama.attention.layer_norm_rms_epsilon": 1e-6,
}
# Any type's block divides this row. One row would be a vector, which is not quantized.
_PROBE_SHAPE = (256, 2)

# The log is one for the whole process: two dry runs at once would mix their lines.
_one_at_a_time = Lock()


@dataclass(frozen=True, slots=True)
class TypeDecision:
    """What llama.cpp would do: the type of every tensor by name.

    `imatrix_tensors` are those it refuses to make, or aborts over, without their
    importance.
    """

    types: Mapping[str, GgmlType]
    imatrix_tensors: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class _Choice:
    columns: int
    old: GgmlType
    new: GgmlType


def decide_types(
    header: bytes,
    size: int,
    file_type: FileType,
    names: Iterable[str],
    *,
    imatrix_present: bool = False,
    tensor_types: Sequence[Override] = (),
    output_type: GgmlType | None = None,
    embedding_type: GgmlType | None = None,
    pure: bool = False,
    allow_requantize: bool = False,
) -> TypeDecision:
    """Let llama.cpp choose the types for a file of `size` bytes that begins so.

    `header` describes the unquantized model, its tensors in the types they would
    have in it; `names` are those tensors. With `imatrix_present` some types are
    others. `tensor_types` are patterns, ECMAScript as C++ knows it, with types: the
    first one found in a name decides. `output_type` and `embedding_type` go to two
    tensors by themselves; with `pure` all others get the quant's own type.
    Raises: UsageError naming a pattern llama.cpp cannot read or a type that does not
    fit a tensor; CannotConvert for a quantized tensor that would become another,
    unless `allow_requantize`; BackendError when llama.cpp refuses or does not name
    every tensor.
    """
    parameters = _Parameters(
        file_type,
        imatrix_present,
        tuple(tensor_types),
        output_type,
        embedding_type,
        pure,
    )
    with _one_at_a_time, TemporaryDirectory(prefix="wizard-edge-") as folder:
        skeleton = _write_skeleton(Path(folder), header, size)
        log = _run_or_blame(skeleton, parameters)
        choices = _read_choices(log, set(names))
        for name, choice in choices.items():
            _check_choice(name, choice, allow_requantize=allow_requantize)
        needing = _find_needing(Path(folder), choices, file_type, imatrix_present)
    if _NEEDS_IMATRIX in log and not needing:
        raise BackendError("llama.cpp wants an importance matrix and says not for what")
    types = {name: choice.new for name, choice in choices.items()}
    return TypeDecision(types, needing)


@dataclass(frozen=True, slots=True)
class _Parameters:
    """The options of one dry run, and the memory that llama.cpp's struct points to."""

    file_type: FileType
    imatrix_present: bool = False
    tensor_types: tuple[Override, ...] = ()
    output_type: GgmlType | None = None
    embedding_type: GgmlType | None = None
    pure: bool = False

    def fill(self, parameters: Any) -> list[object]:
        """Set the struct's fields; the result has to outlive the call."""
        library = load()
        parameters.ftype = int(self.file_type)
        parameters.dry_run = True
        parameters.nthread = 1
        parameters.pure = self.pure
        if self.output_type is not None:
            parameters.output_tensor_type = int(self.output_type)
        if self.embedding_type is not None:
            parameters.token_embedding_type = int(self.embedding_type)
        kept: list[object] = []
        if self.imatrix_present:
            # Only the end of the list: that there is one is what counts.
            matrices = (library.llama_model_imatrix_data * 1)()
            parameters.imatrix = matrices
            kept.append(matrices)
        if self.tensor_types:
            # One more than there are: the last has no pattern and ends the list.
            overrides = (
                library.llama_model_tensor_override * (len(self.tensor_types) + 1)
            )()
            for place, (pattern, kind) in zip(
                overrides, self.tensor_types, strict=False
            ):
                place.pattern = pattern.encode()
                place.type = int(kind)
            parameters.tt_overrides = overrides
            kept.append(overrides)
        return kept


def _write_skeleton(folder: Path, header: bytes, size: int) -> Path:
    skeleton = folder / "skeleton.gguf"
    with skeleton.open("wb") as file:
        file.write(header)
        file.truncate(size)
    return skeleton


def _run_or_blame(skeleton: Path, parameters: _Parameters) -> str:
    """Run dry; where that fails, find out whether one of the overrides is why.

    llama.cpp compiles the patterns and catches what its compiler throws, but does not
    say which it was.
    """
    try:
        return _run_dry(skeleton, parameters)
    except BackendError:
        if not parameters.tensor_types or not _runs(skeleton, parameters.file_type):
            raise
        for override in parameters.tensor_types:
            _blame(skeleton, parameters.file_type, override)
        raise


def _blame(skeleton: Path, file_type: FileType, override: Override) -> None:
    try:
        _run_dry(skeleton, _Parameters(file_type, tensor_types=(override,)))
    except BackendError as err:
        pattern, kind = override
        why = reason().partition(_FAILED)[2] or reason()
        raise UsageError(
            f"llama.cpp cannot use {shown(pattern)} as {kind.name}: {why.strip()}"
        ) from err


def _runs(skeleton: Path, file_type: FileType) -> bool:
    try:
        _run_dry(skeleton, _Parameters(file_type))
    except BackendError:
        return False
    return True


def _run_dry(skeleton: Path, parameters: _Parameters) -> str:
    library = load()
    struct_ = library.llama_model_quantize_default_params()
    kept = parameters.fill(struct_)
    forget()
    with listen() as lines:
        failed = library.llama_model_quantize(
            os.fsencode(skeleton),
            os.fsencode(skeleton.with_suffix(".out")),
            ctypes.byref(struct_),
        )
    kept.clear()
    if failed:
        raise BackendError(
            f"llama.cpp cannot quantize this model to {parameters.file_type.name}: "
            f"{reason()}"
        )
    return "".join(lines)


def _read_choices(log: str, wanted: set[str]) -> dict[str, _Choice]:
    found = {
        match["name"]: _Choice(
            int(match["columns"]),
            _find_type(match["old"]),
            _find_type(match["new"] or match["old"]),
        )
        for match in _LINE.finditer(log)
    }
    if found.keys() != wanted:
        strange = sorted(found.keys() ^ wanted)
        raise BackendError(
            f"llama.cpp's dry run did not decide on {len(strange)} tensors, "
            f"{strange[0]!r} among them",
            hint="its log may have changed: this needs another llama-cpp-python",
        )
    return found


def _check_choice(name: str, choice: _Choice, *, allow_requantize: bool) -> None:
    """Refuse what llama.cpp lets pass when it runs dry and dies of when it does not."""
    if choice.new is choice.old:
        return
    try:
        row_size(choice.new, choice.columns)
    except ValueError as err:
        raise UsageError(f"{name} cannot be {choice.new.name}: {err}") from err
    if ggml.is_quantized(choice.old) and not allow_requantize:
        raise CannotConvert(
            f"{name} is {choice.old.name} already: making it {choice.new.name} loses "
            "twice",
            hint="take the original weights, or --allow-requantize",
        )


def _find_needing(
    folder: Path,
    choices: Mapping[str, _Choice],
    file_type: FileType,
    imatrix_present: bool,
) -> frozenset[str]:
    """Find the tensors that cannot be made without importance.

    llama.cpp refuses some; ggml aborts over others that llama.cpp lets pass. Without
    a matrix llama.cpp refuses what would only be copied, too.
    """
    by_type: dict[GgmlType, list[str]] = {}
    needing = set()
    for name, choice in choices.items():
        if choice.new is not choice.old or not imatrix_present:
            by_type.setdefault(choice.new, []).append(name)
        if choice.new is not choice.old and ggml.requires_importance(choice.new):
            needing.add(name)
    for kind, names in by_type.items():
        # All at once first: of most types none is refused.
        if _is_refused(folder, tuple(names), kind, file_type):
            needing.update(
                name
                for name in names
                if name in needing or _is_refused(folder, (name,), kind, file_type)
            )
    return frozenset(needing)


def _is_refused(
    folder: Path, names: tuple[str, ...], kind: GgmlType, file_type: FileType
) -> bool:
    """Whether llama.cpp refuses to make any of these tensors so without a matrix."""
    header, size = _probe(names)
    skeleton = _write_skeleton(folder, header, size)
    everywhere = _Parameters(file_type, tensor_types=((".", kind),))
    return _NEEDS_IMATRIX in _run_dry(skeleton, everywhere)


def _probe(names: tuple[str, ...]) -> tuple[bytes, int]:
    """Encode a header of tensors of these names, and count the bytes of the file."""
    size = row_size(GgmlType.F32, _PROBE_SHAPE[0]) * _PROBE_SHAPE[1]
    parts = [MAGIC, struct.pack("<IQQ", 3, len(names), len(_PROBE_ENTRIES))]
    for key, value in _PROBE_ENTRIES.items():
        parts += [_text(key), _value(value)]
    for index, name in enumerate(names):
        parts.append(_text(name))
        parts.append(
            struct.pack("<I2QIQ", 2, *_PROBE_SHAPE, GgmlType.F32, index * size)
        )
    header = b"".join(parts)
    header += bytes(align(len(header), DEFAULT_ALIGNMENT) - len(header))
    return header, len(header) + size * len(names)


def _value(value: int | float | str) -> bytes:
    if isinstance(value, str):
        return struct.pack("<I", ValueType.STRING) + _text(value)
    if isinstance(value, float):
        return struct.pack("<If", ValueType.FLOAT32, value)
    return struct.pack("<II", ValueType.UINT32, value)


def _text(text: str) -> bytes:
    data = text.encode()
    return struct.pack("<Q", len(data)) + data


def _find_type(name: str) -> GgmlType:
    try:
        return ggml.find_type(name)
    except KeyError as err:
        raise BackendError(f"llama.cpp chose an unknown tensor type {name!r}") from err
