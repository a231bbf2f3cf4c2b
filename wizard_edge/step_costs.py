"""What a step of the engine takes by its rows, learnt from the steps themselves."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from statistics import median

# What another row costs where nothing was measured, in steps of one token. On 2 cores
# a batch of 4 takes 1.5 steps: docs/engine.md.
_ROW = 0.16
# So many of the last steps of a width are remembered: their median is its cost.
_REMEMBERED = 9


class StepCosts:
    """What a step costs by its rows, in units of a step of one row."""

    def __init__(self, measured: Mapping[int, float] | None = None) -> None:
        """`measured` is believed until steps of that many rows were seen."""
        self._measured = {1: 1.0, **(measured or {})}
        self._seconds: dict[int, deque[float]] = {}
        self._known: dict[int, float] = dict(self._measured)
        self.step_s = 0.0

    @property
    def begun(self) -> bool:
        """Whether anything is known yet of this machine."""
        return len(self._known) > 1 or len(self._seconds.get(1, ())) > 1

    def observe(self, rows: int, seconds: float) -> None:
        """Take note of a step that read no prompt."""
        self._seconds.setdefault(rows, deque(maxlen=_REMEMBERED)).append(seconds)
        if 1 not in self._seconds:
            return
        if rows == 1 or not self.step_s:
            self.step_s = median(self._seconds[1])
            changed: Iterable[int] = self._seconds
        else:
            changed = (rows,)
        for width in changed:
            if width != 1 and self.step_s:
                self._known[width] = median(self._seconds[width]) / self.step_s

    def of(self, rows: int) -> float:
        """Return what so many rows cost: known, or between their neighbours."""
        if rows in self._known:
            return self._known[rows]
        below = max(width for width in self._known if width < rows)
        wider = [width for width in self._known if width > rows]
        if not wider:
            # On a GPU a row costs next to nothing, and more of them as little.
            row = (self._known[below] - 1) / (below - 1) if below > 1 else _ROW
            return self._known[below] + (rows - below) * row
        above = min(wider)
        share = (rows - below) / (above - below)
        return self._known[below] + share * (self._known[above] - self._known[below])
