"""The terms a model comes under, in short: what is allowed and what it obliges to.

Puts together what the registry says; decides nothing. Knows no store and no ledger.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from wizard_edge.errors import NotFound
from wizard_edge.models import License, ModelSpec
from wizard_edge.registry import Registry


@dataclass(frozen=True, slots=True)
class Terms:
    """All licences of a model together; `conflict` is where they contradict others."""

    licenses: tuple[License, ...]
    conflict: str = ""

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

    A delta comes with its own licence and that of the base it needs.
    Raises: NotFound for a licence the registry does not have.
    """
    ids = list(spec.licenses)
    if from_weights and spec.source:
        base = spec.source.delta_of
        ids += [id for id in (spec.source.license, base and base.license) if id]
    return Terms(
        licenses=tuple(registry.license(id) for id in dict.fromkeys(ids)),
        conflict=spec.license_conflict,
    )


def terms_named(ids: Iterable[str], registry: Registry) -> Terms:
    """Collect the terms of licences by id, such as a receipt or a GGUF file names.

    A licence the registry does not have is kept by its id, with nothing known of it.
    """
    return Terms(tuple(_known(id, registry) for id in ids))


def summary(terms: Terms) -> str:
    """Write the terms for a person, the same terms always as the same text."""
    if not terms.licenses:
        return "licence: not stated by whoever converted it\n"
    lines: list[str] = []
    for license in terms.licenses:
        lines += [f"{license.name} ({license.id})"]
        lines += [f"  text: {license.url}"] if license.url else []
        lines += [f"  use policy: {license.use_policy}"] if license.use_policy else []
        lines += [f"  commercial use: {COMMERCIAL_USE[license.commercial]}"]
        lines += [f"  - {obligation}" for obligation in license.obligations]
        lines += [f"  notice: {license.notice}"] if license.notice else []
    if terms.conflict:
        lines += [f"conflict: {terms.conflict}"]
    return "\n".join(lines) + "\n"


# Every licence of the family that allows it asks for something in return.
COMMERCIAL_USE = {
    True: "allowed, under the licence's conditions",
    False: "not allowed",
    None: "unclear, take it as no",
}


def _known(id: str, registry: Registry) -> License:
    try:
        return registry.license(id)
    except NotFound:
        return License(id=id, name=id, expression="", commercial=None)
