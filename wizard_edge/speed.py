"""How long a token takes: from what it reads and how fast that goes here.

Generation is bound by reading: every weight once, and the KV cache of all tokens so
far. The rates are measured (`_llama.kernels`) and passed in; without them the plain
memory bandwidth gives what cannot be exceeded.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod

from wizard_edge.engine import KvType
from wizard_edge.gguf import Header
from wizard_edge.gguf_types import GgmlType, row_size
from wizard_edge.memory import CELLS, KV_TYPES, Dimensions, kv_cache, main_type

# Heads that share a K and V whose attention is measured: none, as in LLaMA, and what
# is usual where they do.
SHARING = (1, 4, 8)
# A whole step of a model reaches this share of the speed that its parts have alone:
# between them lie norms, rotations, a softmax, the sampling of a token, and the end of
# each part, where threads wait for the last. Measured from 0.77 to 0.93 on six models
# of 70 to 890 MB (docs/fit.md); larger ones come nearer to 1.
SHARE_OF_PARTS = 0.85
_EMBEDDING = "token_embd.weight"
_OUTPUT = "output.weight"
_EXPERTS = "_exps."


@dataclass(frozen=True, slots=True)
class Kernels:
    """What llama.cpp works through on this machine, in bytes/s.

    `weights` by the type of a matrix, `attention` by how many heads share a K and V,
    counting those bytes for each head, with a KV cache of `kv_type`.
    """

    weights: Mapping[GgmlType, float]
    attention: Mapping[int, float]
    kv_type: KvType = "f16"


def seconds_per_token(
    kernels: Kernels,
    dimensions: Dimensions,
    read: Mapping[GgmlType, int],
    *,
    depth: int,
) -> float:
    """Return the seconds that a token takes behind `depth` others.

    `read` is the bytes of weights that one token reads, by their type.
    """
    slowest = min(kernels.weights.values())
    weights = sum(
        size / kernels.weights.get(kind, slowest) for kind, size in read.items()
    )
    parts = weights + _attention(kernels, dimensions, depth)
    return parts / SHARE_OF_PARTS


def least_seconds(
    bandwidth: float,
    dimensions: Dimensions,
    read: Mapping[GgmlType, int],
    *,
    depth: int,
    kv_type: KvType,
) -> float:
    """Return the seconds that reading takes at a memory bandwidth, in bytes/s."""
    cells = kv_cache(dimensions, context=depth, kv_type=kv_type)
    return (sum(read.values()) + cells) / bandwidth


def read_by_size(
    dimensions: Dimensions, weights: int, quant: str
) -> dict[GgmlType, int]:
    """Estimate what a token reads of a file of `weights` bytes.

    All but the embedding, of which it reads one row, and the experts not asked. All
    tensors are taken to be of the type that the quant is named after.
    """
    hidden = dimensions.hidden
    embedding = dimensions.vocabulary * hidden
    attention = 2 * hidden * (hidden + dimensions.kv_width)
    expert = 3 * hidden * dimensions.ffn
    experts = max(1, dimensions.experts)
    used = max(1, dimensions.experts_used)
    everything = dimensions.layers * (attention + experts * expert) + 2 * embedding
    read = dimensions.layers * (attention + used * expert) + embedding
    return {main_type(quant): weights * read // everything}


def read_by_tensors(header: Header) -> dict[GgmlType, int]:
    """Count what a token reads of a GGUF file, by type.

    Raises: Corrupt where the number of experts is no number.
    """
    used, experts = _experts(header)
    # A model without an output matrix multiplies by its embedding.
    tied = all(tensor.name != _OUTPUT for tensor in header.tensors)
    read: dict[GgmlType, int] = {}
    for tensor in header.tensors:
        if tensor.name == _EMBEDDING and not tied:
            continue
        size = tensor.size * used // experts if _EXPERTS in tensor.name else tensor.size
        read[tensor.type] = read.get(tensor.type, 0) + size
    return read


def multiplied_by_tensors(header: Header) -> dict[GgmlType, int]:
    """Count the weights that every token of a prompt is multiplied by, by type.

    Not those of the output, which only the last token needs, and not norms, which
    are no matrices.
    Raises: Corrupt where the number of experts is no number.
    """
    used, experts = _experts(header)
    weights: dict[GgmlType, int] = {}
    for tensor in header.tensors:
        if len(tensor.shape) < 2 or tensor.name in (_EMBEDDING, _OUTPUT):
            continue
        count = prod(tensor.shape)
        count = count * used // experts if _EXPERTS in tensor.name else count
        weights[tensor.type] = weights.get(tensor.type, 0) + count
    return weights


def seconds_per_prompt_token(
    rates: Mapping[GgmlType, float], weights: Mapping[GgmlType, int]
) -> float:
    """Return the least seconds that a token of a long prompt takes.

    `rates` are FLOP/s by type of a matrix, `weights` from `multiplied_by_tensors`: a
    multiplication and an addition each. Attention is not counted.
    """
    slowest = min(rates.values())
    return sum(2 * count / rates.get(kind, slowest) for kind, count in weights.items())


def _experts(header: Header) -> tuple[int, int]:
    head = f"{header.architecture}.expert"
    experts = header.integer(f"{head}_count") or 1
    return header.integer(f"{head}_used_count") or experts, experts


def _attention(kernels: Kernels, dimensions: Dimensions, depth: int) -> float:
    """Return the seconds of comparing with every cell, which go in steps of 256."""
    sharing = max(1, dimensions.hidden // dimensions.kv_width)
    nearest = max(
        (heads for heads in kernels.attention if heads <= sharing),
        default=min(kernels.attention),
    )
    kind = KV_TYPES[kernels.kv_type]
    cells = -(-depth // CELLS) * CELLS
    size = 2 * dimensions.layers * cells * row_size(kind, dimensions.hidden)
    return size / kernels.attention[nearest]
