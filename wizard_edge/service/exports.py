"""Hand an installed model out: its files, receipt, texts, and SHA256SUMS over them.

Every byte is hashed on the way and compared with the receipt. What is at the place
already and right is kept, so an interrupted export goes on. A file that is in the way
is replaced only once the model has proved whole.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from wizard_edge.checksums import FILE, Checksums, read_checksums
from wizard_edge.errors import (
    ConfigError,
    Corrupt,
    Interrupted,
    NotFound,
    UnknownModel,
    UsageError,
)
from wizard_edge.files import (
    TEMP_SUFFIX,
    entries,
    is_temp,
    open_regular,
    sync_folder,
    translated,
    write_atomically,
)
from wizard_edge.gguf import read_header
from wizard_edge.locking import exclusive
from wizard_edge.names import ModelName, RelPath, Sha256
from wizard_edge.part_files import check_space
from wizard_edge.paths import place
from wizard_edge.progress import Progress, ProgressEvent, silent
from wizard_edge.receipts import SUFFIX as RECEIPT_SUFFIX
from wizard_edge.receipts import Receipt, parse_receipt
from wizard_edge.refs import ModelRef, RegistryRef
from wizard_edge.service.consent import refuse_receipt
from wizard_edge.service.installation import Installation
from wizard_edge.service.models import resolve
from wizard_edge.service.sections import DamagedSource, Section, Source, plan_sections
from wizard_edge.store import Installed

__all__ = ["Exported", "ExportedFile", "export_model"]

STAGE = "export"

_RECEIPTS = f".gguf{RECEIPT_SUFFIX}"
_LOCK = RelPath.parse("wizard-edge-export.lock")
# A licence has 20 KB.
_MAX_TEXT = 1 << 20


@dataclass(frozen=True, slots=True)
class ExportedFile:
    """A file in the folder; `kept` = it was there before. `size` in bytes."""

    name: RelPath
    size: int
    sha256: Sha256
    kept: bool


@dataclass(frozen=True, slots=True)
class Exported:
    """What lies in the folder now, beside its `SHA256SUMS`."""

    receipt: Receipt
    folder: Path
    files: tuple[ExportedFile, ...]


def export_model(
    installation: Installation,
    ref: str,
    folder: Path,
    *,
    split: int | None = None,
    overwrite: bool = False,
    commercial: bool | None = None,
    progress: Progress = silent,
) -> Exported:
    """Write an installed model to a folder, which is made; `SHA256SUMS` comes last.

    `split` is the most bytes that a file may have. What else lies in the folder stays.
    `commercial` is as in `refuse_unfit`.
    Events: `export` in bytes.
    Raises: UnknownModel, NotFound for what is not installed; Corrupt for a model that
    is not what its receipt says, of which nothing is left; UsageError for a file that
    is there and different, without `overwrite`; NotEnough; Refused, Busy.
    """
    installed = _find(installation, ref)
    refuse_receipt(installation, installed.receipt, commercial=commercial)
    if problem := installed.problem():
        raise _damaged(installed, problem)
    receipt = installed.receipt
    planned = _plan(installed, split)
    folder = folder.expanduser().absolute()
    texts = _texts(installation, installed)
    with _made(folder), exclusive(place(folder, _LOCK)):
        if not overwrite:
            _refuse_others(folder, receipt.model, texts, planned)
        _check_room(folder, planned)
        run = _Run(installed, folder, overwrite=overwrite, progress=progress)
        files = run.write(planned)
        files += [_write_text(folder, name, text) for name, text in texts.items()]
        _write_sums(folder, files, receipt)
    return Exported(receipt, folder, tuple(files))


def _find(installation: Installation, text: str) -> Installed:
    ref = ModelRef.parse(text)
    if not isinstance(ref, RegistryRef):
        raise UsageError(
            f"not a model of the store: {text}", hint="'wizard-edge list' shows them"
        )
    name, _ = resolve(installation, ref)
    try:
        return installation.store.find(name, ref.quant)
    except UnknownModel as err:
        raise NotFound(
            f"{name} is not installed", hint="'wizard-edge list' shows what is"
        ) from err


def _plan(installed: Installed, split: int | None) -> list[list[Section]]:
    """Cut every file. Raises: UsageError for pieces that no header fits in."""
    planned = [plan_sections(file, split) for file in installed.receipt.files]
    for file, sections in zip(installed.receipt.files, planned, strict=True):
        if len(sections) > 1:
            # Whoever imports it reads the header from the first piece.
            least = read_header(installed.file_path(file)).data_offset
            if sections[0].size < least:
                raise UsageError(
                    f"pieces of {sections[0].size} bytes are too small: "
                    f"the header of {file.name} has {least}",
                    hint=f"--split {least} or more",
                )
    return planned


def _texts(installation: Installation, installed: Installed) -> dict[RelPath, bytes]:
    """Return what travels with the model, by name: licences first, the receipt last."""
    name = ModelName.parse(installed.folder.name)
    texts = {
        RelPath.parse(path.name): _content(path)
        for path in installation.store.companions(name)
        if RelPath.fits(path.name) and path.is_file() and not is_temp(path)
    }
    receipt = installed.receipt.to_hand_out()
    return {**texts, receipt.file_name: receipt.to_bytes()}


@contextlib.contextmanager
def _made(folder: Path) -> Iterator[None]:
    """Make a folder if it is not there, and take away again what stays empty."""
    new = [path for path in (folder, *folder.parents) if not os.path.lexists(path)]
    with translated(folder):
        folder.mkdir(parents=True, exist_ok=True)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            for path in new:
                path.rmdir()


def _refuse_others(
    folder: Path,
    model: ModelName,
    texts: Mapping[RelPath, bytes],
    planned: Sequence[Sequence[Section]],
) -> None:
    """Refuse what can be seen to be in the way before anything is written."""
    for section in _every(planned):
        path = place(folder, section.name)
        if os.path.lexists(path) and _size(path) != section.size:
            raise _in_the_way(path)
    ours = _exported_before(folder, model)
    for name, text in texts.items():
        path = place(folder, name)
        if os.path.lexists(path):
            there = _content(path)
            if text != there and ours.get(name) != _hash(there):
                raise _in_the_way(path)


def _exported_before(folder: Path, model: ModelName) -> Mapping[RelPath, Sha256]:
    """Return the hashes of what was exported, if that was all of the same model.

    A text of it may be another by now: the `NOTICE` says what each variant is.
    """
    for path in entries(folder):
        if path.name.endswith(_RECEIPTS) and path.is_file():
            try:
                if parse_receipt(path, _content(path)).model != model:
                    return {}
            except (Corrupt, ConfigError):
                return {}
    return _sums_there(folder).files


def _check_room(folder: Path, planned: Sequence[Sequence[Section]]) -> None:
    needed = sum(
        section.size
        for section in _every(planned)
        if _size(place(folder, section.name)) != section.size
    )
    check_space(folder, needed, hint="name another folder")


def _every(planned: Sequence[Sequence[Section]]) -> Iterator[Section]:
    return (section for sections in planned for section in sections)


def _size(path: Path) -> int | None:
    """Return the size of a file; None for none, and for a link that leads nowhere."""
    try:
        return path.stat().st_size
    except OSError:
        return None


def _content(path: Path) -> bytes:
    with os.fdopen(open_regular(path), "rb") as file:
        return file.read(_MAX_TEXT)


@dataclass(slots=True)
class _Run:
    """One run: `made` are the files it finished, `waiting` those that will replace."""

    installed: Installed
    folder: Path
    overwrite: bool
    progress: Progress
    done: int = 0
    made: list[Path] = field(default_factory=list)
    waiting: list[tuple[Path, Path]] = field(default_factory=list)

    def write(self, planned: Sequence[Sequence[Section]]) -> list[ExportedFile]:
        """Write all files of the model; what was finished before a failure stays."""
        try:
            files = [file for item in self._write_all(planned) for file in item]
            for temp, path in self.waiting:
                with translated(path):
                    temp.replace(path)
        except DamagedSource as err:
            # Nobody should take pieces of a damaged model for something.
            _unlink(self.made)
            raise _damaged(self.installed, err.problem) from err
        except KeyboardInterrupt as err:
            if not self.made:
                raise
            hint = "the same command goes on where this one ended"
            raise Interrupted(hint=hint) from err
        finally:
            _unlink(temp for temp, _ in self.waiting)
        sync_folder(self.folder)
        return files

    def _write_all(
        self, planned: Sequence[Sequence[Section]]
    ) -> Iterator[list[ExportedFile]]:
        for file, sections in zip(self.installed.receipt.files, planned, strict=True):
            path = self.installed.file_path(file)
            with Source(path, file.size, self._advance) as source:
                yield [self._write(source, section) for section in sections]
                found = source.sha256
            if found != file.sha256:
                raise DamagedSource(
                    path,
                    f"{file.name} has the SHA-256 {found} instead of {file.sha256}",
                )

    def _write(self, source: Source, section: Section) -> ExportedFile:
        path = place(self.folder, section.name)
        there = os.path.lexists(path)
        if there and _size(path) == section.size:
            found = source.matches(section, path)
            if found is not None:
                return ExportedFile(section.name, section.size, found, kept=True)
        if there and not self.overwrite:
            raise _in_the_way(path)
        temp = path.with_name(path.name + TEMP_SUFFIX)
        # A kill may have left it.
        _unlink([temp])
        try:
            found = source.copy(section, temp)
            if there:
                self.waiting.append((temp, path))
            else:
                with translated(path):
                    temp.replace(path)
                self.made.append(path)
        except BaseException:
            _unlink([temp])
            raise
        return ExportedFile(section.name, section.size, found, kept=False)

    def _advance(self, size: int) -> None:
        self.done += size
        total = self.installed.receipt.size
        self.progress(ProgressEvent(STAGE, self.done, total))


def _write_text(folder: Path, name: RelPath, text: bytes) -> ExportedFile:
    path = place(folder, name)
    kept = path.is_file() and _content(path) == text
    if not kept:
        write_atomically(path, text)
    return ExportedFile(name, len(text), _hash(text), kept)


def _write_sums(folder: Path, files: Sequence[ExportedFile], receipt: Receipt) -> None:
    """Write SHA256SUMS; what it says of other files that are there stays in it."""
    before = _sums_there(folder)
    found = {file.name: file.sha256 for file in files}
    whole = {file.name: file.sha256 for file in receipt.files}
    kept = {
        name: sha256
        for name, sha256 in before.files.items()
        if name not in found and place(folder, name).is_file()
    }
    joined = {
        name: sha256
        for name, sha256 in {**before.joined, **whole}.items()
        if any(file.startswith(f"{name}.part") for file in (*kept, *found))
    }
    sums = Checksums({**kept, **found}, joined).to_bytes()
    path = place(folder, FILE)
    if not path.is_file() or _content(path) != sums:
        write_atomically(path, sums)


def _sums_there(folder: Path) -> Checksums:
    try:
        return read_checksums(folder)
    except Corrupt:
        return Checksums()


def _hash(content: bytes) -> Sha256:
    return Sha256.parse(hashlib.sha256(content).hexdigest())


def _unlink(paths: Iterable[Path]) -> None:
    for path in paths:
        with contextlib.suppress(OSError):
            path.unlink()


def _in_the_way(path: Path) -> UsageError:
    return UsageError(
        f"{path} is there and something else",
        hint="replace it with --overwrite, or name another folder",
    )


def _damaged(installed: Installed, problem: str) -> Corrupt:
    receipt = installed.receipt
    return Corrupt(
        installed.path,
        problem,
        hint=f"wizard-edge verify {receipt.model}:{receipt.quant} --repair",
    )
