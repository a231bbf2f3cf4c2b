"""Small models with random weights, dense or of experts, that llama.cpp runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path

import numpy as np

from tests.gguf_files import GgufFile, Tensor, small_llama, u32
from wizard_edge.gguf import align
from wizard_edge.gguf_types import GgmlType

CONTEXT = 512
_STORED = {GgmlType.F32: "<f4", GgmlType.F16: "<f2"}


@dataclass(frozen=True, slots=True)
class ModelShape:
    """A llama of `blocks` blocks; with `experts` two of them are used for a token.

    `weights` is the type of its matrices.
    """

    width: int = 256
    blocks: int = 2
    experts: int = 0
    weights: GgmlType = GgmlType.F32

    def build(self) -> GgufFile:
        file = small_llama(width=self.width, blocks=self.blocks, weights=self.weights)
        file.set("llama.context_length", u32(CONTEXT))
        if self.experts:
            file.set("llama.expert_count", u32(self.experts))
            file.set("llama.expert_used_count", u32(2))
            file.tensors = [new for old in file.tensors for new in self._routed(old)]
        return file

    def _routed(self, tensor: Tensor) -> Sequence[Tensor]:
        """Give each expert its own copy of a feed-forward matrix, and a gate to all."""
        name = str(tensor.name)
        head, _, last = name.removesuffix(".weight").rpartition(".")
        if not last.startswith("ffn_") or last == "ffn_norm":
            return [tensor]
        name, shape = f"{head}.{last}_exps.weight", (*tensor.shape, self.experts)
        experts = Tensor(name, shape, tensor.type)
        if last != "ffn_gate":
            return [experts]
        gate = Tensor(f"{head}.ffn_gate_inp.weight", (self.width, self.experts))
        return [gate, experts]


def write_random_model(path: Path, shape: ModelShape) -> Path:
    """Write a model of random float32 weights, small enough not to overflow."""
    return write_random(path, shape.build())


def write_random(path: Path, file: GgufFile) -> Path:
    """Write a file with random weights, F32 or F16, instead of zeros."""
    header, _ = file.header()
    random = np.random.RandomState(0)
    with path.open("wb") as output:
        output.write(header + bytes(align(len(header), file.alignment) - len(header)))
        for tensor in file.tensors:
            values = random.standard_normal(prod(tensor.shape)).astype("<f4") * 0.08
            if len(tensor.shape) == 1:
                values += np.float32(1)
            data = values.astype(_STORED[GgmlType(tensor.type)]).tobytes()
            output.write(data + bytes(align(len(data), file.alignment) - len(data)))
    return path
