"""From a checkpoint to a GGUF file, in the store or wherever the user wants it.

Finds the checkpoint and what is known of it; the converting itself is done by the
`Convert` that the command hands down.
"""

from __future__ import annotations

import json
import logging
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path

from wizard_edge import __version__
from wizard_edge.conversion import Convert, Converted, Cost, ModelFacts
from wizard_edge.errors import (
    CannotConvert,
    ConfigError,
    Corrupt,
    HubError,
    MissingFile,
    NotFound,
    UnknownModel,
    UsageError,
)
from wizard_edge.files import translated
from wizard_edge.gguf import read_header
from wizard_edge.licenses import terms_named, terms_of
from wizard_edge.models import License, ModelSpec
from wizard_edge.names import CommitId, ModelName, RelPath, RepoId
from wizard_edge.paths import place
from wizard_edge.progress import Progress, silent
from wizard_edge.receipts import TIME_FORMAT, Origin, Receipt, StoredFile
from wizard_edge.refs import FileRef, HubRef, ModelRef, RegistryRef, parse_quant
from wizard_edge.service.cards import file_facts
from wizard_edge.service.installation import Installation
from wizard_edge.templates import find_template

_logger = logging.getLogger(__name__)

# How huggingface_hub lays out its cache: models--OWNER--NAME/snapshots/COMMIT.
# Far above any config.json.
_MAX_CONFIG_SIZE = 1 << 20
_CACHED = re.compile(r"models--([^/]+)--([^/]+)")


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A directory with original weights, and what is known of it beside its files."""

    path: Path
    facts: ModelFacts


@dataclass(frozen=True, slots=True)
class Stored:
    """A model in the store; `already` = it was there before."""

    receipt: Receipt
    path: Path
    already: bool


def convert_to_store(
    installation: Installation,
    source: str,
    quant: str,
    *,
    convert: Convert,
    name: str | None = None,
    template: str | None = None,
    licenses: Sequence[str] = (),
    overwrite: bool = False,
    progress: Progress = silent,
) -> Stored:
    """Convert a checkpoint and install it; `overwrite` replaces a file of that quant.

    Raises: as `find_checkpoint`; UnknownQuant, NotEnough, and what `convert` does;
    UsageError for a model that is installed in that quant, without `overwrite`.
    """
    checkpoint = find_checkpoint(
        installation, source, name=name, template=template, licenses=licenses
    )
    if not overwrite:
        _refuse_installed(installation, checkpoint.facts.name, parse_quant(quant))
    return install(installation, checkpoint, quant, convert=convert, progress=progress)


def convert_to_file(
    installation: Installation,
    source: str,
    quant: str,
    output: Path,
    *,
    convert: Convert,
    name: str | None = None,
    template: str | None = None,
    licenses: Sequence[str] = (),
    progress: Progress = silent,
) -> Converted:
    """Convert a checkpoint to a file of the user's; the store is not touched.

    Raises: as `find_checkpoint`; UnknownQuant, NotEnough, and what `convert` does.
    """
    checkpoint = find_checkpoint(
        installation, source, name=name, template=template, licenses=licenses
    )
    with translated(output):
        return convert.convert(
            checkpoint.path,
            output,
            quant=parse_quant(quant),
            facts=checkpoint.facts,
            progress=progress,
        )


def estimate_conversion(
    installation: Installation,
    source: str,
    quant: str,
    *,
    convert: Convert,
    name: str | None = None,
    template: str | None = None,
    licenses: Sequence[str] = (),
) -> Cost:
    """Say what a conversion takes; writes nothing.

    Raises: as `find_checkpoint`; UnknownQuant, and what `convert` does.
    """
    checkpoint = find_checkpoint(
        installation, source, name=name, template=template, licenses=licenses
    )
    return convert.estimate(checkpoint.path, quant=parse_quant(quant))


def find_checkpoint(
    installation: Installation,
    source: str,
    *,
    name: str | None = None,
    template: str | None = None,
    licenses: Sequence[str] = (),
) -> Checkpoint:
    """Find the original weights that `source` names, and what is known of them.

    A directory goes by `name`, else by its repository where it lies in the hub's
    cache, else by its own name. One that goes by the name of a registered model is
    taken for it; any other is unknown: its template and its licences are those that
    were given, or nobody's. A licence the registry does not have is taken as it is,
    with a warning in the log.
    Raises: UnknownModel, MissingFile; HubError for what needs a download; UsageError
    for an unknown template or a directory whose name cannot be a model's;
    CannotConvert for a file and for a weight delta.
    """
    checkpoint = _find(installation, source, name)
    facts = checkpoint.facts
    if template is not None:
        facts = replace(facts, template=find_template(template).id)
    if licenses:
        facts = replace(facts, licenses=_licenses(installation, licenses))
    return replace(checkpoint, facts=facts)


def bundled_checkpoint(installation: Installation, spec: ModelSpec) -> Checkpoint:
    """Find a checkpoint that comes with this package.

    Raises: HubError for a model that does not, ConfigError where it got lost.
    """
    if spec.source is None or spec.source.package is None:
        raise HubError(
            f"{spec.name}: downloads from the hub are not in this release yet",
            hint="with the original weights on this machine: 'wizard-edge convert DIR'",
        )
    folder = place(Path(str(resources.files("wizard_edge"))), spec.source.package)
    if not folder.is_dir():
        raise ConfigError(
            f"the checkpoint of {spec.name} is missing from this installation",
            hint="install wizard-edge again",
        )
    return Checkpoint(folder, _facts(installation, spec, Origin(kind="bundled")))


def install(
    installation: Installation,
    checkpoint: Checkpoint,
    quant: str,
    *,
    convert: Convert,
    progress: Progress = silent,
) -> Stored:
    """Convert a checkpoint into the store, the receipt last.

    Raises: UnknownQuant, NotEnough, Refused, and what `convert` does.
    """
    quant = parse_quant(quant)
    facts = checkpoint.facts
    file = file_name(facts.name, quant)
    store = installation.store
    with store.open_slot(facts.name, file) as slot, translated(slot.temp):
        converted = convert.convert(
            checkpoint.path, slot.temp, quant=quant, facts=facts, progress=progress
        )
        header = file_facts(read_header(slot.temp))
        receipt = Receipt(
            model=facts.name,
            quant=quant,
            files=(StoredFile(file, converted.size, converted.sha256),),
            origin=facts.origin,
            licenses=tuple(license.id for license in facts.licenses),
            template=facts.template,
            architecture=header.architecture or None,
            context=header.context,
            parameters=header.parameters,
            tool=f"wizard-edge {__version__}",
            created=time.strftime(TIME_FORMAT, time.gmtime(installation.clock())),
        )
        installed = store.commit(receipt, [slot])
    return Stored(receipt, installed.path, already=False)


def _refuse_installed(installation: Installation, name: ModelName, quant: str) -> None:
    try:
        installation.store.find(name, quant)
    except (NotFound, Corrupt):
        return
    raise UsageError(
        f"{name}:{quant} is in the store already",
        hint="replace it with --overwrite, or install under another --name",
    )


def file_name(name: ModelName, quant: str) -> RelPath:
    """Return what the file of a converted model is called in the store."""
    return RelPath.parse(f"{name}.{quant}.gguf")


def _licenses(installation: Installation, ids: Sequence[str]) -> tuple[License, ...]:
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


def _find(installation: Installation, source: str, name: str | None) -> Checkpoint:
    ref = ModelRef.parse(source)
    if isinstance(ref, FileRef):
        return _local(installation, Path(ref.path).expanduser(), name)
    if isinstance(ref, HubRef):
        raise HubError(
            f"{ref}: downloads from the hub are not in this release yet",
            hint="with the original weights on this machine: 'wizard-edge convert DIR'",
        )
    assert isinstance(ref, RegistryRef)
    if ref.quant is not None:
        raise UsageError(f"{source} names a quant", hint=f"--quant {ref.quant}")
    try:
        spec = installation.registry.find(ref.name)
    except UnknownModel:
        # A plain word is a name first; but a directory is what is mostly converted.
        if Path(source).exists():
            return _local(installation, Path(source), name)
        raise
    if (spec.source is None or spec.source.package is None) and Path(source).is_dir():
        return _local(installation, Path(source), name)
    return bundled_checkpoint(installation, spec)


def _local(installation: Installation, path: Path, name: str | None) -> Checkpoint:
    if not path.exists():
        raise MissingFile(path)
    if not path.is_dir():
        raise CannotConvert(
            f"{path} is no checkpoint directory",
            hint="a checkpoint is a folder with config.json and the weights",
        )
    title, origin = _identity(path.resolve())
    try:
        spec = installation.registry.find(name or origin.repo or title)
    except UnknownModel:
        stored_as = ModelName.parse(name) if name else _as_model_name(title)
        return Checkpoint(path, ModelFacts(stored_as, name or title, origin))
    if spec.source is not None and spec.source.delta_of is not None:
        base = spec.source.delta_of.name
        raise CannotConvert(
            f"{path} goes by the name of {spec.name}, a weight delta of {base}",
            hint="if these are merged weights, give another name with --name",
        )
    _check_shape(path, spec)
    return Checkpoint(path, _facts(installation, spec, origin))


def _check_shape(path: Path, spec: ModelSpec) -> None:
    """Refuse other weights that lie in a folder of a registered model's name."""
    try:
        with (path / "config.json").open("rb") as file:
            config: object = json.loads(file.read(_MAX_CONFIG_SIZE))
    except (OSError, ValueError, RecursionError):
        # The converter says what is wrong with it.
        return
    if spec.shape is None or not isinstance(config, dict):
        return
    for wanted, keys in (
        (spec.shape.layers, ("num_hidden_layers", "n_layer")),
        (spec.shape.hidden, ("hidden_size", "n_embd")),
    ):
        found = next((config[key] for key in keys if key in config), wanted)
        if found != wanted:
            raise CannotConvert(
                f"{path} goes by the name of {spec.name}, but its {keys[0]} is "
                f"{found!r} instead of {wanted}",
                hint="if it is another model, give another name with --name",
            )


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


def _as_model_name(name: str) -> ModelName:
    text = re.sub(r"[^a-z0-9._-]+|\.{2,}", "-", name.lower()).strip("._-")
    try:
        return ModelName.parse(text[:64].rstrip("._-"))
    except UsageError as err:
        raise UsageError(
            f"{name!r} cannot be the name of a model in the store",
            hint="give another one with --name",
        ) from err


def _facts(installation: Installation, spec: ModelSpec, origin: Origin) -> ModelFacts:
    return ModelFacts(
        name=spec.name,
        title=spec.title,
        origin=origin,
        template=spec.template,
        licenses=terms_of(spec, installation.registry).licenses,
    )
