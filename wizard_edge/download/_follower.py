"""Takes the SHA-256 of a file while it is fetched, in one pass and in order.

Chunks that were just written are hashed from memory; those from far ahead or from an
earlier run are read again, and compared with their sums.
"""

from __future__ import annotations

import contextlib
import hashlib
import zlib
from collections.abc import Callable, Sequence
from threading import Condition, Thread
from time import monotonic

from wizard_edge.chunks import CHUNK_SIZE
from wizard_edge.download._partial import Partial, Stopped
from wizard_edge.errors import Corrupt, WizardEdgeError
from wizard_edge.names import Sha256
from wizard_edge.receipts import Piece

# What waits in memory to be hashed; beyond it the disk is read again.
_MAX_WAITING = (32 << 20) // CHUNK_SIZE

_SYNC_EVERY = 32 << 20
# How far ahead a chunk may be that is not noted: what a kill loses.
_NEAR = 1
# Bytes per second that only a local network or this machine brings.
_FAST = 200_000_000


class Follower:
    """Hashes chunk after chunk as they become whole, on a thread of its own.

    `position` is the bytes hashed. `lost` is called with the number of a chunk that
    the disk does not have as it was written.
    """

    def __init__(
        self,
        partial: Partial,
        pieces: Sequence[Piece],
        lost: Callable[[int], None],
        changed: Callable[[], None],
    ) -> None:
        self.position = 0
        self.error: Exception | None = None
        self.sha256: Sha256 | None = None
        self._partial = partial
        self._pieces = pieces
        self._lost = lost
        self._changed = changed
        self._whole = hashlib.sha256()
        self._number = 0
        self._synced = 0
        self._begun = monotonic()
        self._waiting: dict[int, Sequence[bytes]] = {}
        self._unnoted: dict[int, Sequence[bytes]] = {}
        self._more = Condition()
        self._stopped = False
        self._thread = Thread(target=self._run, name="hash", daemon=True)

    def start(self) -> None:
        self._begun = monotonic()
        self._thread.start()

    def offer(self, number: int, data: Sequence[bytes]) -> None:
        """Hand over a chunk that is whole and written."""
        with self._more:
            if number - self._number < _MAX_WAITING:
                self._waiting[number] = data
            self._more.notify_all()

    def take(self, number: int, data: Sequence[bytes]) -> bool:
        """Take a chunk that is written and not noted yet, to note it here.

        False where it is not next: then the caller does, lest a kill lose much. So the
        sums are taken by whichever thread has the time.
        """
        with self._more:
            is_near = not self._stopped and number - self._number <= _NEAR
            if is_near:
                self._unnoted[number] = data
                self._more.notify_all()
            return is_near

    def stop(self, timeout_s: float) -> None:
        """End as soon as the chunk in hand is done."""
        with self._more:
            self._stopped = True
            self._more.notify_all()
        if self._thread.ident is not None:
            self._thread.join(timeout_s)

    def _run(self) -> None:
        try:
            for index, piece in enumerate(self._pieces):
                self._follow(index, piece)
            self.sha256 = Sha256.parse(self._whole.hexdigest())
        except Stopped:
            self._note_rest()
        # A thread's border: whoever waits for the download raises it.
        except Exception as err:  # noqa: BLE001
            self.error = err
        self._changed()

    def _follow(self, index: int, piece: Piece) -> None:
        """Hash one piece. Raises: Corrupt where it is not what it should be."""
        grid = self._partial.grid
        # The hash of the only piece is that of the whole.
        own = hashlib.sha256() if len(self._pieces) > 1 else None
        for number in grid.numbers(index):
            for data in self._next(number):
                self._whole.update(data)
                if own is not None:
                    own.update(data)
            self.position = grid.span(number).end
            if self.position - self._synced >= _SYNC_EVERY:
                self._partial.begin_sync(self._synced, self.position - self._synced)
                # What was begun the last time is on the disk by now.
                if self._is_fast():
                    self._partial.uncache(self._synced)
                self._synced = self.position
        if own is not None and piece.sha256 not in (None, own.hexdigest()):
            raise WrongBytes(piece.path or self._partial.path.name)

    def _note_rest(self) -> None:
        """Note what was taken and not hashed any more, for the next run."""
        # What cannot be noted is fetched again.
        with contextlib.suppress(Stopped, WizardEdgeError, OSError):
            for number, data in self._unnoted.items():
                self._partial.record(number, sum_of(data))

    def _is_fast(self) -> bool:
        """Tell whether bytes come so fast that memory for them costs the most.

        A slower network leaves the model in memory for the first `run`; where bytes
        come this fast, the disk has them again as soon.
        """
        return self.position > _FAST * (monotonic() - self._begun)

    def _next(self, number: int) -> Sequence[bytes]:
        """Wait for a chunk and return its bytes."""
        while True:
            with self._more:
                self._number = number
                self._more.wait_for(
                    lambda: (
                        self._stopped
                        or number in self._unnoted
                        or number in self._partial.sums
                    )
                )
                if self._stopped:
                    raise Stopped
                waiting = self._waiting.pop(number, None)
                unnoted = self._unnoted.pop(number, None)
            if unnoted is not None:
                self._partial.record(number, sum_of(unnoted))
                return unnoted
            if waiting is not None:
                return waiting
            span = self._partial.grid.span(number)
            data = self._partial.read(span.offset, span.size)
            if zlib.crc32(data) == self._partial.sums.get(number):
                return [data]
            self._partial.forget(number)
            self._lost(number)


def sum_of(data: Sequence[bytes]) -> int:
    """Return the CRC-32 of a chunk."""
    crc = 0
    for piece in data:
        crc = zlib.crc32(piece, crc)
    return crc


class WrongBytes(Corrupt):
    """All bytes came, and they are not those that were described."""

    def __init__(self, name: str) -> None:
        super().__init__(
            name,
            "its bytes are not those that were described",
            hint="try again; if it stays, a proxy or mirror changes them",
        )
