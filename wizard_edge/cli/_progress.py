"""How progress looks: a bar on a terminal, a line per tenth elsewhere, or JSON.

Each form is a callable that takes the events of one piece of work in turn and is
closed when the work is over. rich is imported when a bar is first drawn.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable
from time import monotonic
from typing import TYPE_CHECKING, Protocol, TextIO

from wizard_edge.progress import ProgressEvent
from wizard_edge.units import format_bytes, format_seconds

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

# Work that is over sooner shows no bar and costs no import of rich.
_BAR_AFTER_S = 0.4
# Lines stay, so only work that keeps somebody waiting writes any.
_LINES_AFTER_S = 2.0
# A speed is that of the last seconds, and is told when so many have passed.
_SPEED_OVER_S = 10.0
_SPEED_AFTER_S = 1.0
# Where the total is not known there are no steps to count; seconds take their place.
_UNKNOWN_EVERY_S = 5.0


class Display(Protocol):
    """Shows the events of one piece of work."""

    def __call__(self, event: ProgressEvent) -> None: ...
    def close(self) -> None: ...


class Speed:
    """How fast work goes, over the last seconds, and how long the rest will take."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, int]] = deque()

    def add(self, now: float, done: int) -> None:
        """Note how much is done at a time in s."""
        self._seen.append((now, done))
        while len(self._seen) > 2 and now - self._seen[1][0] >= _SPEED_OVER_S:
            self._seen.popleft()

    @property
    def rate(self) -> float | None:
        """Units per second, None as long as too little was seen."""
        (first, before), (now, done) = self._seen[0], self._seen[-1]
        if now - first < _SPEED_AFTER_S or done <= before:
            return None
        return (done - before) / (now - first)

    def told(self, event: ProgressEvent) -> tuple[str, ...]:
        """Write speed and remaining time, nothing where nobody can know."""
        rate = self.rate
        if rate is None:
            return ()
        speed = f"{format_bytes(round(rate))}/s" if event.unit == "bytes" else ""
        left = (event.total - event.done) / rate
        rest = f"{format_seconds(left)} left" if left > 0 else ""
        return tuple(filter(None, (speed, rest)))


class Lines:
    """A line whenever a stage of long work begins, reaches a tenth, or ends."""

    parts = 10
    after_s = _LINES_AFTER_S

    def __init__(
        self, write: Callable[[str], None], clock: Callable[[], float] = monotonic
    ) -> None:
        self._write = write
        self._clock = clock
        self._began_at: float | None = None
        self._stage: str | None = None
        self._part = -1
        self._wrote_at = 0.0
        self._speed = Speed()

    def __call__(self, event: ProgressEvent) -> None:
        now = self._clock()
        if self._began_at is None:
            self._began_at = now
        if event.stage != self._stage:
            self._stage, self._part, self._wrote_at = event.stage, -1, float("-inf")
            self._speed = Speed()
        self._speed.add(now, event.done)
        if now - self._began_at < self.after_s:
            return
        if self._is_due(event, now):
            self._wrote_at = now
            self._write(self.line(event))

    def close(self) -> None:
        """Do nothing: lines stay."""

    def line(self, event: ProgressEvent) -> str:
        if not event.total:
            return f"{event.stage}: {_amount(event.done, event.unit)}"
        percent = 100 * event.done // event.total
        share = f"{event.stage}: {percent}% of {_amount(event.total, event.unit)}"
        return ", ".join((share, *self._speed.told(event)))

    def _is_due(self, event: ProgressEvent, now: float) -> bool:
        if not event.total:
            return now - self._wrote_at >= _UNKNOWN_EVERY_S
        part = self.parts * event.done // event.total
        if part == self._part:
            return False
        self._part = part
        return True


class JsonLines(Lines):
    """The event as a JSON object, a hundred of them per stage at most."""

    parts = 100
    after_s = 0.0

    def line(self, event: ProgressEvent) -> str:
        return json.dumps(
            {
                "stage": event.stage,
                "done": event.done,
                "total": event.total,
                "unit": event.unit,
            }
        )


class Bar:
    """A bar on a terminal, which leaves no trace when the work is over."""

    def __init__(self, stream: TextIO, clock: Callable[[], float] = monotonic) -> None:
        self._stream = stream
        self._clock = clock
        self._began_at: float | None = None
        self._bar: Progress | None = None
        self._stage: str | None = None
        self._task: TaskID | None = None
        self._speed = Speed()

    def __call__(self, event: ProgressEvent) -> None:
        now = self._clock()
        if self._began_at is None:
            self._began_at = now
        if event.stage != self._stage:
            self._speed = Speed()
        self._speed.add(now, event.done)
        if self._bar is None:
            if now - self._began_at < _BAR_AFTER_S:
                return
            self._bar = _start_bar(self._stream)
        if event.stage != self._stage:
            if self._task is not None:
                self._bar.remove_task(self._task)
            self._stage, self._task = (
                event.stage,
                # What was there before this run says nothing of its speed.
                self._bar.add_task(event.stage, completed=event.done, amount=""),
            )
        assert self._task is not None
        self._bar.update(
            self._task,
            completed=event.done,
            total=event.total or None,
            amount=", ".join(
                (_amount(event.done, event.unit), *self._speed.told(event))
            ),
        )

    def close(self) -> None:
        """Take the bar off the screen; another event draws it anew."""
        if self._bar is not None:
            self._bar.stop()
        self._bar = self._stage = self._task = None


def _start_bar(stream: TextIO) -> Progress:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn

    bar = Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=None),
        TextColumn("{task.percentage:>3.0f}%"),
        TextColumn("{task.fields[amount]}", markup=False),
        console=Console(file=stream),
        transient=True,
        redirect_stdout=False,
        redirect_stderr=False,
    )
    bar.start()
    return bar


def _amount(count: int, unit: str) -> str:
    return format_bytes(count) if unit == "bytes" else f"{count} {unit}"
