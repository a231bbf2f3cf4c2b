"""The bytes of one file from an offset on, over as many connections as it takes."""

from __future__ import annotations

import re
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from wizard_edge.errors import HubError, UsageError
from wizard_edge.hub._http import Answer, Passing, Request, Retries, Transport
from wizard_edge.names import BlobId, CommitId, RepoId, Sha256

# Asked from the socket at once; what a fast line delivers between two calls.
_PIECE = 1 << 20
_CONTENT_RANGE = re.compile(r"bytes (\d{1,19})-(\d{1,19})/(\d{1,19})")
_DIGITS = re.compile(r"\d{1,19}")


@dataclass(frozen=True, slots=True)
class Served:
    """A file that somebody serves: where, its `size` in bytes, and what it must be.

    None of what must be true is known of a file whose bytes are checked otherwise.
    `etag` is what an address said of its file before.
    """

    url: str
    name: str
    size: int
    repo: RepoId | None = None
    revision: CommitId | None = None
    sha256: Sha256 | None = None
    blob: BlobId | None = None
    etag: str | None = None


class ByteStream:
    """The bytes `offset` to `end` of a file as it was described, in order, each once.

    A cut connection is taken up again at the exact byte. Where a server ignores the
    offset and sends the whole file, what comes before is read and thrown away, up to
    `spare` bytes; it counts as fetched. Nothing here checks a digest. Not for two
    threads at once.
    """

    def __init__(
        self,
        transport: Transport,
        file: Served,
        *,
        offset: int,
        end: int,
        spare: int,
    ) -> None:
        if not 0 <= offset <= end <= file.size:
            raise UsageError(
                f"bytes {offset} to {end} of {file.name}, which has {file.size}"
            )
        self._transport = transport
        self._file = file
        self._offset = offset
        self._end = end
        self._spare = spare
        self._fetched = 0
        self._in_parts = False
        self._answer: Answer | None = None
        self._retries = Retries(transport.patience)

    @property
    def offset(self) -> int:
        """Return the place in the file of the next byte."""
        return self._offset

    @property
    def size(self) -> int:
        """Return the size of the whole file in bytes."""
        return self._file.size

    @property
    def fetched(self) -> int:
        """Return the body bytes received so far, those thrown away included."""
        return self._fetched

    @property
    def in_parts(self) -> bool:
        """Return whether the last answer was the part that was asked for."""
        return self._in_parts

    def open(self) -> Self:
        """Connect now and not at the first `read`.

        Raises: as `read`.
        """
        while self._answer is None and self._offset < self._end:
            try:
                self._answer = self._connect()
            except Passing as problem:
                self._retries.wait(problem)
        return self

    def read(self, size: int) -> bytes:
        """Return the next `size` bytes, fewer only at the end.

        Raises: HubError, NotFound, Refused. After an error the stream still stands
        at the byte after the last one returned, and may be read again.
        """
        wanted = min(size, self._end - self._offset)
        start = self._offset
        pieces: list[bytes] = []
        try:
            while self._offset < start + wanted:
                pieces.append(self.read_some(start + wanted - self._offset))
        except BaseException:
            self.close()
            self._offset = start
            raise
        if self._offset == self._end:
            self.close()
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def read_some(self, size: int) -> bytes:
        """Return at least one and at most `size` of the next bytes; none at the end.

        Raises: as `read`.
        """
        wanted = min(size, self._end - self._offset)
        return self._read_some(wanted) if wanted else b""

    def close(self) -> None:
        """Drop the connection; a later `read` makes a new one."""
        if self._answer is not None:
            self._answer.close()
            self._answer = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _read_some(self, size: int) -> bytes:
        while True:
            self.open()
            try:
                piece = self._take(min(size, _PIECE))
            except Passing as problem:
                self.close()
                self._retries.wait(problem)
            else:
                self._offset += len(piece)
                self._retries.progressed()
                return piece

    def _take(self, size: int) -> bytes:
        assert self._answer is not None
        piece = self._answer.read_some(size)
        if not piece:
            raise Passing(self._answer.host, "the connection was cut")
        self._fetched += len(piece)
        return piece

    def _connect(self) -> Answer:
        whole = self._offset == 0 and self._end == self._file.size
        part = None if whole else f"{self._offset}-{self._end - 1}"
        file = self._file
        answer = self._transport.get(Request(file.url, file.repo, file.name, part))
        try:
            check_not_a_page(answer, self._file.name)
            self._check_file(answer)
            self._check_frame(answer)
            self._in_parts = answer.status == 206
            if answer.status == 200:
                self._skip(answer)
        except BaseException:
            answer.close()
            raise
        return answer

    def _check_file(self, answer: Answer) -> None:
        """Refuse an answer that is about another commit, size or content."""
        file, stated = self._file, answer.stated
        commit = stated.get("X-Repo-Commit")
        size = stated.get("X-Linked-Size")
        digest = _unquoted(stated.get("X-Linked-ETag") or stated.get("ETag") or "")
        told = answer.tag
        if (
            (file.etag is not None and told != file.etag)
            or (file.revision and commit is not None and commit != file.revision)
            or (size is not None and size != str(file.size))
            or (file.sha256 and Sha256.fits(digest) and digest != file.sha256)
            or (file.blob and BlobId.fits(digest) and digest != file.blob)
        ):
            raise self._changed(f"{file.name} is not what {self._transport.host} said")

    def _check_frame(self, answer: Answer) -> None:
        """Refuse an answer whose length or place is not what was asked."""
        if answer.header("Content-Encoding") not in (None, "identity"):
            raise HubError(
                f"{answer.host} sends {self._file.name} compressed",
                hint="a proxy may do so: try without it",
            )
        first, end = (0, self._file.size)
        if answer.status == 206:
            first, end = self._offset, self._end
            place = _CONTENT_RANGE.fullmatch(answer.header("Content-Range") or "")
            expected = (first, end - 1, self._file.size)
            if place is None or tuple(map(int, place.groups())) != expected:
                raise self._changed(
                    f"{answer.host} sends other bytes of {self._file.name} than asked"
                )
        elif answer.status != 200:
            raise HubError(f"{answer.host} answers {answer.status}")
        length = answer.header("Content-Length")
        if length is not None and (
            not _DIGITS.fullmatch(length) or int(length) != end - first
        ):
            raise self._changed(
                f"{answer.host} has {length[:20]!r} bytes of {self._file.name}, "
                f"not {end - first}"
            )

    def _skip(self, answer: Answer) -> None:
        """Read and drop what comes before the offset."""
        if self._offset > self._spare:
            raise HubError(
                f"{answer.host} cannot send part of {self._file.name}",
                hint="a proxy or mirror may be in the way: try without it",
            )
        left = self._offset
        while left:
            piece = answer.read_some(min(left, _PIECE))
            if not piece:
                raise Passing(answer.host, "the connection was cut")
            self._fetched += len(piece)
            left -= len(piece)

    def _changed(self, problem: str) -> HubError:
        return HubError(
            problem, hint="run the command again: it asks anew what there is"
        )


def check_not_a_page(answer: Answer, name: str) -> None:
    """Refuse a web page where a file was asked for.

    Raises: HubError.
    """
    kind = (answer.header("Content-Type") or "").partition(";")[0].strip().lower()
    if kind == "text/html" and not name.endswith((".html", ".htm")):
        raise HubError(
            f"{answer.host} answers with a web page instead of data",
            hint="the network may want a login first: open any page in a browser",
        )


def _unquoted(etag: str) -> str:
    return etag.removeprefix("W/").strip('"')
