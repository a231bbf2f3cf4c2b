"""How a model lies in the store that a conversion or an import brought there."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from wizard_edge.errors import Corrupt, NotFound, UsageError
from wizard_edge.gguf_parts import split_name
from wizard_edge.names import ModelName, RelPath
from wizard_edge.receipts import Receipt
from wizard_edge.service.installation import Installation
from wizard_edge.store import Installed


@dataclass(frozen=True, slots=True)
class Stored:
    """A model in the store; `already` = it was there before."""

    receipt: Receipt
    path: Path
    already: bool


def file_name(name: ModelName, quant: str) -> RelPath:
    """Return what the file of a converted model is called in the store."""
    return RelPath.parse(f"{name}.{quant}.gguf")


def part_names(file: RelPath, count: int) -> list[RelPath]:
    """Name the files of a model; several are called as llama.cpp calls them."""
    if count == 1:
        return [file]
    stem = file.removesuffix(".gguf")
    return [
        RelPath.parse(split_name(stem, number, count)) for number in range(1, count + 1)
    ]


def present(
    installation: Installation, name: ModelName, quant: str
) -> Installed | None:
    """Return a variant if it is in the store and its files have the right size."""
    try:
        found = installation.store.find(name, quant)
    except (NotFound, Corrupt):
        return None
    return found if found.problem() is None else None


def refuse_installed(
    installation: Installation, name: ModelName, quant: str, *, remedy: str
) -> None:
    """See that a quant of a model is free to be installed. Raises: UsageError."""
    try:
        installation.store.find(name, quant)
    except (NotFound, Corrupt):
        return
    raise UsageError(
        f"{name}:{quant} is in the store already",
        hint=f"{remedy}, or install under another --name",
    )
