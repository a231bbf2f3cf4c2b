"""Which licences the models on this machine are under, and which were accepted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from wizard_edge.errors import UnknownModel
from wizard_edge.ledger import Entry, Ledger
from wizard_edge.licenses import summary_of, summary_sha256, terms_named
from wizard_edge.models import License, ModelSpec
from wizard_edge.receipts import Acceptance, Receipt
from wizard_edge.service.consent import record
from wizard_edge.service.installation import Installation


@dataclass(frozen=True, slots=True)
class LicenseCard:
    """A licence as it matters here; `commercial` None means unclear: take it as no.

    `models` are those of the store that are under it. `accepted` is the acceptance of
    the summary as it is now; `accepted_before` says that there is one of another
    text. `needed` says whether a model of the store needs an acceptance at all.
    `recorded` is when it was accepted by the receipts here, the latest in UTC.
    """

    id: str
    name: str
    url: str
    commercial: bool | None
    summary: str
    summary_sha256: str
    obligations: tuple[str, ...]
    restrictions: tuple[str, ...]
    notice: str
    models: tuple[str, ...]
    needed: bool
    accepted: Entry | None
    accepted_before: bool
    recorded: str | None = None


@dataclass(frozen=True, slots=True)
class Conflict:
    """What the sources say against each other of the licence of a model."""

    model: str
    text: str


@dataclass(frozen=True, slots=True)
class Overview:
    """The licences of what is in the store; `unstated` are models without any."""

    licenses: tuple[LicenseCard, ...]
    conflicts: tuple[Conflict, ...]
    unstated: tuple[str, ...]


@dataclass(slots=True)
class _Use:
    """The models of the store that are under one licence, while they are counted."""

    models: list[str] = field(default_factory=list)
    needed: bool = False
    accepted: list[Acceptance] = field(default_factory=list)


def list_licenses(installation: Installation) -> Overview:
    """Say what the models in the store oblige to; a damaged receipt is logged.

    Raises: what `Ledger.entries` raises; ConfigError for the user's registry.
    """
    uses: dict[str, _Use] = {}
    conflicts: dict[str, str] = {}
    unstated: list[str] = []
    for item in installation.store.installed():
        receipt = item.receipt
        spec = _spec(installation, receipt)
        name = f"{receipt.model}:{receipt.quant}"
        known = spec.licenses if spec else ()
        # What was asked for when it came in was needed, whatever is known by now.
        asked = {item.license: item for item in receipt.accepted}
        ids = dict.fromkeys((*receipt.licenses, *known, *asked))
        for id in ids:
            use = uses.setdefault(id, _Use())
            use.models.append(name)
            use.needed |= receipt.origin.kind != "bundled" and id in known
            if id in asked:
                use.needed = True
                use.accepted.append(asked[id])
        if not ids:
            unstated.append(name)
        if spec is not None and spec.license_conflict:
            conflicts[receipt.model] = spec.license_conflict
    entries = Ledger(installation.home).entries()
    terms = terms_named(sorted(uses), installation.registry)
    return Overview(
        licenses=tuple(_card(item, uses[item.id], entries) for item in terms.licenses),
        conflicts=tuple(Conflict(*item) for item in conflicts.items()),
        unstated=tuple(unstated),
    )


def show_license(installation: Installation, id: str) -> LicenseCard:
    """Describe one licence, whether anything here is under it or not.

    Raises: NotFound for an id that neither the registry nor a model here names; what
    `list_licenses` raises.
    """
    for card in list_licenses(installation).licenses:
        if card.id == id:
            return card
    license = installation.registry.license(id)
    return _card(license, _Use(), Ledger(installation.home).entries())


def accept_licenses(
    installation: Installation, ids: Sequence[str]
) -> tuple[LicenseCard, ...]:
    """Record that licences are accepted as they are summarised now; return them.

    Raises: NotFound for an id that the registry does not have; what `Ledger.record`
    raises.
    """
    licenses = [installation.registry.license(id) for id in dict.fromkeys(ids)]
    record(installation, licenses, "command")
    return tuple(show_license(installation, license.id) for license in licenses)


def _spec(installation: Installation, receipt: Receipt) -> ModelSpec | None:
    try:
        return installation.registry.find(receipt.model)
    except UnknownModel:
        return None


def _card(license: License, use: _Use, entries: Sequence[Entry]) -> LicenseCard:
    digest = summary_sha256(license)
    ours = {e.summary_sha256: e for e in reversed(entries) if e.license == license.id}
    accepted = ours.pop(digest, None)
    here = [item.accepted for item in use.accepted if item.summary_sha256 == digest]
    return LicenseCard(
        id=license.id,
        name=license.name,
        url=license.url,
        commercial=license.commercial,
        summary=summary_of(license),
        summary_sha256=digest,
        obligations=license.obligations,
        restrictions=license.restrictions,
        notice=license.notice,
        models=tuple(use.models),
        needed=use.needed,
        accepted=accepted,
        accepted_before=bool(ours) or len(here) < len(use.accepted),
        recorded=max(here, default=None),
    )
