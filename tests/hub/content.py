"""What a loopback hub serves: files with their digests, repositories of them."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

_LFS_ENDINGS = (".bin", ".gguf", ".safetensors", ".model", ".pt", ".zip")
_PIECE = 1 << 20


class Content:
    """The bytes of one file, in memory or on disk; digests are computed, once."""

    def __init__(self, source: bytes | Path) -> None:
        self._source = source
        self.path = None if isinstance(source, bytes) else source
        self.size = len(source) if isinstance(source, bytes) else source.stat().st_size

    def read(self, start: int, size: int) -> bytes:
        if isinstance(self._source, bytes):
            return self._source[start : start + size]
        with self._source.open("rb") as file:
            file.seek(start)
            return file.read(size)

    def pieces(self, start: int, end: int, size: int = _PIECE) -> Iterator[bytes]:
        """Yield the bytes from `start` to `end`, `size` at a time."""
        for place in range(start, end, size):
            yield self.read(place, min(size, end - place))

    @cached_property
    def sha256(self) -> str:
        digest = hashlib.sha256()
        for piece in self.pieces(0, self.size):
            digest.update(piece)
        return digest.hexdigest()

    @cached_property
    def blob(self) -> str:
        """Return git's name of the content. Source: Pro Git, section 10.2."""
        digest = hashlib.sha1(f"blob {self.size}\0".encode())
        for piece in self.pieces(0, self.size):
            digest.update(piece)
        return digest.hexdigest()

    @property
    def xet_hash(self) -> str:
        """Return 64 hex digits that stand for the name of the content in Xet.

        The real one is the root of a tree over chunks, which nothing here serves.
        """
        return hashlib.sha256(b"xet " + self.sha256.encode()).hexdigest()

    @cached_property
    def pointer(self) -> Content:
        """Return the file that git holds in place of a large one.

        Source: git-lfs, docs/spec.md, "The Pointer".
        """
        text = (
            "version https://git-lfs.github.com/spec/v1\n"
            f"oid sha256:{self.sha256}\nsize {self.size}\n"
        )
        return Content(text.encode())


def is_large(path: str, content: Content) -> bool:
    """Tell whether a file lies in LFS, as the hub's own .gitattributes would."""
    return path.endswith(_LFS_ENDINGS) or content.size > 10 << 20


@dataclass
class HostedRepository:
    """One repository; `push` moves its branch, earlier commits stay.

    `gated` is what the hub says of it; `members` are the tokens that were let in.
    The large files of a `xet` repository have a name in Xet too.
    """

    name: str
    files: dict[str, Content]
    gated: bool = False
    private: bool = False
    disabled: bool = False
    xet: bool = False
    members: frozenset[str] = frozenset()
    # Renamed: asked for under `name`, it answers with a redirect to this.
    moved_to: str | None = None
    commits: dict[str, dict[str, Content]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.push(self.files)

    def push(self, files: Mapping[str, Content]) -> str:
        """Make `files` the state of the branch; return its commit."""
        self.files = dict(files)
        listing = "".join(f"{path} {file.blob}\n" for path, file in files.items())
        seed = f"{len(self.commits)} {self.name}\n{listing}"
        self.head = hashlib.sha1(seed.encode()).hexdigest()
        self.commits[self.head] = self.files
        return self.head

    def at(self, revision: str) -> str | None:
        """Return the commit of a revision, None where there is none."""
        if revision in ("main", "refs/heads/main"):
            return self.head
        return revision if revision in self.commits else None


@dataclass(frozen=True, slots=True)
class HostedFile:
    """A file on a plain web server; None for a header that it does not send."""

    content: Content
    etag: str | None = None
    modified: str | None = None
    kind: str | None = "application/octet-stream"
    # Whether it answers with a part where one is asked for.
    ranges: bool = True


def repository(name: str, files: Mapping[str, bytes | Path]) -> HostedRepository:
    """Make a repository of bytes and of files on disk."""
    return HostedRepository(name, {path: Content(f) for path, f in files.items()})


def random_bytes(seed: int, size: int) -> bytes:
    """Return the content that a seed stands for."""
    return random.Random(seed).randbytes(size)
