"""What the rest of the converter sees of a checkpoint. Opens nothing.

A checkpoint is side files (config, tokenizer) and tensors at known places of weight
files. Whoever reads it takes the tensors in the order of `tensors`, each from its
first element to its last, so that weight files which arrive as a stream can stand
behind the same Protocol.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Protocol

from wizard_edge.gguf_types import GgmlType
from wizard_edge.receipts import CheckedFile
from wizard_edge_converters.source_files import ByteSource


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """A tensor as it lies in a weight file: `size` bytes, row by row, from `offset`.

    `offset` counts from the beginning of `storage`, a part of the file that has a
    place of its own, or of the file where it has no such parts. `shape` has the row
    length last; numbers are little endian, of any type that has whole rows.
    """

    name: str
    type: GgmlType
    shape: tuple[int, ...]
    file: str
    offset: int
    storage: str = ""

    @property
    def elements(self) -> int:
        return prod(self.shape)

    @property
    def size(self) -> int:
        return self.elements // self.type.block_size * self.type.type_size

    @property
    def place(self) -> tuple[str, str, int, GgmlType, tuple[int, ...]]:
        """What two names of the same stored numbers have in common."""
        return self.file, self.storage, self.offset, self.type, self.shape


class SideFiles(Protocol):
    """The small files of a checkpoint, read whole."""

    def label(self, name: str) -> str:
        """Name a file for a message."""

    def small(self, name: str) -> bytes | None:
        """Read a file; None where there is none."""


class Folder(SideFiles, Protocol):
    """A place with the files of a checkpoint: a directory, or a repository."""

    @property
    def name(self) -> str:
        """What a message calls it."""

    @property
    def is_remote(self) -> bool:
        """Whether reading costs traffic, so that what was read is worth keeping."""

    def names(self) -> Collection[str]:
        """List the files that lie directly in it."""

    def open(self, name: str) -> ByteSource:
        """Open a weight file. Raises: MissingFile."""

    def lacks(self, name: str) -> bool:
        """Whether a copy of a weight file is wanted that is not there yet."""


class WeightFile(Protocol):
    """One open weight file."""

    @property
    def tensors(self) -> Sequence[StoredTensor]:
        """Its tensors in the order in which they lie in the file."""

    @property
    def size(self) -> int:
        """The size of the whole file in bytes."""

    def read(self, tensor: StoredTensor, start: int, count: int) -> bytes:
        """Read `count` elements of a tensor from element `start`. Raises: Corrupt."""

    def mark(self) -> str:
        """Describe how far the file was read and checked, for `resume`."""

    def resume(self, mark: str) -> None:
        """Go on where another run was when it took the mark. Raises: ValueError."""

    def finish(self) -> CheckedFile:
        """Check what `read` could not check yet. Raises: Corrupt."""

    def close(self) -> None: ...


class Checkpoint(SideFiles, Protocol):
    """Side files and tensors; `tensors` is in the order in which to read them."""

    @property
    def name(self) -> str:
        """What a message calls it: the directory, or the repository."""

    @property
    def identity(self) -> str:
        """A text that another content of the weight files would not have."""

    @property
    def tensors(self) -> Mapping[str, StoredTensor]: ...

    @property
    def size(self) -> int:
        """The size of all weight files in bytes."""

    @property
    def is_remote(self) -> bool:
        """Whether reading costs traffic, so that what was read is worth keeping."""

    def read(self, tensor: StoredTensor, start: int, count: int) -> bytes:
        """Read `count` elements of a tensor from element `start`. Raises: Corrupt."""

    def mark(self, file: str) -> str:
        """Describe how far a weight file was read and checked, for `resume`."""

    def resume(self, file: str, mark: str) -> None:
        """Go on with a file where another run stopped. Raises: ValueError."""

    def finish(self, file: str) -> CheckedFile:
        """Check what is left to check of a file that was read. Raises: Corrupt."""

    def others(self) -> Sequence[CheckedFile]:
        """Check the files that were read beside those of `tensors`. Raises: Corrupt."""

    def close(self) -> None: ...
