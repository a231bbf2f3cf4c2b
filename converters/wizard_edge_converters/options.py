"""What to make of a checkpoint, checked before anything is read."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field

from wizard_edge.conversion import QuantRules
from wizard_edge.errors import UsageError
from wizard_edge.names import RepoId
from wizard_edge.refs import DEFAULT_QUANT, parse_quant
from wizard_edge.templates import find_template

_LICENSE_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,63}")
_MAX_NOTE = 200


@dataclass(frozen=True, slots=True)
class ConvertOptions:
    """What to make of a checkpoint, checked when it is made.

    `quants` are made from one reading of the source. `name` defaults to that of the
    directory. `license_names`, `license_links` and `notices` are what is known of the
    licences. `threads` None means one for each usable core. `split_max_size` is in
    bytes, None for one file.
    Raises: UnknownQuant; UsageError for an unknown template or a malformed value.
    """

    quants: tuple[str, ...] = (DEFAULT_QUANT,)
    name: str | None = None
    template: str | None = None
    licenses: tuple[str, ...] = ()
    license_names: tuple[str, ...] = ()
    license_links: tuple[str, ...] = ()
    notices: tuple[str, ...] = ()
    source_repo: RepoId | None = None
    source_revision: str | None = None
    threads: int | None = None
    rules: QuantRules = field(default_factory=QuantRules)
    split_max_size: int | None = None
    overwrite: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "quants", tuple(map(parse_quant, self.quants)))
        if not self.quants or len(set(self.quants)) < len(self.quants):
            raise UsageError(f"quants named twice, or none: {self.quants}")
        if self.template is not None:
            find_template(self.template)
        for license_id in self.licenses:
            if not _LICENSE_ID.fullmatch(license_id):
                raise UsageError(f"not a licence id: {license_id!r}")
        for text in (self.name, self.source_revision):
            if text is not None and not is_note(text):
                raise UsageError(f"not a plain text of one line: {text[:80]!r}")
        if self.threads is not None and self.threads < 1:
            raise UsageError(f"threads must be 1 or more, not {self.threads}")


def usable_threads(wanted: int | None) -> int:
    """Return how many threads quantize: as many as wanted, or as there are cores."""
    if wanted is not None:
        return wanted
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def is_note(text: str) -> bool:
    """Say whether a text may stand in the metadata: short, and of one line."""
    return 0 < len(text) <= _MAX_NOTE and text.isprintable()
