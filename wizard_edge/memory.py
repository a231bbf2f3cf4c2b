"""How much memory a model takes: weights, KV cache, scratch, the program itself.

Pure arithmetic on the sizes of tensors, for a context that is full: what a process
has resident then. docs/fit.md compares it with processes that were measured.

Source of the layouts: llama.cpp 0c1e57098 as `_llama` sets it up, batches of 512 in
one sequence.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Self

from wizard_edge.engine import KvType
from wizard_edge.gguf import ArrayValue, Header, align, read_numbers
from wizard_edge.gguf_types import GgmlType, row_size
from wizard_edge.models import Shape
from wizard_edge.refs import QUANTS

# Tokens that one step reads, and what the number of cells is rounded up to.
# Source: `_context_params` of _llama.engine; llama.cpp, src/llama-context.cpp:290.
BATCH = 512
CELLS = 256
_F32, _F16 = 4, 2
KV_TYPES: dict[KvType, GgmlType] = {
    "f32": GgmlType.F32,
    "f16": GgmlType.F16,
    "q8_0": GgmlType.Q8_0,
    "q4_0": GgmlType.Q4_0,
}
# What Python, numpy, llama.cpp and an empty context have resident, and what each
# entry of the vocabulary adds. Measured, see docs/fit.md.
PROGRAM = 48 << 20
_ENTRY = 250
# A LLaMA of L layers is about 128 L wide in L heads, so its 12 * L * hidden^2
# parameters are 196,608 L^3: within 3% for 7B, 13B and 30B.
# Source: LLaMA (arXiv 2302.13971), table 2.
_HEAD = 128
_PARAMETERS = 12 * _HEAD * _HEAD
_FFN = 8 / 3
_VOCABULARY = 32_000
_EMBEDDING = "token_embd.weight"


@dataclass(frozen=True, slots=True)
class Dimensions:
    """The sizes that memory follows from. `kv_width` is that of a K row of a layer."""

    layers: int
    hidden: int
    ffn: int
    heads: int
    kv_width: int
    vocabulary: int
    experts: int = 0
    experts_used: int = 0

    @classmethod
    def of(cls, shape: Shape) -> Self:
        """Take them from the registry."""
        return cls(
            layers=shape.layers,
            hidden=shape.hidden,
            ffn=shape.ffn,
            heads=shape.heads,
            kv_width=shape.hidden // shape.heads * shape.kv_heads,
            vocabulary=shape.vocabulary,
            experts=shape.experts or 0,
            experts_used=shape.experts_used or 0,
        )

    @classmethod
    def read(cls, header: Header) -> Self | None:
        """Take them from a GGUF file, None where it does not say them all.

        Raises: Corrupt for a key of a wrong type.
        """
        layers, hidden = header.block_count, header.embedding_length
        ffn = _number(header, "feed_forward_length")
        heads = _number(header, "attention.head_count")
        vocabulary = header.vocabulary_size
        if not (layers and hidden and ffn and heads and vocabulary):
            return None
        sharing = _number(header, "attention.head_count_kv") or heads
        head = _number(header, "attention.key_length") or hidden // heads
        return cls(
            layers=layers,
            hidden=hidden,
            ffn=ffn,
            heads=heads,
            kv_width=head * sharing,
            vocabulary=vocabulary,
            experts=_number(header, "expert_count") or 0,
            experts_used=_number(header, "expert_used_count") or 0,
        )

    @classmethod
    def guess(cls, size: int, quant: str) -> Self:
        """Bound them by a file of `size` bytes: a LLaMA in which no head shares.

        Models whose heads share K and V take a fraction of that KV cache.
        """
        parameters = 8 * size / least_bits(quant)
        layers = max(1, round((parameters / _PARAMETERS) ** (1 / 3)))
        hidden = _HEAD * layers
        return cls(layers, hidden, int(_FFN * hidden), layers, hidden, _VOCABULARY)


@dataclass(frozen=True, slots=True)
class Need:
    """What a model takes with a full context, in bytes.

    `scratch` is what intermediate results lie in, `program` all that is there with
    no model at all.
    """

    weights: int
    kv_cache: int
    scratch: int
    program: int

    @property
    def total(self) -> int:
        return self.weights + self.kv_cache + self.scratch + self.program


def memory_need(
    dimensions: Dimensions, weights: int, *, context: int, kv_type: KvType = "f16"
) -> Need:
    """Count the bytes of a model whose file has `weights` bytes.

    `context` is in tokens. A sliding window is not made use of, as llama.cpp keeps
    every cell of these models.
    """
    return Need(
        weights=weights,
        kv_cache=kv_cache(dimensions, context=context, kv_type=kv_type),
        scratch=scratch(dimensions, context=context, kv_type=kv_type),
        program=PROGRAM + _ENTRY * dimensions.vocabulary,
    )


def copied_size(headers: Sequence[Header], kinds: Collection[GgmlType]) -> int:
    """Count the bytes of matrices that llama.cpp keeps a second time, rearranged.

    `kinds` are the types it does that with on this processor. The first copy is the
    mapped file, which the system takes back where memory is wanted: a process shows
    both, and needs one.
    Source: llama.cpp, ggml/src/ggml-cpu/repack.cpp; the embedding is only looked up.
    """
    return sum(
        tensor.size
        for header in headers
        for tensor in header.tensors
        if tensor.type in kinds and len(tensor.shape) > 1 and tensor.name != _EMBEDDING
    )


def kv_cache(dimensions: Dimensions, *, context: int, kv_type: KvType = "f16") -> int:
    """Count the bytes of the KV cache: a K and a V row for each cell and layer."""
    kind = KV_TYPES[kv_type]
    # A row that is no whole number of blocks cannot be made; llama.cpp says so.
    width = align(dimensions.kv_width, kind.block_size)
    return 2 * dimensions.layers * _cells(context) * row_size(kind, width)


def scratch(
    dimensions: Dimensions,
    *,
    context: int,
    kv_type: KvType = "f16",
    batch: int = BATCH,
) -> int:
    """Count the bytes of the compute buffer and of ggml's work buffer.

    `batch` tokens go through the model in one step, or as many as there are cells.
    Without flash attention the work buffer holds in f16 once more what every head
    compares; flash attention comes with a quantized KV cache.
    Source: ggml_graph_plan, ggml/src/ggml-cpu/ggml-cpu.c.
    """
    cells = _cells(context)
    quantized = kv_type in ("q8_0", "q4_0")
    compares = 0 if quantized else dimensions.heads * cells
    work = min(batch, cells) * _F16 * max(compares, dimensions.ffn)
    compute = compute_buffer(dimensions, context=context, kv_type=kv_type, batch=batch)
    return compute + work


def compute_buffer(
    dimensions: Dimensions,
    *,
    context: int,
    kv_type: KvType = "f16",
    batch: int = BATCH,
) -> int:
    """Count the bytes of the buffer in which a device keeps what a step computes.

    Either attention or the feed-forward part takes most of it. Without flash
    attention every head compares each token of a step with each cell, in f32; with
    it only the mask is kept. The place of the logits is left out: it is reserved for
    a whole step, but only one row of it is written.
    Source: the sizes llama.cpp logs, docs/fit.md.
    """
    cells = _cells(context)
    tokens = min(batch, cells)
    rows = 4 * dimensions.hidden + 3 * dimensions.ffn * max(1, dimensions.experts_used)
    if kv_type in ("q8_0", "q4_0"):
        return tokens * (_F32 * rows + _F16 * cells)
    extra = min(dimensions.hidden, 2 * dimensions.kv_width)
    attention = 5 * dimensions.hidden + 2 * dimensions.kv_width
    compares = dimensions.heads * cells
    return tokens * _F32 * (cells + max(rows + extra, attention + compares))


def least_bits(quant: str) -> float:
    """Return the bits of a weight in the smallest type that a quant uses much of."""
    kind = main_type(quant)
    return 8 * kind.type_size / kind.block_size


def main_type(quant: str) -> GgmlType:
    """Return the tensor type that a quant is named after: Q4_K for Q4_K_M.

    Raises: KeyError for what is no quant.
    """
    for name in (quant, quant.rpartition("_")[0]):
        if name in GgmlType.__members__:
            return GgmlType[name]
    if quant not in QUANTS:
        raise KeyError(quant)
    return _MIXED[quant]


# Quants that are named after no tensor type.
# Source: llama.cpp, src/llama-quant.cpp, `llama_ftype_get_default_type`.
_MIXED = {
    "IQ3_M": GgmlType.IQ3_S,
    "IQ3_XS": GgmlType.IQ3_S,
    "IQ2_M": GgmlType.IQ2_S,
}


def _number(header: Header, name: str) -> int | None:
    """Give a number, of one that differs from layer to layer the largest."""
    key = f"{header.architecture}.{name}"
    if isinstance(header.metadata.get(key), ArrayValue):
        return int(max(read_numbers(header, key), default=0))
    return header.integer(key)


def _cells(context: int) -> int:
    return align(context, CELLS)
