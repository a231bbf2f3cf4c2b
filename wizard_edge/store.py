"""The models that are installed: plain files with a receipt beside each.

A receipt's presence is "installed". So a model comes in with its receipt last and
goes out with its receipt first; whatever interrupts either leaves no model that
looks whole and is not. Changes of one model wait for each other. Reading creates
nothing and waits for nobody. A file that is installed is never written to: somebody
may have it mapped. Knows no registry and no format.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from wizard_edge.changes import Changes, own_temps
from wizard_edge.chunks import SUFFIX as CHUNKS_SUFFIX
from wizard_edge.chunks import Chunks
from wizard_edge.errors import (
    ConfigError,
    Corrupt,
    NotFound,
    Refused,
    UnknownModel,
    UsageError,
)
from wizard_edge.files import (
    TEMP_SUFFIX,
    delete,
    entries,
    is_file,
    is_link,
    is_temp,
    move_into_place,
    sync_file,
    translated,
    write_atomically,
)
from wizard_edge.locking import SUFFIX as LOCK_SUFFIX
from wizard_edge.locking import exclusive
from wizard_edge.names import ModelName, RelPath
from wizard_edge.paths import Home, place
from wizard_edge.receipts import MAX_SIZE, SUFFIX, Receipt, StoredFile, parse_receipt

PARTIAL_SUFFIX = ".part"
# An empty file whose time is when the model beside it was opened last.
USED_SUFFIX = ".used"
# What was found when it was judged; `verdicts` writes it.
VERDICT_SUFFIX = ".verdict"
# What may lie beside a model file, all of it ours and none of it missed for long.
SIDE_SUFFIXES = (CHUNKS_SUFFIX, USED_SUFFIX, VERDICT_SUFFIX)
# Texts that belong to the model and leave with its last variant.
_COMPANIONS = ("LICENSE", "LICENCE", "NOTICE", "USE_POLICY", "USE-POLICY")
# In it lie sockets of servers: nobody else's business.
_RUN_MODE = 0o700

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Installed:
    """A variant in the store: its receipt and the folder it lies in."""

    receipt: Receipt
    folder: Path

    @property
    def path(self) -> Path:
        """The GGUF file to open."""
        return place(self.folder, self.receipt.files[0].name)

    @property
    def receipt_path(self) -> Path:
        return place(self.folder, self.receipt.file_name)

    def file_path(self, file: StoredFile) -> Path:
        """Return where one of its files lies."""
        return place(self.folder, file.name)

    def sums_path(self, file: StoredFile) -> Path:
        """Return where the check sums of one of its files lie, if there are any."""
        return _beside(self.file_path(file), CHUNKS_SUFFIX)

    @property
    def parts(self) -> list[Path]:
        """Every file the variant may have, in the order of removal."""
        parts = [self.receipt_path]
        for file in self.receipt.files:
            parts += _with_side_files(self.file_path(file))
        return parts

    def last_used(self) -> float | None:
        """Return when it was opened last, in s since 1970; None where nobody noted."""
        try:
            return _beside(self.path, USED_SUFFIX).stat().st_mtime
        except OSError:
            return None

    def problem(self) -> str | None:
        """Say in a few words what is wrong with the files, by their sizes only."""
        for file in self.receipt.files:
            path = self.file_path(file)
            try:
                size = path.stat().st_size
            except OSError as err:
                where = f" is a link to {path.readlink()}" if path.is_symlink() else ""
                return f"{file.name}{where}: {err.strerror}"
            if size != file.size:
                return f"{file.name} has {size} bytes instead of {file.size}"
        return None


@dataclass(frozen=True, slots=True)
class Damaged:
    """A receipt that cannot be read, and so a variant nobody can open.

    Of its files only the one the receipt is named after is known.
    """

    receipt_path: Path
    error: Corrupt | ConfigError

    @property
    def from_the_future(self) -> bool:
        """Whether a newer version of this program can read it."""
        return isinstance(self.error, ConfigError)

    @property
    def folder(self) -> Path:
        return self.receipt_path.parent

    @property
    def path(self) -> Path:
        """The GGUF file the receipt stands beside."""
        return self.receipt_path.with_suffix("")

    @property
    def parts(self) -> list[Path]:
        """Every file that is known to belong to it, in the order of removal."""
        return [self.receipt_path, *_with_side_files(self.path)]


@dataclass(frozen=True, slots=True)
class Slot:
    """A place to write a file that is not in the store yet: fill `temp`.

    `chunks` are the sums of its bytes, where whoever filled it took them.
    """

    model: ModelName
    file: RelPath
    temp: Path
    chunks: Chunks | None = None


class Store:
    """The models under one home."""

    def __init__(self, home: Home) -> None:
        self.home = home

    def installed(self) -> list[Installed]:
        """Return every variant whose receipt can be read, by name, quant and age.

        A receipt that cannot be read is logged and left out.
        """
        found: list[Installed] = []
        for item in self.everything():
            if isinstance(item, Damaged):
                _logger.warning("%s", item.error.message)
            else:
                found.append(item)
        return sorted(found, key=_order)

    def everything(self) -> list[Installed | Damaged]:
        """Return every variant there is, whole or not, folder by folder.

        A folder that may not be read is logged and left out.
        """
        found: list[Installed | Damaged] = []
        for folder in _folders(self.home.models):
            try:
                whole, damaged = _receipts(folder)
            except Refused as err:
                _logger.warning("%s", err.message)
                continue
            found += [*sorted(whole, key=_order), *damaged]
        return found

    def knows(self, name: ModelName) -> bool:
        """Tell whether a model has a receipt, readable or not."""
        return any(_receipts(self.home.model(name)))

    def variants(self, name: ModelName) -> list[Installed]:
        """Return the installed variants of one model, the last installed first.

        Raises: UnknownModel where there is none; Corrupt or ConfigError where all
        that is there is a receipt that cannot be read.
        """
        whole, damaged = _receipts(self.home.model(name))
        if whole:
            return sorted(whole, key=lambda item: item.receipt.created, reverse=True)
        if damaged:
            raise damaged[0].error
        raise UnknownModel(name)

    def contents(self, name: ModelName) -> list[Installed | Damaged]:
        """Return all there is of one model, whole or not, by the name of its file."""
        whole, damaged = _receipts(self.home.model(name))
        return sorted([*whole, *damaged], key=lambda item: item.receipt_path.name)

    def find(self, name: ModelName, quant: str | None = None) -> Installed:
        """Return one variant; without a quant the one that was installed last.

        Raises: UnknownModel, NotFound for a quant that is not there; Corrupt or
        ConfigError for a receipt that cannot be read.
        """
        variants = self.variants(name)
        for variant in variants:
            if quant in (None, variant.receipt.quant):
                return variant
        _, damaged = _receipts(self.home.model(name))
        if damaged:
            raise damaged[0].error
        known = ", ".join(sorted({variant.receipt.quant for variant in variants}))
        raise NotFound(
            f"{name}:{quant} is not installed",
            hint=f"installed: {known}; 'pull' or 'convert' brings in others",
        )

    @contextlib.contextmanager
    def open_slot(self, name: ModelName, file: RelPath) -> Iterator[Slot]:
        """Lend a place to write a file to; what was not committed is deleted.

        A lock beside it says that somebody is at it, until they are done or dead.
        Raises: NotEnough, Refused where the store cannot be written.
        """
        # Cut, since a name has 255 bytes at most and a writer may add its own.
        stem = f"{file[:64]}.{os.urandom(4).hex()}"
        partial = self.home.partial
        with translated(partial):
            partial.mkdir(parents=True, exist_ok=True)
        lock = partial / f"{stem}{LOCK_SUFFIX}"
        with exclusive(lock):
            try:
                yield Slot(name, file, partial / f"{stem}{PARTIAL_SUFFIX}")
            finally:
                for leftover in entries(partial):
                    if leftover.name.startswith(stem) and leftover != lock:
                        with contextlib.suppress(OSError):
                            leftover.unlink()

    def commit(
        self,
        receipt: Receipt,
        slots: Sequence[Slot],
        *,
        texts: Mapping[RelPath, bytes] = MappingProxyType({}),
        given: Collection[Path] = (),
    ) -> Installed:
        """Make filled slots an installed model: files first, the receipt last.

        Another variant of the same model and quant is replaced. `texts` are what has
        to lie beside the model, `NOTICE` and `LICENSE`, by their names. When it fails,
        what was there is there again, and the slots are filled as they were. `given`
        are the files that the slots were filled from: where one lies in the place of
        its own model it stays there.
        Raises: Corrupt when a file has not the size its receipt says; NotEnough,
        Refused where the store cannot be written; as `check_places`, `check_link`.
        """
        _check_slots(receipt, slots)
        for slot in slots:
            if slot.temp.is_symlink():
                self.check_link(slot.temp)
        with self.changing(receipt.model):
            files = [file.name for file in receipt.files]
            self.check_places(receipt.model, files, given=given)
            staying = [
                slot
                for slot in slots
                if _stays(slot, place(self.home.model(receipt.model), slot.file), given)
            ]
            moving = [slot for slot in slots if slot not in staying]
            installed = self._commit(receipt, slots, moving, texts)
            for slot in staying:
                delete(slot.temp)
        return installed

    def check_places(
        self,
        name: ModelName,
        files: Sequence[RelPath],
        *,
        given: Collection[Path] = (),
    ) -> None:
        """See that a model with these files would take nobody's place.

        A file without a receipt may be somebody's own; one of `given` is expected.
        Raises: Refused, naming the file.
        """
        folder = self.home.model(name)
        receipt = _beside(place(folder, files[0]), SUFFIX)
        # One that is damaged, or of a commit that was killed, says whose it is too.
        if os.path.lexists(receipt) or own_temps(folder, [receipt]):
            return
        named = {path for item in _receipts(folder)[0] for path in item.parts}
        for path in (place(folder, file) for file in files):
            if os.path.lexists(path) and path not in named and not _is_one(path, given):
                raise Refused(
                    f"{path} is there without a receipt, and may be your own",
                    hint=f"move it away, or 'wizard-edge import {path}'",
                )

    def check_link(self, path: Path) -> None:
        """See that a symbolic link to a file would not lead back into the store.

        One in the place of that file would lead to itself, and any other breaks with
        the model that it leads to.
        Raises: Refused, naming the file.
        """
        real = path.resolve()
        if real.is_relative_to(self.home.models.resolve()):
            raise Refused(
                f"cannot make a symbolic link to {real}: it lies in the store",
                hint="--how hardlink, or --how copy",
            )

    def _commit(
        self,
        receipt: Receipt,
        slots: Sequence[Slot],
        moving: Sequence[Slot],
        texts: Mapping[RelPath, bytes],
    ) -> Installed:
        """Do it; the files of slots that are not `moving` are in their places."""
        folder = self.home.model(receipt.model)
        installed = Installed(receipt, folder)
        before, _ = _receipts(folder)
        changes = Changes(folder)
        written = _contents(installed, slots, texts)
        try:
            # All that needs room; after it there are only renames.
            for path, content in written.items():
                changes.write(path, content)
            for slot in moving:
                sync_file(slot.temp)
            # An old receipt must never stand beside a new file.
            changes.set_aside(installed.receipt_path)
            for slot in slots:
                target = place(folder, slot.file)
                delete(verdict_path(target))
                changes.set_aside(_beside(target, CHUNKS_SUFFIX))
                if slot in moving:
                    changes.set_aside(target)
                    changes.move(slot.temp, target)
            for path in written:
                changes.put(path)
        except BaseException:
            changes.undo()
            raise
        changes.finish([*written, *(place(folder, slot.file) for slot in slots)])
        kept = set(installed.parts)
        for old in before:
            if old.receipt.quant == receipt.quant:
                _delete_all(path for path in old.parts if path not in kept)
        return installed

    def amend(
        self, installed: Installed, change: Callable[[Receipt], Receipt]
    ) -> Installed:
        """Rewrite a receipt as `change` makes it of what the receipt says by now.

        The files stay as they are, and so does what `change` may not touch: which
        model, quant and files it is about.
        Raises: NotFound where other files, or none, have taken their place; Corrupt,
        ConfigError for a receipt that cannot be read any more; NotEnough, Refused
        where the store cannot be written.
        """
        with self.changing(installed.receipt.model):
            before = _current(installed)
            after = change(before)
            if _identity(after) != _identity(before):
                raise ValueError(f"a change makes another model of {before.model}")
            write_atomically(installed.receipt_path, after.to_bytes())
        return Installed(after, installed.folder)

    def replace(self, installed: Installed, file: StoredFile, temp: Path) -> None:
        """Put a copy with the right bytes in the place of one of a model's files.

        Whoever has the file open keeps reading the old one. The caller has checked
        that the copy is what the receipt says.
        Raises: NotFound where another model has taken the place; Corrupt, ConfigError
        for a receipt that cannot be read any more; NotEnough, Refused where the store
        cannot be written.
        """
        with self.changing(installed.receipt.model):
            _current(installed)
            move_into_place(temp, installed.file_path(file))

    def write_sums(self, installed: Installed, file: StoredFile, sums: Chunks) -> None:
        """Lay the check sums beside a file that is right. Raises: as `replace`."""
        with self.changing(installed.receipt.model):
            _current(installed)
            write_atomically(installed.sums_path(file), sums.to_bytes())

    def mark_used(self, installed: Installed, at: float) -> None:
        """Note that a model was opened, `at` in s since 1970.

        Where the store cannot be written nothing is noted, and nobody is bothered.
        """
        stamp = _beside(installed.path, USED_SUFFIX)
        with contextlib.suppress(OSError):
            # Removed while it was open: its stamp shall not come back.
            if installed.receipt_path.exists():
                stamp.touch()
                os.utime(stamp, (at, at))

    def files(self, variant: Installed | Damaged) -> list[Path]:
        """Return what `remove` deletes for a variant, the receipt first."""
        return [path for path in variant.parts if os.path.lexists(path)]

    def companions(self, name: ModelName) -> list[Path]:
        """Return the texts of a model that leave with its last variant."""
        return sorted(
            entry
            for entry in entries(self.home.model(name))
            if (_is_text(entry) and is_file(entry)) or is_temp(entry)
        )

    def remove(self, variant: Installed | Damaged) -> int:
        """Delete a variant, its receipt first; return the bytes freed.

        The last variant takes the model's licence texts and its folder along; a
        file that is not ours stays, and the folder with it.
        Raises: NotFound where another has taken its place since it was found, Corrupt
        where its receipt was damaged since; Refused for a file that may not be
        deleted, as one that is open on Windows: the receipt is gone then, and `prune`
        removes the rest.
        """
        name = ModelName.parse(variant.folder.name)
        with self.changing(name):
            _check_found(variant)
            try:
                freed = _delete_all(variant.parts)
            except Refused as err:
                if not os.path.lexists(variant.receipt_path):
                    err.hint = (
                        "it is out of the list; close what has the file open, "
                        "then 'wizard-edge prune'"
                    )
                raise
            if not any(_receipts(variant.folder)):
                freed += _delete_all(self.companions(name))
                with contextlib.suppress(OSError):
                    variant.folder.rmdir()
        return freed

    @contextlib.contextmanager
    def changing(self, name: ModelName, *, wait: bool = True) -> Iterator[None]:
        """Keep everybody else from changing a model while the block runs.

        Raises: Busy at once where somebody does and `wait` is false; NotEnough,
        Refused where the store cannot be written.
        """
        path = lock_path(self.home, name)
        with translated(path):
            self.home.root.mkdir(parents=True, exist_ok=True)
            self.home.run.mkdir(mode=_RUN_MODE, exist_ok=True)
        with exclusive(path, waiting=_patiently if wait else None):
            yield


def lock_path(home: Home, name: ModelName) -> Path:
    """Return the lock of whoever changes a model."""
    return place(home.run, RelPath.parse(f"{name}{LOCK_SUFFIX}"))


def side_files(path: Path) -> list[Path]:
    """Return the files of ours that may lie beside a model file, without receipt."""
    return [_beside(path, suffix) for suffix in SIDE_SUFFIXES]


def verdict_path(path: Path) -> Path:
    """Return where the verdict on a model's file lies, if there is one."""
    return _beside(path, VERDICT_SUFFIX)


def _beside(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)


def _with_side_files(path: Path) -> list[Path]:
    return [*side_files(path), path]


def _patiently() -> None:
    """Wait on: whoever changes a model is done soon."""


def _is_text(path: Path) -> bool:
    """Tell a text from a file of a variant, whose model may be called `notice-7b`."""
    variant = path.suffix in (".gguf", SUFFIX, TEMP_SUFFIX, *SIDE_SUFFIXES)
    return path.name.upper().startswith(_COMPANIONS) and not variant


def _receipts(folder: Path) -> tuple[list[Installed], list[Damaged]]:
    """Read the receipts of a folder: those that are whole, and those that are not."""
    whole: list[Installed] = []
    damaged: list[Damaged] = []
    for path in entries(folder):
        if path.suffix == SUFFIX:
            try:
                whole.append(_read(path))
            except (Corrupt, ConfigError) as err:
                err.hint = err.hint or f"wizard-edge rm {folder.name}"
                damaged.append(Damaged(path, err))
    return whole, damaged


def _read(path: Path) -> Installed:
    try:
        with path.open("rb") as file:
            content = file.read(MAX_SIZE + 1)
    except PermissionError as err:
        raise Refused(
            f"cannot read {path}: {err.strerror}",
            hint="run as the owner of the store, or let its files be read",
        ) from err
    except OSError as err:
        raise Corrupt(path, f"cannot be read: {err.strerror}") from err
    installed = Installed(parse_receipt(path, content), path.parent)
    # Copied or renamed by hand: what it says is not true of this place.
    if installed.receipt.model != path.parent.name:
        raise Corrupt(
            path,
            f"belongs to model {installed.receipt.model!r}",
            hint=f"call the folder {installed.receipt.model} again",
        )
    if installed.receipt_path.name != path.name:
        raise Corrupt(path, f"belongs to file {installed.receipt.files[0].name!r}")
    return installed


def _current(installed: Installed) -> Receipt:
    """Return what the receipt says by now, if it is still about the same files."""
    if not installed.receipt_path.exists():
        raise _replaced(installed)
    receipt = _read(installed.receipt_path).receipt
    if receipt.files != installed.receipt.files:
        raise _replaced(installed)
    return receipt


def _check_found(variant: Installed | Damaged) -> None:
    """See that a variant is what it was when it was found. Raises: as `_current`."""
    if isinstance(variant, Installed):
        _current(variant)
        return
    _, damaged = _receipts(variant.folder)
    if all(item.receipt_path != variant.receipt_path for item in damaged):
        raise NotFound(
            f"{variant.receipt_path.name} was removed or replaced meanwhile",
            hint="'wizard-edge list' shows what is there",
        )


def _identity(receipt: Receipt) -> tuple[object, ...]:
    return receipt.model, receipt.quant, receipt.files


def _replaced(installed: Installed) -> NotFound:
    receipt = installed.receipt
    return NotFound(
        f"{receipt.model}:{receipt.quant} was removed or replaced meanwhile",
        hint="'wizard-edge list' shows what is there",
    )


def _check_slots(receipt: Receipt, slots: Sequence[Slot]) -> None:
    filled = {slot.file: slot.temp.stat().st_size for slot in slots}
    for file in receipt.files:
        size = filled.pop(file.name)
        if size != file.size:
            raise Corrupt(file.name, f"{size} bytes instead of {file.size}")
    if filled:
        raise ValueError(f"not in the receipt: {', '.join(filled)}")


def _is_one(path: Path, files: Collection[Path]) -> bool:
    """Tell whether a path leads to one of these files."""
    with contextlib.suppress(OSError):
        return any(path.samefile(file) for file in files)
    return False


def _stays(slot: Slot, target: Path, given: Collection[Path]) -> bool:
    """Tell whether a slot was filled from the only name of the file in its place.

    To rename it would leave a kill between two renames with none.
    """
    if target.is_symlink() or not target.is_file() or not _is_one(target, given):
        return False
    return not is_link(target) or slot.temp.samefile(target)


def _contents(
    installed: Installed, slots: Sequence[Slot], texts: Mapping[RelPath, bytes]
) -> dict[Path, bytes]:
    """Return what a commit writes beside the files, in its order: the receipt last."""
    folder, receipt = installed.folder, installed.receipt
    sums = {
        _beside(place(folder, slot.file), CHUNKS_SUFFIX): slot.chunks.to_bytes()
        for slot in slots
        if slot.chunks is not None
    }
    notes = {place(folder, name): text for name, text in texts.items()}
    return {**sums, **notes, installed.receipt_path: receipt.to_bytes()}


def _delete_all(paths: Iterable[Path]) -> int:
    return sum(map(delete, paths))


def _folders(models: Path) -> list[Path]:
    return [path for path in entries(models) if _is_model(path)]


def _is_model(path: Path) -> bool:
    try:
        ModelName.parse(path.name)
    except UsageError:
        return False
    return path.is_dir()


def _order(installed: Installed) -> tuple[str, str, str]:
    receipt = installed.receipt
    return receipt.model, receipt.quant, receipt.created
