"""Bring a model that is on this machine already into the store.

Its files are copied or linked, and hashed either way; what was there stays. A copy
whose hash is known beforehand goes on where an earlier one was interrupted.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from wizard_edge.errors import NotFound
from wizard_edge.licenses import Terms, terms_named
from wizard_edge.names import ModelName, RelPath
from wizard_edge.progress import Progress, ProgressEvent, silent
from wizard_edge.receipts import Acceptance, Piece, Receipt, StoredFile
from wizard_edge.service.candidates import Candidate, find_candidate
from wizard_edge.service.cards import file_facts
from wizard_edge.service.checkpoints import recorded_licenses
from wizard_edge.service.consent import Consent, refuse_receipt, refuse_unfit, require
from wizard_edge.service.identities import (
    Identity,
    identify,
    recognise,
    terms_to_accept,
)
from wizard_edge.service.import_slots import (
    STAGE,
    alone,
    check_room,
    keys,
    open_slots,
    take_all,
)
from wizard_edge.service.installation import TOOL, Installation
from wizard_edge.service.notices import texts_beside
from wizard_edge.service.stored import (
    Stored,
    file_name,
    part_names,
    present,
    refuse_installed,
)
from wizard_edge.service.taking import How, Taken, hash_given
from wizard_edge.store import Installed, Slot
from wizard_edge.templates import find_template


@dataclass(frozen=True, slots=True)
class Said:
    """What the options say; None where they say nothing."""

    name: ModelName | None = None
    template: str | None = None
    licenses: tuple[str, ...] | None = None

    def over(self, identity: Identity) -> Identity:
        """Return the identity with what was said laid over it.

        Nobody talks a model out of the licences that the registry knows it by.
        """
        said = self.licenses or identity.licenses
        known = identity.licenses if identity.spec else ()
        return replace(
            identity,
            name=self.name or identity.name,
            template=self.template or identity.template,
            licenses=tuple(dict.fromkeys((*known, *said))),
        )


def import_file(
    installation: Installation,
    path: Path,
    *,
    name: str | None = None,
    template: str | None = None,
    licenses: Sequence[str] = (),
    how: How = How.COPY,
    consent: Consent | None = None,
    commercial: bool | None = None,
    progress: Progress = silent,
) -> Stored:
    """Bring a GGUF file, pieces of one, or an exported folder in, the receipt last.

    A split model is given by its first part and stays split; pieces of a file are
    given by any one of them and are joined. What the options say goes over what the
    registry knows, that over the receipt beside it, and that over the file itself;
    but licences of a model that the registry knows stay, and others come on top.
    Raises: as `find_candidate` and `bring_in`.
    """
    return bring_in(
        installation,
        find_candidate(path),
        name=name,
        template=template,
        licenses=licenses,
        how=how,
        consent=consent,
        commercial=commercial,
        progress=progress,
    )


def bring_in(
    installation: Installation,
    candidate: Candidate,
    *,
    name: str | None = None,
    template: str | None = None,
    licenses: Sequence[str] = (),
    how: How = How.COPY,
    consent: Consent | None = None,
    commercial: bool | None = None,
    progress: Progress = silent,
) -> Stored:
    """Make a candidate an installed model; the same one twice is there already.

    `consent` is asked for the terms of what the registry knows, before a byte is read
    where the name tells; without it only what was accepted before comes in.
    `commercial` is as in `refuse_unfit`, and holds for what is there already too.
    Events: `import` in bytes.
    Raises: UsageError for another file that is installed in that quant, an unknown
    template or a name that does not fit; CannotConvert for one called like a
    registered model of another shape; Corrupt, NotEnough; Refused, for terms that
    nobody accepted too; as `take`.
    """
    consent = consent or partial(require, installation, commercial=commercial)
    same = partial(_same, installation, candidate, commercial=commercial)

    def agree(identity: Identity) -> tuple[Acceptance, ...]:
        named = terms_named(identity.licenses, installation.registry)
        refuse_unfit(installation, named, commercial=commercial)
        return consent(terms_to_accept(installation, identity))

    guess = identify(installation, candidate, name)
    ids = [license.id for license in recorded_licenses(installation, licenses)]
    said = Said(
        name=guess.name if name else None,
        template=None if template is None else find_template(template).id,
        licenses=tuple(ids) or None,
    )
    wanted = said.over(guess)
    advance = _counting(candidate, progress)
    there = present(installation, wanted.name, wanted.quant)
    if there is not None:
        return same(there, advance)
    if how is How.COPY:
        check_room(installation, candidate)
    if guess.spec is not None:
        agree(wanted)
    with contextlib.ExitStack() as opened:
        opened.enter_context(alone(installation, *keys(candidate)))
        there = present(installation, wanted.name, wanted.quant)
        if there is not None:
            return same(there, advance)
        files = _file_names(candidate, wanted)
        installation.store.check_places(wanted.name, files, given=_paths(candidate))
        slots = open_slots(installation, candidate, wanted.name, files, how, opened)
        taken = take_all(candidate, slots, how, advance)
        known = recognise(installation, candidate, taken)
        identity = said.over(_with_pieces(known, guess)) if known else wanted
        return _install(installation, candidate, identity, taken, agree(identity))


def _same(
    installation: Installation,
    candidate: Candidate,
    there: Installed,
    advance: Callable[[int], None],
    *,
    commercial: bool | None,
) -> Stored:
    """See that what is installed is the candidate. Raises: UsageError, Refused."""
    receipt = there.receipt
    refuse_receipt(installation, receipt, commercial=commercial)
    given = candidate.files
    if [file.size for file in given] == [file.size for file in receipt.files]:
        found = [file.sha256 or hash_given(file, advance) for file in given]
        if found == [file.sha256 for file in receipt.files]:
            return Stored(receipt, there.path, already=True)
    _refuse(installation, receipt.model, receipt.quant)
    raise NotFound(f"{receipt.model}:{receipt.quant} was removed meanwhile")


def _refuse(installation: Installation, name: ModelName, quant: str) -> None:
    refuse_installed(installation, name, quant, remedy=f"wizard-edge rm {name}:{quant}")


def _counting(candidate: Candidate, progress: Progress) -> Callable[[int], None]:
    done, total = 0, candidate.size

    def advance(size: int) -> None:
        nonlocal done
        done += size
        progress(ProgressEvent(STAGE, done, total))

    return advance


def _with_pieces(known: Identity, guess: Identity) -> Identity:
    """Add what the receipt says where the registry knows no commit."""
    return known if all(known.fetched) else replace(known, fetched=guess.fetched)


def _file_names(candidate: Candidate, identity: Identity) -> list[RelPath]:
    return part_names(file_name(identity.name, identity.quant), len(candidate.files))


def _paths(candidate: Candidate) -> list[Path]:
    return [path for file in candidate.files for path in file.paths]


def _install(
    installation: Installation,
    candidate: Candidate,
    identity: Identity,
    taken: Sequence[Taken],
    accepted: tuple[Acceptance, ...],
) -> Stored:
    """Commit what was taken, unless somebody else was first with the same name."""
    with alone(installation, f"{identity.name}.{identity.quant}"):
        there = present(installation, identity.name, identity.quant)
        if there is not None:
            if [f.sha256 for f in there.receipt.files] == [t.sha256 for t in taken]:
                for item in taken:
                    item.slot.temp.unlink()
                return Stored(there.receipt, there.path, already=True)
            _refuse(installation, identity.name, identity.quant)
        return _commit(installation, candidate, identity, taken, accepted)


def _commit(
    installation: Installation,
    candidate: Candidate,
    identity: Identity,
    taken: Sequence[Taken],
    accepted: tuple[Acceptance, ...],
) -> Stored:
    # Only now is the name certain.
    names = _file_names(candidate, identity)
    fetched = identity.fetched or ((),) * len(taken)
    files = tuple(
        StoredFile(name, item.size, item.sha256, _hashed(pieces, item))
        for name, item, pieces in zip(names, taken, fetched, strict=True)
    )
    slots = [
        replace(
            item.slot,
            model=identity.name,
            file=file.name,
            chunks=item.slot.chunks if _fits(item.slot, file) else None,
        )
        for item, file in zip(taken, files, strict=True)
    ]
    receipt = replace(
        _receipt(installation, candidate, identity, files), accepted=accepted
    )
    texts = {**candidate.texts, **_notice(installation, identity, receipt)}
    installed = installation.store.commit(
        receipt, slots, texts=texts, given=_paths(candidate)
    )
    return Stored(receipt, installed.path, already=False)


def _notice(
    installation: Installation, identity: Identity, receipt: Receipt
) -> Mapping[RelPath, bytes]:
    spec = identity.spec
    terms = Terms(
        terms_named(identity.licenses, installation.registry).licenses,
        spec.license_conflict if spec else "",
    )
    return texts_beside(
        installation, receipt, terms, spec.title if spec else identity.name
    )


def _hashed(pieces: Sequence[Piece], taken: Taken) -> tuple[Piece, ...]:
    """Return pieces with their hashes, as far as those were found."""
    if len(pieces) == 1:
        return (replace(pieces[0], sha256=taken.sha256),)
    return tuple(pieces)


def _fits(slot: Slot, file: StoredFile) -> bool:
    """Tell whether chunks stay within the pieces that a repair would fetch."""
    sizes = [piece.size for piece in file.pieces]
    return slot.chunks is None or not sizes or list(slot.chunks.grid.sizes) == sizes


def _receipt(
    installation: Installation,
    candidate: Candidate,
    identity: Identity,
    files: tuple[StoredFile, ...],
) -> Receipt:
    facts = file_facts(candidate.header)
    receipt = Receipt(
        model=identity.name,
        quant=identity.quant,
        files=files,
        origin=identity.origin,
        licenses=identity.licenses,
        template=identity.template,
        architecture=facts.architecture or None,
        context=facts.context,
        parameters=candidate.parameters,
        tool=TOOL,
        created=installation.now(),
    )
    before = candidate.receipt
    if before is None:
        return receipt
    # What was measured, and of what it was made, holds for the same bytes.
    return replace(
        receipt,
        quality=before.quality,
        weights=before.weights,
        evaluated_on=before.evaluated_on,
    )
