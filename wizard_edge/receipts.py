"""The receipt beside an installed model: what it is, whence it came, its hash.

A JSON object with sorted keys and two spaces of indent, named like the model's
first file with `.json` added. `schema` MUST be there; an older one is read, a newer
one refused; unknown keys are ignored, so a key that may be left out needs no new
schema. docs/models.md lists the figures of `quality`. Knows no folder and no store.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from math import inf
from pathlib import Path
from typing import Literal, TypeVar, get_args

from wizard_edge.errors import ConfigError, Corrupt, UnknownQuant, UsageError
from wizard_edge.names import CommitId, ModelName, RelPath, RepoId, Sha256
from wizard_edge.refs import parse_quant

OriginKind = Literal["bundled", "hub", "url", "local"]

SCHEMA = 1
SUFFIX = ".json"
TIME_FORMAT = "%Y-%m-%dT%H:%M:%SZ"
# Far above any receipt, to keep a wrong file out of memory.
MAX_SIZE = 1 << 20

_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")
# Of what is no blank; an "@" before the path would end a user and a password.
_URL = re.compile(r"https?://[^\s/?#@]+([/?#]\S*)?", re.IGNORECASE)
_Name = TypeVar("_Name", ModelName, RelPath, RepoId, CommitId, Sha256)


@dataclass(frozen=True, slots=True)
class Piece:
    """Bytes of a stored file that were fetched as one file; `size` in bytes.

    Either `repo`, `revision` and `path` say where, or `url` does, and `etag` which
    state of it. `sha256` is None where only that of the whole is known.
    """

    size: int
    sha256: Sha256 | None = None
    repo: RepoId | None = None
    revision: CommitId | None = None
    path: RelPath | None = None
    url: str | None = None
    etag: str | None = None


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A file of an installed model, in the model's folder; `size` in bytes.

    `pieces` are what it was fetched as, end to end; none where it was made here.
    """

    name: RelPath
    size: int
    sha256: Sha256
    pieces: tuple[Piece, ...] = ()


@dataclass(frozen=True, slots=True)
class Origin:
    """Where the weights came from; `base` is what a delta was applied to.

    `local` weights came from a folder on some machine, which is not recorded.
    """

    kind: OriginKind
    repo: RepoId | None = None
    revision: CommitId | None = None
    url: str | None = None
    base: str | None = None


_Place = TypeVar("_Place", Piece, Origin)


class Check(StrEnum):
    """How the bytes of a weight file were checked, the strictest first.

    `sha256`: the whole file against the hash that the hub states. `crc32`: what was
    read against the sums inside the file. `size`: its length only.
    """

    SHA256 = "sha256"
    CRC32 = "crc32"
    SIZE = "size"


@dataclass(frozen=True, slots=True)
class CheckedFile:
    """A weight file that was read: `size` in bytes, and how it was checked."""

    name: RelPath
    size: int
    check: Check
    sha256: Sha256 | None = None


@dataclass(frozen=True, slots=True)
class Acceptance:
    """A licence somebody accepted: its id, the summary that was shown, when."""

    license: str
    summary_sha256: Sha256
    accepted: str


@dataclass(frozen=True, slots=True)
class EvaluatedOn:
    """What `eval` measured its figures in `quality` on, to tell them apart.

    `text_sha256` is that of the text's file, of which the first `chunks` times
    `context` tokens were read. `reference` is how the reference was named, without
    its folder, and `reference_sha256` the hash of the file to open; both are None
    where there was none. `evaluated` is the time in UTC, `tool` the program.
    """

    text_sha256: Sha256
    context: int
    chunks: int
    tool: str
    evaluated: str
    reference: str | None = None
    reference_sha256: Sha256 | None = None


@dataclass(frozen=True, slots=True)
class Receipt:
    """What is known of one installed variant, enough to list it without opening it.

    `files` has the file to open first; a split model has several. `context` is in
    tokens. `quality` holds measured figures by name, `evaluated_on` says what those
    of `eval` are of. `weights` are the files it was made from. `tool` is the program
    that wrote it, `created` the time in UTC as `TIME_FORMAT`.
    """

    model: ModelName
    quant: str
    files: tuple[StoredFile, ...]
    origin: Origin
    licenses: tuple[str, ...]
    template: str | None
    architecture: str | None
    context: int | None
    parameters: int | None
    tool: str
    created: str
    accepted: tuple[Acceptance, ...] = ()
    quality: Mapping[str, float] | None = None
    weights: tuple[CheckedFile, ...] = ()
    evaluated_on: EvaluatedOn | None = None

    @property
    def file_name(self) -> RelPath:
        """The name of the receipt itself."""
        return RelPath.parse(self.files[0].name + SUFFIX)

    @property
    def size(self) -> int:
        """The bytes of all files together."""
        return sum(file.size for file in self.files)

    @property
    def sha256(self) -> Sha256:
        """The hash of the file to open."""
        return self.files[0].sha256

    def to_hand_out(self) -> Receipt:
        """Return it with addresses that let nobody in: each without its query."""
        files = tuple(
            replace(file, pieces=tuple(map(_to_hand_out, file.pieces)))
            for file in self.files
        )
        return replace(self, files=files, origin=_to_hand_out(self.origin))

    def to_bytes(self) -> bytes:
        """Write it as canonical JSON: the same receipt gives the same bytes."""
        table = {"schema": SCHEMA, **asdict(self)}
        text = json.dumps(table, indent=2, sort_keys=True, ensure_ascii=False)
        return f"{text}\n".encode()


def without_query(url: str) -> str:
    """Return an address without what may be a secret in it: a token, a signature."""
    return re.split("[?#]", url, maxsplit=1)[0]


def parse_receipt(path: Path, content: bytes) -> Receipt:
    """Read a receipt; `path` is for the errors.

    Raises: Corrupt naming the key, ConfigError for a schema from the future.
    """
    if len(content) > MAX_SIZE:
        raise Corrupt(path, f"a receipt of more than {MAX_SIZE} bytes")
    try:
        decoded: object = json.loads(content)
    except (ValueError, RecursionError) as err:
        raise Corrupt(path, f"not a receipt: {err}") from err
    table = _Table(path, decoded)
    schema = table.whole("schema", low=1)
    if schema > SCHEMA:
        raise ConfigError(
            f"{path} has schema {schema}, this version reads up to {SCHEMA}",
            hint="upgrade with: pip install --upgrade wizard-edge",
        )
    return Receipt(
        model=table.name("model", ModelName),
        quant=table.quant("quant"),
        files=_parse_files(table),
        origin=_parse_origin(table.table("origin")),
        licenses=table.texts("licenses"),
        template=table.optional_text("template"),
        architecture=table.optional_text("architecture"),
        context=table.optional_whole("context"),
        parameters=table.optional_whole("parameters"),
        tool=table.text("tool"),
        created=table.time("created"),
        accepted=tuple(map(_parse_acceptance, table.tables("accepted"))),
        quality=table.numbers("quality"),
        weights=tuple(map(_parse_checked, table.optional_tables("weights"))),
        evaluated_on=_parse_evaluated_on(table.optional_table("evaluated_on")),
    )


def _to_hand_out(place: _Place) -> _Place:
    return place if place.url is None else replace(place, url=without_query(place.url))


def _parse_files(table: _Table) -> tuple[StoredFile, ...]:
    files = tuple(
        StoredFile(
            name=row.name("name", RelPath),
            size=row.whole("size"),
            sha256=row.name("sha256", Sha256),
            pieces=tuple(map(_parse_piece, row.optional_tables("pieces"))),
        )
        for row in table.tables("files")
    )
    if not files:
        raise table.misfit("files", "names no file")
    if any("/" in file.name for file in files):
        raise table.misfit("files", "names a file in another folder")
    for file in files:
        if file.pieces and sum(piece.size for piece in file.pieces) != file.size:
            raise table.misfit("files", f"has pieces of another size of {file.name}")
    return files


def _parse_piece(table: _Table) -> Piece:
    piece = Piece(
        size=table.whole("size"),
        sha256=table.optional_name("sha256", Sha256),
        repo=table.optional_name("repo", RepoId),
        revision=table.optional_name("revision", CommitId),
        path=table.optional_name("path", RelPath),
        url=table.optional_url("url"),
        etag=table.optional_text("etag"),
    )
    on_hub = None not in (piece.repo, piece.revision, piece.path)
    if on_hub == (piece.url is not None):
        raise table.misfit("url", "should stand alone, or repo, revision and path")
    return piece


def _parse_origin(table: _Table) -> Origin:
    kind = table.text("kind")
    for known in get_args(OriginKind):
        if kind == known:
            return Origin(
                kind=known,
                repo=table.optional_name("repo", RepoId),
                revision=table.optional_name("revision", CommitId),
                url=table.optional_url("url"),
                base=table.optional_text("base"),
            )
    raise table.misfit("kind", f"is {kind!r}")


def _parse_checked(table: _Table) -> CheckedFile:
    try:
        check = Check(table.text("check"))
    except ValueError as err:
        raise table.misfit("check", str(err)) from err
    return CheckedFile(
        name=table.name("name", RelPath),
        size=table.whole("size"),
        check=check,
        sha256=table.optional_name("sha256", Sha256),
    )


def _parse_acceptance(table: _Table) -> Acceptance:
    return Acceptance(
        license=table.text("license"),
        summary_sha256=table.name("summary_sha256", Sha256),
        accepted=table.time("accepted"),
    )


def _parse_evaluated_on(table: _Table | None) -> EvaluatedOn | None:
    if table is None:
        return None
    return EvaluatedOn(
        text_sha256=table.name("text_sha256", Sha256),
        context=table.whole("context", low=1),
        chunks=table.whole("chunks", low=1),
        tool=table.text("tool"),
        evaluated=table.time("evaluated"),
        reference=table.optional_text("reference"),
        reference_sha256=table.optional_name("reference_sha256", Sha256),
    )


class _Table:
    """A decoded JSON object that answers in types, or says which key does not fit.

    Texts are printable, so that showing them cannot steer a terminal.
    """

    def __init__(self, path: Path, value: object, where: str = "") -> None:
        self.path = path
        self.where = where
        if not isinstance(value, dict):
            raise Corrupt(path, "should be an object", where=where or None)
        self._values: Mapping[str, object] = value

    def misfit(self, key: str, problem: str) -> Corrupt:
        return Corrupt(self.path, problem, where=f"key {self.where}{key}")

    def text(self, key: str) -> str:
        value = self._values.get(key)
        if not isinstance(value, str) or not value or not value.isprintable():
            raise self.misfit(key, "should be a text")
        return value

    def optional_text(self, key: str) -> str | None:
        return None if self._values.get(key) is None else self.text(key)

    def optional_url(self, key: str) -> str | None:
        """Read an address of the web that names nobody's password."""
        value = self.optional_text(key)
        if value is not None and not _URL.fullmatch(value):
            raise self.misfit(key, "should be an address, without user and blanks")
        return value

    def texts(self, key: str) -> tuple[str, ...]:
        return tuple(
            _Table(self.path, {key: item}, self.where).text(key)
            for item in self._items(key)
        )

    def whole(self, key: str, low: int = 0) -> int:
        value = self._values.get(key)
        if not isinstance(value, int) or isinstance(value, bool) or value < low:
            raise self.misfit(key, f"should be a whole number from {low}")
        return value

    def optional_whole(self, key: str) -> int | None:
        return None if self._values.get(key) is None else self.whole(key)

    def numbers(self, key: str) -> Mapping[str, float] | None:
        if self._values.get(key) is None:
            return None
        found: dict[str, float] = {}
        for name, value in self.table(key)._values.items():
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise self.misfit(f"{key}.{name!r}", "should be a number")
            if not abs(value) < inf or not name.isprintable():
                raise self.misfit(f"{key}.{name!r}", "should be a number")
            found[name] = value
        return found

    def time(self, key: str) -> str:
        value = self.text(key)
        if not _TIME.fullmatch(value):
            raise self.misfit(key, f"should be a time in UTC, is {value!r}")
        return value

    def quant(self, key: str) -> str:
        try:
            return parse_quant(self.text(key))
        except UnknownQuant as err:
            raise self.misfit(key, err.message) from err

    def name(self, key: str, kind: type[_Name]) -> _Name:
        try:
            return kind.parse(self._values.get(key))
        except UsageError as err:
            raise self.misfit(key, err.message) from err

    def optional_name(self, key: str, kind: type[_Name]) -> _Name | None:
        return None if self._values.get(key) is None else self.name(key, kind)

    def table(self, key: str) -> _Table:
        return _Table(self.path, self._values.get(key), f"{self.where}{key}.")

    def optional_table(self, key: str) -> _Table | None:
        return None if self._values.get(key) is None else self.table(key)

    def tables(self, key: str) -> list[_Table]:
        return [
            _Table(self.path, item, f"{self.where}{key}[{index}].")
            for index, item in enumerate(self._items(key))
        ]

    def optional_tables(self, key: str) -> list[_Table]:
        return [] if self._values.get(key) is None else self.tables(key)

    def _items(self, key: str) -> list[object]:
        value = self._values.get(key)
        if not isinstance(value, list):
            raise self.misfit(key, "should be a list")
        return value
