"""Bring a GGUF file that is on this machine already into the store.

It is copied, and hashed on the way; what was there stays. A file that the registry
knows by its hash is taken for that model, whatever it is called; any other goes by
its name, as a directory of weights does.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from math import prod
from pathlib import Path

from wizard_edge.errors import (
    Corrupt,
    NotEnough,
    UnknownModel,
    UsageError,
)
from wizard_edge.files import free_disk, open_regular, translated
from wizard_edge.gguf import Header
from wizard_edge.gguf_parts import (
    find_pieces,
    model_stem,
    read_joined,
    read_parts,
)
from wizard_edge.licenses import Terms, terms_named, terms_of
from wizard_edge.models import ModelSpec, Variant
from wizard_edge.names import ModelName, RelPath, Sha256
from wizard_edge.progress import Progress, ProgressEvent, silent
from wizard_edge.receipts import Acceptance, Origin, Receipt, StoredFile
from wizard_edge.refs import QUANTS, parse_quant
from wizard_edge.service.cards import file_facts
from wizard_edge.service.checkpoints import (
    as_model_name,
    recorded_licenses,
    refuse_other_shape,
)
from wizard_edge.service.consent import Consent, require
from wizard_edge.service.installation import TOOL, Installation
from wizard_edge.service.notices import texts_beside
from wizard_edge.service.stored import Stored, file_name, part_names, refuse_installed
from wizard_edge.store import Slot
from wizard_edge.templates import TEMPLATES, find_template

_PIECE = 4 << 20
# What the file system itself may need beside the bytes of the files.
_DISK_RESERVE = 1 << 20
_QUANT = re.compile(rf"[._-]({'|'.join(QUANTS)})$", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class _Given:
    """What is to be imported: `files` has for each file in the store what makes it.

    `stem` is the name without endings and quant; `parameters` are those of all files.
    """

    header: Header
    stem: str
    quant: str
    files: tuple[tuple[Path, ...], ...]
    parameters: int

    @property
    def size(self) -> int:
        return sum(path.stat().st_size for paths in self.files for path in paths)


@dataclass(frozen=True, slots=True)
class _Identity:
    """What a model is stored as and what its receipt says.

    `spec` is set for what the registry knows, by its name or its hash.
    """

    name: ModelName
    quant: str
    template: str | None
    licenses: tuple[str, ...]
    origin: Origin
    spec: ModelSpec | None = None


@dataclass(frozen=True, slots=True)
class _Said:
    """What the options say; None where they say nothing."""

    name: ModelName | None
    template: str | None
    licenses: tuple[str, ...] | None

    def over(self, identity: _Identity) -> _Identity:
        """Return the identity with what was said laid over it."""
        return replace(
            identity,
            name=self.name or identity.name,
            template=self.template or identity.template,
            licenses=self.licenses or identity.licenses,
        )


@dataclass(frozen=True, slots=True)
class _Copied:
    """A filled slot: the hash of the file, and of each of the pieces that made it."""

    slot: Slot
    size: int
    sha256: Sha256
    pieces: tuple[Sha256, ...]


def import_file(
    installation: Installation,
    path: Path,
    *,
    name: str | None = None,
    template: str | None = None,
    licenses: Sequence[str] = (),
    consent: Consent | None = None,
    progress: Progress = silent,
) -> Stored:
    """Copy a GGUF file into the store, the receipt last.

    A split model is given by its first part and stays split; pieces of a file are
    given by any one of them and are joined. What the options say goes over what the
    registry knows, and that over what the file says of itself. `consent` is asked for
    the terms of what the registry knows, before a byte is copied where the name tells;
    without it only what was accepted before comes in.
    Events: `import` in bytes.
    Raises: MissingFile; Corrupt; UsageError for a model that is installed in that
    quant, an unknown template or a name that does not fit; BackendError for an
    architecture or tokenizer that cannot be run; UnknownQuant; CannotConvert for a
    file called like a registered model of another shape; NotEnough; Refused, for
    terms that nobody accepted too.
    """
    consent = consent or partial(require, installation)
    given = _find(path.expanduser())
    guess = _identify(installation, given, name)
    ids = [license.id for license in recorded_licenses(installation, licenses)]
    said = _Said(
        name=guess.name if name else None,
        template=None if template is None else find_template(template).id,
        licenses=tuple(ids) or None,
    )
    _refuse_installed(installation, guess)
    _check_room(installation, given.size)
    if guess.spec is not None:
        consent(_terms(installation, guess))
    with contextlib.ExitStack() as opened:
        copies = _copy_all(installation, given, guess, opened, progress)
        known = _recognise(installation, copies)
        if known is not None:
            _refuse_installed(installation, said.over(known))
        identity = said.over(known or guess)
        accepted = consent(_terms(installation, identity))
        return _commit(installation, given, identity, copies, accepted)


def _find(path: Path) -> _Given:
    pieces = find_pieces(path)
    if pieces is not None:
        header = read_joined(pieces)
        if header.split is not None:
            raise UsageError(
                f"the pieces of {pieces.name} make one part of a split model",
                hint="join each part by hand, then import the first",
            )
        return _given((header,), pieces.name, (pieces.paths,))
    headers = read_parts(path)
    files = tuple((header.path,) for header in headers)
    return _given(headers, path.name, files)


def _given(
    headers: Sequence[Header], name: str, files: tuple[tuple[Path, ...], ...]
) -> _Given:
    stem = model_stem(name)
    match = _QUANT.search(stem)
    quant = headers[0].quant or (match and match[1])
    if quant is None:
        raise UsageError(
            f"{headers[0].path} does not say which quant it is",
            hint="put it into the name: NAME.Q4_K_M.gguf",
        )
    return _Given(
        header=headers[0],
        stem=stem[: match.start()] if match else stem,
        quant=parse_quant(quant),
        files=files,
        parameters=sum(
            prod(tensor.shape) for header in headers for tensor in header.tensors
        ),
    )


def _identify(installation: Installation, given: _Given, name: str | None) -> _Identity:
    """Say what a file is by its name, as long as its hash is not known."""
    header = given.header
    try:
        spec = installation.registry.find(name or given.stem)
    except UnknownModel:
        return _Identity(
            name=ModelName.parse(name) if name else as_model_name(given.stem),
            quant=given.quant,
            template=header.template if header.template in TEMPLATES else None,
            licenses=header.licenses,
            origin=Origin("local"),
        )
    refuse_other_shape(
        header.path,
        spec,
        layers=("block_count", header.block_count),
        hidden=("embedding_length", header.embedding_length),
    )
    return _Identity(
        name=spec.name,
        quant=given.quant,
        template=spec.template,
        licenses=terms_of(spec, installation.registry).ids,
        origin=Origin("local"),
        spec=spec,
    )


def _refuse_installed(installation: Installation, identity: _Identity) -> None:
    refuse_installed(
        installation,
        identity.name,
        identity.quant,
        remedy=f"wizard-edge rm {identity.name}:{identity.quant}",
    )


def _check_room(installation: Installation, size: int) -> None:
    free = free_disk(installation.home.root)
    if free < size + _DISK_RESERVE:
        raise NotEnough(
            f"disk in {installation.home.root}",
            needed=size + _DISK_RESERVE,
            free=free,
            hint="--home DIR moves the store",
        )


def _copy_all(
    installation: Installation,
    given: _Given,
    identity: _Identity,
    opened: contextlib.ExitStack,
    progress: Progress,
) -> list[_Copied]:
    """Fill a slot for each file; `opened` keeps the slots."""
    done, total = 0, given.size

    def advance(size: int) -> None:
        nonlocal done
        done += size
        progress(ProgressEvent("import", done, total))

    copies = []
    for paths, file in zip(given.files, _file_names(given, identity), strict=True):
        slot = opened.enter_context(installation.store.open_slot(identity.name, file))
        with translated(slot.temp, total):
            copies.append(_copy(paths, slot, advance))
    return copies


def _copy(paths: Sequence[Path], slot: Slot, advance: Callable[[int], None]) -> _Copied:
    """Put files end to end into a slot. Raises: Corrupt for one that changes."""
    whole = hashlib.sha256()
    pieces = []
    size = 0
    with slot.temp.open("xb") as output:
        for path in paths:
            piece = hashlib.sha256()
            descriptor = open_regular(path)
            try:
                expected, start = os.fstat(descriptor).st_size, size
                while data := _read(path, descriptor):
                    output.write(data)
                    whole.update(data)
                    # The hash of the only piece is that of the whole.
                    if len(paths) > 1:
                        piece.update(data)
                    size += len(data)
                    advance(len(data))
            finally:
                os.close(descriptor)
            if size - start != expected:
                raise Corrupt(path, "changed while it was copied")
            pieces.append(piece if len(paths) > 1 else whole)
    return _Copied(
        slot,
        size,
        Sha256.parse(whole.hexdigest()),
        tuple(Sha256.parse(piece.hexdigest()) for piece in pieces),
    )


def _read(path: Path, descriptor: int) -> bytes:
    try:
        return os.read(descriptor, _PIECE)
    except OSError as err:
        raise Corrupt(path, f"cannot be read: {err.strerror}") from err


def _recognise(
    installation: Installation, copies: Sequence[_Copied]
) -> _Identity | None:
    """Find the variant of the registry that consists of these very files."""
    hashes = [digest for copied in copies for digest in copied.pieces]
    for spec in installation.registry:
        for variant in spec.variants:
            if [file.sha256 for file in variant.files] == hashes:
                return _known_as(installation, spec, variant)
    return None


def _known_as(
    installation: Installation, spec: ModelSpec, variant: Variant
) -> _Identity:
    first = variant.files[0]
    return _Identity(
        name=spec.name,
        quant=variant.quant,
        template=spec.template,
        licenses=terms_of(spec, installation.registry).ids,
        origin=Origin("hub", first.repo, first.revision),
        spec=spec,
    )


def _terms(installation: Installation, identity: _Identity) -> Terms:
    """Return the terms to accept; what only the file or its owner states needs none."""
    registry = installation.registry
    if identity.spec is None:
        return terms_named(identity.licenses, registry, needs_consent=False)
    return terms_of(identity.spec, registry)


def _file_names(given: _Given, identity: _Identity) -> list[RelPath]:
    return part_names(file_name(identity.name, identity.quant), len(given.files))


def _commit(
    installation: Installation,
    given: _Given,
    identity: _Identity,
    copies: Sequence[_Copied],
    accepted: tuple[Acceptance, ...],
) -> Stored:
    # Only now is the name certain.
    names = _file_names(given, identity)
    slots = [
        replace(copied.slot, model=identity.name, file=file)
        for copied, file in zip(copies, names, strict=True)
    ]
    facts = file_facts(given.header)
    receipt = Receipt(
        model=identity.name,
        quant=identity.quant,
        files=tuple(
            StoredFile(slot.file, copied.size, copied.sha256)
            for slot, copied in zip(slots, copies, strict=True)
        ),
        origin=identity.origin,
        licenses=identity.licenses,
        template=identity.template,
        architecture=facts.architecture or None,
        context=facts.context,
        parameters=given.parameters,
        tool=TOOL,
        created=installation.now(),
        accepted=accepted,
    )
    terms = Terms(
        terms_named(identity.licenses, installation.registry).licenses,
        identity.spec.license_conflict if identity.spec else "",
    )
    title = identity.spec.title if identity.spec else identity.name
    texts = texts_beside(installation, receipt, terms, title)
    installed = installation.store.commit(receipt, slots, texts=texts)
    return Stored(receipt, installed.path, already=False)
