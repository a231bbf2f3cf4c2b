"""How many tokens are read in one step: as many as the time allows.

A step cannot be left before it ends, so its length is how long the answers beside a
long prompt stand still. Speeds differ a thousandfold between machines; this one's is
learnt from the steps themselves.
"""

from __future__ import annotations

from dataclasses import dataclass

# What a newer step counts for beside all before it.
_NEWEST = 0.3


@dataclass(frozen=True, slots=True)
class Step:
    """A batch that was evaluated: its rows, and how long it took.

    `depth` is how many tokens its longest sequence held before.
    """

    rows: int
    depth: int
    seconds: float


def unobserved(step: Step) -> None:
    """Take no note of a step."""


class Pace:
    """Learns the speed of reading, in tokens/s."""

    def __init__(self, rate: float | None = None) -> None:
        self._rate = rate

    @property
    def rate(self) -> float | None:
        """Tokens read per second, None before the first step."""
        return self._rate

    def observe(self, tokens: int, seconds: float) -> None:
        """Take note of a step that read `tokens`."""
        if seconds <= 0:
            return
        rate = tokens / seconds
        known = self._rate
        self._rate = rate if known is None else known + _NEWEST * (rate - known)

    def tokens_within(self, seconds: float, *, least: int, most: int) -> int:
        """Return how many tokens are read in that time, within bounds.

        Before the first step that is `most`.
        """
        if self._rate is None:
            return most
        return max(least, min(most, int(self._rate * seconds)))
