"""What is wanted, how to fetch it, and what came of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

from wizard_edge.chunks import Chunks
from wizard_edge.names import BlobId, RelPath, Sha256
from wizard_edge.receipts import Piece


class Stream(Protocol):
    """Bytes of a piece as they come; closed by leaving its `with`."""

    @property
    def in_parts(self) -> bool: ...
    def open(self) -> Self: ...
    def read_some(self, size: int) -> bytes: ...
    def __enter__(self) -> Self: ...
    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
        /,
    ) -> None: ...


@dataclass(frozen=True, slots=True)
class Source:
    """A place that has the pieces; what a mirror sends is checked by its hash alone.

    `open` gives the bytes from one offset in a piece to another.
    """

    name: str
    open: Callable[[Piece, int, int], Stream]
    is_mirror: bool = False


@dataclass(frozen=True, slots=True)
class Wanted:
    """A file to fetch, of one or several pieces that are put end to end.

    `key` names what is fetched so far: equal keys MUST mean equal bytes. `sha256` is
    that of the whole file, None where nobody states it; `blobs` are what git calls
    the pieces, for those that it holds itself.
    """

    name: RelPath
    pieces: tuple[Piece, ...]
    key: str
    sha256: Sha256 | None = None
    blobs: tuple[BlobId | None, ...] = ()

    @property
    def size(self) -> int:
        """The bytes of all pieces."""
        return sum(piece.size for piece in self.pieces)


@dataclass(frozen=True, slots=True)
class Options:
    """How to fetch: connections at once, bytes per second at most or None.

    `looks` are offsets in bytes; when all before one of them is there, `look` is
    called with the part file and the bytes that are there. What it raises ends the
    download, as wrong bytes do: so a file of no use is not fetched to its end.
    """

    connections: int = 4
    rate: int | None = None
    looks: tuple[int, ...] = ()
    look: Callable[[Path, int], None] | None = None


@dataclass(frozen=True, slots=True)
class Fetched:
    """A whole file, on the disk under `path` and not yet under its own name.

    `received` counts the bytes that came in this run; `journal` is to be deleted
    when the file has been moved.
    """

    path: Path
    journal: Path
    chunks: Chunks
    received: int

    @property
    def sha256(self) -> Sha256:
        return self.chunks.sha256

    @property
    def size(self) -> int:
        return self.chunks.grid.size
