"""All sums of a file in one pass: its SHA-256, and the CRC-32 of each of its chunks.

Bytes come in order; where they come from, and where they go, is somebody else's.
"""

from __future__ import annotations

import hashlib
import zlib
from typing import Self

from wizard_edge.chunks import Chunks, Grid
from wizard_edge.names import Sha256

__all__ = ["Sums"]


class Sums:
    """The sums of a file whose chunks are those of `grid`, as far as it was read."""

    __slots__ = ("_crc", "_crcs", "_grid", "_hash", "_left", "size")

    def __init__(self, grid: Grid) -> None:
        self.size = 0
        self._grid = grid
        self._hash = hashlib.sha256()
        self._crcs: list[int] = []
        self._crc = 0
        self._left = grid.span(0).size if grid.count else 0

    def update(self, data: bytes) -> None:
        """Take the next bytes. Raises: ValueError for more than the grid has."""
        if self.size + len(data) > self._grid.size:
            raise ValueError(f"more than {self._grid.size} bytes")
        self._hash.update(data)
        self.size += len(data)
        view = memoryview(data)
        while view:
            self._crc = zlib.crc32(view[: self._left], self._crc)
            taken = min(self._left, len(view))
            view = view[taken:]
            self._left -= taken
            if not self._left:
                self._next()

    def copy(self) -> Self:
        """Return the sums as they are, to go back to."""
        other = type(self)(self._grid)
        other.size = self.size
        other._hash = self._hash.copy()
        other._crcs = [*self._crcs]
        other._crc = self._crc
        other._left = self._left
        return other

    @property
    def sha256(self) -> Sha256:
        """The hash of the bytes so far."""
        return Sha256.parse(self._hash.hexdigest())

    def chunks(self) -> Chunks:
        """Return the sums of the whole file. Raises: ValueError where bytes lack."""
        if len(self._crcs) != self._grid.count:
            raise ValueError(f"{self.size} of {self._grid.size} bytes")
        return Chunks(self._grid, self.sha256, tuple(self._crcs))

    def _next(self) -> None:
        self._crcs.append(self._crc)
        self._crc = 0
        if len(self._crcs) < self._grid.count:
            self._left = self._grid.span(len(self._crcs)).size
