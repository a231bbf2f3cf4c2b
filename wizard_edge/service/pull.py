"""Bring a model of the registry into the store, or find that it is there.

In this release only what comes with the package can be pulled; it is converted on
the spot.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from wizard_edge.conversion import Convert, Cost
from wizard_edge.errors import Corrupt, HubError, NotFound, UsageError
from wizard_edge.licenses import Terms, terms_of
from wizard_edge.models import ModelSpec
from wizard_edge.paths import place
from wizard_edge.progress import Progress, silent
from wizard_edge.refs import HubRef, ModelRef, RegistryRef, parse_quant
from wizard_edge.service.conversions import (
    Stored,
    bundled_checkpoint,
    file_name,
    install,
)
from wizard_edge.service.installation import Installation
from wizard_edge.store import Installed

# The bundled model is 4 MB: nothing is gained by making it less exact.
BUNDLED_QUANT = "Q8_0"


@dataclass(frozen=True, slots=True)
class PullPlan:
    """What `pull` is going to do; `cost` is None where it is `already` there."""

    name: str
    quant: str
    source: str
    path: Path
    terms: Terms
    already: bool
    cost: Cost | None


def plan_pull(
    installation: Installation,
    ref: str,
    quant: str | None = None,
    *,
    convert: Convert,
) -> PullPlan:
    """Decide what to bring in and from where; changes nothing.

    Raises: UnknownModel, UnknownQuant, HubError for what needs a download, UsageError.
    """
    spec, quant = _choose(installation, ref, quant)
    checkpoint = bundled_checkpoint(installation, spec)
    there = _present(installation, spec, quant)
    folder = installation.home.model(spec.name)
    return PullPlan(
        name=spec.name,
        quant=quant,
        source="bundled",
        path=there.path if there else place(folder, file_name(spec.name, quant)),
        terms=terms_of(spec, installation.registry),
        already=there is not None,
        cost=None if there else convert.estimate(checkpoint.path, quant=quant),
    )


def pull(
    installation: Installation,
    ref: str,
    quant: str | None = None,
    *,
    convert: Convert,
    progress: Progress = silent,
) -> Stored:
    """Bring a model into the store, or find it there.

    What is there is taken as it is if its receipt can be read and its size is right.
    Raises: UnknownModel, UnknownQuant, HubError for what needs a download, UsageError,
    NotEnough, Refused, and what `convert` does.
    """
    spec, quant = _choose(installation, ref, quant)
    checkpoint = bundled_checkpoint(installation, spec)
    there = _present(installation, spec, quant)
    if there is not None:
        return Stored(there.receipt, there.path, already=True)
    return install(installation, checkpoint, quant, convert=convert, progress=progress)


def _choose(
    installation: Installation, text: str, quant: str | None
) -> tuple[ModelSpec, str]:
    ref = ModelRef.parse(text)
    if isinstance(ref, HubRef):
        raise HubError(
            f"{ref}: downloads from the hub are not in this release yet",
            hint="with the original weights on this machine: 'wizard-edge convert DIR'",
        )
    if not isinstance(ref, RegistryRef):
        raise UsageError(
            f"{text} is a path, not a model", hint="'wizard-edge convert DIR' takes one"
        )
    wanted = parse_quant(quant) if quant is not None else None
    if wanted and ref.quant and wanted != ref.quant:
        raise UsageError(f"{text} names another quant than {wanted}")
    return installation.registry.find(ref.name), wanted or ref.quant or BUNDLED_QUANT


def _present(
    installation: Installation, spec: ModelSpec, quant: str
) -> Installed | None:
    """Return the variant if it is in the store and its files have the right size."""
    try:
        found = installation.store.find(spec.name, quant)
    except (NotFound, Corrupt):
        return None
    return found if found.problem() is None else None
