"""Cuts a file of the store into files elsewhere, and hashes every byte of it.

Knows no model and no folder: where a section goes is said by the caller, who also
says whether what was read is what it should be.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from wizard_edge.errors import Corrupt, UsageError
from wizard_edge.files import open_regular, translated
from wizard_edge.names import RelPath, Sha256
from wizard_edge.part_files import raise_full
from wizard_edge.receipts import StoredFile

__all__ = ["DamagedSource", "Section", "Source", "plan_sections"]

# The largest file of FAT32 has a byte less than 4 GiB.
# Source: Microsoft FAT specification 1.03, DIR_FileSize is 32 bits wide.
FAT32_LIMIT = (1 << 32) - 1

_BLOCK = 4 << 20
# Three digits in the name of a piece.
_MAX_PIECES = 999


class DamagedSource(Corrupt):
    """The model that is handed out is not what its receipt says."""


@dataclass(frozen=True, slots=True)
class Section:
    """Bytes of a stored file that become one file; in bytes."""

    name: RelPath
    offset: int
    size: int


def plan_sections(file: StoredFile, split: int | None) -> list[Section]:
    """Say which files of `split` bytes at most a stored file becomes.

    Exactly 4 GiB are taken for the limit of FAT32, a byte less.
    Raises: UsageError for a size that makes more than 999 pieces.
    """
    if split == FAT32_LIMIT + 1:
        split = FAT32_LIMIT
    if split is None or file.size <= split:
        return [Section(file.name, 0, file.size)]
    count = -(-file.size // split)
    if count > _MAX_PIECES:
        raise UsageError(
            f"{count} pieces of {file.name}, at most {_MAX_PIECES}",
            hint=f"--split {-(-file.size // _MAX_PIECES)} makes as many",
        )
    return [
        Section(
            RelPath.parse(f"{file.name}.part{number + 1}of{count}"),
            number * split,
            min(split, file.size - number * split),
        )
        for number in range(count)
    ]


class Source:
    """An open file of the store; its sections must be read one after the other."""

    __slots__ = ("_advance", "_descriptor", "_path", "_size", "_whole")

    def __init__(self, path: Path, size: int, advance: Callable[[int], None]) -> None:
        """Open it; `advance` is told the bytes. Raises: as `open_regular`."""
        self._path = path
        self._size = size
        self._advance = advance
        self._whole = hashlib.sha256()
        self._descriptor = open_regular(path)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._descriptor)

    @property
    def sha256(self) -> Sha256:
        """The hash of the sections so far."""
        return Sha256.parse(self._whole.hexdigest())

    def matches(self, section: Section, path: Path) -> Sha256 | None:
        """Return the hash of a section if a file has its very bytes, else None.

        Only where it has, the section counts as read.
        Raises: DamagedSource; UsageError, Refused for what cannot be opened.
        """
        before, read = self._whole.copy(), 0
        digest = self._hash_of(section)
        with os.fdopen(open_regular(path), "rb") as there:
            for data in self._blocks(section):
                read += len(data)
                if digest is not self._whole:
                    digest.update(data)
                if there.read(len(data)) != data:
                    break
            else:
                if not there.read(1):
                    return Sha256.parse(digest.hexdigest())
        self._whole = before
        self._advance(-read)
        return None

    def copy(self, section: Section, path: Path) -> Sha256:
        """Write a section to a new file and have it on the disk; return its hash.

        Raises: DamagedSource; NotEnough, Refused where the file cannot be written.
        """
        digest = self._hash_of(section)
        # Never through a link that somebody left under this name.
        with translated(path, section.size), path.open("xb") as output:
            for data in self._blocks(section):
                if digest is not self._whole:
                    digest.update(data)
                try:
                    output.write(data)
                except OSError as err:
                    hint = "--split 4G cuts the model for FAT32"
                    raise_full(path, section.size, err, too_large=hint)
            output.flush()
            os.fsync(output.fileno())
        return Sha256.parse(digest.hexdigest())

    def _hash_of(self, section: Section) -> hashlib._Hash:
        """Return what sums up a section; hashing the whole file twice takes long."""
        return self._whole if section.size == self._size else hashlib.sha256()

    def _blocks(self, section: Section) -> Iterator[bytes]:
        left = section.size
        os.lseek(self._descriptor, section.offset, os.SEEK_SET)
        while left:
            try:
                data = os.read(self._descriptor, min(_BLOCK, left))
            except OSError as err:
                problem = f"cannot be read: {err.strerror}"
                raise DamagedSource(self._path, problem) from err
            if not data:
                raise DamagedSource(self._path, f"has not its {self._size} bytes")
            left -= len(data)
            self._whole.update(data)
            self._advance(len(data))
            yield data
