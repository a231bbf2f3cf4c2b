"""Which tokens lie in which sequence of the KV cache, and where a prompt goes.

Pure bookkeeping: says what to copy, to cut and to park, and touches no cache.
"""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from dataclasses import dataclass, field

# Fewer shared tokens than this are read again sooner than they are copied: a copy
# between streams moves the whole buffer of a sequence.
LEAST_COPY = 16


@dataclass(slots=True, eq=False)
class Slot:
    """One sequence of the KV cache: the tokens in it, in order, and whose they are."""

    index: int
    cached: list[int] = field(default_factory=list)
    owner: weakref.ref[object] | None = None
    last_used: int = 0
    busy: bool = False

    def belongs_to(self, owner: object | None) -> bool:
        return owner is not None and self.holder is owner

    @property
    def holder(self) -> object | None:
        """The conversation whose tokens these are, None where it is gone."""
        return self.owner() if self.owner is not None else None


@dataclass(frozen=True, slots=True)
class Place:
    """Where a prompt goes: a free slot, of which `kept` tokens begin the prompt.

    They are copied from `source` where that is not None.
    """

    slot: Slot
    kept: int
    source: Slot | None = None


def choose_place(
    slots: Sequence[Slot], prompt: Sequence[int], owner: object | None
) -> Place | None:
    """Choose a slot for a prompt; None where all are busy.

    The last token of a prompt is always evaluated, for its logits, so at most
    `len(prompt) - 1` are kept. In this order: the slot that holds this very
    conversation; one whose whole content begins the prompt; else the one that was
    not used for longest, an empty one first, with the longest beginning that any
    other slot has copied into it.
    """
    free = [slot for slot in slots if not slot.busy]
    if not free:
        return None
    beginning = prompt[:-1]
    shared = {slot.index: shared_prefix(slot.cached, beginning) for slot in slots}
    for slot in free:
        if slot.belongs_to(owner):
            return _with_copy(slot, slots, shared)
    whole = [
        slot for slot in free if slot.cached and shared[slot.index] == len(slot.cached)
    ]
    if whole:
        longest = max(whole, key=lambda slot: shared[slot.index])
        return _with_copy(longest, slots, shared)
    oldest = min(free, key=lambda slot: (bool(slot.cached), slot.last_used))
    return _with_copy(oldest, slots, shared)


def shared_prefix(one: Sequence[int], two: Sequence[int]) -> int:
    """Return how many tokens two sequences begin with in common."""
    count = 0
    for first, second in zip(one, two, strict=False):
        if first != second:
            break
        count += 1
    return count


def _with_copy(slot: Slot, slots: Sequence[Slot], shared: dict[int, int]) -> Place:
    own = shared[slot.index]
    best = max(slots, key=lambda other: shared[other.index])
    if shared[best.index] - own >= LEAST_COPY:
        return Place(slot, shared[best.index], best)
    return Place(slot, own)
