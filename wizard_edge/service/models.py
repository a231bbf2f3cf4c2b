"""What is installed, what there is to install, and how it goes away again.

The registry is asked only where a name has to be resolved: `list` reads receipts, and
what fits a machine is imported for the catalogue.
Everything about a single model is in `service.cards`.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from pathlib import Path, PurePath
from typing import TYPE_CHECKING

from wizard_edge.errors import NotFound, UnknownModel, UsageError
from wizard_edge.files import freed_by
from wizard_edge.names import ModelName
from wizard_edge.receipts import EvaluatedOn
from wizard_edge.refs import ModelRef, RegistryRef
from wizard_edge.service.installation import Installation, utc
from wizard_edge.store import Damaged, Installed

if TYPE_CHECKING:
    from wizard_edge.fitting import Machine
    from wizard_edge.models import ModelSpec, Variant

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class InstalledModel:
    """One row of `list`. `problem` says what is wrong with the file, None if nothing.

    `size` is bytes of all `files`; `path` and `sha256` are those of the file to open.
    `created` is the time of installation in UTC, `last_used` when it was opened last,
    None where nobody noted it. `quality` has the receipt's figures by name,
    `evaluated_on` what those of `eval` were measured on.
    """

    name: str
    quant: str
    path: Path
    size: int
    sha256: str
    licenses: tuple[str, ...]
    template: str | None
    architecture: str | None
    context: int | None
    parameters: int | None
    created: str
    problem: str | None
    quality: Mapping[str, float] | None = None
    evaluated_on: EvaluatedOn | None = None
    last_used: str | None = None


@dataclass(frozen=True, slots=True)
class VariantEntry:
    """A ready file that the registry knows; `size` None where it is not known.

    `fits` says whether it suits the memory and the disk of this machine, None where
    nobody looked.
    """

    quant: str
    size: int | None
    size_exact: bool
    installed: bool
    fits: bool | None = None


@dataclass(frozen=True, slots=True)
class CatalogueEntry:
    """One row of `list --all`; `installed` holds the quants in the store.

    `fits` is the quant that suits this machine, by its memory and disk, None where
    none does.
    """

    name: str
    title: str
    parameters: int | None
    licenses: tuple[str, ...]
    template: str
    installed: tuple[str, ...]
    variants: tuple[VariantEntry, ...]
    fits: str | None


@dataclass(frozen=True, slots=True)
class RemovedFile:
    """A file that a removal deletes, and the bytes that frees."""

    path: Path
    size: int


@dataclass(frozen=True, slots=True)
class Removal:
    """What `remove` will do: the variants, their files, their bytes.

    A variant whose receipt is damaged goes by the name of its file in `models`.
    """

    models: tuple[str, ...]
    files: tuple[RemovedFile, ...]
    variants: tuple[Installed | Damaged, ...]

    @property
    def size(self) -> int:
        """The bytes that become free."""
        return sum(file.size for file in self.files)


def list_installed(installation: Installation) -> list[InstalledModel]:
    """Return what is in the store, by name and quant; opens no model file.

    A receipt that cannot be read is logged as a warning and left out.
    """
    return [installed_model(item) for item in installation.store.installed()]


def list_catalogue(
    installation: Installation, machine: Machine | None = None
) -> list[CatalogueEntry]:
    """Return every model of the registry, in its order, and what of it fits.

    `machine` None means this one, of which memory and disk are looked at.
    Raises: ConfigError where a registry or settings file makes no sense.
    """
    from wizard_edge.service.choosing import find_machine

    machine = machine or find_machine(installation)
    quants: dict[str, list[str]] = {}
    for item in installation.store.installed():
        quants.setdefault(item.receipt.model, []).append(item.receipt.quant)
    return [
        _catalogue_entry(installation, spec, machine, quants.get(spec.name, ()))
        for spec in installation.registry
    ]


def _catalogue_entry(
    installation: Installation,
    spec: ModelSpec,
    machine: Machine,
    installed: Collection[str],
) -> CatalogueEntry:
    from wizard_edge.service.choosing import all_candidates, choose_quant

    candidates = [
        replace(item, stored=item.quant in installed) for item in all_candidates(spec)
    ]
    choice = choose_quant(installation, spec, candidates, machine=machine)
    fits = {item.quant: item.fits for item in choice.fits}
    return CatalogueEntry(
        name=spec.name,
        title=spec.title,
        parameters=spec.parameters,
        licenses=spec.licenses,
        template=spec.template,
        installed=tuple(dict.fromkeys(installed)),
        variants=tuple(
            replace(variant_entry(item, installed), fits=fits.get(item.quant))
            for item in spec.variants
        ),
        fits=choice.chosen.quant if choice.chosen else None,
    )


def plan_removal(installation: Installation, refs: Sequence[str]) -> Removal:
    """Say what removing `refs` deletes; a name without a quant means all of it.

    All of it includes damaged receipts, each with the file it is named after.
    Raises: UnknownModel, NotFound for what is not installed, UnknownQuant for what
    is none, UsageError for what is no name of a model; Corrupt for a quant that may
    be the one of a damaged receipt; ConfigError for a receipt from the future.
    """
    chosen: dict[Path, Installed | Damaged] = {}
    for ref in refs:
        for item in find_variants(installation, ref):
            chosen[item.receipt_path] = item
    store = installation.store
    paths = [path for item in chosen.values() for path in store.files(item)]
    for name in {ModelName.parse(item.folder.name) for item in chosen.values()}:
        if all(item.receipt_path in chosen for item in store.contents(name)):
            paths += store.companions(name)
    return Removal(
        models=tuple(map(_label, chosen.values())),
        files=tuple(RemovedFile(path, freed_by(path)) for path in paths),
        variants=tuple(chosen.values()),
    )


def remove(installation: Installation, removal: Removal) -> int:
    """Delete what was planned, receipts first; return the bytes freed.

    The NOTICE beside a model of which variants are left says no more of the others.
    Raises: NotFound for a variant that was replaced since; Refused for a file that is
    in use or may not be deleted.
    """
    # It knows the registry, which `list` has no use for.
    from wizard_edge.service.notices import renew_notice

    try:
        return sum(map(installation.store.remove, removal.variants))
    finally:
        for name in {ModelName.parse(item.folder.name) for item in removal.variants}:
            renew_notice(installation, name)


def installed_model(item: Installed) -> InstalledModel:
    """Describe a variant of the store."""
    receipt = item.receipt
    return InstalledModel(
        name=receipt.model,
        quant=receipt.quant,
        path=item.path,
        size=receipt.size,
        sha256=receipt.sha256,
        licenses=receipt.licenses,
        template=receipt.template,
        architecture=receipt.architecture,
        context=receipt.context,
        parameters=receipt.parameters,
        created=receipt.created,
        problem=item.problem(),
        quality=receipt.quality,
        evaluated_on=receipt.evaluated_on,
        last_used=last_used(item),
    )


def last_used(item: Installed) -> str | None:
    """Return when a variant was opened last, in UTC; None where nobody noted it."""
    seconds = item.last_used()
    return None if seconds is None else utc(seconds)


def variant_entry(variant: Variant, installed: Collection[str]) -> VariantEntry:
    """Describe a ready file of the registry; `installed` are the quants in store."""
    return VariantEntry(
        quant=variant.quant,
        size=variant.size,
        size_exact=variant.size_exact,
        installed=variant.quant in installed,
    )


def find_variants(installation: Installation, text: str) -> list[Installed | Damaged]:
    """Return the variants of the store that a person means, damaged ones too.

    A name without a quant means all of the model but what is from the future.
    Raises: UnknownModel, NotFound for what is not installed, UnknownQuant, UsageError
    for what is no name of a model; Corrupt for a quant that may be the one of a
    damaged receipt; ConfigError for a receipt from the future.
    """
    ref = ModelRef.parse(text)
    if not isinstance(ref, RegistryRef):
        raise UsageError(
            f"not a model of the store: {text}", hint="'wizard-edge list' shows them"
        )
    name, _ = resolve(installation, ref)
    store = installation.store
    try:
        if ref.quant is None:
            removable = [item for item in store.contents(name) if not _kept(item)]
            # What is not there, or there from the future only, is told by the store.
            return removable or [*store.variants(name)]
        found = store.find(name, ref.quant)
    except UnknownModel as err:
        raise NotFound(
            f"{name} is not installed", hint="'wizard-edge list' shows what is"
        ) from err
    return [
        item
        for item in store.variants(name)
        if item.receipt.quant == found.receipt.quant
    ]


def readable_variants(installation: Installation, name: ModelName) -> list[Installed]:
    """Return the variants of a model that can be read, the last installed first.

    None where nothing is installed. A receipt that cannot be read is logged.
    """
    found: list[Installed] = []
    for item in installation.store.contents(name):
        if isinstance(item, Damaged):
            _logger.warning("%s", item.error.message)
        else:
            found.append(item)
    return sorted(found, key=lambda item: item.receipt.created, reverse=True)


def resolve(
    installation: Installation, ref: RegistryRef
) -> tuple[ModelName, ModelSpec | None]:
    """Return the name a model has in the store, and what the registry knows of it.

    Raises: UnknownModel, with near names, for what neither registry nor store has.
    """
    try:
        spec = installation.registry.find(ref.name)
    except UnknownModel as err:
        store = installation.store
        with contextlib.suppress(UsageError):
            name = ModelName.parse(ref.name.lower())
            if store.knows(name):
                return name, None
        near = _near(ref.name, {item.receipt.model for item in store.installed()})
        names = tuple(dict.fromkeys((*near, *err.near)))
        raise UnknownModel(ref.name, near=names) from None
    return spec.name, spec


def as_json(value: object) -> object:
    """Turn a value of this package into what `json.dumps` takes, paths as text."""
    if is_dataclass(value):
        return {item.name: as_json(getattr(value, item.name)) for item in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): as_json(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [as_json(item) for item in value]
    return str(value) if isinstance(value, (str, PurePath)) else value


def _label(variant: Installed | Damaged) -> str:
    if isinstance(variant, Damaged):
        return f"{variant.folder.name}/{variant.path.name}"
    return f"{variant.receipt.model}:{variant.receipt.quant}"


def _kept(variant: Installed | Damaged) -> bool:
    return isinstance(variant, Damaged) and variant.from_the_future


def _near(wanted: str, names: set[ModelName]) -> list[str]:
    from difflib import get_close_matches

    return get_close_matches(wanted.lower(), sorted(names), n=3)
