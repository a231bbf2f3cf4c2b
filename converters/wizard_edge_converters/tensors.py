"""Pairs the tensors a model must have with those a checkpoint has, and orders them.

The rules follow from the hyper-parameters alone, so that a plan can be made without
weights, and whatever a checkpoint has too much or too little is noticed by name.

Source: llama.cpp 0c1e57098, conversion/llama.py (`permute`),
src/llama-model-loader.h (`weight_name_comparer`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from wizard_edge.errors import CannotConvert, Corrupt
from wizard_edge_converters.checkpoint import StoredTensor
from wizard_edge_converters.hparams import Hparams
from wizard_edge_converters.rules import TensorRule
from wizard_edge_converters.source_files import shown

# Buffers that old checkpoints saved along; the runtime computes them. The two of
# StarCoder llama.cpp's converter does not know: it refuses such a checkpoint.
# Source: llama.cpp 0c1e57098, conversion/base.py, `prepare_tensors`; transformers
# 4.28, models/gpt_bigcode/modeling_gpt_bigcode.py, `GPTBigCodeAttention`.
LEFT_OVERS = (
    ".attention.masked_bias",
    ".attention.bias",
    ".rotary_emb.inv_freq",
    ".attn.masked_bias",
    ".attn.bias",
)

_BLOCK = re.compile(r"blk\.(\d+)\.")
Number = TypeVar("Number", bound=np.generic)


@dataclass(frozen=True, slots=True)
class Match:
    """A rule and the stored tensor that fulfils it."""

    rule: TensorRule
    stored: StoredTensor


def tensor_rules(hparams: Hparams) -> tuple[TensorRule, ...]:
    """Return the tensors of a model, one rule for each that a checkpoint stores."""
    return hparams.rules()


def match_tensors(
    rules: Sequence[TensorRule], stored: Mapping[str, StoredTensor], label: str
) -> tuple[Match, ...]:
    """Pair rules with stored tensors, in the order in which those are to be read.

    `label` names the checkpoint. Raises: CannotConvert for a tensor that no rule
    knows; Corrupt for one that is missing or of another shape.
    """
    by_source = {rule.source: rule for rule in rules}
    matches = []
    for name, tensor in stored.items():
        if name.endswith(LEFT_OVERS):
            continue
        rule = by_source.pop(name, None)
        if rule is None:
            raise CannotConvert(
                f"{label} has the tensor {shown(name)} in {tensor.file}, which has no "
                "place in a model of this config"
            )
        if tensor.shape != rule.shape:
            raise Corrupt(
                label,
                f"has the shape {_shape(tensor.shape)}, "
                f"by its config it should have {_shape(rule.shape)}",
                where=f"tensor {name} in {tensor.file}",
            )
        matches.append(Match(rule, tensor))
    missing = [rule.source for rule in by_source.values() if rule.required]
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise Corrupt(label, f"the tensor {missing[0]}{more} is missing")
    return tuple(matches)


def file_order(name: str) -> tuple[int, str]:
    """Sort key of a tensor in a GGUF file: what belongs to no block, then by block.

    llama.cpp's quantizer writes in this order, whatever the order it read.
    """
    block = _BLOCK.match(name)
    return (int(block[1]) if block else -1, name)


def undo_rotary_order(rows: NDArray[Number], heads: int) -> NDArray[Number]:
    """Undo Hugging Face's rotary reordering of a q or k projection.

    `rows` is (heads * head_size, ...), whole heads only, any dtype; returns the same
    shape and dtype, a copy. HF stores each head as two halves, GGUF wants
    interleaved pairs: row 2*i + j of a head is HF's row j * head_size/2 + i.
    Source: llama.cpp 0c1e57098, conversion/llama.py, `LlamaModel.permute`.
    """
    half = rows.shape[0] // heads // 2
    split = rows.reshape(heads, 2, half, *rows.shape[1:])
    return np.ascontiguousarray(split.swapaxes(1, 2)).reshape(rows.shape)


def _shape(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape)) or "no dimensions"
