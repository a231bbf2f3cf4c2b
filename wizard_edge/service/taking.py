"""Brings the bytes of a model to a place in the store, and hashes all of them.

A copy may go on where an earlier one was interrupted: what is kept of that is read
and hashed again, and believed as far as the hashes say. A link is hashed as well.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import BinaryIO

from wizard_edge.errors import Corrupt, MissingFile, Refused, UsageError
from wizard_edge.files import open_regular
from wizard_edge.names import Sha256
from wizard_edge.service.candidates import GivenFile
from wizard_edge.store import Slot
from wizard_edge.sums import Sums

__all__ = ["How", "Taken", "hash_given", "take"]

Advance = Callable[[int], None]

_BLOCK = 4 << 20


class How(StrEnum):
    """How a file comes into the store; `LINK` is a hard link, else a symbolic one."""

    COPY = "copy"
    LINK = "link"
    HARDLINK = "hardlink"
    SYMLINK = "symlink"


@dataclass(frozen=True, slots=True)
class Taken:
    """A filled slot: the hash of the file, and of each of the files that made it."""

    slot: Slot
    size: int
    sha256: Sha256
    pieces: tuple[Sha256, ...]


def take(given: GivenFile, slot: Slot, how: How, advance: Advance) -> Taken:
    """Fill a slot; `advance` is told the bytes. What is in the slot is gone on from.

    Raises: Corrupt naming the file whose hash is another than what is said of it, or
    that changes; UsageError for pieces that should be linked; Refused where the file
    system has no such link; MissingFile; OSError as it comes from writing.
    """
    if how is How.COPY:
        with slot.temp.open("r+b" if slot.temp.exists() else "x+b") as output:
            sums, pieces = _copy(given, output, output.seek(0, os.SEEK_END), advance)
            output.truncate(sums.size)
    else:
        _link(given.paths, slot.temp, how)
        sums, pieces = _hash(given, [slot.temp], advance)
    if given.sha256 not in (None, sums.sha256):
        raise _wrong(given.paths[0], sums.sha256, given.sha256)
    chunks = replace(slot, chunks=sums.chunks())
    return Taken(chunks, sums.size, sums.sha256, tuple(pieces))


def hash_given(given: GivenFile, advance: Advance) -> Sha256:
    """Return the hash of a file that is only looked at. Raises: as `take`."""
    return _hash(given, given.paths, advance)[0].sha256


def _copy(
    given: GivenFile, output: BinaryIO, kept: int, advance: Advance
) -> tuple[Sums, list[Sha256]]:
    """Put files end to end; `kept` bytes are in `output` already."""
    sums = Sums(given.grid)
    pieces: list[Sha256] = []
    for path, size, said in zip(given.paths, given.sizes, given.hashes, strict=True):
        before = sums.copy()
        there = min(max(kept - before.size, 0), size)
        piece = _piece_hash(given)
        _copy_piece(path, size, there, output, _Both(sums, piece, advance))
        found = _digest(piece, sums)
        if there and said not in (None, found):
            # Something happened to what was kept: the source is asked again.
            advance(-size)
            sums, kept, piece = before.copy(), 0, _piece_hash(given)
            _copy_piece(path, size, 0, output, _Both(sums, piece, advance))
            found = _digest(piece, sums)
        if said not in (None, found):
            output.truncate(before.size)
            raise _wrong(path, found, said)
        pieces.append(found)
    if kept and given.sha256 not in (None, sums.sha256):
        advance(-sums.size)
        return _copy(given, output, 0, advance)
    return sums, pieces


def _copy_piece(
    path: Path, size: int, there: int, output: BinaryIO, both: _Both
) -> None:
    """Add a file to the end of the sums, `there` bytes of it from the output itself."""
    start = both.sums.size
    output.seek(start)
    while both.sums.size < start + there:
        data = output.read(min(_BLOCK, start + there - both.sums.size))
        if not data:
            break
        both.add(data)
    output.seek(both.sums.size)
    for data in _blocks(path, both.sums.size - start, size):
        output.write(data)
        both.add(data)


def _hash(
    given: GivenFile, paths: Sequence[Path], advance: Advance
) -> tuple[Sums, list[Sha256]]:
    sums = Sums(given.grid)
    pieces = []
    for path, size in zip(paths, given.sizes, strict=True):
        piece = _piece_hash(given)
        both = _Both(sums, piece, advance)
        for data in _blocks(path, 0, size):
            both.add(data)
        pieces.append(_digest(piece, sums))
    return sums, pieces


def _blocks(path: Path, start: int, size: int) -> Iterator[bytes]:
    """Read a file of `size` bytes from `start` to its end. Raises: Corrupt."""
    descriptor = open_regular(path)
    try:
        before = os.fstat(descriptor)
        os.lseek(descriptor, start, os.SEEK_SET)
        while data := _read(path, descriptor):
            start += len(data)
            if start > size:
                raise _changed(path)
            yield data
        # It may be somebody else's, who writes it just now.
        if start != size or os.fstat(descriptor).st_mtime_ns != before.st_mtime_ns:
            raise _changed(path)
    finally:
        os.close(descriptor)


def _link(paths: Sequence[Path], temp: Path, how: How) -> None:
    if len(paths) != 1:
        raise UsageError(
            f"{len(paths)} pieces are joined: they can only be copied",
            hint="--how copy",
        )
    try:
        # A link to a link breaks when the link in the middle goes.
        real = paths[0].resolve(strict=True)
    except (OSError, RuntimeError) as err:
        raise MissingFile(paths[0]) from err
    os.close(open_regular(real))
    if how is not How.SYMLINK:
        try:
            os.link(real, temp)
        except OSError as err:
            if how is How.HARDLINK:
                raise _no_link(real, temp, err, "hard link", "symlink") from err
        else:
            return
    try:
        temp.symlink_to(real)
    except OSError as err:
        raise _no_link(real, temp, err, "link", "copy") from err


@dataclass(frozen=True, slots=True)
class _Both:
    """The sums of the whole, and the hash of a piece where there are several."""

    sums: Sums
    piece: hashlib._Hash | None
    advance: Advance

    def add(self, data: bytes) -> None:
        self.sums.update(data)
        if self.piece is not None:
            self.piece.update(data)
        self.advance(len(data))


def _piece_hash(given: GivenFile) -> hashlib._Hash | None:
    # The hash of the only piece is that of the whole.
    return hashlib.sha256() if len(given.paths) > 1 else None


def _digest(piece: hashlib._Hash | None, sums: Sums) -> Sha256:
    return sums.sha256 if piece is None else Sha256.parse(piece.hexdigest())


def _read(path: Path, descriptor: int) -> bytes:
    try:
        return os.read(descriptor, _BLOCK)
    except OSError as err:
        raise Corrupt(path, f"cannot be read: {err.strerror}") from err


def _no_link(path: Path, temp: Path, err: OSError, kind: str, other: str) -> Refused:
    return Refused(
        f"cannot make a {kind} to {path} in {temp.parent}: {err.strerror}",
        hint=f"--how {other}",
    )


def _changed(path: Path) -> Corrupt:
    return Corrupt(path, "changed while it was read")


def _wrong(path: Path, found: Sha256, said: Sha256 | None) -> Corrupt:
    return Corrupt(
        path,
        f"its SHA-256 is {found} instead of {said}",
        hint="bring it again from where it came",
    )
