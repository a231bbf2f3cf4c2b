"""A place that serves bytes from memory, and does wrong what it is told to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from hashlib import sha256
from threading import Lock
from typing import Self

from wizard_edge.chunks import CHUNK_SIZE
from wizard_edge.download import Source, Wanted
from wizard_edge.errors import HubError
from wizard_edge.names import CommitId, RelPath, RepoId, Sha256
from wizard_edge.receipts import Piece

REPO, REVISION = RepoId.parse("somebody/model"), CommitId.parse("7" * 40)
NAME = RelPath.parse("model.Q8_0.gguf")


def piece_of(data: bytes, name: str = NAME, *, known: bool = True) -> Piece:
    digest = Sha256.parse(sha256(data).hexdigest()) if known else None
    return Piece(len(data), digest, REPO, REVISION, RelPath.parse(name))


def wanted(*contents: bytes, key: str = "key") -> Wanted:
    """Ask for contents end to end."""
    whole = Sha256.parse(sha256(b"".join(contents)).hexdigest())
    pieces = tuple(piece_of(c, f"{NAME}-{n}") for n, c in enumerate(contents))
    return Wanted(NAME, pieces, key, whole)


@dataclass
class Server:
    """Serves contents by the sizes of their pieces; `asked` has ranges, in order.

    `fail_at` raises at that byte of a piece, `times` times. `before` is called with
    each range before it is answered and may raise.
    """

    contents: tuple[bytes, ...]
    in_parts: bool = True
    step: int = 100_000
    fail_at: int | None = None
    times: int = 1 << 30
    error: Callable[[], BaseException] = lambda: HubError("cut")
    before: Callable[[int, int], None] = lambda start, end: None
    asked: list[tuple[int, int]] = field(default_factory=list)
    sent: int = 0
    # Answers open at once: how many there may be, are, and were refused.
    most: int = 1 << 30
    opened: int = 0
    refused: int = 0
    lock: Lock = field(default_factory=Lock)

    def source(self, *, is_mirror: bool = False) -> Source:
        name = "mirror" if is_mirror else "hub"
        return Source(name, self.open, is_mirror=is_mirror)

    def open(self, piece: Piece, start: int, end: int) -> Answer:
        [content] = [c for c in self.contents if len(c) == piece.size]
        return Answer(self, content, start, end)


@dataclass
class Answer:
    server: Server
    content: bytes
    place: int
    end: int
    is_open: bool = False

    @property
    def in_parts(self) -> bool:
        return self.server.in_parts

    def open(self) -> Self:
        self.server.before(self.place, self.end)
        with self.server.lock:
            if self.server.opened >= self.server.most:
                self.server.refused += 1
                raise HubError("too many")
            self.server.opened += 1
            self.is_open = True
            self.server.asked.append((self.place, self.end))
        return self

    def read_some(self, size: int) -> bytes:
        server = self.server
        stop = min(self.place + min(size, server.step), self.end)
        with server.lock:
            at = server.fail_at
            if at is not None and self.place <= at < stop and server.times > 0:
                server.times -= 1
                raise server.error()
            server.sent += stop - self.place
        piece = self.content[self.place : stop]
        self.place = stop
        return piece

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        with self.server.lock:
            self.server.opened -= self.is_open
            self.is_open = False


def chunks(count: int) -> int:
    """Return the bytes of so many chunks."""
    return count * CHUNK_SIZE
