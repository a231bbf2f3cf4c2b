"""The hub as its callers see it: repositories, small files, ranges, streams."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Self
from urllib.parse import quote, unquote, urlsplit

from wizard_edge.errors import ConfigError, Corrupt, HubError, UsageError
from wizard_edge.hub._http import (
    Passing,
    Patience,
    Request,
    Retries,
    Transport,
    check_endpoint,
    host_of,
    is_address,
)
from wizard_edge.hub._listing import RemoteFileInfo, Repository, parse_repository
from wizard_edge.hub._stream import ByteStream, Served, check_not_a_page
from wizard_edge.names import CommitId, RelPath, RepoId
from wizard_edge.receipts import Piece
from wizard_edge.units import format_bytes

# Source: huggingface_hub 2.4.0, constants.py, _HF_DEFAULT_ENDPOINT.
_ENDPOINT = "https://huggingface.co"
# Source: huggingface_hub 2.4.0, constants.py, ENV_VARS_TRUE_VALUES.
_TRUE = {"1", "ON", "YES", "TRUE"}
_TOKEN = re.compile(r"[!-~]+")
_TOTAL = re.compile(r"bytes 0-0/(\d{1,19})")
_DIGEST_PLACE = "{sha256}"
_DIGITS = re.compile(r"\d{1,19}")
# The answer about a repository; 1,000 files make about 300 KB.
_MAX_LISTING = 64 << 20
# What may be thrown away to reach a range on a server that cannot send parts.
_SPARE_FOR_RANGE = 64 << 20


@dataclass(frozen=True, slots=True)
class Stated:
    """What an address says of its file: `size` in bytes, what tells it from others.

    `in_parts` is whether parts of it can be asked for.
    """

    size: int
    etag: str | None
    in_parts: bool


@dataclass(frozen=True, slots=True)
class Hub:
    """One hub; holds no connection and needs no closing."""

    transport: Transport
    offline: bool = False

    @classmethod
    def from_environment(
        cls, environ: Mapping[str, str], *, patience: Patience | None = None
    ) -> Self:
        """Read HF_ENDPOINT, HF_TOKEN and HF_HUB_OFFLINE, and the token of a login.

        Proxies and certificates come from the process environment.
        Raises: ConfigError.
        """
        endpoint = check_endpoint(environ.get("HF_ENDPOINT") or _ENDPOINT)
        offline = any(
            _true(environ, name) for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
        )
        token = None if offline else _token(environ)
        return cls(Transport(endpoint, token, patience or Patience()), offline)

    def repository(self, repo: RepoId, revision: str | None = None) -> Repository:
        """Return what a repository holds at a branch, tag or commit, or by default.

        Raises: NotFound, Refused, HubError, UsageError for an empty revision.
        """
        if revision is not None and not (revision and revision.isprintable()):
            raise UsageError(f"not a revision: {revision!r}")
        at = "" if revision is None else f"/revision/{quote(revision, safe='')}"
        url = f"{self.transport.endpoint}/api/models/{repo}{at}?blobs=true"
        body = self._document(Request(url, repo, revision or "main"))
        found = parse_repository(repo, body, self.transport.host)
        named = revision if revision is not None and CommitId.fits(revision) else None
        if named is not None and found.revision != named:
            raise HubError(f"{self.transport.host} answers for another commit")
        return found

    def fetch(self, repository: Repository, path: RelPath, limit: int) -> bytes:
        """Return a whole file of at most `limit` bytes, checked by its digest.

        Raises: NotFound, Refused, HubError, Corrupt.
        """
        file = repository.file(path)
        if file.size > limit:
            raise HubError(
                f"{path} has {format_bytes(file.size)}, more than "
                f"the {format_bytes(limit)} that such a file may have"
            )
        with self.open_stream(repository, path) as stream:
            data = stream.read(file.size)
        _check_digest(file, data)
        return data

    def read_range(
        self, repository: Repository, path: RelPath, offset: int, size: int
    ) -> bytes:
        """Return exactly `size` bytes of a file from `offset` on. Checks no digest.

        Raises: NotFound, Refused, HubError, UsageError for bytes that are not there.
        """
        end = offset + size
        with self._stream(repository, path, offset, end, _SPARE_FOR_RANGE) as stream:
            return stream.read(size)

    def open_stream(
        self, repository: Repository, path: RelPath, offset: int = 0
    ) -> ByteStream:
        """Begin to read a file from `offset` on; close the stream. Checks no digest.

        Raises: NotFound, Refused, HubError, UsageError for an offset past the end.
        """
        size = repository.file(path).size
        return self._stream(repository, path, offset, size, spare=size).open()

    def open_piece(self, piece: Piece, offset: int, end: int) -> ByteStream:
        """Give the bytes `offset` to `end` of something that is or was fetched.

        Connects at the first read. Checks no digest; the token goes to the hub alone.
        Raises, when it is read: NotFound, Refused, HubError.
        """
        self._check_online()
        if piece.url is not None:
            file = Served(piece.url, file_name(piece.url), piece.size, etag=piece.etag)
            return self._open(self._anywhere(), file, offset, end, end)
        assert piece.repo
        assert piece.revision
        assert piece.path
        file = Served(
            self._address(piece.repo, piece.revision, piece.path),
            piece.path,
            piece.size,
            piece.repo,
            piece.revision,
            piece.sha256,
        )
        return self._open(self.transport, file, offset, end, end)

    def open_mirror(
        self, mirror: str, piece: Piece, offset: int, end: int
    ) -> ByteStream:
        """Give bytes of a piece from another place; nothing it says is believed.

        `mirror` is an address with the paths of the hub, or one that has `{sha256}`
        in it. Raises: as `open_piece`; HubError for a piece it cannot be asked for.
        """
        self._check_online()
        url = mirror_address(mirror, piece)
        if url is None:
            raise HubError(f"{host_of(mirror)} cannot be asked for this file")
        file = Served(url, piece.path or file_name(url), piece.size)
        # There is the hub to fall back on: one that does not answer is not waited for.
        patience = replace(self.transport.patience, tries_to_start=1, tries_to_go_on=2)
        transport = replace(self._anywhere(), patience=patience)
        return self._open(transport, file, offset, end, end)

    def probe(self, url: str) -> Stated:
        """Ask an address what it serves: one byte is fetched at most.

        Raises: NotFound, HubError; UsageError for a text that is no address.
        """
        self._check_online()
        if not is_address(url):
            raise UsageError(f"not an http(s) address: {url!r}")
        retries = Retries(self.transport.patience)
        while True:
            try:
                return self._probe_once(url)
            except Passing as problem:
                retries.wait(problem)

    def _probe_once(self, url: str) -> Stated:
        name = file_name(url)
        answer = self._anywhere().get(Request(url, None, name, "0-0"))
        try:
            check_not_a_page(answer, name)
            total = _TOTAL.fullmatch(answer.header("Content-Range") or "")
            length = total[1] if total else answer.header("Content-Length") or ""
            if not _DIGITS.fullmatch(length) or (answer.status == 206) != bool(total):
                raise HubError(
                    f"{answer.host} does not say how large {name} is",
                    hint="fetch it by other means, then 'wizard-edge import FILE'",
                )
            return Stated(int(length), answer.tag, in_parts=total is not None)
        finally:
            answer.close()

    def _anywhere(self) -> Transport:
        """Return what asks servers that are not this hub: without a token."""
        return replace(self.transport, token=None)

    def _address(self, repo: RepoId, revision: CommitId, path: RelPath) -> str:
        return hub_address(self.transport.endpoint, repo, revision, path)

    def _stream(
        self, repository: Repository, path: RelPath, offset: int, end: int, spare: int
    ) -> ByteStream:
        self._check_online()
        found = repository.file(path)
        file = Served(
            self._address(repository.repo, repository.revision, path),
            path,
            found.size,
            repository.repo,
            repository.revision,
            found.sha256,
            found.blob,
        )
        return self._open(self.transport, file, offset, end, spare)

    @staticmethod
    def _open(
        transport: Transport, file: Served, offset: int, end: int, spare: int
    ) -> ByteStream:
        return ByteStream(transport, file, offset=offset, end=end, spare=spare)

    def _document(self, request: Request) -> bytes:
        """Return the body of a small answer of unknown size."""
        self._check_online()
        retries = Retries(self.transport.patience)
        while True:
            try:
                return self._document_once(request)
            except Passing as problem:
                retries.wait(problem)

    def _document_once(self, request: Request) -> bytes:
        answer = self.transport.get(request)
        try:
            check_not_a_page(answer, "")
            if answer.header("Content-Encoding") not in (None, "identity"):
                raise HubError(f"{answer.host} answers compressed, unasked")
            body = bytearray()
            while piece := answer.read_some(1 << 16):
                body += piece
                if len(body) > _MAX_LISTING:
                    raise HubError(f"{answer.host} answers without an end")
            stated = answer.header("Content-Length")
            if stated is not None and stated != str(len(body)):
                raise Passing(answer.host, "the connection was cut")
            return bytes(body)
        finally:
            answer.close()

    def _check_online(self) -> None:
        if self.offline:
            raise HubError(
                "HF_HUB_OFFLINE is set, and this needs the hub",
                hint="unset HF_HUB_OFFLINE, or use what 'wizard-edge list' shows",
            )


def hub_address(endpoint: str, repo: RepoId, revision: CommitId, path: RelPath) -> str:
    """Return where a hub serves a file.

    Source: huggingface_hub 2.4.0, constants.py, HUGGINGFACE_CO_URL_TEMPLATE.
    """
    return f"{endpoint}/{repo}/resolve/{revision}/{quote(path)}"


def check_mirror(mirror: str) -> None:
    """See that a text can be the address of a mirror. Raises: UsageError."""
    if not is_address(mirror.replace(_DIGEST_PLACE, "0" * 64)):
        raise UsageError(
            f"not the address of a mirror: {mirror!r}",
            hint="write https://HOST, or an address with {sha256} in it",
        )


def mirror_address(mirror: str, piece: Piece) -> str | None:
    """Return where a mirror would have a piece, None where it cannot be named."""
    if _DIGEST_PLACE in mirror:
        return piece.sha256 and mirror.replace(_DIGEST_PLACE, piece.sha256)
    if not (piece.repo and piece.revision and piece.path):
        return None
    endpoint = mirror.rstrip("/")
    return hub_address(endpoint, piece.repo, piece.revision, piece.path)


def file_name(url: str) -> str:
    """Return what an address calls its file, for messages and names."""
    parts = urlsplit(url)
    return unquote(parts.path.rpartition("/")[2]) or parts.netloc.rpartition("@")[2]


def _token(environ: Mapping[str, str]) -> str | None:
    """Return the token to send, by huggingface_hub's own rules."""
    if _true(environ, "HF_HUB_DISABLE_IMPLICIT_TOKEN"):
        return None
    text = environ.get("HF_TOKEN") or environ.get("HUGGING_FACE_HUB_TOKEN")
    token = text.strip() if text else _login_token()
    if token and not _TOKEN.fullmatch(token):
        raise ConfigError(
            "the token for the hub has characters that none has",
            hint="check HF_TOKEN, or run 'hf auth login' again",
        )
    return token or None


def _login_token() -> str | None:
    """Return the token that a login stored."""
    # Imported here: it takes 0.2 s, and a set HF_TOKEN makes it unnecessary.
    from huggingface_hub import get_token

    try:
        return get_token()
    except (OSError, ValueError) as err:
        raise ConfigError(
            f"cannot read the stored token of the hub: {err}",
            hint="run 'hf auth login' again",
        ) from err


def _true(environ: Mapping[str, str], name: str) -> bool:
    return environ.get(name, "").upper() in _TRUE


def _check_digest(file: RemoteFileInfo, data: bytes) -> None:
    if file.sha256 is not None:
        right = hashlib.sha256(data).hexdigest() == file.sha256
    elif file.blob is not None:
        # Source: Pro Git, section 10.2, Object Storage.
        head = f"blob {len(data)}\0".encode()
        blob = hashlib.sha1(head + data, usedforsecurity=False).hexdigest()
        right = blob == file.blob
    else:
        raise HubError(f"the hub states no digest of {file.path}")
    if not right:
        raise Corrupt(
            file.path,
            "its bytes are not those that the hub describes",
            hint="try again; if it stays, a proxy or mirror changes them",
        )
