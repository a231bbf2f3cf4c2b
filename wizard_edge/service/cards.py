"""Everything that registry, receipts and GGUF headers know about one model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path

from wizard_edge.errors import Corrupt, HubError, MissingFile
from wizard_edge.gguf import Header, read_header
from wizard_edge.licenses import Terms, terms_named, terms_of
from wizard_edge.models import (
    Base,
    ModelSpec,
    SamplingDefaults,
    Scores,
    Shape,
    Source,
    Tokenizer,
)
from wizard_edge.receipts import Receipt
from wizard_edge.refs import FileRef, ModelRef, RegistryRef
from wizard_edge.service.installation import Installation
from wizard_edge.service.models import (
    VariantEntry,
    last_used,
    readable_variants,
    resolve,
    variant_entry,
)
from wizard_edge.store import Installed


@dataclass(frozen=True, slots=True)
class FileFacts:
    """What the header of a GGUF file says; None where it says nothing.

    `size` is in bytes, `context` in tokens, `tensors` counts them by their type,
    `quality` has the figures that its conversion measured.
    """

    path: Path
    size: int
    version: int
    name: str | None
    architecture: str
    quant: str | None
    context: int | None
    parameters: int
    vocabulary: int | None
    tokenizer: str | None
    template: str | None
    licenses: tuple[str, ...]
    tensors: Mapping[str, int]
    quality: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class InstalledCard:
    """An installed variant: its receipt, its file, what is wrong with it if anything.

    `header` is None where the file cannot be read; `problem` then says why. `sums`
    says whether every file has check sums of its chunks beside it. `last_used` is
    when it was opened last, in UTC, None where nobody noted it.
    """

    path: Path
    receipt: Receipt
    header: FileFacts | None
    problem: str | None
    sums: bool
    last_used: str | None


@dataclass(frozen=True, slots=True)
class ModelCard:
    """What is known of a model, from the most trusted that says it.

    The registry comes first, then the newest receipt, then the header. `context`
    and `training_length` are in tokens. `unverified` and `inferred` name the keys
    of models.toml that carry such a mark. `file` is set for a file that was named.
    """

    name: str
    title: str
    registered: bool
    architecture: str | None
    parameters: int | None
    context: int | None
    training_length: int | None
    template: str | None
    alternative_templates: tuple[str, ...]
    licenses: tuple[str, ...]
    terms: Terms
    aliases: tuple[str, ...] = ()
    base: Base | None = None
    source: Source | None = None
    shape: Shape | None = None
    tokenizer: Tokenizer | None = None
    sampling: SamplingDefaults | None = None
    scores: Scores | None = None
    traps: tuple[str, ...] = ()
    unverified: tuple[str, ...] = ()
    inferred: tuple[str, ...] = ()
    references: tuple[str, ...] = ()
    variants: tuple[VariantEntry, ...] = ()
    installed: tuple[InstalledCard, ...] = ()
    file: FileFacts | None = None


def show(installation: Installation, ref: str) -> ModelCard:
    """Collect everything known about a model, a variant or a GGUF file.

    With a quant, only that variant is described. A receipt that cannot be read is
    logged, and the rest is told.
    Raises: UnknownModel, UnknownQuant, MissingFile, HubError; Corrupt for a file
    that is no GGUF, and where a receipt that cannot be read is all there is.
    """
    parsed = ModelRef.parse(ref)
    if isinstance(parsed, FileRef):
        return _of_file(installation, Path(parsed.path).expanduser())
    if not isinstance(parsed, RegistryRef):
        raise HubError(
            f"{ref}: asking the hub is not in this release yet",
            hint="'wizard-edge list --all' shows the models that are known",
        )
    name, spec = resolve(installation, parsed)
    found = readable_variants(installation, name)
    wanted = [item for item in found if parsed.quant in (None, item.receipt.quant)]
    if spec is not None:
        return _of_spec(installation, spec, parsed.quant, found, wanted)
    if not wanted:
        installation.store.find(name, parsed.quant)
    return _of_receipt(installation, wanted)


def _of_spec(
    installation: Installation,
    spec: ModelSpec,
    quant: str | None,
    found: list[Installed],
    wanted: list[Installed],
) -> ModelCard:
    quants = {item.receipt.quant for item in found}
    if quant is not None and not wanted and spec.variants:
        spec.variant(quant)
    receipt = wanted[0].receipt if wanted else None
    return ModelCard(
        name=spec.name,
        title=spec.title,
        registered=True,
        architecture=spec.architecture,
        parameters=spec.parameters or (receipt.parameters if receipt else None),
        context=spec.context or (receipt.context if receipt else None),
        training_length=spec.training_length,
        template=spec.template,
        alternative_templates=spec.alternative_templates,
        licenses=spec.licenses,
        terms=terms_of(spec, installation.registry),
        aliases=spec.aliases,
        base=spec.base,
        source=spec.source,
        shape=spec.shape,
        tokenizer=spec.tokenizer,
        sampling=spec.sampling,
        scores=spec.scores,
        traps=spec.traps,
        unverified=spec.unverified,
        inferred=spec.inferred,
        references=spec.sources,
        variants=tuple(
            variant_entry(item, quants)
            for item in spec.variants
            if quant in (None, item.quant)
        ),
        installed=tuple(map(_installed, wanted)),
    )


def _of_receipt(installation: Installation, found: list[Installed]) -> ModelCard:
    receipt = found[0].receipt
    return ModelCard(
        name=receipt.model,
        title=receipt.model,
        registered=False,
        architecture=receipt.architecture,
        parameters=receipt.parameters,
        context=receipt.context,
        training_length=None,
        template=receipt.template,
        alternative_templates=(),
        licenses=receipt.licenses,
        terms=terms_named(receipt.licenses, installation.registry),
        installed=tuple(map(_installed, found)),
    )


def _of_file(installation: Installation, path: Path) -> ModelCard:
    facts = file_facts(read_header(path))
    return ModelCard(
        name=path.name,
        title=facts.name or path.name,
        registered=False,
        architecture=facts.architecture,
        parameters=facts.parameters,
        context=facts.context,
        training_length=None,
        template=facts.template,
        alternative_templates=(),
        licenses=facts.licenses,
        terms=terms_named(facts.licenses, installation.registry),
        file=facts,
    )


def file_facts(header: Header) -> FileFacts:
    """Describe a GGUF file by its header. Raises: Corrupt for a key of a wrong type."""
    return FileFacts(
        path=header.path,
        size=header.file_size,
        version=header.version,
        name=header.name,
        architecture=header.architecture,
        quant=header.quant,
        context=header.context_length,
        parameters=sum(prod(tensor.shape) for tensor in header.tensors),
        vocabulary=header.vocabulary_size,
        tokenizer=header.tokenizer,
        template=header.template,
        licenses=header.licenses,
        tensors=dict(Counter(tensor.type.name for tensor in header.tensors)),
        quality=header.quality,
    )


def _installed(item: Installed) -> InstalledCard:
    header, problem = None, item.problem()
    try:
        header = file_facts(read_header(item.path))
    except (Corrupt, MissingFile) as err:
        problem = problem or err.message
    return InstalledCard(
        path=item.path,
        receipt=item.receipt,
        header=header,
        problem=problem,
        sums=all(item.sums_path(file).exists() for file in item.receipt.files),
        last_used=last_used(item),
    )
