"""Which bytes nobody fetches yet, handed out from the front."""

from __future__ import annotations

from collections.abc import Container
from threading import Lock

from wizard_edge.chunks import CHUNK_SIZE, Grid

# Large, since each claim is a request of its own; small, since the hash follows in
# order and reads what is far ahead of it from the disk again.
_LARGEST = (128 << 20) // CHUNK_SIZE
_SMALLEST = (1 << 20) // CHUNK_SIZE
# Claims for each connection: the last ones to finish wait for one claim at most.
_SHARES = 4


class Claims:
    """The chunks that are missing, as ranges inside one piece; for several threads."""

    def __init__(self, grid: Grid, whole: Container[int], connections: int) -> None:
        self._lock = Lock()
        self._ranges = [
            found
            for piece in range(len(grid.sizes))
            for found in _missing(grid.numbers(piece), whole)
        ]
        count = sum(map(len, self._ranges))
        share = -(-count // (connections * _SHARES))
        self._most = max(_SMALLEST, min(share, _LARGEST))
        if connections == 1:
            self._most = max(count, 1)

    def __bool__(self) -> bool:
        with self._lock:
            return bool(self._ranges)

    def take(self) -> range | None:
        """Return chunks to fetch, None where all are fetched or being fetched."""
        with self._lock:
            if not self._ranges:
                return None
            first = self._ranges.pop(0)
            if len(first) > self._most:
                self._ranges.insert(0, first[self._most :])
            return first[: self._most]

    def widen(self) -> None:
        """Hand out whole ranges from now on: each request costs all before it."""
        with self._lock:
            self._most = max(map(len, self._ranges), default=1)

    def give_back(self, chunks: range) -> None:
        """Have chunks fetched by somebody else."""
        if chunks:
            with self._lock:
                self._ranges.append(chunks)
                self._ranges.sort(key=lambda item: item.start)


def _missing(numbers: range, whole: Container[int]) -> list[range]:
    found: list[range] = []
    start = numbers.start
    for number in (*numbers, numbers.stop):
        if number == numbers.stop or number in whole:
            if start < number:
                found.append(range(start, number))
            start = number + 1
    return found
