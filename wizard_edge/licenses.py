"""The terms a model comes under, in short: what is allowed and what it obliges to.

Puts together what the registry says; decides nothing. Knows no store and no ledger.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from wizard_edge.errors import NotFound
from wizard_edge.models import License, ModelSpec
from wizard_edge.names import Sha256
from wizard_edge.registry import Registry

# Every licence of the family that allows it asks for something in return.
COMMERCIAL_USE = {
    True: "allowed, under the licence's conditions",
    False: "not allowed",
    None: "unclear, take it as no",
}


@dataclass(frozen=True, slots=True)
class Terms:
    """All licences of a model together; `conflict` is where they contradict others.

    `needs_consent` says whether somebody has to accept them before the model comes
    in: not those of the model that is a part of this program, and not those that
    whoever asks stated themselves.
    """

    licenses: tuple[License, ...]
    conflict: str = ""
    needs_consent: bool = True

    @property
    def ids(self) -> tuple[str, ...]:
        return tuple(license.id for license in self.licenses)

    @property
    def commercial(self) -> bool | None:
        """Whether every licence allows commercial use; None where nobody could say."""
        answers = {license.commercial for license in self.licenses}
        if False in answers:
            return False
        return None if None in answers or not answers else True

    @property
    def notices(self) -> tuple[str, ...]:
        """The lines that must travel with the model, to the letter."""
        return tuple(license.notice for license in self.licenses if license.notice)


def terms_of(
    spec: ModelSpec, registry: Registry, *, from_weights: bool = False
) -> Terms:
    """Collect the terms of a model; of its original weights too where asked.

    A delta comes with its own licence and that of the base it needs. The model that
    comes with this program needs nobody's consent.
    Raises: NotFound for a licence the registry does not have.
    """
    ids = list(spec.licenses)
    if from_weights and spec.source:
        base = spec.source.delta_of
        ids += [id for id in (spec.source.license, base and base.license) if id]
    return Terms(
        licenses=tuple(registry.license(id) for id in dict.fromkeys(ids)),
        conflict=spec.license_conflict,
        needs_consent=spec.source is None or spec.source.package is None,
    )


def terms_named(
    ids: Iterable[str], registry: Registry, *, needs_consent: bool = True
) -> Terms:
    """Collect the terms of licences by id, such as a receipt or a GGUF file names.

    A licence the registry does not have is kept by its id, with nothing known of it.
    """
    found = tuple(_known(id, registry) for id in dict.fromkeys(ids))
    return Terms(found, needs_consent=needs_consent)


def summary(terms: Terms) -> str:
    """Write the terms for a person, the same terms always as the same text."""
    if not terms.licenses:
        return "licence: not stated by whoever converted it\n"
    text = "".join(map(summary_of, terms.licenses))
    return text + (f"conflict: {terms.conflict}\n" if terms.conflict else "")


def summary_of(license: License) -> str:
    """Write one licence for a person: the text that is accepted, and hashed."""
    return "".join(f"{line}\n" for line in _lines(license))


def summary_sha256(license: License) -> Sha256:
    """Return the hash of the summary: a new text wants a new acceptance."""
    return Sha256(hashlib.sha256(summary_of(license).encode()).hexdigest())


def lettered(restrictions: Iterable[str]) -> list[str]:
    """Put the letter before each restricted use that the licence gives it."""
    return [f"({chr(ord('a') + i)}) {use}" for i, use in enumerate(restrictions)]


def _lines(license: License) -> Iterator[str]:
    yield f"{license.name} ({license.id})"
    if license.url:
        yield f"  text: {license.url}"
    if license.use_policy:
        yield f"  use policy: {license.use_policy}"
    yield f"  commercial use: {COMMERCIAL_USE[license.commercial]}"
    for obligation in license.obligations:
        yield f"  - {obligation}"
    if license.restrictions:
        yield "  not to be used for:"
        yield from (f"    {use}" for use in lettered(license.restrictions))
    if license.notice:
        yield f"  notice: {license.notice}"
    if license.unverified:
        yield f"  nobody could confirm: {', '.join(license.unverified)}"


def _known(id: str, registry: Registry) -> License:
    try:
        return registry.license(id)
    except NotFound:
        return License(id=id, name=id, expression="", commercial=None)
