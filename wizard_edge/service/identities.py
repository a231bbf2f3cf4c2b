"""What a model that comes in is: the registry's word, its receipt's, its own.

A file that the registry knows by its hash is that model, whatever it is called. Else
the receipt beside it counts, then its repository and its name, then its header.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from wizard_edge.errors import UnknownModel
from wizard_edge.licenses import Terms, terms_named, terms_of
from wizard_edge.models import ModelSpec, RemoteFile, Variant
from wizard_edge.names import ModelName, Sha256
from wizard_edge.receipts import Origin, Piece
from wizard_edge.service.candidates import Candidate
from wizard_edge.service.checkpoints import as_model_name, refuse_other_shape
from wizard_edge.service.installation import Installation
from wizard_edge.service.taking import Taken
from wizard_edge.templates import TEMPLATES


@dataclass(frozen=True, slots=True)
class Identity:
    """What a model is stored as and what its receipt says.

    `fetched` has the pieces of each file as they lie on the hub, or is empty. `spec`
    is set for what the registry knows, by its name or its hash.
    """

    name: ModelName
    quant: str
    template: str | None
    licenses: tuple[str, ...]
    origin: Origin
    fetched: tuple[tuple[Piece, ...], ...] = ()
    spec: ModelSpec | None = None


def identify(
    installation: Installation, candidate: Candidate, name: str | None
) -> Identity:
    """Say what a candidate is, as long as its hash is only said.

    Raises: CannotConvert for one called like a registered model of another shape;
    UsageError for a name that cannot be a model's.
    """
    if name is None:
        said = [file.sha256 for file in candidate.files]
        if None not in said and (known := _known(installation, candidate, said, ())):
            return known
    spec = _registered(installation, candidate, name)
    if spec is not None:
        header = candidate.header
        refuse_other_shape(
            header.path,
            spec,
            layers=("block_count", header.block_count),
            hidden=("embedding_length", header.embedding_length),
        )
    identity = _by_itself(candidate, name, spec)
    if spec is None:
        return identity
    licenses = terms_of(spec, installation.registry).ids
    receipt = candidate.receipt
    return replace(
        identity,
        name=spec.name,
        spec=spec,
        template=(receipt and receipt.template) or spec.template,
        licenses=tuple(
            dict.fromkeys((*licenses, *(receipt.licenses if receipt else ())))
        ),
    )


def recognise(
    installation: Installation, candidate: Candidate, taken: Sequence[Taken]
) -> Identity | None:
    """Find the variant of the registry that consists of these very bytes."""
    files = [item.sha256 for item in taken]
    pieces = [digest for item in taken for digest in item.pieces]
    return _known(installation, candidate, files, pieces)


def _known(
    installation: Installation,
    candidate: Candidate,
    files: Sequence[Sha256 | None],
    pieces: Sequence[Sha256],
) -> Identity | None:
    """Find a variant by the hashes of its files, or of the pieces of its file."""
    for spec in installation.registry:
        for variant in spec.variants:
            known = [file.sha256 for file in variant.files]
            if variant.joined != "bytes" and known == list(files):
                sizes = [[given.size] for given in candidate.files]
            elif known == list(pieces):
                sizes = [list(given.sizes) for given in candidate.files]
            else:
                continue
            return _known_as(installation, spec, variant, sizes)
    return None


def terms_to_accept(installation: Installation, identity: Identity) -> Terms:
    """Return the terms to accept; what only the file or its owner states needs none."""
    registry = installation.registry
    if identity.spec is None:
        return terms_named(identity.licenses, registry, needs_consent=False)
    return terms_of(identity.spec, registry)


def _registered(
    installation: Installation, candidate: Candidate, name: str | None
) -> ModelSpec | None:
    registry = installation.registry
    receipt = candidate.receipt
    if name is None and receipt is None and candidate.repo is not None:
        for spec in registry:
            for variant in spec.variants:
                for file in variant.files:
                    if (file.repo, file.path) == (candidate.repo, candidate.path):
                        return spec
    names = (name,) if name else (receipt.model,) if receipt else candidate.names
    for each in names:
        with contextlib.suppress(UnknownModel):
            return registry.find(each)
    return None


def _by_itself(
    candidate: Candidate, name: str | None, spec: ModelSpec | None
) -> Identity:
    """Say what a candidate is without the registry."""
    header, receipt = candidate.header, candidate.receipt
    fetched = tuple(file.fetched for file in candidate.files)
    if name is not None:
        stored_as = spec.name if spec else ModelName.parse(name)
    elif receipt is not None:
        stored_as = receipt.model
    else:
        stored_as = spec.name if spec else as_model_name(candidate.title)
    template = header.template if header.template in TEMPLATES else None
    return Identity(
        name=stored_as,
        quant=candidate.quant,
        template=receipt.template if receipt else template,
        licenses=receipt.licenses if receipt else header.licenses,
        origin=receipt.origin if receipt else candidate.origin,
        fetched=fetched if all(fetched) else (),
    )


def _known_as(
    installation: Installation,
    spec: ModelSpec,
    variant: Variant,
    sizes: Sequence[Sequence[int]],
) -> Identity:
    first = variant.files[0]
    files = iter(variant.files)
    return Identity(
        name=spec.name,
        quant=variant.quant,
        template=spec.template,
        licenses=terms_of(spec, installation.registry).ids,
        origin=Origin("hub", first.repo, first.revision),
        fetched=tuple(tuple(_pieces(files, each)) for each in sizes),
        spec=spec,
    )


def _pieces(files: Iterator[RemoteFile], sizes: Sequence[int]) -> Iterator[Piece]:
    """Yield what was fetched; nothing where the registry names no commit."""
    for size in sizes:
        file = next(files)
        if file.repo is not None and file.revision is not None:
            yield Piece(size, file.sha256, file.repo, file.revision, file.path)
