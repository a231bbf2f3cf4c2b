"""Work that other threads hand to the engine's thread, and wait for."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Generic, TypeVar

from wizard_edge.backend import Backend
from wizard_edge.slots import Slot

_Result = TypeVar("_Result")
_logger = logging.getLogger(__name__)

# Python hears a signal only between two waits.
LISTENS_EVERY_S = 0.2


class Reservation:
    """Somebody waits for an empty slot."""

    def __init__(self) -> None:
        self.granted = threading.Event()
        self.slot: Slot | None = None
        self.over = False

    def grant(self, slot: Slot) -> None:
        self.slot = slot
        self.granted.set()


class Chore:
    """Work in small steps for the time when nobody asks; for one thread alone."""

    def __init__(
        self,
        work: Callable[[Backend, Callable[[], bool]], Iterator[None]],
        after_s: float,
    ) -> None:
        """Nobody must have asked for `after_s` before it begins, or goes on."""
        self.after_s = after_s
        self._work = work
        self._steps: Iterator[None] | None = None

    def do(self, backend: Backend, wanted: Callable[[], bool]) -> bool:
        """Do the next step; False when there is none."""
        try:
            if self._steps is None:
                self._steps = self._work(backend, wanted)
            next(self._steps)
        except StopIteration:
            return False
        # Nobody waits for it, so it is nobody's error.
        except Exception:
            _logger.warning("what the engine did while idle failed", exc_info=True)
            return False
        return True

    def close(self) -> None:
        """Let it clean up where it is."""
        close: Callable[[], None] | None = getattr(self._steps, "close", None)
        if close is not None:
            close()


class Job(Generic[_Result]):
    """Work for the engine's thread, and the place where its result waits."""

    def __init__(self, work: Callable[[Backend, Callable[[], bool]], _Result]) -> None:
        self._work = work
        self._done = threading.Event()
        self._stopped = False
        self._outcome: _Outcome[_Result] | BaseException | None = None

    def do(self, backend: Backend) -> None:
        try:
            self._outcome = _Outcome(self._work(backend, lambda: self._stopped))
        # Carried to the thread that asked.
        except BaseException as err:  # noqa: BLE001
            self._outcome = err
        self._done.set()

    def fail(self, error: BaseException) -> None:
        self._outcome = error
        self._done.set()

    def wait(self) -> _Result:
        try:
            while not self._done.wait(LISTENS_EVERY_S):
                pass
        except BaseException:
            self._stopped = True
            _outlast(self._done)
            raise
        if isinstance(self._outcome, _Outcome):
            return self._outcome.value
        assert self._outcome is not None
        raise self._outcome


@dataclass(frozen=True, slots=True)
class _Outcome(Generic[_Result]):
    value: _Result


def _outlast(done: threading.Event) -> None:
    """Wait for work that was told to end, however often Ctrl-C is pressed."""
    while True:
        with suppress(KeyboardInterrupt):
            # Windows wakes no thread that waits without an end.
            while not done.wait(LISTENS_EVERY_S):
                pass
            return


def join(thread: threading.Thread) -> None:
    """Wait for a thread that was told to end, however often Ctrl-C is pressed."""
    while True:
        with suppress(KeyboardInterrupt):
            while thread.is_alive():
                thread.join(LISTENS_EVERY_S)
            return
