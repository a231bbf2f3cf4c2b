"""Whether a model may come in: who accepted its licences, and for what use.

Asking is the command's business; here is decided, recorded and refused.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

from wizard_edge.errors import Refused, UnknownModel, UsageError
from wizard_edge.gguf import read_header
from wizard_edge.ledger import Entry, How, Ledger
from wizard_edge.licenses import COMMERCIAL_USE, Terms, summary_sha256, terms_named
from wizard_edge.models import License
from wizard_edge.receipts import Acceptance, Receipt
from wizard_edge.service.installation import Installation
from wizard_edge.service.targets import Target

Consent: TypeAlias = Callable[[Terms], tuple[Acceptance, ...]]
"""Answers whether a model may come in under its terms, or raises Refused."""


def require(
    installation: Installation,
    terms: Terms,
    *,
    accept: Sequence[str] = (),
    commercial: bool | None = None,
) -> tuple[Acceptance, ...]:
    """See that somebody accepted the terms; return the acceptances for the receipt.

    `accept` names licences that are accepted herewith, which is recorded as soon as
    nothing else stands in the way. `commercial` is as in `refuse_unfit`.
    Raises: Refused naming every licence that is missing, and the options to give;
    UsageError for an id nobody knows; what `Ledger` raises.
    """
    refuse_unfit(installation, terms, commercial=commercial)
    named = find_named(installation, terms, accept)
    missing = [
        license.id
        for license in find_missing(installation, terms)
        if license.id not in named
    ]
    if missing:
        one = len(missing) == 1
        options = " ".join(f"--accept-license {id}" for id in missing)
        raise Refused(
            f"licence{'' if one else 's'} {', '.join(missing)} "
            f"{'is' if one else 'are'} not accepted",
            hint=f"wizard-edge licenses show {' '.join(missing)}, then {options}",
        )
    if named:
        record(installation, named.values(), "flag")
    return _acceptances(installation, terms)


def find_missing(installation: Installation, terms: Terms) -> tuple[License, ...]:
    """Return the licences that nobody accepted yet in the words they have now.

    Raises: what `Ledger.entries` raises.
    """
    if not terms.needs_consent or not terms.licenses:
        return ()
    entries = Ledger(installation.home).entries()
    accepted = {(entry.license, entry.summary_sha256) for entry in entries}
    return tuple(
        license
        for license in terms.licenses
        if (license.id, summary_sha256(license)) not in accepted
    )


def find_named(
    installation: Installation, terms: Terms, accept: Sequence[str]
) -> dict[str, License]:
    """Return the licences that `accept` names, by their ids.

    Raises: UsageError for an id that neither the registry nor the terms have.
    """
    every = (*installation.registry.licenses, *terms.licenses) if accept else ()
    known = {license.id: license for license in every}
    for id in accept:
        if id not in known:
            raise UsageError(
                f"--accept-license: unknown licence {id!r}",
                hint=f"known: {', '.join(known)}",
            )
    return {id: known[id] for id in accept}


def record(installation: Installation, licenses: Iterable[License], how: How) -> None:
    """Write down that licences were accepted, by whoever runs this, now.

    Raises: what `Ledger.record` raises.
    """
    by = _user(installation.environ)
    Ledger(installation.home).record(
        Entry(license.id, summary_sha256(license), installation.now(), by, how)
        for license in licenses
    )


def refuse_unfit(
    installation: Installation, terms: Terms, *, commercial: bool | None = None
) -> None:
    """Refuse a model that is not free for commercial use, where that is wanted.

    `commercial` None leaves it to the setting. Unclear counts as no.
    Raises: Refused.
    """
    if not wants_commercial(installation, commercial) or terms.commercial:
        return
    reasons = [
        f"{license.id}: commercial use {COMMERCIAL_USE[license.commercial]}"
        for license in terms.licenses
        if not license.commercial
    ]
    raise Refused(
        "; ".join(reasons) or "nobody says which licence this is under",
        hint="leave out --commercial"
        if commercial
        else "the setting 'commercial' is on: wizard-edge config commercial --unset",
    )


def refuse_target(
    installation: Installation, target: Target, *, commercial: bool | None = None
) -> None:
    """Refuse to open what is not free for commercial use, where that is wanted.

    Terms are those of the receipt, of the registry where it knows the model, and of
    the metadata where it is only a file.
    Raises: Refused; MissingFile and Corrupt for a file that cannot be asked.
    """
    if wants_commercial(installation, commercial):
        terms = _terms_of_target(installation, target)
        refuse_unfit(installation, terms, commercial=commercial)


def refuse_receipt(
    installation: Installation, receipt: Receipt, *, commercial: bool | None = None
) -> None:
    """Refuse an installed model by its receipt, as `refuse_target` does.

    Raises: Refused.
    """
    if wants_commercial(installation, commercial):
        terms = _terms_of_receipt(installation, receipt)
        refuse_unfit(installation, terms, commercial=commercial)


def refuse_file(
    installation: Installation, path: Path, *, commercial: bool | None = None
) -> None:
    """Refuse to read a GGUF file, as `refuse_target` does. Raises: as that."""
    if wants_commercial(installation, commercial):
        terms = terms_named(read_header(path).licenses, installation.registry)
        refuse_unfit(installation, terms, commercial=commercial)


def wants_commercial(installation: Installation, commercial: bool | None) -> bool:
    """Tell whether models are wanted for commercial use, by option or setting."""
    if commercial is None:
        return bool(installation.settings.commercial)
    return commercial


def _acceptances(installation: Installation, terms: Terms) -> tuple[Acceptance, ...]:
    if not terms.needs_consent or not terms.licenses:
        return ()
    found = {
        (entry.license, entry.summary_sha256): entry.accepted
        for entry in reversed(Ledger(installation.home).entries())
    }
    keys = [(license.id, summary_sha256(license)) for license in terms.licenses]
    return tuple(Acceptance(*key, found[key]) for key in keys if key in found)


def _terms_of_target(installation: Installation, target: Target) -> Terms:
    if target.installed is None:
        header = read_header(target.path)
        return terms_named(header.licenses, installation.registry)
    return _terms_of_receipt(installation, target.installed.receipt)


def _terms_of_receipt(installation: Installation, receipt: Receipt) -> Terms:
    registry = installation.registry
    ids = list(receipt.licenses)
    with contextlib.suppress(UnknownModel):
        ids += registry.find(receipt.model).licenses
    return terms_named(ids, registry)


def _user(environ: Mapping[str, str]) -> str:
    """Return the name of whoever runs this, "unknown" where the system has none."""
    try:
        # POSIX has it; elsewhere the environment knows.
        import pwd

        name = pwd.getpwuid(os.getuid()).pw_name
    except (ImportError, KeyError):
        name = environ.get("USERNAME") or environ.get("USER") or ""
    return name if name and name.isprintable() else "unknown"
