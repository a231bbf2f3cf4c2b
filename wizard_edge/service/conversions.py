"""From a checkpoint to a GGUF file, in the store or wherever the user wants it.

The converting itself is done by the `Convert` that the command hands down.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from wizard_edge.conversion import Convert, Converted, Cost, Recipe
from wizard_edge.files import translated
from wizard_edge.gguf import read_header
from wizard_edge.licenses import Terms
from wizard_edge.names import RelPath
from wizard_edge.progress import Progress, silent
from wizard_edge.receipts import Acceptance, Receipt, StoredFile
from wizard_edge.service.cards import file_facts
from wizard_edge.service.checkpoints import Checkpoint, Request, find_checkpoint
from wizard_edge.service.consent import Consent, refuse_unfit, require
from wizard_edge.service.installation import TOOL, Installation
from wizard_edge.service.notices import license_texts_of, texts_beside
from wizard_edge.service.stored import Stored, file_name, part_names, refuse_installed
from wizard_edge.store import Slot


def convert_to_store(
    installation: Installation,
    request: Request,
    *,
    convert: Convert,
    overwrite: bool = False,
    consent: Consent | None = None,
    progress: Progress = silent,
) -> tuple[Stored, ...]:
    """Convert a checkpoint and install it; `overwrite` replaces files of that quant.

    `consent` is asked before anything is read; without it only what was accepted
    before comes in.
    Raises: as `find_checkpoint`; Refused for terms that nobody accepted; NotEnough,
    and what `convert` does; UsageError for a model that is installed in that quant,
    without `overwrite`.
    """
    checkpoint, recipe = find_checkpoint(installation, request)
    if not overwrite:
        for quant in recipe.quants:
            refuse_installed(
                installation,
                checkpoint.facts.name,
                quant,
                remedy="replace it with --overwrite",
            )
    accepted = _consent(installation, consent)(checkpoint.terms)
    return install(
        installation,
        checkpoint,
        recipe,
        convert=convert,
        accepted=accepted,
        progress=progress,
    )


def convert_to_file(
    installation: Installation,
    request: Request,
    outputs: Sequence[Path],
    *,
    convert: Convert,
    consent: Consent | None = None,
    progress: Progress = silent,
) -> tuple[Converted, ...]:
    """Convert a checkpoint to a file for each quant; no model of the store is touched.

    `consent` is as in `convert_to_store`.
    Raises: as `find_checkpoint`; Refused for terms that nobody accepted; NotEnough,
    and what `convert` does.
    """
    checkpoint, recipe = find_checkpoint(installation, request)
    _consent(installation, consent)(checkpoint.terms)
    with translated(outputs[0]):
        return convert.convert(
            checkpoint.weights, outputs, recipe, checkpoint.facts, progress=progress
        )


def estimate_conversion(
    installation: Installation,
    request: Request,
    *,
    convert: Convert,
    commercial: bool | None = None,
) -> Cost:
    """Say what a conversion takes; writes nothing.

    Raises: as `find_checkpoint`, and what `convert` does; Refused for a model that is
    not free for commercial use, where that is wanted.
    """
    checkpoint, recipe = find_checkpoint(installation, request)
    refuse_unfit(installation, checkpoint.terms, commercial=commercial)
    return convert.estimate(checkpoint.weights, recipe, checkpoint.facts)


def install(
    installation: Installation,
    checkpoint: Checkpoint,
    recipe: Recipe,
    *,
    convert: Convert,
    accepted: tuple[Acceptance, ...] = (),
    progress: Progress = silent,
) -> tuple[Stored, ...]:
    """Convert a checkpoint into the store, each receipt last.

    `accepted` goes into the receipts. Licence texts are got first: once the weights
    are read, nothing more of the network is needed.
    Raises: NotEnough, Refused, and what `convert` does.
    """
    facts, store = checkpoint.facts, installation.store
    names = [file_name(facts.name, quant) for quant in recipe.quants]
    for name in names:
        store.check_places(facts.name, [name])
    texts = license_texts_of(checkpoint.weights, installation.environ)
    with contextlib.ExitStack() as opened:
        slots = [opened.enter_context(store.open_slot(facts.name, n)) for n in names]
        with translated(slots[0].temp):
            done = convert.convert(
                checkpoint.weights,
                [slot.temp for slot in slots],
                recipe,
                facts,
                partial=installation.home.partial,
                progress=progress,
            )
            return tuple(
                _commit(installation, checkpoint, slot, made, accepted, texts)
                for slot, made in zip(slots, done, strict=True)
            )


def _consent(installation: Installation, consent: Consent | None) -> Consent:
    return consent or partial(require, installation)


def _commit(
    installation: Installation,
    checkpoint: Checkpoint,
    slot: Slot,
    made: Converted,
    accepted: tuple[Acceptance, ...],
    texts: Mapping[RelPath, bytes],
) -> Stored:
    """Install one finished quant, whose files lie where its slot is."""
    facts = checkpoint.facts
    header = file_facts(read_header(made.files[0].path))
    names = part_names(slot.file, len(made.files))
    slots = [
        replace(slot, file=name, temp=file.path)
        for name, file in zip(names, made.files, strict=True)
    ]
    receipt = Receipt(
        model=facts.name,
        quant=made.quant,
        files=tuple(
            StoredFile(name, file.size, file.sha256)
            for name, file in zip(names, made.files, strict=True)
        ),
        origin=replace(facts.origin, revision=made.revision or facts.origin.revision),
        licenses=tuple(license.id for license in facts.licenses),
        template=facts.template,
        architecture=header.architecture or None,
        context=header.context,
        parameters=header.parameters,
        tool=TOOL,
        created=installation.now(),
        accepted=accepted,
        quality=made.quality or None,
        weights=made.weights,
    )
    terms = Terms(facts.licenses, checkpoint.terms.conflict)
    notice = texts_beside(installation, receipt, terms, facts.title)
    installed = installation.store.commit(receipt, slots, texts={**texts, **notice})
    return Stored(receipt, installed.path, already=False)
