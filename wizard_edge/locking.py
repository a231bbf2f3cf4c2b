"""One process at a time: a lock that dies with its owner and leaves no file behind.

The system's own lock on a file beside what is changed. It is unlinked while it is
held: whoever waits for it sees that and takes the lock of the new file (filelock
looks after that). Knows nothing of what is locked.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from wizard_edge.errors import Refused
from wizard_edge.files import translated

if TYPE_CHECKING:
    from filelock import BaseFileLock

__all__ = ["SUFFIX", "Busy", "exclusive", "is_held"]

SUFFIX = ".lock"
# How often a held lock is asked for; the system has no queue with a time limit.
_POLL_S = 0.1


class Busy(Refused):
    """Another process holds the lock."""

    def __init__(self, path: Path) -> None:
        super().__init__(
            f"another process holds {path}", hint="wait until it is done, then go on"
        )
        self.path = path


@contextlib.contextmanager
def exclusive(
    path: Path, *, waiting: Callable[[], None] | None = None
) -> Iterator[None]:
    """Keep every other process out while the block runs; `path` is the lock's file.

    `waiting` is called over and over while another process is in; None waits not.
    Raises: Busy; NotEnough, Refused where the file cannot be made.
    """
    # Imported here: planning and reading need no locks.
    from filelock import FileLock

    lock = FileLock(path)
    try:
        with translated(path):
            _acquire(lock, path, waiting)
        yield
    finally:
        _remove(lock, path)


def is_held(path: Path) -> bool:
    """Tell whether a living process holds the lock; leaves everything as it is.

    Raises: Refused where the file may not be opened.
    """
    # Imported here: planning and reading need no locks.
    from filelock import FileLock, Timeout

    lock = FileLock(path)
    try:
        with translated(path):
            if not path.exists():
                return False
            lock.acquire(timeout=0)
    except Timeout:
        return True
    lock.release()
    return False


def _acquire(
    lock: BaseFileLock, path: Path, waiting: Callable[[], None] | None
) -> None:
    from filelock import Timeout

    while True:
        try:
            lock.acquire(timeout=0 if waiting is None else _POLL_S)
        except Timeout as err:
            if waiting is None:
                raise Busy(path) from err
            waiting()
        else:
            return


def _remove(lock: BaseFileLock, path: Path) -> None:
    from filelock import Timeout

    # A signal may have ended us between making the file and locking it.
    if not lock.is_locked:
        try:
            lock.acquire(timeout=0)
        except (Timeout, OSError):
            return
    with contextlib.suppress(OSError):
        path.unlink()
    lock.release()
