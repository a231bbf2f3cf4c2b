"""So many bytes a second and no more, for all connections together."""

from __future__ import annotations

from collections.abc import Callable
from threading import Lock
from time import monotonic

# A line that slept may catch up for so long.
_BURST_S = 0.1
_PIECES_A_SECOND = 20


class Rate:
    """Makes whoever took bytes wait until they are paid for; for several threads."""

    def __init__(
        self,
        limit: int | None,
        wait: Callable[[float], object],
        clock: Callable[[], float] = monotonic,
    ) -> None:
        """`limit` is in bytes per second, `wait` sleeps so many seconds."""
        self._limit = limit
        self._wait = wait
        self._clock = clock
        self._paid_until = clock()
        self._lock = Lock()

    @property
    def is_limited(self) -> bool:
        """Return whether there is a limit."""
        return self._limit is not None

    def piece(self, size: int) -> int:
        """Return how many bytes to ask for at once instead of `size`."""
        if self._limit is None:
            return size
        return max(1024, min(size, self._limit // _PIECES_A_SECOND))

    def took(self, size: int) -> None:
        """Wait for as long as these bytes should have taken."""
        if self._limit is None:
            return
        with self._lock:
            now = self._clock()
            start = max(self._paid_until, now - _BURST_S)
            self._paid_until = start + size / self._limit
            wait_s = self._paid_until - now
        if wait_s > 0:
            self._wait(wait_s)
