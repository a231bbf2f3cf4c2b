"""From a checkpoint to a GGUF file, in the store or wherever the user wants it.

The converting itself is done by the `Convert` that the command hands down.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from wizard_edge.conversion import Convert, Converted, Cost, ModelFacts, Recipe
from wizard_edge.files import translated
from wizard_edge.gguf import read_header
from wizard_edge.progress import Progress, silent
from wizard_edge.receipts import Receipt, StoredFile
from wizard_edge.service.cards import file_facts
from wizard_edge.service.checkpoints import Checkpoint, Request, find_checkpoint
from wizard_edge.service.installation import TOOL, Installation
from wizard_edge.service.stored import Stored, file_name, part_names, refuse_installed
from wizard_edge.store import Slot


def convert_to_store(
    installation: Installation,
    request: Request,
    *,
    convert: Convert,
    overwrite: bool = False,
    progress: Progress = silent,
) -> tuple[Stored, ...]:
    """Convert a checkpoint and install it; `overwrite` replaces files of that quant.

    Raises: as `find_checkpoint`; NotEnough, and what `convert` does; UsageError for a
    model that is installed in that quant, without `overwrite`.
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
    return install(installation, checkpoint, recipe, convert=convert, progress=progress)


def convert_to_file(
    installation: Installation,
    request: Request,
    outputs: Sequence[Path],
    *,
    convert: Convert,
    progress: Progress = silent,
) -> tuple[Converted, ...]:
    """Convert a checkpoint to a file for each quant; the store is not touched.

    Raises: as `find_checkpoint`; NotEnough, and what `convert` does.
    """
    checkpoint, recipe = find_checkpoint(installation, request)
    with translated(outputs[0]):
        return convert.convert(
            checkpoint.weights, outputs, recipe, checkpoint.facts, progress=progress
        )


def estimate_conversion(
    installation: Installation, request: Request, *, convert: Convert
) -> Cost:
    """Say what a conversion takes; writes nothing.

    Raises: as `find_checkpoint`, and what `convert` does.
    """
    checkpoint, recipe = find_checkpoint(installation, request)
    return convert.estimate(checkpoint.weights, recipe, checkpoint.facts)


def install(
    installation: Installation,
    checkpoint: Checkpoint,
    recipe: Recipe,
    *,
    convert: Convert,
    progress: Progress = silent,
) -> tuple[Stored, ...]:
    """Convert a checkpoint into the store, each receipt last.

    Raises: NotEnough, Refused, and what `convert` does.
    """
    facts, store = checkpoint.facts, installation.store
    names = [file_name(facts.name, quant) for quant in recipe.quants]
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
                _commit(installation, facts, slot, made)
                for slot, made in zip(slots, done, strict=True)
            )


def _commit(
    installation: Installation, facts: ModelFacts, slot: Slot, made: Converted
) -> Stored:
    """Install one finished quant, whose files lie where its slot is."""
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
        quality=made.quality or None,
        weights=made.weights,
    )
    installed = installation.store.commit(receipt, slots)
    return Stored(receipt, installed.path, already=False)
