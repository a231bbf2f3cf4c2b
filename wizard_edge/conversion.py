"""The seam between the store's side and the converter pipeline: values, one Protocol.

The pipeline stands beside the service layer and is handed down by the command that
wants it. Knows no checkpoint format and no store.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from wizard_edge.models import License
from wizard_edge.names import ModelName, Sha256
from wizard_edge.progress import Progress
from wizard_edge.receipts import Origin


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """What is known of a checkpoint beside its own files; goes into the metadata.

    `template` None and no licences mean that nobody said: the metadata says so.
    """

    name: ModelName
    title: str
    origin: Origin
    template: str | None = None
    licenses: tuple[License, ...] = ()


@dataclass(frozen=True, slots=True)
class Cost:
    """What a conversion takes, in bytes, and how many tensors get which type."""

    read_bytes: int
    output_bytes: int
    peak_disk_bytes: int
    peak_memory_bytes: int
    tensors: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Converted:
    """A finished GGUF file; `size` in bytes."""

    path: Path
    size: int
    sha256: Sha256


class Convert(Protocol):
    """The converter pipeline as the store's side needs it."""

    def estimate(self, source: Path, *, quant: str) -> Cost:
        """Say what converting the checkpoint in `source` takes; writes nothing.

        Raises: MissingFile, CannotConvert, Corrupt, UnknownQuant.
        """
        ...

    def convert(
        self,
        source: Path,
        output: Path,
        *,
        quant: str,
        facts: ModelFacts,
        progress: Progress,
    ) -> Converted:
        """Write the checkpoint in `source` as one GGUF file to `output`.

        Whether a file that is there already is replaced is the pipeline's own setting.
        Raises: MissingFile, UsageError for an output that cannot be written,
        CannotConvert, Corrupt, UnknownQuant, NotEnough.
        """
        ...
