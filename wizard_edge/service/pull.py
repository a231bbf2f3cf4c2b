"""Bring a model of the registry into the store, or find that it is there.

In this release a model is made from its original weights: what comes with the package
is converted on the spot, all else while it streams from the hub.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from wizard_edge.conversion import Convert, Cost, Recipe
from wizard_edge.errors import Corrupt, HubError, NotFound, UsageError
from wizard_edge.licenses import Terms, terms_of
from wizard_edge.models import ModelSpec
from wizard_edge.paths import place
from wizard_edge.progress import Progress, silent
from wizard_edge.refs import DEFAULT_QUANT, FileRef, HubRef, ModelRef, parse_quant
from wizard_edge.service.checkpoints import (
    Checkpoint,
    Request,
    find_checkpoint,
    pull_command,
)
from wizard_edge.service.conversions import install
from wizard_edge.service.installation import Installation
from wizard_edge.service.stored import Stored, file_name
from wizard_edge.store import Installed

# The bundled model is 4 MB: nothing is gained by making it less exact.
BUNDLED_QUANT = "Q8_0"


@dataclass(frozen=True, slots=True)
class PullRequest:
    """What somebody wants in the store.

    `from_weights` allows to fetch and convert original weights; `base` is what a
    weight delta is added to.
    """

    model: str
    quant: str | None = None
    from_weights: bool = False
    base: str | None = None
    recipe: Recipe | None = None


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
    installation: Installation, request: PullRequest, *, convert: Convert
) -> PullPlan:
    """Decide what to bring in and from where; changes nothing.

    Raises: UnknownModel, UnknownQuant, HubError for what needs a download of a ready
    file, CannotConvert for a delta without its base, UsageError.
    """
    spec, quant = _choose(installation, request)
    there = _present(installation, spec, quant)
    folder = installation.home.model(spec.name)
    cost = None
    source = "store"
    if there is None:
        checkpoint, recipe = _checkpoint(installation, request, spec, quant)
        source = checkpoint.facts.origin.kind
        cost = convert.estimate(checkpoint.weights, recipe, checkpoint.facts)
    return PullPlan(
        name=spec.name,
        quant=quant,
        source=source,
        path=there.path if there else place(folder, file_name(spec.name, quant)),
        terms=terms_of(spec, installation.registry),
        already=there is not None,
        cost=cost,
    )


def pull(
    installation: Installation,
    request: PullRequest,
    *,
    convert: Convert,
    progress: Progress = silent,
) -> Stored:
    """Bring a model into the store, or find it there.

    What is there is taken as it is if its receipt can be read and its size is right.
    Raises: as `plan_pull`; NotEnough, Refused, and what `convert` does.
    """
    spec, quant = _choose(installation, request)
    there = _present(installation, spec, quant)
    if there is not None:
        return Stored(there.receipt, there.path, already=True)
    checkpoint, recipe = _checkpoint(installation, request, spec, quant)
    [stored] = install(
        installation, checkpoint, recipe, convert=convert, progress=progress
    )
    return stored


def find_terms(installation: Installation, request: PullRequest) -> Terms | None:
    """Return the terms of what would be brought in, None where it is there already.

    Raises: as `plan_pull`.
    """
    spec, quant = _choose(installation, request)
    if _present(installation, spec, quant) is not None:
        return None
    _checkpoint(installation, request, spec, quant)
    return terms_of(spec, installation.registry)


def _choose(installation: Installation, request: PullRequest) -> tuple[ModelSpec, str]:
    ref = ModelRef.parse(request.model)
    if isinstance(ref, HubRef):
        raise HubError(
            f"{ref}: downloads of ready files are not in this release yet",
            hint=f"'wizard-edge convert hf:{ref.repo}' converts original weights",
        )
    if isinstance(ref, FileRef):
        raise UsageError(
            f"{request.model} is a path, not a model",
            hint="'wizard-edge convert DIR' takes one",
        )
    wanted = parse_quant(request.quant) if request.quant is not None else None
    if wanted and ref.quant and wanted != ref.quant:
        raise UsageError(f"{request.model} names another quant than {wanted}")
    spec = installation.registry.find(ref.name)
    default = BUNDLED_QUANT if _is_bundled(spec) else DEFAULT_QUANT
    return spec, wanted or ref.quant or default


def _checkpoint(
    installation: Installation, request: PullRequest, spec: ModelSpec, quant: str
) -> tuple[Checkpoint, Recipe]:
    if not _is_bundled(spec) and not request.from_weights:
        raise HubError(
            f"{spec.name}: downloads of ready files are not in this release yet",
            hint=pull_command(spec, quant),
        )
    recipe = replace(request.recipe or Recipe(), quants=(quant,))
    return find_checkpoint(installation, Request(spec.name, recipe, base=request.base))


def _is_bundled(spec: ModelSpec) -> bool:
    return spec.source is not None and spec.source.package is not None


def _present(
    installation: Installation, spec: ModelSpec, quant: str
) -> Installed | None:
    """Return the variant if it is in the store and its files have the right size."""
    try:
        found = installation.store.find(spec.name, quant)
    except (NotFound, Corrupt):
        return None
    return found if found.problem() is None else None
