"""How many threads compute now: as many as were chosen, fewer on a busy machine.

Every layer waits for its slowest thread, so a thread that shares its core holds up all
the others, and those spin meanwhile: two threads beside one busy program are slower
than one alone (docs/decisions/009). What other programs do is asked where the system
counts it; where the steps are slow without a reason to be seen, a thread less is tried.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from math import floor
from statistics import median

# How often the others are looked at, and how many looks in a row let a thread return:
# who comes and goes must not take the threads along each time.
_LOOKS_EVERY_S = 0.5
_QUIET_LOOKS = 2
# A core of which others take up to half is still worth a thread; one that was given
# up comes back when they take no more than a quarter.
_STAY, _RETURN = 0.5, 0.25
# Steps that are compared, against the fastest of those before.
_FEW, _MANY = 5, 64
_SLOW = 1.5
# What a thread less, or more, has to gain to be kept.
_GAIN = 0.9
# How soon a trial is repeated; each that fails doubles it.
_TRIAL_S, _LONGEST_S = 4.0, 120.0


def nobody_knows() -> None:
    """Return None: what others do on a system that does not count it."""


class Governor:
    """Says how many threads to use; is told how long each step took.

    For one thread alone, the engine's.
    """

    def __init__(
        self,
        most: int,
        *,
        processors: int,
        busy: Callable[[], float | None] = nobody_knows,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        """Never use more than `most` threads, on so many hardware threads.

        `busy` tells how many of these others keep busy, None where nobody knows.
        """
        self._processors = processors
        self._busy = busy
        self._clock = clock
        self._looked: float | None = None
        self._quiet = 0
        self.settle(most)

    @property
    def most(self) -> int:
        """The threads that were chosen."""
        return self._most

    @property
    def threads(self) -> int:
        """How many threads to compute with now."""
        return min(self._shared, self._trial.limit)

    def settle(self, most: int) -> None:
        """Choose another number of threads, and begin anew with all of them."""
        self._most = self._shared = most
        self._trial = _Trial(most)

    def look(self) -> None:
        """See what others do, at most twice a second. Cheap: call it at every step."""
        now = self._clock()
        if self._looked is not None and now - self._looked < _LOOKS_EVERY_S:
            return
        busy = self._busy()
        if busy is None:
            return
        self._looked = now
        free = self._processors - busy
        if free + _STAY < self._shared:
            self._shared = max(1, floor(free + _STAY))
            self._quiet = 0
            return
        room = min(self._most, floor(free + _RETURN))
        self._quiet = self._quiet + 1 if room > self._shared else 0
        if self._quiet >= _QUIET_LOOKS:
            self._shared = room
            self._quiet = 0

    def note(self, seconds: float) -> None:
        """Take note of how long a step of a single token took, with these threads."""
        self._trial.note(seconds, self.threads, self._clock())


class _Trial:
    """Compares steps with a thread less, and later one more, when they are slow."""

    def __init__(self, most: int) -> None:
        self.limit = most
        self._most = most
        self._threads = most
        self._steps: deque[float] = deque(maxlen=_MANY)
        # The limit and the pace before the trial that is running.
        self._before: tuple[int, float] | None = None
        self._not_before = 0.0
        self._pause = _TRIAL_S

    def note(self, seconds: float, threads: int, now: float) -> None:
        if threads != self._threads:
            # The first step with other threads brings them up: it says nothing.
            self._threads = threads
            self._steps.clear()
            if threads != self.limit:
                self._give_up()
            return
        self._steps.append(seconds)
        if len(self._steps) < _FEW:
            return
        pace = median(list(self._steps)[-_FEW:])
        if self._before is not None:
            self._judge(*self._before, pace, now)
        elif now >= self._not_before:
            self._begin(pace, now)

    def _begin(self, pace: float, now: float) -> None:
        if self._threads > 1 and pace > _SLOW * min(self._steps):
            self._before = (self.limit, pace)
            self.limit = self._threads - 1
        elif self._threads == self.limit < self._most:
            self._before = (self.limit, pace)
            self.limit += 1

    def _judge(self, limit: int, before: float, pace: float, now: float) -> None:
        self._before = None
        if pace < _GAIN * before:
            self._pause = _TRIAL_S
        else:
            self.limit = limit
            self._pause = min(2 * self._pause, _LONGEST_S)
        self._not_before = now + self._pause

    def _give_up(self) -> None:
        """End a trial that somebody else's work has made worthless."""
        if self._before is not None:
            self.limit = self._before[0]
            self._before = None
