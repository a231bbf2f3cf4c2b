"""Walks through folders of strangers, and ends whatever lies in them."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from pathlib import Path

__all__ = ["Walk"]

# Of the largest caches that anybody has; a bound on time, not on models.
MAX_ENTRIES = 50_000

_logger = logging.getLogger(__name__)


class Walk:
    """One look through a store; no folder is entered through a link."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._left = MAX_ENTRIES

    def folders(self, folder: Path) -> list[Path]:
        """Return the folders in a folder, by name."""
        return [Path(item) for item in self._scan(folder) if _is_folder(item)]

    def files(self, folder: Path, *, depth: int) -> Iterator[Path]:
        """Yield what is no folder, down to `depth` folders below; links too."""
        for item in self._scan(folder):
            if not _is_folder(item):
                yield Path(item)
            elif depth > 0:
                yield from self.files(Path(item), depth=depth - 1)

    def _scan(self, folder: Path) -> list[os.DirEntry[str]]:
        entries: list[os.DirEntry[str]] = []
        try:
            with os.scandir(folder) as found:
                for item in found:
                    if self._left <= 0:
                        _logger.warning(
                            "more than %d files in %s", MAX_ENTRIES, self._root
                        )
                        break
                    self._left -= 1
                    entries.append(item)
        except OSError as err:
            # Most stores have no such folder, and some are not for us to read.
            _logger.debug("passed over %s: %s", folder, err.strerror)
        return sorted(entries, key=lambda item: item.name)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir(follow_symlinks=False)
    except OSError:
        return False
