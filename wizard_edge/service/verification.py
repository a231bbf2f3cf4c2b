"""Look whether the files of the store are what their receipts say.

One pass over each file takes its SHA-256, which decides, and the sums of its chunks,
which say where the damage lies. A file that is right and has no sums gets them, so
that the next damage is found.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from wizard_edge.chunks import Chunks, Grid, read_chunks
from wizard_edge.errors import (
    ConfigError,
    Corrupt,
    MissingFile,
    NotEnough,
    NotFound,
    Refused,
    UsageError,
    WizardEdgeError,
)
from wizard_edge.progress import Progress, ProgressEvent, silent
from wizard_edge.receipts import StoredFile
from wizard_edge.scanning import Scan, scan
from wizard_edge.service.installation import Installation
from wizard_edge.service.models import find_variants
from wizard_edge.store import Damaged, Installed, Store


@dataclass(frozen=True, slots=True)
class DamagedChunk:
    """A chunk that is not what it was; `offset` and `size` in bytes of the file."""

    chunk: int
    offset: int
    size: int


@dataclass(frozen=True, slots=True)
class Verified:
    """What was found of one file, or of a receipt that cannot be read.

    `quant` is None for the latter. `error` says what is wrong, None if nothing, and
    `damaged` where, as far as sums can tell. `note` is what else is worth telling.
    `repaired` are the chunks that were fetched again, `fetched` the bytes of that.
    `damage` is what is wrong where `error` says why it was not repaired. `skipped`
    says that the file went away meanwhile.
    """

    name: str
    quant: str | None
    path: Path
    error: WizardEdgeError | None = None
    damaged: tuple[DamagedChunk, ...] = ()
    note: str | None = None
    repaired: tuple[DamagedChunk, ...] = ()
    fetched: int = 0
    damage: Corrupt | None = None
    skipped: bool = False

    @property
    def ok(self) -> bool:
        return self.error is None

    @property
    def problem(self) -> str | None:
        """What is wrong in a few words, without the name of the file."""
        if isinstance(self.error, Corrupt):
            return self.error.problem
        return self.error.message if self.error else None


@dataclass(frozen=True, slots=True)
class Inspection:
    """An installed file beside its sums, and what a pass over it found.

    `sums` is None where there are none that can be used. `spoilt` says that there
    are some, and that they are wrong; `keep_sums` that they are not ours to replace.
    """

    installed: Installed
    file: StoredFile
    found: Scan
    sums: Chunks | None
    spoilt: bool = False
    keep_sums: bool = False

    @property
    def path(self) -> Path:
        return self.installed.file_path(self.file)

    @property
    def grid(self) -> Grid:
        return self.sums.grid if self.sums else _grid(self.file)

    @property
    def right(self) -> bool:
        """Whether the bytes are those of the receipt, and no others behind them."""
        return self.found.size == self.file.size and self.begins_right

    @property
    def begins_right(self) -> bool:
        """Whether the bytes are those of the receipt, whatever lies behind them."""
        return self.found.sha256 == self.file.sha256

    @property
    def damaged(self) -> tuple[DamagedChunk, ...]:
        """The chunks that are not what they were; none where no sums can tell."""
        if self.sums is None or self.begins_right:
            return ()
        spans = (
            (number, self.grid.span(number))
            for number, (found, right) in enumerate(
                zip(self.found.sums, self.sums.sums, strict=True)
            )
            if found != right
        )
        return tuple(DamagedChunk(n, span.offset, span.size) for n, span in spans)


def verify(
    installation: Installation, refs: Sequence[str] = (), *, progress: Progress = silent
) -> list[Verified]:
    """Read the files of models, of the whole store without `refs`, and compare.

    Events: `verify` in bytes. What is wrong is in the result, file by file.
    Raises: as `find_variants` for the names.
    """
    return [
        item if isinstance(item, Verified) else judged(installation.store, item)
        for item in inspect_all(installation, refs, progress)
    ]


def inspect_all(
    installation: Installation, refs: Sequence[str], progress: Progress
) -> Iterator[Inspection | Verified]:
    """Read the files that `refs` mean, one after the other.

    What cannot be read at all comes as a finished result. Raises: as `verify`.
    """
    chosen = _choose(installation, refs)
    total = sum(i.receipt.size for i in chosen if isinstance(i, Installed))
    done = 0

    def advance(size: int) -> None:
        nonlocal done
        done += size
        progress(ProgressEvent("verify", done, total))

    for item in chosen:
        if isinstance(item, Damaged):
            yield Verified(item.folder.name, None, item.receipt_path, item.error)
            continue
        for file in item.receipt.files:
            try:
                yield inspect(item, file, advance)
            except (Refused, UsageError) as err:
                path = item.file_path(file)
                yield Verified(item.receipt.model, item.receipt.quant, path, err)


def inspect(
    installed: Installed, file: StoredFile, advance: Callable[[int], None]
) -> Inspection:
    """Read one file of a model; a file that is not there is one without bytes.

    Raises: Refused for a file that may not be read; UsageError for what is no file.
    """
    sums, spoilt, keep = _read_sums(installed, file)
    grid = sums.grid if sums else _grid(file)
    try:
        found = scan(installed.file_path(file), grid, advance)
    except MissingFile:
        advance(file.size)
        found = Scan(-1, None, (None,) * grid.count)
    return Inspection(installed, file, found, sums, spoilt, keep)


def judged(store: Store, seen: Inspection) -> Verified:
    """Say what a pass over a file means; a right file gets the sums it lacks.

    What another process removed or replaced during the pass is nobody's damage.
    """
    receipt = seen.installed.receipt
    name = f"{receipt.model}:{receipt.quant}"
    if seen.right:
        note = renew_sums(store, seen)
        return Verified(receipt.model, receipt.quant, seen.path, note=note)
    if not is_current(store, seen.installed):
        return removed_meanwhile(seen)
    error = Corrupt(
        seen.path, _problem(seen), hint=f"wizard-edge verify {name} --repair"
    )
    return Verified(receipt.model, receipt.quant, seen.path, error, seen.damaged)


def is_current(store: Store, installed: Installed) -> bool:
    """Tell whether a receipt still names the files that it did; it may be damaged."""
    name = installed.receipt.model
    for item in store.contents(name):
        if item.receipt_path == installed.receipt_path:
            return (
                isinstance(item, Damaged)
                or item.receipt.files == installed.receipt.files
            )
    return False


def removed_meanwhile(seen: Inspection) -> Verified:
    """Say that a file is no longer the one that was to be checked."""
    receipt = seen.installed.receipt
    note = "removed or replaced meanwhile"
    return Verified(receipt.model, receipt.quant, seen.path, note=note, skipped=True)


def renew_sums(store: Store, seen: Inspection) -> str | None:
    """Write the sums of a right file where there are none that fit.

    Returns what is to be told of it. A store that cannot be written stays as it is.
    """
    right = Chunks(seen.grid, seen.file.sha256, _complete(seen.found))
    wrong = seen.sums is not None and list(seen.sums.sums) != list(right.sums)
    if seen.keep_sums or (seen.sums is not None and not wrong):
        return None
    was_wrong = wrong or seen.spoilt
    try:
        store.write_sums(seen.installed, seen.file, right)
    except (Refused, NotEnough) as err:
        problem = f"its chunk sums are damaged, and stay so: {err.message}"
        return problem if was_wrong else None
    except (NotFound, Corrupt, ConfigError):
        # Removed or replaced meanwhile: its sums are nobody's any more.
        return None
    return (
        "its chunk sums were damaged and are written anew"
        if was_wrong
        else "chunk sums written"
    )


def _choose(
    installation: Installation, refs: Sequence[str]
) -> list[Installed | Damaged]:
    if not refs:
        return installation.store.everything()
    chosen = {
        item.receipt_path: item
        for ref in refs
        for item in find_variants(installation, ref)
    }
    return list(chosen.values())


def _grid(file: StoredFile) -> Grid:
    return Grid([piece.size for piece in file.pieces] or [file.size])


def _read_sums(
    installed: Installed, file: StoredFile
) -> tuple[Chunks | None, bool, bool]:
    """Return the sums of a file; whether they are spoilt; whether they must stay."""
    try:
        sums = read_chunks(installed.sums_path(file))
    except MissingFile:
        return None, False, False
    except (Corrupt, UsageError):
        return None, True, False
    except (ConfigError, Refused):
        return None, False, True
    if sums.grid.size != file.size or sums.sha256 != file.sha256:
        return None, True, False
    return sums, False, False


def _problem(seen: Inspection) -> str:
    file, found = seen.file, seen.found
    if found.size < 0:
        return "there is no such file"
    if found.refusal is not None:
        return f"cannot be read: {found.refusal}"
    if found.size != file.size:
        return f"has {found.size} bytes instead of {file.size}"
    if seen.damaged:
        return f"{len(seen.damaged)} of {seen.grid.count} chunks are not what they were"
    if seen.sums is not None:
        return "every chunk fits its sum, and yet its sha256 is another"
    return f"its sha256 begins {found.sha256 or '':.12}, not {file.sha256:.12}"


def _complete(found: Scan) -> list[int]:
    return [value for value in found.sums if value is not None]
