"""What the rest of the converter sees of a checkpoint. Opens nothing.

A checkpoint is side files (config, tokenizer) and tensors at known byte offsets of
weight files. Whoever reads it takes the tensors in the order of `tensors`, each from
its first element to its last, so that weight files which arrive as a stream can
stand behind the same Protocol.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Protocol

from wizard_edge.gguf_types import GgmlType


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """A tensor as it lies in a weight file: `size` bytes, row by row, from `offset`.

    `type` is F32, F16 or BF16, little endian; `shape` has the row length last.
    """

    name: str
    type: GgmlType
    shape: tuple[int, ...]
    file: str
    offset: int

    @property
    def elements(self) -> int:
        return prod(self.shape)

    @property
    def size(self) -> int:
        return self.elements * self.type.type_size


class SideFiles(Protocol):
    """The small files of a checkpoint, read whole."""

    def label(self, name: str) -> str:
        """Name a file for a message."""

    def small(self, name: str) -> bytes | None:
        """Read a file; None where there is none."""


class WeightFile(Protocol):
    """One open weight file."""

    @property
    def tensors(self) -> Sequence[StoredTensor]:
        """Its tensors in increasing order of offset."""

    @property
    def size(self) -> int:
        """The size of the whole file in bytes."""

    def read(self, offset: int, size: int) -> bytes:
        """Read exactly `size` bytes. Raises: Corrupt."""

    def finish(self) -> None:
        """Check what `read` could not check yet. Raises: Corrupt."""

    def close(self) -> None: ...


class Checkpoint(SideFiles, Protocol):
    """Side files and tensors; `tensors` is in the order in which to read them."""

    @property
    def name(self) -> str:
        """What a message calls it: the directory, or the repository."""

    @property
    def tensors(self) -> Mapping[str, StoredTensor]: ...

    @property
    def size(self) -> int:
        """The size of all weight files in bytes."""

    def read(self, tensor: StoredTensor, start: int, count: int) -> bytes:
        """Read `count` elements of a tensor from element `start`. Raises: Corrupt."""

    def finish(self) -> None:
        """Check what is left to check once everything was read. Raises: Corrupt."""
