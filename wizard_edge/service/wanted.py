"""What somebody wants brought in, and where it is: here, ready, or as weights."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TypeAlias
from urllib.parse import unquote

from wizard_edge.conversion import Recipe
from wizard_edge.errors import UsageError
from wizard_edge.hub import Hub, check_mirror
from wizard_edge.models import ModelSpec
from wizard_edge.names import RelPath, RepoId
from wizard_edge.refs import (
    DEFAULT_QUANT,
    FileRef,
    HubRef,
    ModelRef,
    RegistryRef,
    UrlRef,
    parse_quant,
)
from wizard_edge.service.checkpoints import Checkpoint, Request, find_checkpoint
from wizard_edge.service.installation import Installation
from wizard_edge.service.ready import (
    Ready,
    find_at_address,
    find_on_hub,
    find_present,
    find_registered,
)
from wizard_edge.service.stored import present
from wizard_edge.service.variants import choose_variant
from wizard_edge.store import Installed

# The bundled model is 4 MB: nothing is gained by making it less exact.
BUNDLED_QUANT = "Q8_0"
# Enough for hosts that limit each connection, few enough for all of them.
CONNECTIONS = 4

# How a person copies a file's address from the hub's pages.
_HUB_PAGE = re.compile(
    r"https://(?:huggingface\.co|hf\.co)/(?P<repo>[^/]+/[^/]+)"
    r"(?:/(?:resolve|blob)/(?P<revision>[^/]+)/(?P<file>.+))?/?"
)


@dataclass(frozen=True, slots=True)
class PullRequest:
    """What somebody wants in the store, and how to fetch it.

    `from_weights` allows to fetch and convert original weights; `base` is what a
    weight delta is added to. `rate` is in bytes per second, None for no limit.
    `mirrors` are addresses that may have the bytes; they are asked first.
    """

    model: str
    quant: str | None = None
    from_weights: bool = False
    base: str | None = None
    recipe: Recipe | None = None
    connections: int = CONNECTIONS
    rate: int | None = None
    mirrors: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class WeightsOf:
    """A registered model that is to be made of its original weights."""

    spec: ModelSpec
    quant: str


Found: TypeAlias = Installed | Ready | WeightsOf


def find(installation: Installation, request: PullRequest) -> Found:
    """Find what is wanted. What is in the store needs no network.

    Raises: UnknownModel, UnknownQuant, NotFound, HubError, Refused, NotEnough where
    no quant fits this machine; UsageError for a path or for a delta's base where no
    weights are wanted.
    """
    ref = ModelRef.parse(request.model)
    for mirror in request.mirrors:
        check_mirror(mirror)
    if isinstance(ref, FileRef):
        raise UsageError(
            f"{request.model} is a path, not a model",
            hint="'wizard-edge import FILE' takes one, 'convert DIR' a checkpoint",
        )
    if isinstance(ref, RegistryRef):
        return _registered(installation, request, ref)
    if request.from_weights:
        raise UsageError(
            f"{ref} is no model of the registry: --from weights does not know it",
            hint=f"wizard-edge convert {ref}",
        )
    _refuse_base(request)
    ready = _anywhere(installation, open_hub(installation), ref)
    return find_present(installation, ready) or ready


def find_weights(
    installation: Installation, request: PullRequest, wanted: WeightsOf
) -> tuple[Checkpoint, Recipe]:
    """Find original weights and what to make of them.

    Raises: as `find_checkpoint`.
    """
    recipe = replace(request.recipe or Recipe(), quants=(wanted.quant,))
    return find_checkpoint(
        installation, Request(wanted.spec.name, recipe, base=request.base)
    )


def open_hub(installation: Installation) -> Hub:
    """Return the hub that the environment names. Raises: ConfigError."""
    return Hub.from_environment(installation.environ)


def _registered(
    installation: Installation, request: PullRequest, ref: RegistryRef
) -> Found:
    spec = installation.registry.find(ref.name)
    asked = _asked_quant(request, ref)
    bundled = spec.source is not None and spec.source.package is not None
    if bundled or request.from_weights:
        quant = asked or (BUNDLED_QUANT if bundled else DEFAULT_QUANT)
        there = present(installation, spec.name, quant)
        return there or WeightsOf(spec, quant)
    _refuse_base(request)
    # What is there needs no ready file that somebody knows.
    there = present(installation, spec.name, asked) if asked else None
    if there is not None:
        return there
    quant, choice = choose_variant(installation, spec, asked)
    there = present(installation, spec.name, quant)
    if there is not None:
        return there
    hub = open_hub(installation)
    ready = find_registered(installation, hub, spec, quant, request.mirrors)
    return replace(ready, choice=choice)


def _asked_quant(request: PullRequest, ref: RegistryRef) -> str | None:
    wanted = parse_quant(request.quant) if request.quant is not None else None
    if wanted and ref.quant and wanted != ref.quant:
        raise UsageError(f"{request.model} names another quant than {wanted}")
    return wanted or ref.quant


def _refuse_base(request: PullRequest) -> None:
    kept = request.recipe is not None and request.recipe.keep_weights is not None
    if request.base is not None or kept:
        option = "--base" if request.base is not None else "--keep-weights"
        raise UsageError(
            f"{option} is for original weights, a ready file needs none",
            hint="add --from weights",
        )


def _anywhere(installation: Installation, hub: Hub, ref: HubRef | UrlRef) -> Ready:
    if isinstance(ref, HubRef):
        return find_on_hub(installation, hub, ref)
    page = _HUB_PAGE.fullmatch(ref.url.partition("?")[0])
    if page is None:
        return find_at_address(installation, hub, ref)
    file = RelPath.parse(unquote(page["file"])) if page["file"] else None
    revision = unquote(page["revision"]) if page["revision"] else None
    hub_ref = HubRef(RepoId.parse(page["repo"]), file)
    return find_on_hub(installation, hub, hub_ref, revision, digest=ref.sha256)
