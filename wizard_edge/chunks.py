"""Check sums of a file's chunks: where damage lies, so that little is fetched again.

The SHA-256 says whether a file is right; the CRC-32 of each chunk says where it is
not. A file is fetched as one or several pieces end to end, and no chunk reaches over
the border of two. On the disk: a line of JSON (schema, size of a chunk, sizes of the
pieces, SHA-256), then the CRC-32 of each chunk as u32 little endian, then that of all
before it. Knows no store and no network.
"""

from __future__ import annotations

import json
import os
import struct
import sys
import zlib
from array import array
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Self

from wizard_edge.errors import ConfigError, Corrupt, UsageError
from wizard_edge.files import open_regular
from wizard_edge.names import Sha256

__all__ = ["CHUNK_SIZE", "SUFFIX", "Chunks", "Grid", "read_chunks"]

SUFFIX = ".chunks"
SCHEMA = 1
# What a kill costs at most for each connection, and a checked 40 GB file 0.6 MB.
CHUNK_SIZE = 256 << 10

_CRC = struct.Struct("<I")
# Four bytes for each chunk of the largest file that anybody has, and the line.
_MAX_SIZE = 16 << 20
_MAX_LINE = 64 << 10
# u32 on every machine that Python runs on.
_U32 = "I"


@dataclass(frozen=True, slots=True)
class Span:
    """Where a chunk lies in its file; in bytes."""

    offset: int
    size: int

    @property
    def end(self) -> int:
        return self.offset + self.size


class Grid:
    """The chunks of a file, by number; `sizes` are those of its pieces in bytes."""

    __slots__ = ("_first", "_starts", "count", "size", "sizes")

    def __init__(self, sizes: Sequence[int]) -> None:
        self.sizes = tuple(sizes)
        self.size = sum(sizes)
        counts = [-(-size // CHUNK_SIZE) for size in sizes]
        self._starts = [0, *accumulate(sizes)][:-1]
        self._first = [0, *accumulate(counts)][:-1]
        self.count = sum(counts)

    def span(self, number: int) -> Span:
        """Return where a chunk lies. Raises: IndexError for one that is not there."""
        if not 0 <= number < self.count:
            raise IndexError(number)
        piece = self.piece(number)
        inside = (number - self._first[piece]) * CHUNK_SIZE
        size = min(CHUNK_SIZE, self.sizes[piece] - inside)
        return Span(self._starts[piece] + inside, size)

    def piece(self, number: int) -> int:
        """Return which piece a chunk belongs to."""
        return bisect_right(self._first, number) - 1

    def start(self, piece: int) -> int:
        """Return where a piece begins in the file."""
        return self._starts[piece]

    def numbers(self, piece: int) -> range:
        """Return the chunks of a piece."""
        ends = [*self._first[1:], self.count]
        return range(self._first[piece], ends[piece])


@dataclass(frozen=True, slots=True)
class Chunks:
    """The sums of a file: its SHA-256, and the CRC-32 of each chunk of the grid."""

    grid: Grid
    sha256: Sha256
    sums: Sequence[int]

    def to_bytes(self) -> bytes:
        """Write it as it lies beside the file."""
        line = {
            "schema": SCHEMA,
            "chunk": CHUNK_SIZE,
            "sizes": self.grid.sizes,
            "sha256": self.sha256,
        }
        numbers = array(_U32, self.sums)
        if sys.byteorder == "big":
            numbers.byteswap()
        body = json.dumps(line, sort_keys=True).encode() + b"\n" + numbers.tobytes()
        return body + _CRC.pack(zlib.crc32(body))

    @classmethod
    def parse(cls, path: Path, content: bytes) -> Self:
        """Read it; `path` is for the errors.

        Raises: Corrupt, ConfigError for a schema from the future.
        """
        body, crc = content[: -_CRC.size], content[-_CRC.size :]
        if len(crc) < _CRC.size or _CRC.unpack(crc)[0] != zlib.crc32(body):
            raise Corrupt(path, "its own sum does not fit")
        head, _, numbers = body.partition(b"\n")
        sizes, sha256 = _parse_line(path, head)
        sums = array(_U32)
        grid = Grid(sizes)
        if len(numbers) != grid.count * sums.itemsize:
            raise Corrupt(path, f"has no sum for each of {grid.count} chunks")
        sums.frombytes(numbers)
        if sys.byteorder == "big":
            sums.byteswap()
        return cls(grid, sha256, sums)


def read_chunks(path: Path) -> Chunks:
    """Read the sums beside a file.

    Raises: MissingFile, Corrupt, ConfigError, Refused.
    """
    with os.fdopen(open_regular(path), "rb") as file:
        content = file.read(_MAX_SIZE + 1)
    if len(content) > _MAX_SIZE:
        raise Corrupt(path, f"has more than {_MAX_SIZE} bytes")
    return Chunks.parse(path, content)


def _parse_line(path: Path, line: bytes) -> tuple[tuple[int, ...], Sha256]:
    try:
        if len(line) > _MAX_LINE:
            raise ValueError("its first line is too long")
        table = json.loads(line)
        schema = table["schema"]
        if isinstance(schema, int) and schema > SCHEMA:
            raise ConfigError(
                f"{path} has schema {schema}, this version reads up to {SCHEMA}",
                hint="upgrade with: pip install --upgrade wizard-edge",
            )
        if schema != SCHEMA or table["chunk"] != CHUNK_SIZE:
            raise ValueError("of another form")
        sizes = table["sizes"]
        if not isinstance(sizes, list) or not all(type(n) is int for n in sizes):
            raise ValueError("sizes should be whole numbers")
        if not sizes or min(sizes) < 0:
            raise ValueError("sizes should be of pieces")
        return tuple(sizes), Sha256.parse(table["sha256"])
    except (ValueError, TypeError, KeyError, RecursionError) as err:
        raise Corrupt(path, f"not the sums of a file: {err}") from err
    except UsageError as err:
        raise Corrupt(path, err.message) from err
