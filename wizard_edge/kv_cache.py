"""The KV cache as conversations see it: their tokens, kept, copied, parked.

Keeps the book of `slots` and the cells of a backend together. On the engine's
thread only.
"""

from __future__ import annotations

import logging
import weakref
from collections.abc import Sequence

from wizard_edge.backend import Backend
from wizard_edge.engine import Blob
from wizard_edge.errors import BackendError
from wizard_edge.parking import Parked, Parking
from wizard_edge.slots import LEAST_COPY, Place, Slot, choose_place, shared_prefix

_logger = logging.getLogger(__name__)


class KvCache:
    """The sequences of a backend, and what is parked beside them."""

    def __init__(self, backend: Backend, parking: Parking) -> None:
        self._backend = backend
        self._parking = parking
        self.slots = [Slot(index) for index in range(backend.sequences)]
        self._uses = 0

    def find(self, ids: Sequence[int]) -> tuple[Slot, int]:
        """Return the slot that holds most of the beginning of `ids`, and how much."""
        slot = max(self.slots, key=lambda slot: shared_prefix(slot.cached, ids))
        return slot, shared_prefix(slot.cached, ids)

    def choose(self, prompt: Sequence[int], owner: object | None) -> Place | None:
        """Choose where a prompt goes; None where every slot is busy."""
        return choose_place(self.slots, prompt, owner)

    def settle(self, prompt: Sequence[int], place: Place, owner: object | None) -> None:
        """Bring the beginning of a prompt into its slot, from where there is most."""
        slot = place.slot
        beginning = prompt[:-1]
        count, parked = self._parking.find(beginning)
        data: Blob | None = None
        if parked is not None and count >= place.kept + LEAST_COPY:
            data = self._parking.read(parked)
            if data is not None and parked.owner() is owner:
                # Before something else is parked, which may need its room.
                self._parking.take(parked)
        self._park(slot, shared_prefix(slot.cached, beginning), owner)
        if parked is not None and data is not None:
            self._unpark(slot, parked.ids, data)
            self.cut(slot, min(count, len(slot.cached)))
        elif place.source is not None:
            self._backend.copy(place.source.index, slot.index, place.kept)
            slot.cached = place.source.cached[: place.kept]
        else:
            self.cut(slot, place.kept)
        self._note_use(slot, owner)

    def fill(
        self,
        ids: Sequence[int],
        parts: Sequence[Blob],
        owner: object | None,
    ) -> None:
        """Restore the cache of `ids` into a free slot.

        Raises: BackendError when all are busy, or the parts do not fit: the slot is
        empty then.
        """
        place = self.choose([*ids, 0], owner)
        if place is None:
            raise BackendError("every sequence is in use")
        self.empty(place.slot, owner)
        self._backend.restore(place.slot.index, parts)
        place.slot.cached = list(ids)
        self._note_use(place.slot, owner)

    def empty(self, slot: Slot, owner: object | None = None) -> None:
        """Empty a slot; another conversation's content is parked."""
        self._park(slot, 0, owner)
        self.forget(slot)

    def forget(self, slot: Slot) -> None:
        """Empty a slot."""
        self.cut(slot, 0)
        slot.owner = None

    def cut(self, slot: Slot, length: int) -> None:
        """Forget the tokens of a slot from `length` on, evaluated half or whole."""
        self._backend.cut(slot.index, length)
        del slot.cached[length:]

    def shift(self, slot: Slot, first: int, count: int) -> None:
        """Drop `count` tokens of a slot from `first` on; those behind move up."""
        self._backend.shift(slot.index, first, count)
        del slot.cached[first : first + count]

    def close(self) -> None:
        """Give up what is parked."""
        self._parking.close()

    def _park(self, slot: Slot, kept: int, owner: object | None) -> None:
        """Keep aside what a slot is about to lose of another conversation."""
        holder = slot.holder
        lost = len(slot.cached) - kept
        if slot.owner is None or holder is None or holder is owner:
            return
        if lost < LEAST_COPY or not self._parking.has_room(1):
            return
        try:
            data = self._backend.save(slot.index)
        except BackendError as err:
            _logger.warning("a conversation cannot be parked: %s", err)
            return
        self._parking.keep(Parked(slot.owner, tuple(slot.cached), data))

    def _unpark(self, slot: Slot, ids: Sequence[int], data: Blob) -> None:
        try:
            self._backend.restore(slot.index, [data])
        except BackendError as err:
            _logger.warning("a parked conversation is read anew: %s", err)
            slot.cached = []
        else:
            slot.cached = list(ids)

    def _note_use(self, slot: Slot, owner: object | None) -> None:
        self._uses += 1
        slot.last_used = self._uses
        slot.owner = None if owner is None else weakref.ref(owner)
