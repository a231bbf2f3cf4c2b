"""What there is of a file so far: the part file, and which of its chunks are whole.

The journal: a line of JSON (schema, key, sizes of the pieces), then 12 bytes for each
chunk that became whole, in that order: its number, its CRC-32 and the CRC-32 of these
eight bytes, u32 little endian. The first record that does not fit ends belief. It
outlives a kill; after a power cut it may promise bytes that the disk does not have,
so whoever relies on a chunk compares it with its sum.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from threading import Lock

from wizard_edge.chunks import CHUNK_SIZE, Grid
from wizard_edge.files import translated
from wizard_edge.names import RelPath
from wizard_edge.part_files import (
    PART_SUFFIX,
    PartFile,
    allocated,
    check_space,
    raise_full,
)
from wizard_edge.paths import place

JOURNAL_SUFFIX = ".journal"
SCHEMA = 1

_RECORD = struct.Struct("<III")
_MAX_HEAD = 64 << 10


class Stopped(Exception):
    """The download ends: nothing is written any more."""


class Partial:
    """The part file of one download and its journal; for several threads at once.

    `sums` has the CRC-32 of each chunk that is whole. `is_new` is set when it was
    opened and no earlier run had left a chunk.
    """

    def __init__(self, folder: Path, key: str, grid: Grid) -> None:
        """Name the files; `open` makes them."""
        self.grid = grid
        self.path, self.journal = part_paths(folder, key)
        self.sums: dict[int, int] = {}
        self.is_new = False
        self._head = _head(key, grid)
        self._part: PartFile | None = None
        self._records = -1
        self._lock = Lock()

    @contextlib.contextmanager
    def open(self) -> Iterator[None]:
        """Take up what is there; after the block nothing can be written.

        Raises: NotEnough before anything is written; Refused.
        """
        missing = self.grid.size - allocated(self.path)
        check_space(self.path.parent, missing, hint="--home DIR moves the store")
        try:
            with translated(self.path, missing):
                self._open()
            yield
        except OSError as err:
            raise_full(self.path, missing, err)
        finally:
            self.close()

    def write(self, offset: int, data: bytes) -> None:
        """Write bytes at their place. Raises: NotEnough, Corrupt, Stopped."""
        with self._lock:
            self._opened().write(offset, data)

    def read(self, offset: int, size: int) -> bytes:
        """Return bytes of chunks that are whole. Raises: Corrupt, Stopped."""
        # Not under the lock: it may take long, and close() waits for its threads.
        return self._opened().read(offset, size)

    def begin_sync(self, offset: int, size: int) -> None:
        """Have the system begin to write bytes to the disk. Raises: Stopped."""
        with self._lock:
            self._opened().begin_sync(offset, size)

    def uncache(self, end: int) -> None:
        """Keep the first bytes in memory no longer. Raises: Stopped."""
        with self._lock:
            self._opened().uncache(end)

    def record(self, number: int, crc: int) -> None:
        """Note that a chunk is whole. Raises: NotEnough, Stopped."""
        head = struct.pack("<II", number, crc)
        with self._lock:
            self._opened()
            try:
                self._append(head + struct.pack("<I", zlib.crc32(head)))
            except OSError as err:
                raise_full(self.journal, _RECORD.size, err)
            self.sums[number] = crc

    def _append(self, record: bytes) -> None:
        """Write a record, or nothing: behind half of one no other is believed."""
        end = os.fstat(self._records).st_size
        if os.write(self._records, record) != len(record):
            os.ftruncate(self._records, end)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def forget(self, number: int) -> None:
        """Take a chunk for missing whose bytes are not what its sum says."""
        with self._lock:
            self.sums.pop(number, None)

    def sync(self) -> None:
        """Have the file on the disk."""
        self._opened().sync()

    def close(self) -> None:
        """Write nothing any more; what is there stays for the next run."""
        with self._lock:
            if self._part is not None:
                self._part.close()
                self._part = None
            if self._records >= 0:
                os.close(self._records)
                self._records = -1

    def discard(self) -> None:
        """Delete what is there."""
        self.close()
        self.sums.clear()
        for path in (self.journal, self.path):
            path.unlink(missing_ok=True)

    def _opened(self) -> PartFile:
        if self._part is None:
            raise Stopped
        return self._part

    def _open(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        # A part of another size was never reserved, or is somebody else's.
        there = self.path.is_file() and self.path.stat().st_size == self.grid.size
        self.sums, end = self._read_journal() if there else ({}, 0)
        self.is_new = not self.sums
        self._part = PartFile(self.path, self.grid.size)
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | getattr(os, "O_BINARY", 0)
        flags |= getattr(os, "O_NOFOLLOW", 0)
        self._records = os.open(self.journal, flags, 0o666)
        os.ftruncate(self._records, end)
        if not end:
            os.write(self._records, self._head)
        self._part.allocate()

    def _read_journal(self) -> tuple[dict[int, int], int]:
        """Return the chunks that it promises, and where belief in it ends."""
        try:
            content = self.journal.read_bytes()
        except OSError:
            return {}, 0
        if not content.startswith(self._head):
            return {}, 0
        sums: dict[int, int] = {}
        place = len(self._head)
        while len(record := content[place : place + _RECORD.size]) == _RECORD.size:
            number, crc, check = _RECORD.unpack(record)
            if check != zlib.crc32(record[:8]) or number >= self.grid.count:
                break
            sums[number] = crc
            place += _RECORD.size
        return sums, place


def part_paths(folder: Path, key: str) -> tuple[Path, Path]:
    """Return where the part file of a download and its journal lie."""
    part = place(folder, RelPath.parse(key + PART_SUFFIX))
    return part, place(folder, RelPath.parse(key + JOURNAL_SUFFIX))


def bytes_there(folder: Path, key: str, grid: Grid) -> int:
    """Return about how many bytes of a download are there, by its journal's size."""
    _, journal = part_paths(folder, key)
    try:
        records = (journal.stat().st_size - len(_head(key, grid))) // _RECORD.size
    except OSError:
        return 0
    return min(max(0, records) * CHUNK_SIZE, grid.size)


def _head(key: str, grid: Grid) -> bytes:
    head = {"schema": SCHEMA, "key": key, "sizes": grid.sizes}
    return json.dumps(head, sort_keys=True).encode()[:_MAX_HEAD] + b"\n"
