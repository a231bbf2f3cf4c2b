"""Whether a machine still computes as fast as it did when it was measured.

A session is compared as a whole. One that is off says little, several in a row that
the measurement is of another machine: a new cooler, a new kernel, another host.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import median

from wizard_edge.pace import Step

# A session whose tokens took so much more or less than measured is off; so many of
# them in a row, and it is measured anew.
_DRIFT = 1.3
_SESSIONS = 3
_LEAST_STEPS, _MOST_STEPS = 48, 512


class Watch:
    """Compares what tokens take with what was measured, over one session."""

    def __init__(self, expected: Callable[[int], float | None]) -> None:
        """`expected` gives the seconds of a token by depth, None for unknown."""
        self._expected = expected
        self._ratios: list[float] = []

    def note(self, step: Step) -> None:
        """Take note of a step with the threads that were measured."""
        if step.rows != 1 or len(self._ratios) >= _MOST_STEPS:
            return
        expected = self._expected(step.depth)
        if expected:
            self._ratios.append(step.seconds / expected)

    @property
    def ratio(self) -> float | None:
        """How much longer than measured a token took; None for too few of them."""
        if len(self._ratios) < _LEAST_STEPS:
            return None
        return median(self._ratios)


def is_off(ratio: float) -> bool:
    """Tell whether a session was so much slower or faster than measured."""
    return not 1 / _DRIFT <= ratio <= _DRIFT


def has_drifted(off: Sequence[float]) -> bool:
    """Tell whether the last sessions, all of them off, call for a new measurement."""
    return len(off) >= _SESSIONS
