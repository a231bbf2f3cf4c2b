"""Finds the ready GGUF file that somebody means: in the registry, on the hub, anywhere.

What the registry states counts before what the hub says. Fetches no weights: at most
the beginning of a file that nobody knows, to read its header.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from hashlib import sha256

from wizard_edge.download import Wanted
from wizard_edge.errors import Corrupt, HubError, NotFound, UsageError
from wizard_edge.fitting import HIGHEST, Candidate, Choice
from wizard_edge.hub import Hub, RemoteFileInfo, Repository, file_name, mirror_address
from wizard_edge.licenses import Terms, terms_of
from wizard_edge.models import Joined, ModelSpec, RemoteFile, Variant
from wizard_edge.names import BlobId, ModelName, RepoId, Sha256
from wizard_edge.receipts import Origin, Piece, Receipt
from wizard_edge.refs import DEFAULT_QUANT, QUANTS, HubRef, UrlRef
from wizard_edge.service import stored
from wizard_edge.service.checkpoints import as_model_name
from wizard_edge.service.choosing import choose_quant
from wizard_edge.service.installation import Installation
from wizard_edge.service.offers import Offer, find_offer, find_offers, split_quant
from wizard_edge.service.remote_headers import quant_inside
from wizard_edge.service.variants import bytes_kept, chosen_quant
from wizard_edge.store import Installed

# How far the registry's estimates of a size may be off.
_ESTIMATE = 0.02


@dataclass(frozen=True, slots=True)
class Ready:
    """A ready model and what is known of it before a byte of it is fetched.

    `files` are named as they will be in the store. `choice` says why this quant was
    taken, None where it was asked for. `repository` is None for an address and where
    the hub could not be asked. `by_name` is set where a model of the registry was
    asked for, whatever its bytes.
    """

    name: ModelName
    title: str
    quant: str
    files: tuple[Wanted, ...]
    origin: Origin
    terms: Terms
    spec: ModelSpec | None = None
    choice: Choice | None = None
    repository: Repository | None = None
    by_name: bool = False

    @property
    def size(self) -> int:
        """The bytes of all files."""
        return sum(file.size for file in self.files)


def find_registered(
    installation: Installation,
    hub: Hub,
    spec: ModelSpec,
    quant: str,
    mirrors: Sequence[str] = (),
) -> Ready:
    """Find the files of a registered model in one quant.

    `mirrors` can stand in for a hub that is not reached, where the registry states
    the hash. Raises: HubError, NotFound, Refused; UnknownQuant.
    """
    variant = spec.variant(quant)
    repository: Repository | None
    try:
        found = _repository_of(hub, variant)
    except HubError:
        pieces = _from_mirrors(hub, variant, mirrors)
        if pieces is None:
            raise
        repository = None
    else:
        pieces = [_as_stated(found, file) for file in variant.files]
        repository = found
    first = pieces[0]
    return Ready(
        name=spec.name,
        title=spec.title,
        quant=quant,
        files=_wanted(spec.name, quant, variant.joined, pieces, repository),
        origin=Origin("hub", first.repo, first.revision),
        terms=_terms(installation, spec),
        spec=spec,
        repository=repository,
        by_name=True,
    )


def find_on_hub(
    installation: Installation,
    hub: Hub,
    ref: HubRef,
    revision: str | None = None,
    *,
    digest: Sha256 | None = None,
) -> Ready:
    """Find a file of any repository; without file and quant the one that fits best.

    What the registry knows by its hash, or by its repository, goes by that name.
    `digest` is what the one file that is named has to have.
    Raises: HubError, NotFound, Refused, NotEnough; Corrupt where the hub states
    another digest.
    """
    repository = hub.repository(ref.repo, revision)
    choice = None
    if ref.file is None and ref.quant is None:
        offer, choice = _choose_offer(installation, repository, ref)
    else:
        offer = find_offer(repository, ref)
    pieces = [_piece(repository, file) for file in offer.files]
    if digest is not None:
        pieces = [_with_digest(piece, digest) for piece in pieces]
    spec, quant = _recognise(installation, repository, offer)
    quant = quant or quant_inside(hub, pieces[0])
    name = spec.name if spec else as_model_name(offer.stem)
    return Ready(
        name=name,
        title=spec.title if spec else offer.stem,
        quant=quant,
        files=_wanted(name, quant, offer.joined, pieces, repository),
        origin=Origin("hub", repository.repo, repository.revision),
        terms=_terms(installation, spec),
        spec=spec,
        choice=choice,
        repository=repository,
    )


def find_at_address(installation: Installation, hub: Hub, ref: UrlRef) -> Ready:
    """Find the file at an address.

    Raises: HubError, NotFound; UsageError where it is called like no model.
    """
    stated = hub.probe(ref.url)
    piece = Piece(stated.size, ref.sha256, url=ref.url, etag=stated.etag)
    stem, quant = split_quant(file_name(ref.url))
    known = find_hash(installation, [ref.sha256])
    spec = known[0] if known else None
    quant = known[1].quant if known else quant or quant_inside(hub, piece)
    name = spec.name if spec else as_model_name(stem)
    return Ready(
        name=name,
        title=spec.title if spec else stem,
        quant=quant,
        files=_wanted(name, quant, "whole", [piece], None),
        origin=Origin("url", url=ref.url),
        terms=_terms(installation, spec),
        spec=spec,
    )


def find_present(installation: Installation, ready: Ready) -> Installed | None:
    """Return what is in the store already of a model that was found.

    Raises: UsageError where other bytes go by its name.
    """
    there = stored.present(installation, ready.name, ready.quant)
    if there is None or ready.by_name or _is_same(there.receipt, ready.files):
        return there
    name = f"{ready.name}:{ready.quant}"
    raise UsageError(
        f"{name} is in the store, and has other bytes than this one",
        hint=f"wizard-edge rm {name}, then pull again",
    )


def _is_same(receipt: Receipt, files: Sequence[Wanted]) -> bool:
    """Compare by hashes, and where none is stated by where the bytes came from."""
    if [file.size for file in receipt.files] != [file.size for file in files]:
        return False
    for there, wanted in zip(receipt.files, files, strict=True):
        if wanted.sha256 is not None:
            if there.sha256 != wanted.sha256:
                return False
        elif there.pieces and _places(there.pieces) != _places(wanted.pieces):
            return False
    return True


def _places(pieces: Sequence[Piece]) -> list[tuple[object, ...]]:
    return [(piece.repo, piece.path, piece.url, piece.sha256) for piece in pieces]


def _repository_of(hub: Hub, variant: Variant) -> Repository:
    """Ask for the repository of a variant, at the commit that the registry names."""
    first = variant.files[0]
    if first.repo is None:
        raise NotFound(f"nobody knows where to fetch {variant.quant}")
    try:
        found = hub.repository(first.repo, first.revision)
    except NotFound:
        if first.revision is None:
            raise
        # History can be rewritten; the hash says whether it is the same file.
        found = hub.repository(first.repo)
    missing = [file.path for file in variant.files if file.path not in found.files]
    if missing:
        raise NotFound(
            f"{first.repo} has no file {missing[0]} any more",
            hint=f"'wizard-edge pull hf:{first.repo}' takes what there is",
        )
    return found


def _as_stated(repository: Repository, file: RemoteFile) -> Piece:
    """Describe a file of the registry. Raises: HubError where the hub has another."""
    piece = _piece(repository, repository.files[file.path])
    if file.sha256 is not None and piece.sha256 not in (None, file.sha256):
        raise HubError(
            f"{repository.repo} has another {file.path} than the registry knows",
            hint=f"to take it all the same: hf:{repository.repo}/{file.path}",
        )
    return replace(piece, sha256=file.sha256 or piece.sha256)


def _from_mirrors(
    hub: Hub, variant: Variant, mirrors: Sequence[str]
) -> list[Piece] | None:
    """Describe a variant by the registry alone; a mirror says how large files are."""
    pieces = []
    for file in variant.files:
        piece = Piece(file.size or 0, file.sha256, file.repo, file.revision, file.path)
        if file.sha256 is None or file.repo is None or file.revision is None:
            return None
        size = _mirrored_size(hub, file, piece, mirrors)
        if size is None:
            return None
        pieces.append(replace(piece, size=size))
    return pieces


def _mirrored_size(
    hub: Hub, file: RemoteFile, piece: Piece, mirrors: Sequence[str]
) -> int | None:
    """Ask mirrors how large a file is; one that cannot be right is passed over."""
    if file.size is not None and file.size_exact:
        return file.size
    for mirror in mirrors:
        url = mirror_address(mirror, piece)
        try:
            size = hub.probe(url).size if url is not None else None
        except (HubError, NotFound):
            continue
        if size is not None and (
            file.size is None or abs(size - file.size) <= _ESTIMATE * file.size
        ):
            return size
    return None


def _piece(repository: Repository, file: RemoteFileInfo) -> Piece:
    return Piece(
        file.size, file.sha256, repository.repo, repository.revision, file.path
    )


def _with_digest(piece: Piece, digest: Sha256) -> Piece:
    if piece.sha256 not in (None, digest):
        raise Corrupt(
            piece.path or digest,
            f"the hub says that its sha256 is {piece.sha256}",
            hint="compare the digest with where it was published",
        )
    return replace(piece, sha256=digest)


def _wanted(
    name: ModelName,
    quant: str,
    joined: Joined,
    pieces: Sequence[Piece],
    repository: Repository | None,
) -> tuple[Wanted, ...]:
    """Say which files are to be made of which pieces."""
    groups = [tuple(pieces)] if joined == "bytes" else [(piece,) for piece in pieces]
    names = stored.part_names(stored.file_name(name, quant), len(groups))
    wanted = []
    for file, group in zip(names, groups, strict=True):
        digest = group[0].sha256 if len(group) == 1 else None
        blobs = tuple(_blob(repository, piece) for piece in group)
        wanted.append(Wanted(file, group, digest or _key(group), digest, blobs))
    return tuple(wanted)


def _blob(repository: Repository | None, piece: Piece) -> BlobId | None:
    if repository is None or piece.path is None:
        return None
    return repository.files[piece.path].blob


def _key(pieces: Sequence[Piece]) -> str:
    """Name what is fetched where no hash does: another state is another name.

    What nothing tells from another state is never gone on with.
    """
    table: list[object] = [asdict(piece) for piece in pieces]
    if any(piece.url and not (piece.etag or piece.sha256) for piece in pieces):
        table.append(os.urandom(16).hex())
    text = json.dumps(table, sort_keys=True)
    return sha256(text.encode()).hexdigest()


def _choose_offer(
    installation: Installation, repository: Repository, ref: HubRef
) -> tuple[Offer, Choice | None]:
    offers = find_offers(repository)
    by_quant = {offer.quant: offer for offer in offers if offer.quant is not None}
    usable = [q for q in by_quant if QUANTS.index(q) >= QUANTS.index(HIGHEST)]
    if not usable and len(offers) == 1:
        return offers[0], None
    if not usable:
        # Names that say nothing, quants that are never chosen, or nothing at all: the
        # error lists what there is.
        return find_offer(repository, replace(ref, quant=DEFAULT_QUANT)), None
    spec, _ = _recognise(installation, repository, next(iter(by_quant.values())))
    candidates = [
        Candidate(
            quant,
            offer.size,
            there=bytes_kept(installation, [file.sha256 for file in offer.files]),
        )
        for quant, offer in by_quant.items()
    ]
    choice = choose_quant(installation, spec, candidates)
    return by_quant[chosen_quant(installation, choice, f"{ref}:QUANT")], choice


def _recognise(
    installation: Installation, repository: Repository, offer: Offer
) -> tuple[ModelSpec | None, str | None]:
    """Find the registered model that a file is, by its hash or its repository."""
    known = find_hash(installation, [file.sha256 for file in offer.files])
    if known is not None:
        return known[0], known[1].quant
    for spec in installation.registry:
        if repository.repo in _repositories(spec):
            return spec, offer.quant
    return None, offer.quant


def find_hash(
    installation: Installation, hashes: Sequence[Sha256 | None]
) -> tuple[ModelSpec, Variant] | None:
    """Find the variant of the registry that consists of these very files."""
    if None in hashes:
        return None
    for spec in installation.registry:
        for variant in spec.variants:
            if [file.sha256 for file in variant.files] == list(hashes):
                return spec, variant
    return None


def _repositories(spec: ModelSpec) -> set[RepoId]:
    return {file.repo for v in spec.variants for file in v.files if file.repo}


def _terms(installation: Installation, spec: ModelSpec | None) -> Terms:
    return terms_of(spec, installation.registry) if spec else Terms(())
