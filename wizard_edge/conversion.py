"""The seam between the store's side and the converter pipeline: values, one Protocol.

The pipeline stands beside the service layer and is handed down by the command that
wants it. Knows no checkpoint format and no store.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeAlias

from wizard_edge.models import License
from wizard_edge.names import CommitId, ModelName, RepoId, Sha256
from wizard_edge.progress import Progress
from wizard_edge.receipts import CheckedFile, Origin
from wizard_edge.refs import DEFAULT_QUANT


@dataclass(frozen=True, slots=True)
class HubWeights:
    """Original weights in a repository of the hub; without a revision the newest."""

    repo: RepoId
    revision: CommitId | None = None

    def __str__(self) -> str:
        return f"hf:{self.repo}"


Weights: TypeAlias = Path | HubWeights
"""Where original weights lie: a directory of this machine, or the hub."""


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
class QuantRules:
    """How to depart from what llama.cpp would choose for a quant by itself.

    `importance` is a file that says how much each column counts. `tensor_types` are
    texts `REGEX=TYPE`, the first that matches counts; `output_type` and
    `embedding_type` name a tensor type; `pure` gives all tensors the quant's own.
    """

    importance: Path | None = None
    tensor_types: tuple[str, ...] = ()
    output_type: str | None = None
    embedding_type: str | None = None
    pure: bool = False


@dataclass(frozen=True, slots=True)
class Recipe:
    """What to make of original weights; all quants come from one reading.

    `base` is what a weight delta is added to. `split_max_size` is in bytes, None for
    one file. `keep_weights` is a folder for the files that were fetched, None to keep
    none. `threads` None means one for each core.
    """

    quants: tuple[str, ...] = (DEFAULT_QUANT,)
    base: Weights | None = None
    rules: QuantRules = QuantRules()
    split_max_size: int | None = None
    keep_weights: Path | None = None
    threads: int | None = None


@dataclass(frozen=True, slots=True)
class QuantCost:
    """What one quant takes on the disk, and how many tensors get which type."""

    quant: str
    output_bytes: int
    tensors: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Cost:
    """What a conversion takes, in bytes and in seconds of this machine's work.

    `files` are the weight files to be read, `seconds` leave out the network and are
    None where nobody measured.
    """

    read_bytes: int
    peak_disk_bytes: int
    peak_memory_bytes: int
    quants: tuple[QuantCost, ...]
    files: Mapping[str, int]
    seconds: float | None = None

    @property
    def output_bytes(self) -> int:
        return sum(quant.output_bytes for quant in self.quants)


@dataclass(frozen=True, slots=True)
class ConvertedFile:
    """A finished GGUF file; `size` in bytes."""

    path: Path
    size: int
    sha256: Sha256


@dataclass(frozen=True, slots=True)
class Converted:
    """A finished quant: the file to open first, and what was measured and checked.

    `quality` has figures by name, `weights` the files it was made from. `revision`
    is the commit they had on the hub.
    """

    quant: str
    files: tuple[ConvertedFile, ...]
    quality: Mapping[str, float]
    weights: tuple[CheckedFile, ...] = ()
    revision: CommitId | None = None

    @property
    def size(self) -> int:
        return sum(file.size for file in self.files)


class Convert(Protocol):
    """The converter pipeline as the store's side needs it."""

    def estimate(self, source: Weights, recipe: Recipe, facts: ModelFacts) -> Cost:
        """Say what converting the checkpoint in `source` takes; writes nothing.

        Raises: MissingFile, HubError, CannotConvert, Corrupt.
        """
        ...

    def convert(
        self,
        source: Weights,
        outputs: Sequence[Path],
        recipe: Recipe,
        facts: ModelFacts,
        *,
        partial: Path | None = None,
        progress: Progress,
    ) -> tuple[Converted, ...]:
        """Write a GGUF file for each quant of the recipe, in that order.

        `partial` is the folder for what is not finished yet, None for that of the
        outputs. Whether a file that is there already is replaced is the pipeline's
        own setting.
        Raises: MissingFile, UsageError for an output that cannot be written,
        HubError, CannotConvert, Corrupt, NotEnough, Refused.
        """
        ...
