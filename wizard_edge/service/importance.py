"""Compute an importance matrix: a model reads a text, and a file remembers it."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from wizard_edge._llama.activations import (
    DEFAULT_CHUNK_SIZE,
    Activations,
    collect_activations,
)
from wizard_edge.engine import LoadOptions
from wizard_edge.errors import UsageError
from wizard_edge.hardware import find_cores, find_memory
from wizard_edge.progress import Progress, silent
from wizard_edge.service.chat import check_memory
from wizard_edge.service.consent import refuse_target
from wizard_edge.service.installation import Installation
from wizard_edge.service.targets import find_target


class SaveMatrix(Protocol):
    """Writes the file; the converters know its form."""

    def check(self, output: Path) -> None:
        """See that `output` can be written. Raises: MissingFile; UsageError."""

    def write(self, output: Path, activations: Activations, *, dataset: str) -> int:
        """Write the file and return its size in bytes. Raises: NotEnough; Refused."""
        ...


@dataclass(frozen=True, slots=True)
class Measured:
    """The file that was written, and what was measured for it; `size` is in bytes."""

    path: Path
    size: int
    tensors: int
    chunks: int
    chunk_size: int

    @property
    def tokens(self) -> int:
        return self.chunks * self.chunk_size


def measure_importance(
    installation: Installation,
    ref: str,
    text: str,
    output: Path,
    *,
    save: SaveMatrix,
    dataset: str,
    chunk_size: int = DEFAULT_CHUNK_SIZE,
    chunks: int | None = None,
    threads: int | None = None,
    commercial: bool | None = None,
    progress: Progress = silent,
) -> Measured:
    """Let a model read a text and write what matters to it; on the CPU, in float32.

    `dataset` is the name of the text, which goes into the file. A line break at the
    end of the text does not count, as llama.cpp's tool has it. Events: `load`, then
    `imatrix` in tokens.
    Raises: what `find_target` and `collect_activations` raise; MissingFile and
    UsageError for an output that cannot be; NotEnough; Refused.
    """
    target = find_target(installation, ref)
    refuse_target(installation, target, commercial=commercial)
    save.check(output)
    _keep_apart(output, target.path, Path(dataset))
    # A file that is not there is llama.cpp's to tell.
    with suppress(OSError):
        check_memory(target.path.stat().st_size, LoadOptions(), find_memory())
    if threads is None:
        threads = installation.settings.threads or find_cores().threads
    activations = collect_activations(
        target.path,
        text.removesuffix("\n"),
        chunk_size=chunk_size,
        chunks=chunks,
        threads=threads,
        progress=progress,
    )
    size = save.write(output, activations, dataset=dataset)
    return Measured(
        output,
        size,
        tensors=len(activations.sums),
        chunks=activations.chunks,
        chunk_size=activations.chunk_size,
    )


def _keep_apart(output: Path, *sources: Path) -> None:
    """Refuse to replace what is read, which `--overwrite` does not mean."""
    for source in sources:
        if output.exists() and source.exists() and output.samefile(source):
            raise UsageError(f"the output is what is read: {output}")
