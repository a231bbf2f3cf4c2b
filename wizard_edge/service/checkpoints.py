"""Finds the original weights that somebody means, and what is known of them."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib import resources
from pathlib import Path

from wizard_edge.conversion import HubWeights, ModelFacts, Recipe, Weights
from wizard_edge.errors import (
    CannotConvert,
    ConfigError,
    HubError,
    MissingFile,
    UnknownModel,
    UsageError,
)
from wizard_edge.licenses import Terms, terms_named, terms_of
from wizard_edge.models import Base, License, ModelSpec
from wizard_edge.names import CommitId, ModelName, RepoId
from wizard_edge.paths import place
from wizard_edge.receipts import Origin
from wizard_edge.refs import (
    FileRef,
    HubRef,
    ModelRef,
    UrlRef,
    parse_quant,
)
from wizard_edge.service.installation import Installation
from wizard_edge.templates import find_template

_logger = logging.getLogger(__name__)

# Far above any config.json.
_MAX_CONFIG_SIZE = 1 << 20
# How huggingface_hub lays out its cache: models--OWNER--NAME/snapshots/COMMIT.
_CACHED = re.compile(r"models--([^/]+)--([^/]+)")


@dataclass(frozen=True, slots=True)
class Request:
    """What somebody wants converted, and what they say of it.

    `source` names original weights as they were typed, `base` what a delta is added
    to. `name`, `template` and `licenses` count before what is known.
    """

    source: str
    recipe: Recipe = field(default_factory=Recipe)
    base: str | None = None
    name: str | None = None
    template: str | None = None
    licenses: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Original weights, and what is known of them beside their own files.

    `terms` are those of the weights: a delta comes with the licence of its base.
    """

    weights: Weights
    facts: ModelFacts
    terms: Terms = field(default_factory=lambda: Terms(()))


def find_checkpoint(
    installation: Installation, request: Request
) -> tuple[Checkpoint, Recipe]:
    """Find the original weights that are meant, and what is known of them.

    A directory goes by its given name, else by its repository where it lies in the
    hub's cache, else by its own name; a repository of the hub by its id. What goes by
    the name of a registered model is taken for it; any other is unknown: its template
    and its licences are those that were given, or nobody's. Weights from a repository
    the registry knows stay under its licences by whatever name, and what is given comes
    on top. A licence the registry does not have is taken as it is, with a warning in
    the log.
    Raises: UnknownModel, UnknownQuant, MissingFile; UsageError for an unknown
    template, a name that cannot be a model's, a base that is not asked for, or for
    keeping what is not fetched;
    CannotConvert for a file and for a weight delta without its base.
    """
    quants = tuple(map(parse_quant, request.recipe.quants))
    checkpoint, spec = _find(installation, request)
    facts = checkpoint.facts
    if request.recipe.keep_weights is not None and isinstance(checkpoint.weights, Path):
        raise UsageError(
            f"the weights of {request.source} are on this machine: none are fetched",
            hint="leave out --keep-weights",
        )
    if request.template is not None:
        facts = replace(facts, template=find_template(request.template).id)
    terms = _terms(installation, request, spec, facts.origin)
    said = recorded_licenses(installation, request.licenses)
    every = (*facts.licenses, *terms.licenses, *said)
    licenses = {license.id: license for license in every}
    facts = replace(facts, licenses=tuple(licenses.values()))
    base = _find_base(request, spec, facts.origin)
    if base is not None:
        facts = replace(facts, origin=replace(facts.origin, base=_base_name(base)))
    return replace(checkpoint, facts=facts, terms=terms), replace(
        request.recipe, quants=quants, base=base
    )


def recorded_licenses(
    installation: Installation, ids: Sequence[str]
) -> tuple[License, ...]:
    """Return licences by id; one the registry does not have is warned about."""
    registry = installation.registry
    known = {license.id for license in registry.licenses}
    for id in ids:
        if id not in known:
            _logger.warning(
                "licence %r is recorded, but not known; known are %s",
                id,
                ", ".join(sorted(known)),
            )
    return terms_named(ids, registry).licenses


def pull_command(spec: ModelSpec, quant: str | None = None) -> str:
    """Spell the command that makes a registered model of its original weights."""
    variant = f"{spec.name}:{quant}" if quant else spec.name
    delta = spec.source is not None and spec.source.delta_of is not None
    base = " --base DIR" if delta else ""
    return f"wizard-edge pull {variant} --from weights{base}"


def refuse_other_shape(
    path: Path,
    spec: ModelSpec,
    *,
    layers: tuple[str, object] | None,
    hidden: tuple[str, object] | None,
) -> None:
    """Refuse weights that go by the name of a registered model of another shape.

    What was found comes with what the file calls it, None where it does not say.
    Raises: CannotConvert.
    """
    if spec.shape is None:
        return
    for wanted, said in ((spec.shape.layers, layers), (spec.shape.hidden, hidden)):
        if said is not None and said[1] != wanted:
            raise CannotConvert(
                f"{path} goes by the name of {spec.name}, but its {said[0]} is "
                f"{said[1]!r} instead of {wanted}",
                hint="if it is another model, give another name with --name",
            )


def as_model_name(name: str) -> ModelName:
    """Turn any text into a name in the store. Raises: UsageError where none is left."""
    text = re.sub(r"[^a-z0-9._-]+|\.{2,}", "-", name.lower()).strip("._-")
    try:
        return ModelName.parse(text[:64].rstrip("._-"))
    except UsageError as err:
        raise UsageError(
            f"{name!r} cannot be the name of a model in the store",
            hint="give another one with --name",
        ) from err


def _find(
    installation: Installation, request: Request
) -> tuple[Checkpoint, ModelSpec | None]:
    source = request.source
    ref = ModelRef.parse(source)
    if isinstance(ref, FileRef):
        return _local(installation, Path(ref.path).expanduser(), request.name)
    if isinstance(ref, HubRef):
        return _on_hub(installation, ref, request.name)
    if isinstance(ref, UrlRef):
        raise UsageError(
            f"{source} is an address, not original weights",
            hint="name a directory, a model or hf:OWNER/NAME",
        )
    if ref.quant is not None:
        raise UsageError(f"{source} names a quant", hint=f"--quant {ref.quant}")
    try:
        spec = installation.registry.find(ref.name)
    except UnknownModel as err:
        # A plain word is a name first; but a directory is what is mostly converted.
        if Path(source).exists():
            return _local(installation, Path(source), request.name)
        err.hint = f"{err.hint}; there is no directory of that name either"
        raise
    if (spec.source is None or spec.source.package is None) and Path(source).is_dir():
        return _local(installation, Path(source), request.name)
    return _registered(installation, spec), spec


def _terms(
    installation: Installation,
    request: Request,
    spec: ModelSpec | None,
    origin: Origin,
) -> Terms:
    """Return the terms of the weights themselves, whatever the result is called.

    Those of weights nobody knows are what whoever asks states, which they accept by
    stating it.
    """
    registry = installation.registry
    spec = spec or _registered_by(installation, origin.repo)
    if spec is None:
        return terms_named(request.licenses, registry, needs_consent=False)
    delta = _delta_of(spec, origin.repo) is not None
    return terms_of(spec, registry, from_weights=delta)


def _registered(installation: Installation, spec: ModelSpec) -> Checkpoint:
    """Find the original weights of a registered model: in this package, or on the hub.

    Raises: HubError for a model without a known repository; ConfigError where what
    comes with this package got lost.
    """
    source = spec.source
    if source is not None and source.package is not None:
        folder = place(Path(str(resources.files("wizard_edge"))), source.package)
        if not folder.is_dir():
            raise ConfigError(
                f"the checkpoint of {spec.name} is missing from this installation",
                hint="install wizard-edge again",
            )
        facts = _facts(installation, spec, Origin(kind="bundled"))
        return Checkpoint(folder, facts)
    if source is None or source.repo is None:
        raise HubError(
            f"nobody knows a repository with the original weights of {spec.name}",
            hint="with the weights on this machine: 'wizard-edge convert DIR'",
        )
    origin = Origin("hub", source.repo, source.revision)
    weights = HubWeights(source.repo, source.revision)
    return Checkpoint(weights, _facts(installation, spec, origin))


def _on_hub(
    installation: Installation, ref: HubRef, name: str | None
) -> tuple[Checkpoint, ModelSpec | None]:
    if ref.file is not None or ref.quant is not None:
        raise UsageError(f"{ref} names more than a repository", hint=f"hf:{ref.repo}")
    origin = Origin("hub", ref.repo)
    title = ref.repo.partition("/")[2]
    known = _registered_by(installation, ref.repo)
    goes_by = name or (known.name if known else title)
    weights = HubWeights(ref.repo)
    return _described(installation, weights, origin, goes_by, title, name)


def _registered_by(installation: Installation, repo: RepoId | None) -> ModelSpec | None:
    """Return the model whose weights the registry knows to lie in a repository."""
    for spec in installation.registry if repo else ():
        source = spec.source
        mirrors = [mirror.repo for mirror in source.mirrors] if source else []
        if source and repo in (source.repo, *source.former, *mirrors):
            return spec
    return None


def _local(
    installation: Installation, path: Path, name: str | None
) -> tuple[Checkpoint, ModelSpec | None]:
    if not path.exists():
        raise MissingFile(path)
    if not path.is_dir():
        raise CannotConvert(
            f"{path} is no checkpoint directory",
            hint="a checkpoint is a folder with config.json and the weights",
        )
    title, origin = _identity(path.resolve())
    checkpoint, spec = _described(
        installation, path, origin, name or origin.repo or title, title, name
    )
    if spec is not None:
        _check_shape(path, spec)
    return checkpoint, spec


def _described(
    installation: Installation,
    weights: Weights,
    origin: Origin,
    goes_by: str,
    title: str,
    name: str | None,
) -> tuple[Checkpoint, ModelSpec | None]:
    """Describe weights by the registry, where they go by a name that it knows."""
    try:
        spec = installation.registry.find(goes_by)
    except UnknownModel:
        stored_as = ModelName.parse(name) if name else as_model_name(title)
        return Checkpoint(weights, ModelFacts(stored_as, name or title, origin)), None
    return Checkpoint(weights, _facts(installation, spec, origin)), spec


def _find_base(
    request: Request, spec: ModelSpec | None, origin: Origin
) -> Weights | None:
    """Find what a delta is added to. Raises: CannotConvert for a delta without it."""
    delta_of = _delta_of(spec, origin.repo) if spec else None
    if request.base is None:
        if spec is not None and delta_of is not None:
            named = request.source.lower() == spec.name
            called = "is" if named else f"goes by the name of {spec.name},"
            raise CannotConvert(
                f"{request.source} {called} a weight delta of {delta_of.name}",
                hint="give that with --base DIR|hf:OWNER/NAME; merged weights need "
                "another --name",
            )
        return None
    if spec is not None and delta_of is None:
        raise UsageError(
            f"{spec.name} is no weight delta: it needs no base", hint="leave out --base"
        )
    ref = ModelRef.parse(request.base)
    if isinstance(ref, HubRef) and ref.file is None and ref.quant is None:
        return HubWeights(ref.repo)
    path = ref.path if isinstance(ref, FileRef) else Path(request.base)
    path = path.expanduser()
    if not path.is_dir():
        raise MissingFile(path, hint="--base takes a directory or hf:OWNER/NAME")
    return path


def _delta_of(spec: ModelSpec, repo: RepoId | None) -> Base | None:
    """Return the base that a model's weights need as they lie in a repository."""
    if spec.source is None:
        return None
    for mirror in spec.source.mirrors:
        # Some mirrors hold the sum of what the original repository has as a delta.
        if mirror.repo == repo and mirror.kind == "full":
            return None
    return spec.source.delta_of


def _base_name(base: Weights) -> str:
    # Where a directory lies is nobody's business.
    return str(base) if isinstance(base, HubWeights) else base.resolve().name


def _check_shape(path: Path, spec: ModelSpec) -> None:
    """Refuse other weights that lie in a folder of a registered model's name."""
    try:
        with (path / "config.json").open("rb") as file:
            config: object = json.loads(file.read(_MAX_CONFIG_SIZE))
    except (OSError, ValueError, RecursionError):
        # The converter says what is wrong with it.
        return
    if not isinstance(config, dict):
        return
    layers = _first(config, "num_hidden_layers", "n_layer")
    hidden = _first(config, "hidden_size", "n_embd")
    refuse_other_shape(path, spec, layers=layers, hidden=hidden)


def _first(config: Mapping[str, object], *keys: str) -> tuple[str, object] | None:
    """Return the first of some settings that is there, with its name."""
    return next(((key, config[key]) for key in keys if key in config), None)


def _identity(path: Path) -> tuple[str, Origin]:
    """Return the name a directory goes by, and where its content came from."""
    cached = _CACHED.fullmatch(path.parent.parent.name)
    if path.parent.name == "snapshots" and cached:
        try:
            repo = RepoId.parse(f"{cached[1]}/{cached[2]}")
            return cached[2], Origin("hub", repo, CommitId.parse(path.name))
        except UsageError:
            pass
    return path.name, Origin("local")


def _facts(installation: Installation, spec: ModelSpec, origin: Origin) -> ModelFacts:
    return ModelFacts(
        name=spec.name,
        title=spec.title,
        origin=origin,
        template=spec.template,
        licenses=terms_of(spec, installation.registry).licenses,
    )
