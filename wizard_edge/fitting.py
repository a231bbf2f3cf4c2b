"""Which quant of a model suits a machine: pure, from facts that are passed in.

The rule and its reasons: docs/decisions/006-which-quant.md.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from wizard_edge.engine import KvType
from wizard_edge.gguf_types import GgmlType
from wizard_edge.hardware import Cores, Memory
from wizard_edge.memory import Dimensions, Need, memory_need
from wizard_edge.models import Shape
from wizard_edge.refs import QUANTS
from wizard_edge.speed import Kernels, least_seconds, read_by_size, seconds_per_token
from wizard_edge.units import format_bytes

# What stays free for the system and all else: a share of the memory, at least this.
_RESERVE_SHARE = 0.15
_RESERVE = 512 << 20
# Kept free on the disk beside the file: receipts, chunk sums, the file system's own.
DISK_MARGIN = 64 << 20
# Larger files than the best of these bring nothing that can be read, smaller ones
# than the last lose more in quality than they gain in speed. Both ends belong to it.
BEST_BAND = ("Q6_K", "Q4_K_M")
HIGHEST = "Q8_0"
# A person reads some 250 words a minute, which are about 5 tokens/s.
USABLE = 5.0
_AMPLE = 2 * USABLE
# Bytes that are read so often by the slowest machine we think of, a Raspberry Pi 5,
# whose memory gives some 10 GB/s.
_SMALL = int(10e9 / _AMPLE)


@dataclass(frozen=True, slots=True)
class Machine:
    """What a machine gives; None for what was not measured.

    `free_disk` is in bytes, `bandwidth` that of its memory in bytes/s. `backends` are
    llama.cpp's names of what can compute, empty where nobody could say.
    """

    cores: Cores
    memory: Memory
    free_disk: int
    bandwidth: float | None = None
    backends: tuple[str, ...] = ()
    kernels: Kernels | None = None

    @property
    def room(self) -> int:
        """The bytes of RAM that a model may take."""
        total = self.memory.total
        return total - max(_RESERVE, int(_RESERVE_SHARE * total))


@dataclass(frozen=True, slots=True)
class Candidate:
    """A file that could be used, `size` in bytes; `stored` ones need no disk.

    `there` are the bytes of the disk that an interrupted download holds already.
    `read` is what one token reads of it by type, in bytes, None to work it out from
    the size: whoever knows the tensors knows better. `copied` is what llama.cpp keeps
    of it a second time, None where nobody looked.
    """

    quant: str
    size: int
    stored: bool = False
    there: int = 0
    read: Mapping[GgmlType, int] | None = None
    copied: int | None = None


@dataclass(frozen=True, slots=True)
class Fit:
    """How a candidate gets on with a machine; all sizes in bytes.

    `total` is what must be in RAM for a full context; a process shows `copied` bytes
    more, as long as nobody wants them (`memory.copied_size`). `lacks` names what
    there is too little of. `tokens_per_s` is what to expect half way through the
    context, None where nothing was measured or memory lacks. `why` is a clause: why
    it was taken or not, or what speaks against it.
    """

    quant: str
    weights: int
    kv_cache: int
    scratch: int
    program: int
    total: int
    copied: int | None
    lacks: Literal["memory", "disk"] | None
    tokens_per_s: float | None
    why: str

    @property
    def fits(self) -> bool:
        return self.lacks is None


@dataclass(frozen=True, slots=True)
class Choice:
    """The quant to take, None where none fits, and each other one with its reason.

    `why` is one sentence. `rejected` is in the order of quality.
    """

    chosen: Fit | None
    rejected: tuple[Fit, ...]
    why: str

    @property
    def fits(self) -> tuple[Fit, ...]:
        """All of them, the best quality first."""
        chosen = (self.chosen,) if self.chosen else ()
        return tuple(sorted((*chosen, *self.rejected), key=lambda it: _rank(it.quant)))


def fit_all(
    shape: Shape | Dimensions | None,
    candidates: Sequence[Candidate],
    machine: Machine,
    *,
    context: int,
    disk: int | None = None,
    kv_type: KvType = "f16",
) -> tuple[Fit, ...]:
    """Judge every candidate by itself, the best quality first.

    `context` is in tokens, `disk` the bytes free where a file would go, None for
    that of the machine. Without a shape the size of the file bounds it.
    """
    free = machine.free_disk if disk is None else disk
    ordered = sorted(candidates, key=lambda item: _rank(item.quant))
    return tuple(
        _fit(_dimensions(shape, item), item, machine, context, free, kv_type)
        for item in ordered
    )


def choose(
    shape: Shape | Dimensions | None,
    candidates: Sequence[Candidate],
    machine: Machine,
    *,
    context: int,
    disk: int | None = None,
    kv_type: KvType = "f16",
) -> Choice:
    """Choose the quant for a machine; arguments as of `fit_all`.

    Of what fits: the best of Q6_K to Q4_K_M that is fast enough to read along, and
    Q8_0 where it is twice that; else the smallest of Q6_K to Q4_K_M; else the best
    below; else Q8_0. Where nothing was measured, everything is fast enough, but Q8_0
    only up to 1 GB. Nothing above Q8_0 is ever chosen.
    """
    fits = fit_all(
        shape, candidates, machine, context=context, disk=disk, kv_type=kv_type
    )
    chosen = _best([item for item in fits if item.fits])
    rejected = tuple(
        replace(item, why=_reason(item, chosen)) for item in fits if item is not chosen
    )
    if chosen is None:
        return Choice(None, rejected, _nothing(fits, machine, context))
    why = _praise(chosen, rejected, machine, context)
    return Choice(replace(chosen, why=why), rejected, f"{chosen.quant} is {why}")


def _best(fits: Sequence[Fit]) -> Fit | None:
    """Choose among those that fit, given from the best quality down."""
    band = [item for item in fits if _place(item.quant) == "band"]
    top = [item for item in fits if item.quant == HIGHEST]
    below = [item for item in fits if _place(item.quant) == "below"]
    ample = [item for item in top if _is_ample(item)]
    readable = [item for item in band if _is_readable(item)]
    for group in (ample, readable, band[-1:], below, top):
        if group:
            return group[0]
    return None


def _reason(fit: Fit, chosen: Fit | None) -> str:
    """Say why `chosen` was taken instead."""
    if not fit.fits or chosen is None:
        return fit.why or f"never chosen by itself: nothing is gained over {HIGHEST}"
    if _place(fit.quant) == "above":
        return f"twice the size of {HIGHEST}, and nothing is gained"
    if _rank(fit.quant) > _rank(chosen.quant):
        return f"fits, but {chosen.quant} is better and fits too"
    if not _is_readable(fit) and fit.tokens_per_s is not None:
        return f"fits, but only {fit.tokens_per_s:.1f} tokens/s"
    return f"fits, but gains next to nothing over {chosen.quant} and is slower"


def _praise(
    chosen: Fit, rejected: Sequence[Fit], machine: Machine, context: int
) -> str:
    parts = [
        f"{_head(chosen, rejected)}: with {context} tokens of context it takes "
        f"{format_bytes(chosen.total)} of {format_bytes(machine.room)} of RAM",
    ]
    if chosen.tokens_per_s is not None:
        parts.append(f"about {chosen.tokens_per_s:.1f} tokens/s")
    if chosen.why:
        parts.append(chosen.why)
    return ", ".join(parts)


def _head(chosen: Fit, rejected: Sequence[Fit]) -> str:
    better = [item for item in rejected if _rank(item.quant) < _rank(chosen.quant)]
    if any(item.fits and _place(item.quant) == "band" for item in better):
        return "the fastest that keeps the quality"
    if any(not item.fits and _place(item.quant) != "above" for item in better):
        return "the best that fits"
    return "the best that is worth its size"


def _nothing(fits: Sequence[Fit], machine: Machine, context: int) -> str:
    """Say that nothing fits, naming the least that any would have taken."""
    usable = [item for item in fits if _place(item.quant) != "above"]
    if not usable:
        return f"there is nothing to choose from at or below {HIGHEST}"
    small = min(usable, key=lambda item: item.total)
    if small.total <= machine.room:
        return f"no quant fits: {small.quant}, the smallest, {small.why}"
    return (
        f"no quant fits: {small.quant}, the smallest, takes "
        f"{format_bytes(small.total)} of RAM with {context} tokens of context, and "
        f"{format_bytes(machine.room)} of {format_bytes(machine.memory.total)} may be "
        "used"
    )


def _fit(
    dimensions: Dimensions,
    candidate: Candidate,
    machine: Machine,
    context: int,
    disk: int,
    kv_type: KvType,
) -> Fit:
    need = memory_need(dimensions, candidate.size, context=context, kv_type=kv_type)
    lacks, problem = _problem(candidate, need, machine, disk)
    return Fit(
        quant=candidate.quant,
        weights=need.weights,
        kv_cache=need.kv_cache,
        scratch=need.scratch,
        program=need.program,
        total=need.total,
        copied=candidate.copied,
        lacks=lacks,
        # What memory does not hold is read from the disk, at nobody knows what speed.
        tokens_per_s=None
        if lacks == "memory"
        else _speed(dimensions, candidate, machine, context, kv_type),
        why=problem or _strain(need, machine),
    )


def _problem(
    candidate: Candidate, need: Need, machine: Machine, disk: int
) -> tuple[Literal["memory", "disk"] | None, str]:
    """Name what there is too little of and say how much, "" where it fits."""
    if need.total > machine.room:
        return "memory", (
            f"needs {format_bytes(need.total)} of RAM, "
            f"{format_bytes(machine.room)} may be used"
        )
    missing = candidate.size - candidate.there + DISK_MARGIN
    if not candidate.stored and missing > disk:
        return "disk", (
            f"needs {format_bytes(missing)} of disk, {format_bytes(disk)} are free"
        )
    return None, ""


def _strain(need: Need, machine: Machine) -> str:
    if need.total > machine.memory.available:
        return (
            f"other programs leave {format_bytes(machine.memory.available)} of RAM now"
        )
    return ""


def _speed(
    dimensions: Dimensions,
    candidate: Candidate,
    machine: Machine,
    context: int,
    kv_type: KvType,
) -> float | None:
    """Return the tokens/s half way through the context, from memory."""
    read = candidate.read or read_by_size(dimensions, candidate.size, candidate.quant)
    depth = context // 2
    if machine.kernels is not None:
        return 1 / seconds_per_token(machine.kernels, dimensions, read, depth=depth)
    if machine.bandwidth is None:
        return None
    return 1 / least_seconds(
        machine.bandwidth, dimensions, read, depth=depth, kv_type=kv_type
    )


def _dimensions(shape: Shape | Dimensions | None, candidate: Candidate) -> Dimensions:
    if shape is None:
        return Dimensions.guess(candidate.size, candidate.quant)
    return Dimensions.of(shape) if isinstance(shape, Shape) else shape


def _is_readable(fit: Fit) -> bool:
    return fit.tokens_per_s is None or fit.tokens_per_s >= USABLE


def _is_ample(fit: Fit) -> bool:
    if fit.tokens_per_s is None:
        return fit.weights <= _SMALL
    return fit.tokens_per_s >= _AMPLE


def _place(quant: str) -> Literal["above", "top", "band", "below"]:
    first, last = map(_rank, BEST_BAND)
    rank = _rank(quant)
    if rank < _rank(HIGHEST):
        return "above"
    if rank < first:
        return "top"
    return "band" if rank <= last else "below"


def _rank(quant: str) -> int:
    """Return the place in the order of quality; what nobody knows comes last."""
    return QUANTS.index(quant) if quant in QUANTS else len(QUANTS)
