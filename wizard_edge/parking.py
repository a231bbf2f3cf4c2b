"""Conversations that gave their place in the KV cache to another one.

What was evaluated for them is kept as bytes, the longest unused given up first, so
that they come back without evaluating a token.
"""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from dataclasses import dataclass

from wizard_edge.engine import Blob
from wizard_edge.slots import shared_prefix


@dataclass(frozen=True, slots=True, eq=False)
class Parked:
    """The KV cache of `ids`, as `KvPart.data`, of a conversation that may be gone."""

    owner: weakref.ref[object]
    ids: tuple[int, ...]
    data: Blob


class Parking:
    """Holds at most `budget` bytes."""

    def __init__(self, budget: int) -> None:
        self._budget = budget
        # The longest unused first.
        self._parked: list[Parked] = []

    @property
    def size(self) -> int:
        """The bytes that are held."""
        return sum(len(parked.data) for parked in self._parked)

    def has_room(self, size: int) -> bool:
        """Tell whether something of that many bytes could be kept at all."""
        return size <= self._budget

    def keep(self, parked: Parked) -> None:
        """Hold this; give up others, and all whose conversation is gone, for it."""
        self._parked = [item for item in self._parked if item.owner() is not None]
        self._parked.append(parked)
        while self._parked and self.size > self._budget:
            self._parked.pop(0)

    def find(self, prompt: Sequence[int]) -> tuple[int, Parked | None]:
        """Return what begins `prompt` with most tokens, and how many they are."""
        best: tuple[int, Parked | None] = (0, None)
        for parked in self._parked:
            count = shared_prefix(parked.ids, prompt)
            if count > best[0]:
                best = (count, parked)
        return best

    def take(self, parked: Parked) -> None:
        """Give up what came back into the cache."""
        self._parked.remove(parked)
