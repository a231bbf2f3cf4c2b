"""How many layers of a model its GPUs take: arithmetic, checked before loading.

Counts as llama.cpp does: N layers are the output and the last N - 1 blocks, each
with its part of the KV cache; the embedding stays with the processor. Knows no
llama.cpp: what that reports of the devices is passed in.

Source: llama.cpp 0c1e57098, src/llama-model.cpp, `load_tensors`; src/llama.cpp,
`llama_prepare_model_devices`; src/llama-context.cpp, `graph_reserve`.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Literal

from wizard_edge.engine import KvType
from wizard_edge.gguf import Header, align
from wizard_edge.gguf_types import TensorInfo
from wizard_edge.memory import BATCH, CELLS, Dimensions, compute_buffer, kv_cache

DeviceKind = Literal["cpu", "gpu", "igpu", "accelerator", "meta"]

# What stays free: a driver's own buffers, and what the screen takes meanwhile. The
# eighth lets small cards be used. Source: llama.cpp, common/common.h,
# `fit_params_target`.
_MARGIN = 1 << 30
_MARGIN_SHARE = 8
_F32 = 4
_BLOCK = "blk."
_OUTPUT = "output"
_EMBEDDING = "token_embd.weight"
_RPC = "RPC"


@dataclass(frozen=True, slots=True)
class Device:
    """Something llama.cpp computes with; `total` and `free` in bytes of its memory.

    Both are 0 where a device does not say. `backend` is the part of llama.cpp that
    drives it, `id` tells one device apart that two of them drive, None where unknown.
    """

    name: str
    description: str
    kind: DeviceKind
    backend: str
    total: int
    free: int
    id: str | None = None

    def __str__(self) -> str:
        return f"{self.name} ({self.description})"

    @property
    def room(self) -> int:
        """The bytes a model may take of it."""
        return max(0, self.free - min(_MARGIN, self.total // _MARGIN_SHARE))


@dataclass(frozen=True, slots=True)
class Offload:
    """What goes where: `layers` of `of`, and which devices take them.

    `needed` is what each of the devices holds then, in bytes.
    """

    layers: int
    of: int
    devices: tuple[Device, ...] = ()
    needed: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class _Model:
    """Bytes of each block with its KV cache, of the output, and of a step.

    `largest` is the largest matrix of each block: those that stay with the processor
    are copied to a device where it reads a prompt, one after the other. `last_step`
    is that of the device with the output, `pipeline` what several devices that have
    all layers take in addition, to work on four steps at once.
    Source: ggml/src/ggml-backend.cpp, `ggml_backend_sched_split_graph`; src/
    llama-context.cpp, pipeline parallelism.
    """

    blocks: tuple[int, ...]
    largest: tuple[int, ...]
    output: int
    step: int
    last_step: int
    pipeline: int


def usable_devices(devices: Sequence[Device]) -> tuple[Device, ...]:
    """Return the devices that llama.cpp gives layers to, in its order.

    Other machines first, then graphics cards, each once; integrated ones only where
    there is no card.
    """
    remote = [item for item in devices if item.kind == "gpu" and item.backend == _RPC]
    cards: list[Device] = []
    for item in devices:
        known = {card.id for card in cards} - {None}
        if item.kind == "gpu" and item.backend != _RPC and item.id not in known:
            cards.append(item)
    shared = [item for item in devices if item.kind == "igpu"]
    shared = [item for item in shared if item.backend == shared[0].backend]
    return (*remote, *(cards or shared))


def plan_offload(
    devices: Sequence[Device],
    headers: Sequence[Header],
    *,
    context: int,
    kv_type: KvType = "f16",
    batch: int = BATCH,
) -> Offload:
    """Find the most layers that fit on `devices`, the output counted as one.

    `headers` are those of all parts of a model, `context` the cells of all its
    sequences in tokens, `batch` the tokens of one step. llama.cpp shares layers out
    by free memory, so the fullest device decides. A device that does not tell its
    memory takes none, and nothing fits where llama.cpp would give it some.
    Raises: Corrupt for a header that says something in a wrong type.
    """
    model = _measure(headers, context=context, kv_type=kv_type, batch=batch)
    if model is None:
        return Offload(0, layer_count(headers))
    of = len(model.blocks) + 1
    if devices and all(device.free for device in devices):
        for layers in range(of, 0, -1):
            needed = _share_out(model, devices, layers)
            pairs = zip(needed, devices, strict=True)
            if all(size <= device.room for size, device in pairs):
                taken = [index for index, size in enumerate(needed) if size]
                return Offload(
                    layers,
                    of,
                    tuple(devices[index] for index in taken),
                    tuple(needed[index] for index in taken),
                )
    return Offload(0, of)


def layer_count(headers: Sequence[Header]) -> int:
    """Return how many layers llama.cpp could move: the blocks and the output.

    Raises: Corrupt.
    """
    return (headers[0].block_count or 0) + 1


def attempts(layers: int) -> tuple[int, ...]:
    """Return how many layers to try in turn where the device refuses, 0 the last."""
    tried = (layers, layers * 3 // 4, layers // 2, layers // 4, 0)
    return tuple(dict.fromkeys(tried))


def _measure(
    headers: Sequence[Header], *, context: int, kv_type: KvType, batch: int
) -> _Model | None:
    """Add up a model by the names of its tensors; None where it does not say enough."""
    dimensions = Dimensions.read(headers[0])
    if dimensions is None:
        return None
    cache = kv_cache(dimensions, context=context, kv_type=kv_type) // dimensions.layers
    blocks, largest = [cache] * dimensions.layers, [0] * dimensions.layers
    tensors = {item.name: item for header in headers for item in header.tensors}
    output = 0
    for tensor in tensors.values():
        block = _block(tensor)
        if block is not None and block < len(blocks):
            blocks[block] += tensor.size
            largest[block] = max(largest[block], tensor.size)
        elif tensor.name.startswith(_OUTPUT):
            output += tensor.size
    # Without an output of its own a model takes its embedding once more.
    if f"{_OUTPUT}.weight" not in tensors and _EMBEDDING in tensors:
        output += tensors[_EMBEDDING].size
    cells = align(context, CELLS)
    tokens = min(batch, cells)
    rows = _F32 * tokens * dimensions.hidden
    compute = compute_buffer(dimensions, context=context, kv_type=kv_type, batch=batch)
    logits = _F32 * tokens * dimensions.vocabulary
    return _Model(
        tuple(blocks),
        tuple(largest),
        output,
        step=compute + rows,
        last_step=max(compute + rows, logits + 2 * rows),
        # The most that two RPC workers logged beside it (tests/test_offload.py).
        pipeline=3 * _F32 * tokens * cells + 10 * rows,
    )


def _block(tensor: TensorInfo) -> int | None:
    """Return the block that a tensor such as `blk.12.ffn_up.weight` belongs to."""
    if not tensor.name.startswith(_BLOCK):
        return None
    number = tensor.name.removeprefix(_BLOCK).partition(".")[0]
    return int(number) if number.isdecimal() else None


def _share_out(model: _Model, devices: Sequence[Device], layers: int) -> list[int]:
    """Return the bytes that each device holds when some layers are moved."""
    ends = list(accumulate(device.free for device in devices))
    parts = [*model.blocks, model.output][-layers:]
    needed = [0] * len(devices)
    for index, size in enumerate(parts):
        needed[bisect_right(ends, index / layers * ends[-1])] += size
    left = len(model.blocks) + 1 - layers
    extra = max(model.largest[:left], default=0)
    if left == 0 and len(devices) > 1:
        extra += model.pipeline
    last = bisect_right(ends, (layers - 1) / layers * ends[-1])
    for index, size in enumerate(needed):
        if size:
            step = model.last_step if index == last else model.step
            needed[index] += step + extra
    return needed
