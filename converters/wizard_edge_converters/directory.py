"""A directory of this machine as the place of a checkpoint."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from wizard_edge.errors import MissingFile, UsageError
from wizard_edge.names import RelPath
from wizard_edge.paths import place
from wizard_edge_converters.source_files import ByteSource, SourceFile, read_small
from wizard_edge_converters.weights import MAX_SIDE_FILE, FileCheckpoint, open_weights


class Directory:
    """The files of a directory.

    Raises: MissingFile; UsageError for what is no directory.
    """

    is_remote = False

    def __init__(self, path: Path) -> None:
        if not path.exists():
            raise MissingFile(path)
        if not path.is_dir():
            raise UsageError(
                f"not a directory: {path}",
                hint="name the directory that holds config.json and the weights",
            )
        self.path = path
        self.name = str(path)

    def names(self) -> Collection[str]:
        return [entry.name for entry in self.path.iterdir()]

    def label(self, name: str) -> str:
        return str(self._place(name))

    def small(self, name: str) -> bytes | None:
        return read_small(self._place(name), limit=MAX_SIDE_FILE)

    def open(self, name: str) -> ByteSource:
        path = self._place(name)
        if not path.exists():
            raise MissingFile(path, hint="the checkpoint is not complete")
        return SourceFile(path)

    def lacks(self, name: str) -> bool:
        return False

    def _place(self, name: str) -> Path:
        return place(self.path, RelPath.parse(name))


def open_checkpoint(path: Path) -> FileCheckpoint:
    """Open a checkpoint directory and read what tensors its weight files hold.

    Raises: as `Directory` and `open_weights`.
    """
    return open_weights(Directory(path))
