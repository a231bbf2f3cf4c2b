"""Models of any size in a second: a few random rows, repeated until it is full.

llama.cpp runs them like any other; what they say is nonsense, what they cost is real.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path

import numpy as np

from tests.gguf_files import (
    GgufFile,
    Tensor,
    f32,
    f32s,
    i32s,
    small_llama,
    strings,
    u32,
)
from wizard_edge._llama.ggml import quantize_rows
from wizard_edge.gguf import align
from wizard_edge.gguf_types import GgmlType, row_size
from wizard_edge.models import Shape

_PATTERN = 8
_SPREAD = 0.02


@dataclass(frozen=True, slots=True)
class Tiled:
    """A llama to write: its shape, the type of its matrices and of the last one."""

    shape: Shape
    weights: GgmlType
    output: GgmlType
    context: int = 4096

    def write_sparse(self, path: Path) -> Path:
        """Write a file of zeros that takes no disk, to be opened and not to be run."""
        file = self._file()
        header, _ = file.header()
        last = file.tensors[-1]
        assert last.offset is not None
        with path.open("wb") as output:
            output.write(header)
            output.truncate(align(len(header), 32) + last.offset + _size(last))
        return path

    def write(self, path: Path) -> Path:
        file = self._file()
        header, _ = file.header()
        random = np.random.default_rng(0)
        with path.open("wb") as output:
            output.write(header)
            output.write(bytes(align(len(header), file.alignment) - len(header)))
            for tensor in file.tensors:
                data = _data(tensor, random)
                output.write(data + bytes(align(len(data), file.alignment) - len(data)))
        return path

    def _file(self) -> GgufFile:
        shape = self.shape
        file = small_llama()
        for key, value in (
            ("block_count", shape.layers),
            ("context_length", self.context),
            ("embedding_length", shape.hidden),
            ("feed_forward_length", shape.ffn),
            ("attention.head_count", shape.heads),
            ("attention.head_count_kv", shape.kv_heads),
            ("rope.dimension_count", shape.hidden // shape.heads),
        ):
            file.set(f"llama.{key}", u32(value))
        file.set("llama.attention.layer_norm_rms_epsilon", f32(1e-5))
        if shape.experts:
            file.set("llama.expert_count", u32(shape.experts))
            file.set("llama.expert_used_count", u32(shape.experts_used or 0))
        _set_vocabulary(file, shape.vocabulary)
        file.tensors = [*self._ends(), *self._blocks()]
        offset = 0
        for tensor in file.tensors:
            tensor.offset = offset
            offset += align(_size(tensor), file.alignment)
        return file

    def _ends(self) -> Sequence[Tensor]:
        hidden, vocabulary = self.shape.hidden, self.shape.vocabulary
        return (
            Tensor("token_embd.weight", (hidden, vocabulary), self.weights),
            Tensor("output_norm.weight", (hidden,)),
            Tensor("output.weight", (hidden, vocabulary), self.output),
        )

    def _blocks(self) -> list[Tensor]:
        shape, kind = self.shape, self.weights
        hidden, kv = shape.hidden, shape.hidden // shape.heads * shape.kv_heads
        experts = (shape.experts,) if shape.experts else ()
        tail = "_exps" if shape.experts else ""
        tensors = []
        for block in range(shape.layers):
            head = f"blk.{block}"
            if shape.experts:
                gate = f"{head}.ffn_gate_inp.weight"
                tensors.append(Tensor(gate, (hidden, shape.experts)))
            tensors += [
                Tensor(f"{head}.attn_norm.weight", (hidden,)),
                Tensor(f"{head}.attn_q.weight", (hidden, hidden), kind),
                Tensor(f"{head}.attn_k.weight", (hidden, kv), kind),
                Tensor(f"{head}.attn_v.weight", (hidden, kv), kind),
                Tensor(f"{head}.attn_output.weight", (hidden, hidden), kind),
                Tensor(f"{head}.ffn_norm.weight", (hidden,)),
                *(
                    Tensor(f"{head}.ffn_{name}{tail}.weight", (*sizes, *experts), kind)
                    for name, sizes in (
                        ("gate", (hidden, shape.ffn)),
                        ("up", (hidden, shape.ffn)),
                        ("down", (shape.ffn, hidden)),
                    )
                ),
            ]
        return tensors


def _set_vocabulary(file: GgufFile, count: int) -> None:
    special = {"<unk>": 2, "<s>": 3, "</s>": 3}
    tokens = [
        *special,
        *(f"<0x{byte:02X}>" for byte in range(256)),
        *(f"▁{number}" for number in range(count - 259)),
    ]
    types = [special.get(token, 6 if token[:3] == "<0x" else 1) for token in tokens]
    file.set("tokenizer.ggml.tokens", strings(tokens))
    file.set("tokenizer.ggml.scores", f32s([0.0] * count))
    file.set("tokenizer.ggml.token_type", i32s(types))


def _size(tensor: Tensor) -> int:
    kind = GgmlType(tensor.type)
    return row_size(kind, tensor.shape[0]) * prod(tensor.shape[1:])


def _data(tensor: Tensor, random: np.random.Generator) -> bytes:
    kind, (columns, *others) = GgmlType(tensor.type), tensor.shape
    if not others:
        return np.ones(columns, dtype="<f4").tobytes()
    rows = random.standard_normal((_PATTERN, columns), dtype=np.float32) * _SPREAD
    pattern = (
        rows.astype("<f4" if kind is GgmlType.F32 else "<f2").tobytes()
        if kind in (GgmlType.F32, GgmlType.F16)
        else quantize_rows(rows, kind).tobytes()
    )
    count = prod(others)
    return (pattern * -(-count // _PATTERN))[: _size(tensor)]
