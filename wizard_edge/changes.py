"""Puts files in their places: all of them, or everything is as it was.

What takes room is written first, under names that nobody looks for. After that there
are only renames, in the order they are asked for; when one fails, those before it are
taken back. Nothing that was whole is deleted before all is done: a kill leaves it
under a name of `temp_beside`. Knows no model and no receipt.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from pathlib import Path

from wizard_edge.files import entries, is_temp, sync_folder, temp_beside, translated

__all__ = ["Changes", "own_temps"]


class Changes:
    """Changes of one folder, which is made; then either `undo` or `finish`."""

    __slots__ = ("_aside", "_folder", "_is_new", "_kept", "_renames", "_written")

    def __init__(self, folder: Path) -> None:
        """Begin; makes nothing yet."""
        self._folder = folder
        self._is_new = False
        self._renames: list[tuple[Path, Path]] = []
        # By the place they are for, or had: other names of files.
        self._written: dict[Path, Path] = {}
        self._aside: dict[Path, Path] = {}
        self._kept: dict[Path, Path] = {}

    def write(self, path: Path, content: bytes) -> None:
        """Have bytes on the disk that `put` gives their name.

        Raises: NotEnough on a full disk, Refused where writing is not allowed.
        """
        with translated(path, len(content)):
            if not self._folder.exists():
                self._is_new = True
                self._folder.mkdir(parents=True, exist_ok=True)
            temp = self._written[path] = temp_beside(path)
            with temp.open("xb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())

    def set_aside(self, path: Path) -> None:
        """Take a name from whatever has it, if anything has. Raises: Refused."""
        if os.path.lexists(path):
            aside = self._aside[path] = temp_beside(path)
            self.move(path, aside)

    def put(self, path: Path) -> None:
        """Give what was written its name, over what has it. Raises: Refused."""
        if os.path.lexists(path) and not path.is_symlink():
            # Its second name brings it back. Where there is no such thing, as on
            # FAT, the new file stays whatever happens after.
            kept = self._kept[path] = temp_beside(path)
            with contextlib.suppress(OSError):
                os.link(path, kept)
        self.move(self._written[path], path)

    def move(self, source: Path, target: Path) -> None:
        """Rename a file whose bytes are on the disk. Raises: NotEnough, Refused."""
        # Noted before: an interrupt may come between the two.
        self._renames.append((source, target))
        with translated(target):
            source.replace(target)
            sync_folder(target.parent)

    def undo(self) -> None:
        """Give everything its old name again, the last first; delete what was written.

        It ends where that fails: what was renamed before may only come back after.
        """
        try:
            for source, target in reversed(self._renames):
                self._rename_back(source, target)
        except OSError:
            return
        _unlink(self._written.values())
        _unlink(self._kept.values())
        if self._is_new:
            with contextlib.suppress(OSError):
                self._folder.rmdir()

    def _rename_back(self, source: Path, target: Path) -> None:
        if os.path.lexists(source) or not os.path.lexists(target):
            return
        kept = self._kept.get(target)
        if kept is None:
            target.replace(source)
        elif kept.exists():
            kept.replace(target)

    def finish(self, paths: Iterable[Path]) -> None:
        """Delete what was replaced, and what killed changes of `paths` left."""
        _unlink(self._aside.values())
        _unlink(self._kept.values())
        _unlink(own_temps(self._folder, paths))


def own_temps(folder: Path, paths: Iterable[Path]) -> list[Path]:
    """Return the files that changes of `paths` made and did not come to give back."""
    names = {path.name for path in paths}
    return [
        path
        for path in entries(folder)
        if is_temp(path) and path.name.rsplit(".", 2)[0] in names
    ]


def _unlink(paths: Iterable[Path]) -> None:
    for path in paths:
        with contextlib.suppress(OSError):
            path.unlink()
