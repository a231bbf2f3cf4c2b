"""Reads a file once, and takes the sums that tell whether and where it is damaged.

Knows no store: what the sums should be is somebody else's to say.
"""

from __future__ import annotations

import io
import os
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from wizard_edge.chunks import CHUNK_SIZE, Grid, Span
from wizard_edge.files import open_regular
from wizard_edge.hashing import new_sha256
from wizard_edge.names import Sha256

__all__ = ["Scan", "scan"]

# Read at once: enough for the disk, little enough to stay in the cache for both sums.
_ROOM = 4 * CHUNK_SIZE


@dataclass(frozen=True, slots=True)
class Scan:
    """What was found of a file: its `size` in bytes, and the CRC-32 of its chunks.

    A sum is None for a chunk that is not there whole or that the disk will not give.
    `sha256` is that of the bytes of the grid, None where some are missing. `refusal`
    is what the system said of bytes that it would not read.
    """

    size: int
    sha256: Sha256 | None
    sums: tuple[int | None, ...]
    refusal: str | None = None


def scan(path: Path, grid: Grid, read: Callable[[int], None]) -> Scan:
    """Read a file chunk by chunk; what lies behind the grid is counted only.

    `read` is told of all bytes as they are done, the missing ones too.
    Raises: MissingFile; Refused without the permission; UsageError for what is no
    regular file.
    """
    room = memoryview(bytearray(_ROOM))
    digest = new_sha256()
    sums: list[int | None] = []
    refusal: str | None = None
    with io.FileIO(open_regular(path), closefd=True) as file:
        for spans in _batches(grid):
            try:
                data = _read(file, room, spans)
            except OSError as err:
                refusal = err.strerror
                sums += _one_by_one(file, room, spans)
            else:
                digest.update(data)
                sums += _sums(data, spans)
            read(sum(span.size for span in spans))
        size = os.fstat(file.fileno()).st_size
    whole = refusal is None and size >= grid.size
    return Scan(
        size=size,
        sha256=Sha256(digest.hexdigest()) if whole else None,
        sums=tuple(sums),
        refusal=refusal,
    )


def _batches(grid: Grid) -> Iterator[list[Span]]:
    """Yield the chunks in order, as many together as have room."""
    batch: list[Span] = []
    for number in range(grid.count):
        span = grid.span(number)
        if batch and span.end - batch[0].offset > _ROOM:
            yield batch
            batch = []
        batch.append(span)
    if batch:
        yield batch


def _read(file: io.FileIO, room: memoryview, spans: list[Span]) -> memoryview:
    """Read chunks that lie end to end; less where the file ends before."""
    view = room[: spans[-1].end - spans[0].offset]
    file.seek(spans[0].offset)
    count = 0
    while count < len(view):
        got = file.readinto(view[count:])
        if not got:
            break
        count += got
    return view[:count]


def _sums(data: memoryview, spans: list[Span]) -> list[int | None]:
    start = spans[0].offset
    return [
        zlib.crc32(data[span.offset - start : span.end - start])
        if span.end - start <= len(data)
        else None
        for span in spans
    ]


def _one_by_one(
    file: io.FileIO, room: memoryview, spans: list[Span]
) -> list[int | None]:
    """Read again where the disk failed, to lose no chunk but those it fails at."""
    sums: list[int | None] = []
    for span in spans:
        try:
            sums += _sums(_read(file, room, [span]), [span])
        except OSError:
            sums.append(None)
    return sums
