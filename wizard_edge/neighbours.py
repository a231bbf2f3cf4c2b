"""How much of the machine other programs work on, from moment to moment.

A load average is a minute old when it is read. The kernel counts the time of every
processor, and of this process: what is left over is the others'. Linux only; elsewhere
nobody knows, and the pace of the steps alone has to tell.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Set
from pathlib import Path

from wizard_edge.hardware import ROOT

# The kernel counts in hundredths of a second: over less than this they are rough.
_LEAST_S = 0.3
# Columns of /proc/stat: user, nice, system, idle, iowait, irq, softirq, steal.
# Source: proc_stat(5). What is stolen by the host is worked by others, too.
_USER, _NICE, _SYSTEM, _IRQ, _SOFTIRQ, _STEAL = 0, 1, 2, 5, 6, 7
_WORK = (_USER, _SYSTEM, _IRQ, _SOFTIRQ, _STEAL)


class Neighbours:
    """Watches the processors that this process may use."""

    def __init__(
        self,
        *,
        root: Path = ROOT,
        allowed: Set[int] | None = None,
        niceness: int | None = None,
        ticks: int | None = None,
        own_s: Callable[[], float] = time.process_time,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        """Begin to count; the first answer is about the time from now on.

        `allowed` are the hardware threads of the affinity and `ticks` what the kernel
        counts in a second, None to ask the system.
        """
        self._root = root
        self._allowed = _affinity() if allowed is None else allowed
        self._ticks = _ticks() if ticks is None else ticks
        niceness = _niceness() if niceness is None else niceness
        # Whoever is nicer than we are waits for us: that is no neighbour in the way.
        self._columns = (*_WORK, _NICE) if niceness > 0 else _WORK
        self._own_s = own_s
        self._clock = clock
        self._busy: float | None = None
        self._mark = self._sample()

    @property
    def busy(self) -> float | None:
        """How many cores' worth of work others did lately, None where nobody knows."""
        now = self._clock()
        if self._mark is None or now - self._mark[0] < _LEAST_S:
            return self._busy
        before, self._mark = self._mark, self._sample()
        if self._mark is None:
            self._busy = None
        else:
            passed = self._mark[0] - before[0]
            self._busy = max(0.0, (self._mark[1] - before[1]) / passed)
        return self._busy

    def _sample(self) -> tuple[float, float] | None:
        """Return the time, and the seconds that others have worked up to now."""
        try:
            text = (self._root / "proc/stat").read_text(encoding="ascii")
        except (OSError, ValueError):
            return None
        worked = 0
        for line in text.splitlines():
            name, *columns = line.split()
            number = name.removeprefix("cpu")
            if number == name or not number.isdecimal():
                continue
            if int(number) in self._allowed and len(columns) > _STEAL:
                worked += sum(int(columns[index]) for index in self._columns)
        return self._clock(), worked / self._ticks - self._own_s()


def _affinity() -> Set[int]:
    return os.sched_getaffinity(0) if sys.platform == "linux" else frozenset()


def _ticks() -> int:
    return os.sysconf("SC_CLK_TCK") if sys.platform == "linux" else 100


def _niceness() -> int:
    return 0 if sys.platform == "win32" else os.nice(0)
