"""Judges a GGUF header: would llama.cpp load this file, and survive it?

llama.cpp trusts its input: many of the values refused here make it abort the
whole process, at load or at the first token. Everything it merely refuses with
an error of its own may be left to it, unless we can say it better.

Source for what aborts where: llama.cpp 0c1e57098, src/llama-model.cpp:1298
(`load_hparams`), src/models/llama.cpp, ggml/src/gguf.cpp.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Set
from dataclasses import replace
from math import isfinite, prod
from typing import NoReturn

from wizard_edge.errors import BackendError, Corrupt
from wizard_edge.gguf import Header, align, read_header, read_numbers
from wizard_edge.gguf_cursor import shown
from wizard_edge.gguf_types import WEIGHT_TYPES, ArrayValue, GgmlType, ValueType
from wizard_edge.gguf_vocabulary import (
    UnsupportedTokenizer,
    check_vocabulary,
    integer,
    missing,
)

__all__ = [
    "ARCHITECTURES",
    "RULES",
    "UnsupportedArchitecture",
    "UnsupportedTokenizer",
    "read_valid",
    "validate",
]

# Which rules these are: raised by one whenever a file may be judged in another way,
# so that verdicts kept beside models are given anew.
RULES = 1

# `llama` is also Mistral and Mixtral; `starcoder` is WizardCoder 15B, 3B and 1B.
ARCHITECTURES = frozenset({"llama", "starcoder"})

# Source: llama.cpp 0c1e57098, src/llama-hparams.h, LLAMA_MAX_LAYERS and _EXPERTS.
MAX_BLOCKS = 512
MAX_EXPERTS = 1024
# llama_model_n_ctx_train and llama_vocab_n_tokens give an int32.
MAX_INT32 = (1 << 31) - 1

# Which epsilon an architecture must state.
# Source: llama.cpp 0c1e57098, src/models/llama.cpp, src/models/starcoder.cpp.
_RMS_EPSILON = "attention.layer_norm_rms_epsilon"
_EPSILON = "attention.layer_norm_epsilon"
_EPSILONS = {"llama": (_RMS_EPSILON,), "starcoder": (_EPSILON,)}

# Source: llama.cpp 0c1e57098, src/llama-model.cpp:1420, which asserts it.
_ROPE_SCALINGS = frozenset({"none", "linear", "yarn", "longrope"})
# Keys with a single value that a chat model may have; what others lead to is
# not for it, and asserts here and there (a large batch without causal attention).
# Source: llama.cpp 0c1e57098, src/llama-context.cpp:1787.
_ONLY: Mapping[str, bool | int] = {
    "attention.causal": True,
    "pooling_type": 0,
    "nextn_predict_layers": 0,
    "expert_group_count": 0,
}


class UnsupportedArchitecture(BackendError):
    """A readable file of an architecture that this program does not run."""

    def __init__(
        self, path: str | os.PathLike[str], architecture: str, *, known: Set[str]
    ) -> None:
        super().__init__(
            f"{os.fspath(path)} is of the architecture {shown(architecture)}, "
            "which wizard-edge does not run",
            hint=f"it runs: {', '.join(sorted(known))}",
        )
        self.path = os.fspath(path)
        self.architecture = architecture
        self.known = frozenset(known)


def read_valid(
    path: str | os.PathLike[str],
    *,
    architectures: Set[str] = ARCHITECTURES,
    vocabulary_only: bool = False,
) -> Header:
    """Read a header and judge it. Raises: as `read_header` and `validate`."""
    header = read_header(path)
    validate(header, architectures=architectures, vocabulary_only=vocabulary_only)
    return header


def validate(
    header: Header,
    *,
    architectures: Set[str] = ARCHITECTURES,
    vocabulary_only: bool = False,
    size: int | None = None,
) -> None:
    """Accept a file that llama.cpp can load and run, refuse any other.

    `vocabulary_only` asks for the tokenizer alone: tensors may be missing, and
    the architecture does not count, for llama.cpp does not look at it then.
    Of a split model's later parts only the tensor layout is judged. `size` is that
    of the whole in bytes where the file is only its beginning.

    Raises: Corrupt; UnsupportedArchitecture; UnsupportedTokenizer.
    """
    _check_layout(header if size is None else replace(header, file_size=size))
    _check_split(header)
    if header.split and header.split.number > 0:
        return
    if not header.architecture:
        missing(header, "general.architecture")
    if not vocabulary_only:
        if header.architecture not in architectures:
            raise UnsupportedArchitecture(
                header.path, header.architecture, known=architectures
            )
        _check_shape(header)
        _check_tensors(header)
    tokens = check_vocabulary(header)
    if not vocabulary_only:
        _check_embedding(header, tokens)


def _check_layout(header: Header) -> None:
    """Tensors follow each other without gap or overlap, up to the file's end."""
    expected = 0
    for tensor in header.tensors:
        if tensor.offset % header.alignment:
            _fail_tensor(
                header,
                tensor.name,
                f"begins at {tensor.offset}, no multiple of {header.alignment}",
            )
        if tensor.offset != expected:
            what = "overlaps" if tensor.offset < expected else "leaves a gap after"
            _fail_tensor(
                header,
                tensor.name,
                f"begins at {tensor.offset}, not at {expected}: {what} the one before",
            )
        end = tensor.offset + tensor.size
        excess = header.data_offset + end - header.file_size
        if excess > 0:
            _fail_tensor(
                header,
                tensor.name,
                f"ends {excess} bytes after the file, which has {header.file_size}",
            )
        expected = align(end, header.alignment)
    junk = header.file_size - (header.data_offset + expected)
    if junk > 0:
        raise Corrupt(
            header.path,
            f"{junk} bytes follow the last tensor",
            where=f"offset {header.data_offset + expected}",
        )


def _check_split(header: Header) -> None:
    # llama.cpp reads a later part's number without asking for its type.
    for key in ("split.no", "split.count"):
        if key in header.metadata:
            integer(header, key, ValueType.UINT16)
    if "split.tensors.count" in header.metadata:
        integer(header, "split.tensors.count", ValueType.INT32)
    split = header.split
    if split and split.number >= split.count:
        header.fail("split.no", f"part {split.number} of {split.count}")


def _check_shape(header: Header) -> None:
    """Check the hyper-parameters, in the order in which they lean on each other."""
    prefix = header.architecture
    blocks = _count(header, f"{prefix}.block_count", MAX_BLOCKS)
    _count(header, f"{prefix}.context_length", MAX_INT32)
    width = _count(header, f"{prefix}.embedding_length", MAX_INT32)
    _per_block(header, f"{prefix}.feed_forward_length", blocks)
    for key, only in _ONLY.items():
        value = header.metadata.get(f"{prefix}.{key}", only)
        if value != only or isinstance(value, bool) != isinstance(only, bool):
            header.fail(f"{prefix}.{key}", f"is {shown(value)}, can only be {only}")
    if header.metadata.get(f"{prefix}.embedding_length_out", width) != width:
        header.fail(f"{prefix}.embedding_length_out", f"is not {width}")
    _check_heads(header, blocks, width)
    _check_experts(header, blocks)
    _check_floats(header)


def _check_heads(header: Header, blocks: int, width: int) -> None:
    prefix = f"{header.architecture}.attention"
    heads = _per_block(header, f"{prefix}.head_count", blocks)
    if width % heads:
        header.fail(f"{prefix}.head_count", f"{heads} heads do not divide {width}")
    if f"{prefix}.head_count_kv" in header.metadata:
        shared = _per_block(header, f"{prefix}.head_count_kv", blocks)
        if heads % shared:
            header.fail(
                f"{prefix}.head_count_kv", f"{shared} heads do not divide {heads}"
            )
    size = _size_or(header, f"{prefix}.key_length", width // heads)
    # The graph asserts that keys and values have one size; llama rotates all of
    # it, in pairs.
    same = [f"{prefix}.value_length"]
    if header.architecture == "llama":
        same.append("llama.rope.dimension_count")
        if size % 2:
            header.fail(f"{prefix}.head_count", f"heads of odd size {size}")
    for key in same:
        other = _size_or(header, key, size)
        if other != size:
            header.fail(key, f"is {other}, heads have {size}")


def _check_experts(header: Header, blocks: int) -> None:
    prefix = header.architecture
    counted, used = f"{prefix}.expert_count", f"{prefix}.expert_used_count"
    experts = 0
    if counted in header.metadata:
        experts = integer(header, counted)
    if experts > MAX_EXPERTS:
        header.fail(counted, f"is {experts}, at most {MAX_EXPERTS}")
    chosen = 0
    if used in header.metadata:
        chosen = _per_block(header, used, blocks, least=0)
    if chosen > experts or (experts and not chosen):
        where = used if used in header.metadata else counted
        header.fail(where, f"{chosen} experts used of {experts}")


def _check_floats(header: Header) -> None:
    prefix = header.architecture
    epsilons = _EPSILONS.get(prefix) or tuple(
        key for key in (_RMS_EPSILON, _EPSILON) if f"{prefix}.{key}" in header.metadata
    )
    for key in epsilons or (_RMS_EPSILON,):
        if _float(header, f"{prefix}.{key}") < 0:
            header.fail(f"{prefix}.{key}", "is negative")
    if f"{prefix}.rope.freq_base" in header.metadata:
        base = _float(header, f"{prefix}.rope.freq_base")
        if base <= 0:
            header.fail(f"{prefix}.rope.freq_base", f"is {base}")
    for name in ("rope.scaling.factor", "rope.scale_linear"):
        if f"{prefix}.{name}" in header.metadata:
            _float(header, f"{prefix}.{name}")
    scaling = header.text(f"{prefix}.rope.scaling.type")
    if scaling is not None and scaling not in _ROPE_SCALINGS:
        header.fail(f"{prefix}.rope.scaling.type", f"is {shown(scaling)}")


def _check_tensors(header: Header) -> None:
    if not header.tensors and not header.split:
        raise Corrupt(
            header.path,
            "no tensors: it holds a vocabulary only",
            where=f"offset {header.data_offset}",
        )
    for tensor in header.tensors:
        # Vectors are added to and multiplied with float32 only.
        # Source: llama.cpp 0c1e57098, ggml/src/ggml-cpu/binary-ops.cpp:116.
        if prod(tensor.shape[1:]) == 1 and tensor.type is not GgmlType.F32:
            _fail_tensor(header, tensor.name, f"a vector of {tensor.type.name}")
        if tensor.type not in WEIGHT_TYPES:
            _fail_tensor(header, tensor.name, f"a weight of {tensor.type.name}")


def _check_embedding(header: Header, count: int) -> None:
    """The embedding has a row for each token: 32,000 and 32,001 get mixed up."""
    expected = (header.embedding_length, count)
    for tensor in header.tensors:
        if tensor.name == "token_embd.weight" and tensor.shape != expected:
            _fail_tensor(
                header, tensor.name, f"has the shape {tensor.shape}, not {expected}"
            )


def _count(header: Header, key: str, most: int, *, least: int = 1) -> int:
    value = integer(header, key)
    if not least <= value <= most:
        header.fail(key, f"is {value}, can be {least} to {most}")
    return value


def _per_block(header: Header, key: str, blocks: int, *, least: int = 1) -> int:
    """Give a number that is stated once, or once for each block and always equal."""
    value = header.metadata.get(key)
    if not isinstance(value, ArrayValue):
        return _count(header, key, MAX_INT32, least=least)
    if value.type not in (ValueType.UINT32, ValueType.INT32) or value.length != blocks:
        header.fail(key, f"is {header.kind(key)} with {value.length} for {blocks}")
    numbers = {int(number) for number in read_numbers(header, key)}
    number = numbers.pop()
    if numbers or number < least:
        header.fail(key, "differs from block to block or is too small")
    return number


def _size_or(header: Header, key: str, default: int) -> int:
    return _count(header, key, MAX_INT32) if key in header.metadata else default


def _float(header: Header, key: str) -> float:
    value = header.metadata.get(key)
    if value is None:
        missing(header, key)
    if not isinstance(value, float) or header.fields[key].type is not ValueType.FLOAT32:
        header.fail(key, f"is {header.kind(key)}, should be float32")
    if not isfinite(value):
        header.fail(key, f"is {value}")
    return value


def _fail_tensor(header: Header, name: str, problem: str) -> NoReturn:
    raise Corrupt(header.path, problem, where=f"tensor {name!r}")
