"""Parked conversations for which there was no RAM: files for this process alone.

They lie in a private folder with a lock of its own, made when the first one comes and
removed with the engine. A folder whose lock nobody holds is what a crash left: `prune`
removes it. Their check is that of every saved state; nothing of them has to survive.
"""

from __future__ import annotations

import contextlib
import logging
import os
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from wizard_edge import private
from wizard_edge.engine import Blob, KvPart
from wizard_edge.errors import WizardEdgeError
from wizard_edge.files import entries
from wizard_edge.locking import SUFFIX as LOCK_SUFFIX
from wizard_edge.locking import exclusive
from wizard_edge.state_files import SUFFIX, StateFiles

PREFIX = "parked-"
LOCK = "parked" + LOCK_SUFFIX

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, eq=False)
class OnDisk:
    """Where the KV cache of `ids` lies, of a conversation that may be gone."""

    owner: weakref.ref[object]
    ids: tuple[int, ...]
    files: StateFiles


class ParkingDisk:
    """Holds at most `budget` bytes in a folder inside `parent`."""

    def __init__(self, parent: Path, budget: int, *, kind: str) -> None:
        """`kind` is what states have in common that fit each other; nothing is made."""
        self.folder = parent / f"{PREFIX}{os.urandom(8).hex()}"
        self._budget = budget
        self._kind = kind
        self._held = contextlib.ExitStack()
        self._made = False
        self._count = 0
        self._warned = False
        # The longest unused first.
        self._parked: list[OnDisk] = []

    @property
    def parked(self) -> Sequence[OnDisk]:
        return self._parked

    @property
    def size(self) -> int:
        """The bytes that are held."""
        return sum(parked.files.size for parked in self._parked)

    def has_room(self, size: int) -> bool:
        """Tell whether something of that many bytes could be kept at all."""
        return size <= self._budget

    def keep(self, owner: weakref.ref[object], ids: Sequence[int], data: Blob) -> None:
        """Write it down; give up others for it. A disk that is full keeps nothing."""
        if not self.has_room(len(data)):
            return
        while self._parked and self.size + len(data) > self._budget:
            self.forget(self._parked[0])
        try:
            self._make()
            self._count += 1
            files = StateFiles(
                self.folder / f"{self._count:06}",
                model=PREFIX,
                kind=self._kind,
                durable=False,
            )
            files.append(ids, KvPart(0, len(ids), data))
        except (WizardEdgeError, OSError) as err:
            if not self._warned:
                _logger.warning("a conversation cannot be parked on the disk: %s", err)
            self._warned = True
            return
        self._parked.append(OnDisk(owner, tuple(ids), files))

    def read(self, parked: OnDisk) -> Blob | None:
        """Return the bytes, mapped and checked; None, and gone, where they are not."""
        parts = parked.files.parts(parked.ids)
        if parts:
            return parts[0].data
        self.forget(parked)
        return None

    def forget(self, parked: OnDisk) -> None:
        """Delete the files of one."""
        if parked in self._parked:
            self._parked.remove(parked)
        with contextlib.suppress(WizardEdgeError, OSError):
            parked.files.clear()
            parked.files.folder.rmdir()

    def forget_gone(self) -> None:
        """Delete the files of those whose conversation is gone."""
        for parked in list(self._parked):
            if parked.owner() is None:
                self.forget(parked)

    def close(self) -> None:
        """Remove the folder. A second call does nothing."""
        for parked in list(self._parked):
            self.forget(parked)
        self._held.close()
        if self._made:
            self._made = False
            with contextlib.suppress(OSError):
                self.folder.rmdir()

    def _make(self) -> None:
        if not self._made:
            private.make_folder(self.folder)
            self._held.enter_context(exclusive(self.folder / LOCK))
            self._made = True


def find_parked(parent: Path) -> list[Path]:
    """Return the folders of parked conversations inside `parent`, used or left over."""
    return [
        path
        for path in entries(parent)
        if path.name.startswith(PREFIX) and path.is_dir() and not path.is_symlink()
    ]


def files_of(folder: Path) -> list[Path]:
    """Return what lies in such a folder, to be deleted in this order: all but the lock.

    Nothing of anybody else's.
    """
    found: list[Path] = []
    for place in entries(folder):
        if place.is_dir() and not place.is_symlink() and place.name.isdecimal():
            found += [path for path in entries(place) if SUFFIX in path.suffixes]
            found.append(place)
    return found
