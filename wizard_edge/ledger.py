"""The licences somebody accepted on this machine: `<home>/licenses/accepted.json`.

A JSON object with `schema` and a list `accepted`. An older schema is read, a newer one
refused, unknown keys are ignored. An entry counts for one licence and one text of its
summary: whoever changes the text has to ask again, and the old entry stays. A file
that cannot be read accepts nothing. Knows no registry.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Literal, get_args

from wizard_edge.errors import ConfigError, Corrupt, Refused
from wizard_edge.files import translated, write_atomically
from wizard_edge.locking import SUFFIX as LOCK_SUFFIX
from wizard_edge.locking import exclusive
from wizard_edge.names import Sha256
from wizard_edge.paths import Home

How = Literal["asked", "flag", "command"]

SCHEMA = 1
FILE = "accepted.json"
# Far above any ledger, to keep a wrong file out of memory.
MAX_SIZE = 4 << 20

_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")


@dataclass(frozen=True, slots=True)
class Entry:
    """A licence that was accepted: the summary that was shown, when, by whom, how.

    `accepted` is the time in UTC as receipts write it. `how` is `asked` on a
    terminal, `flag` on a command line, `command` for `licenses accept`.
    """

    license: str
    summary_sha256: Sha256
    accepted: str
    by: str
    how: How


class Ledger:
    """The acceptances under one home."""

    def __init__(self, home: Home) -> None:
        self.path = home.licenses / FILE

    def entries(self) -> tuple[Entry, ...]:
        """Return what was accepted, the oldest first; writes nothing.

        Raises: Corrupt for a damaged file, ConfigError for a schema from the future,
        Refused for a file that may not be read.
        """
        try:
            with self.path.open("rb") as file:
                content = file.read(MAX_SIZE + 1)
        except FileNotFoundError:
            return ()
        except PermissionError as err:
            raise Refused(
                f"cannot read {self.path}: {err.strerror}",
                hint="run as the owner of the store, or let its files be read",
            ) from err
        except OSError as err:
            raise self._damaged(f"cannot be read: {err.strerror}") from err
        return self._parse(content)

    def find(self, license: str, summary_sha256: Sha256) -> Entry | None:
        """Return the acceptance of a licence as it is summarised now, if there is one.

        Raises: as `entries`.
        """
        for entry in self.entries():
            if (entry.license, entry.summary_sha256) == (license, summary_sha256):
                return entry
        return None

    def record(self, entries: Iterable[Entry]) -> None:
        """Add acceptances; what was accepted before keeps its first entry.

        Others who write wait for each other, and none loses the entry of another.
        Where all of it was accepted before, nothing is written or locked.
        Raises: as `entries`; NotEnough, Refused where it cannot be written.
        """
        wanted = list(entries)
        if not _new(wanted, self.entries()):
            return
        with translated(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
        lock = self.path.with_name(FILE + LOCK_SUFFIX)
        with exclusive(lock, waiting=lambda: None):
            before = self.entries()
            content = _to_bytes([*before, *_new(wanted, before)])
            write_atomically(self.path, content)

    def _parse(self, content: bytes) -> tuple[Entry, ...]:
        if len(content) > MAX_SIZE:
            raise self._damaged(f"more than {MAX_SIZE} bytes")
        try:
            table: object = json.loads(content)
        except (ValueError, RecursionError) as err:
            raise self._damaged(f"not JSON: {err}") from err
        if not isinstance(table, dict):
            raise self._damaged("should be an object")
        schema = table.get("schema")
        if not isinstance(schema, int) or isinstance(schema, bool) or schema < 1:
            raise self._damaged("should be a whole number from 1", "key schema")
        if schema > SCHEMA:
            raise ConfigError(
                f"{self.path} has schema {schema}, this version reads up to {SCHEMA}",
                hint="upgrade with: pip install --upgrade wizard-edge",
            )
        rows = table.get("accepted")
        if not isinstance(rows, list):
            raise self._damaged("should be a list", "key accepted")
        return tuple(self._entry(row, index) for index, row in enumerate(rows))

    def _entry(self, row: object, index: int) -> Entry:
        place = f"key accepted[{index}]"
        if not isinstance(row, dict):
            raise self._damaged("should be an object", place)
        texts: dict[str, str] = {}
        for key in ("license", "summary_sha256", "accepted", "by", "how"):
            text = row.get(key)
            # Printable, so that showing it cannot steer a terminal.
            if not isinstance(text, str) or not text or not text.isprintable():
                raise self._damaged("should be a text", f"{place}.{key}")
            texts[key] = text
        if not Sha256.fits(texts["summary_sha256"]):
            raise self._damaged("should be a sha256", f"{place}.summary_sha256")
        if not _TIME.fullmatch(texts["accepted"]):
            raise self._damaged("should be a time in UTC", f"{place}.accepted")
        for how in get_args(How):
            if texts["how"] == how:
                return Entry(
                    license=texts["license"],
                    summary_sha256=Sha256(texts["summary_sha256"]),
                    accepted=texts["accepted"],
                    by=texts["by"],
                    how=how,
                )
        raise self._damaged(f"is {texts['how']!r}", f"{place}.how")

    def _damaged(self, problem: str, where: str | None = None) -> Corrupt:
        return Corrupt(
            self.path,
            problem,
            where=where,
            hint="move it away, then accept again: wizard-edge licenses accept ID",
        )


def _new(entries: Sequence[Entry], before: Sequence[Entry]) -> list[Entry]:
    known = {(entry.license, entry.summary_sha256) for entry in before}
    return [e for e in entries if (e.license, e.summary_sha256) not in known]


def _to_bytes(entries: Sequence[Entry]) -> bytes:
    table = {"schema": SCHEMA, "accepted": [asdict(entry) for entry in entries]}
    text = json.dumps(table, indent=2, sort_keys=True, ensure_ascii=False)
    return f"{text}\n".encode()
