"""Which quant of a model to bring in, where nobody says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from wizard_edge.download import part_paths
from wizard_edge.errors import NotEnough, NotFound
from wizard_edge.fitting import DISK_MARGIN, Choice
from wizard_edge.models import ModelSpec
from wizard_edge.names import Sha256
from wizard_edge.part_files import allocated
from wizard_edge.service.checkpoints import pull_command
from wizard_edge.service.choosing import (
    choose_quant,
    find_machine,
    ready_candidates,
)
from wizard_edge.service.installation import Installation


def choose_variant(
    installation: Installation, spec: ModelSpec, quant: str | None
) -> tuple[str, Choice | None]:
    """Return the quant to take of a registered model, and why if nobody named one.

    Raises: UnknownQuant; NotFound for a model without ready files; NotEnough where
    none fits this machine.
    """
    if not spec.variants:
        raise NotFound(
            f"nobody knows ready files of {spec.name}", hint=pull_command(spec, quant)
        )
    if quant is not None:
        return spec.variant(quant).quant, None
    installed = {
        item.receipt.quant
        for item in installation.store.installed()
        if item.receipt.model == spec.name
    }
    candidates = [
        replace(
            item,
            stored=item.quant in installed,
            there=bytes_kept(installation, _hashes(spec, item.quant)),
        )
        for item in ready_candidates(spec)
    ]
    choice = choose_quant(installation, spec, candidates)
    return chosen_quant(installation, choice, f"{spec.name}:QUANT"), choice


def bytes_kept(installation: Installation, hashes: Sequence[Sha256 | None]) -> int:
    """Return the bytes that earlier runs set aside on the disk for these files."""
    folder = installation.home.partial
    return sum(allocated(part_paths(folder, key)[0]) for key in hashes if key)


def _hashes(spec: ModelSpec, quant: str) -> list[Sha256 | None]:
    return [file.sha256 for file in spec.variant(quant).files]


def chosen_quant(installation: Installation, choice: Choice, command: str) -> str:
    """Return the quant of a choice; `command` would take another all the same.

    Raises: NotEnough where none fits, with what the least of them needs.
    """
    if choice.chosen is not None:
        return choice.chosen.quant
    machine = find_machine(installation)
    least = min(choice.rejected, key=lambda fit: fit.total)
    short_of_memory = least.total > machine.room
    raise NotEnough(
        "memory" if short_of_memory else f"disk in {installation.home.root}",
        needed=least.total if short_of_memory else least.weights + DISK_MARGIN,
        free=machine.room if short_of_memory else machine.free_disk,
        hint=f"{choice.why}; to take one all the same: wizard-edge pull {command}",
    )
