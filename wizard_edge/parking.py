"""Conversations that gave their place in the KV cache to another one.

What was evaluated for them is kept as bytes, in RAM and beyond that on the disk, the
longest unused given up first, so that they come back without evaluating a token.
"""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from dataclasses import dataclass

from wizard_edge.engine import Blob
from wizard_edge.parking_disk import OnDisk, ParkingDisk
from wizard_edge.slots import shared_prefix


@dataclass(frozen=True, slots=True, eq=False)
class Parked:
    """The KV cache of `ids`, as `KvPart.data`, of a conversation that may be gone."""

    owner: weakref.ref[object]
    ids: tuple[int, ...]
    data: Blob


class Parking:
    """Holds at most `budget` bytes in RAM, and on a disk what that takes."""

    def __init__(self, budget: int, disk: ParkingDisk | None = None) -> None:
        self._budget = budget
        self._disk = disk
        # The longest unused first.
        self._parked: list[Parked] = []

    @property
    def size(self) -> int:
        """The bytes that are held in RAM."""
        return sum(len(parked.data) for parked in self._parked)

    def has_room(self, size: int) -> bool:
        """Tell whether something of that many bytes could be kept at all."""
        return size <= self._budget or (
            self._disk is not None and self._disk.has_room(size)
        )

    def keep(self, parked: Parked) -> None:
        """Hold this; give up others, and all whose conversation is gone, for it."""
        self._parked = [item for item in self._parked if item.owner() is not None]
        if self._disk is not None:
            self._disk.forget_gone()
        if len(parked.data) > self._budget:
            self._move_out(parked)
            return
        self._parked.append(parked)
        while self.size > self._budget:
            self._move_out(self._parked.pop(0))

    def find(self, prompt: Sequence[int]) -> tuple[int, Parked | OnDisk | None]:
        """Return what begins `prompt` with most tokens, and how many they are."""
        best: tuple[int, Parked | OnDisk | None] = (0, None)
        everything: list[Parked | OnDisk] = [*self._parked]
        if self._disk is not None:
            everything += self._disk.parked
        for parked in everything:
            count = shared_prefix(parked.ids, prompt)
            if count > best[0]:
                best = (count, parked)
        return best

    def read(self, parked: Parked | OnDisk) -> Blob | None:
        """Return the bytes of what was found; None where the disk spoilt them."""
        if isinstance(parked, Parked):
            return parked.data
        assert self._disk is not None
        return self._disk.read(parked)

    def take(self, parked: Parked | OnDisk) -> None:
        """Give up what came back into the cache."""
        if isinstance(parked, Parked):
            self._parked.remove(parked)
        elif self._disk is not None:
            self._disk.forget(parked)

    def close(self) -> None:
        """Give up everything. A second call does nothing."""
        self._parked.clear()
        if self._disk is not None:
            self._disk.close()

    def _move_out(self, parked: Parked) -> None:
        if self._disk is not None:
            self._disk.keep(parked.owner, parked.ids, parked.data)
