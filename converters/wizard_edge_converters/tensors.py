"""Which tensors a model has, what GGUF calls them, and in which order q and k lie.

The rules follow from the hyper-parameters alone, so that a plan can be made without
weights, and whatever a checkpoint has too much or too little is noticed by name.

Source: llama.cpp 0c1e57098, gguf-py/gguf/tensor_mapping.py (names),
conversion/llama.py (`permute`), src/llama-model-loader.h (`weight_name_comparer`).
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
from wizard_edge_converters.hparams import LlamaHparams
from wizard_edge_converters.source_files import shown

# Buffers that old checkpoints saved along; the runtime computes them.
# Source: llama.cpp 0c1e57098, conversion/base.py, `prepare_tensors`.
LEFT_OVERS = (".attention.masked_bias", ".attention.bias", ".rotary_emb.inv_freq")

_BLOCK = re.compile(r"blk\.(\d+)\.")
Number = TypeVar("Number", bound=np.generic)


@dataclass(frozen=True, slots=True)
class TensorRule:
    """A tensor of the model: `source` in the checkpoint, `name` in GGUF.

    `shape` has the row length last, as in the checkpoint. With `heads` the rows are
    that many heads in Hugging Face's rotary order, which GGUF wants undone. With
    `parts` the stored tensor is slice number `part` of one of shape (parts, *shape).
    """

    source: str
    name: str
    shape: tuple[int, ...]
    heads: int | None = None
    required: bool = True
    part: int = 0
    parts: int = 1

    @property
    def is_matrix(self) -> bool:
        """Whether the tensor may be stored in less than F32."""
        return len(self.shape) > 1 and not self.name.endswith("_norm.weight")


@dataclass(frozen=True, slots=True)
class Match:
    """A rule and the stored tensor that fulfils it."""

    rule: TensorRule
    stored: StoredTensor


def llama_rules(hparams: LlamaHparams) -> tuple[TensorRule, ...]:
    """Return the tensors of a LLaMA model; biases and a tied output may be missing."""
    width, vocabulary = hparams.width, hparams.vocabulary
    rules = [
        TensorRule(
            "model.embed_tokens.weight", "token_embd.weight", (vocabulary, width)
        ),
        TensorRule("model.norm.weight", "output_norm.weight", (width,)),
        TensorRule(
            "lm_head.weight",
            "output.weight",
            (vocabulary, width),
            required=not hparams.tied,
        ),
    ]
    for layer in range(hparams.layers):
        rules += _layer_rules(hparams, layer)
    return tuple(rules)


def _layer_rules(hparams: LlamaHparams, layer: int) -> list[TensorRule]:
    width, inner = hparams.width, hparams.feed_forward
    query = hparams.heads * hparams.head_size
    shared = hparams.kv_heads * hparams.head_size
    matrices = (
        ("self_attn.q_proj", "attn_q", (query, width), hparams.heads),
        ("self_attn.k_proj", "attn_k", (shared, width), hparams.kv_heads),
        ("self_attn.v_proj", "attn_v", (shared, width), None),
        ("self_attn.o_proj", "attn_output", (width, query), None),
        ("mlp.gate_proj", "ffn_gate", (inner, width), None),
        ("mlp.up_proj", "ffn_up", (inner, width), None),
        ("mlp.down_proj", "ffn_down", (width, inner), None),
    )
    norms = (
        ("input_layernorm", "attn_norm"),
        ("post_attention_layernorm", "ffn_norm"),
    )
    source, name = f"model.layers.{layer}", f"blk.{layer}"
    rules = [
        TensorRule(f"{source}.{old}.weight", f"{name}.{new}.weight", (width,))
        for old, new in norms
    ]
    for old, new, shape, heads in matrices:
        rules += [
            TensorRule(f"{source}.{old}.weight", f"{name}.{new}.weight", shape, heads),
            TensorRule(
                f"{source}.{old}.bias",
                f"{name}.{new}.bias",
                shape[:1],
                heads,
                required=False,
            ),
        ]
    return rules


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
                f"{label} has the tensor {shown(name)}, which has no place in a "
                "LLaMA model of this config"
            )
        if tensor.shape != rule.shape:
            raise Corrupt(
                label,
                f"has the shape {_shape(tensor.shape)}, "
                f"by its config it should have {_shape(rule.shape)}",
                where=f"tensor {name}",
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
