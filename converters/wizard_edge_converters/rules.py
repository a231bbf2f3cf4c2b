"""What an architecture says about one of its tensors."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

# Matrices that llama.cpp keeps in F32 in every file: a learned position is added to
# the embedding, and a router decides between experts by small differences.
# Source: llama.cpp 0c1e57098, conversion/base.py, `prepare_tensors`.
ALWAYS_F32 = ("_norm.weight", "position_embd.weight", ".ffn_gate_inp.weight")


@dataclass(frozen=True, slots=True)
class TensorRule:
    """A tensor of the model: `source` in the checkpoint, `name` in GGUF.

    `shape` has the row length last, as in the checkpoint. With `heads` the rows are
    that many heads in Hugging Face's rotary order, which GGUF wants undone. With
    `parts` above 1 it is slice number `part` of a GGUF tensor of the shape
    (parts, *shape): one expert of those that GGUF keeps together.
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
        return len(self.shape) > 1 and not self.name.endswith(ALWAYS_F32)


def weight_rules(
    source: str,
    name: str,
    weights: Iterable[tuple[str, str, tuple[int, ...]]],
    *,
    biases_required: bool,
) -> list[TensorRule]:
    """Return the rules of weights below two prefixes, each with its bias behind it.

    A weight is its name in the checkpoint, its name in GGUF and its shape.
    """
    return [
        rule
        for old, new, shape in weights
        for rule in with_bias(
            TensorRule(f"{source}.{old}.weight", f"{name}.{new}.weight", shape),
            required=biases_required,
        )
    ]


def with_bias(rule: TensorRule, *, required: bool) -> tuple[TensorRule, TensorRule]:
    """Return the rule of a `.weight` and that of the `.bias` beside it."""
    bias = TensorRule(
        rule.source.removesuffix("weight") + "bias",
        rule.name.removesuffix("weight") + "bias",
        rule.shape[:1],
        rule.heads,
        required=required,
    )
    return rule, bias
