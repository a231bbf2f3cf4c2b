"""What nobody needs any more: unfinished work, half-written files, orphans, old locks.

What a living process works at holds a lock, and is left alone: locks are tried, never
waited for, and held while something is deleted. A file of somebody's own is asked for.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from wizard_edge import ledger
from wizard_edge.errors import UsageError
from wizard_edge.files import delete, entries, is_temp
from wizard_edge.locking import SUFFIX as LOCK_SUFFIX
from wizard_edge.locking import Busy, exclusive, is_held
from wizard_edge.names import ModelName
from wizard_edge.parking_disk import LOCK as PARKED_LOCK
from wizard_edge.parking_disk import files_of, find_parked
from wizard_edge.part_files import allocated
from wizard_edge.service.installation import Installation
from wizard_edge.store import SIDE_SUFFIXES, Damaged, Store, lock_path, side_files

_MODEL_SUFFIX = ".gguf"
_BESIDE = tuple(_MODEL_SUFFIX + suffix for suffix in SIDE_SUFFIXES)
_LEDGER_LOCK = ledger.FILE + LOCK_SUFFIX
# The parts of a conversion are numbered, and share the lock of the first.
_NUMBERED = re.compile(r"[^.]+\.\d+\.[a-z]+")


class Kind(StrEnum):
    """What a leftover is; only a `model` may be somebody's own."""

    UNFINISHED = "unfinished"
    TEMPORARY = "temporary"
    MODEL = "model"
    BESIDE = "beside"
    LOCK = "lock"
    FOLDER = "folder"


@dataclass(frozen=True, slots=True)
class Leftover:
    """A file or an empty folder to remove; `size` is what it takes on the disk."""

    path: Path
    size: int
    kind: Kind


@dataclass(frozen=True, slots=True)
class Pruning:
    """What there is to remove, and the locks of those who are at work meanwhile."""

    leftovers: tuple[Leftover, ...]
    busy: tuple[Path, ...] = ()

    @property
    def size(self) -> int:
        """The bytes that become free."""
        return _size(self.leftovers)

    @property
    def models(self) -> tuple[Leftover, ...]:
        """What is to be asked for: model files without a receipt, what is with them."""
        return tuple(item for item in self.leftovers if item.kind is Kind.MODEL)


@dataclass(frozen=True, slots=True)
class Pruned:
    """What was removed, what stayed because nobody agreed or somebody is at it."""

    removed: tuple[Leftover, ...]
    kept: tuple[Leftover, ...]

    @property
    def freed(self) -> int:
        return _size(self.removed)


def plan_pruning(installation: Installation) -> Pruning:
    """Look for what is left over; changes nothing.

    Raises: Refused for a store that may not be read.
    """
    home, store = installation.home, installation.store
    found: list[Leftover] = []
    busy: list[Path] = []
    for group in _groups(home.partial):
        if not _is_claimed(group, home.partial):
            found += [_leftover(path, Kind.UNFINISHED) for path in group]
    busy += [lock for lock in _locks(home.partial) if is_held(lock)]
    for folder in entries(home.models):
        name = _model_name(folder)
        if name is None:
            found += _stray(folder)
            continue
        lock = lock_path(home, name)
        if is_held(lock):
            busy.append(lock)
        else:
            found += _orphans(store, name)
    for folder in find_parked(home.run):
        lock = folder / PARKED_LOCK
        if is_held(lock):
            busy.append(lock)
        else:
            found += [_leftover(path, Kind.UNFINISHED) for path in files_of(folder)]
            found.append(Leftover(folder, 0, Kind.FOLDER))
    if not is_held(home.licenses / _LEDGER_LOCK):
        found += _temporary(home.licenses)
    for lock in (*_locks(home.licenses), *_locks(home.run)):
        if not is_held(lock):
            found.append(_leftover(lock, Kind.LOCK))
    return Pruning(tuple(found), tuple(busy))


def prune(installation: Installation, plan: Pruning, *, models: bool) -> Pruned:
    """Remove what was planned, if it still is what it was.

    Model files without a receipt go with `models` alone.
    Raises: Refused for a file that may not be deleted.
    """
    wanted = {
        item.path: item
        for item in plan.leftovers
        if models or item.kind is not Kind.MODEL
    }
    removed = [
        wanted[path]
        for remove in (
            _prune_partial,
            _prune_models,
            _prune_parked,
            _prune_licenses,
            _prune_locks,
        )
        for path in remove(installation, wanted)
    ]
    gone = {item.path for item in removed}
    kept = [item for item in plan.leftovers if item.path not in gone]
    return Pruned(tuple(removed), tuple(kept))


def _prune_partial(
    installation: Installation, wanted: Collection[Path]
) -> Iterator[Path]:
    folder = installation.home.partial
    for group in _groups(folder):
        chosen = [path for path in group if path in wanted]
        if not chosen or _is_claimed(group, folder):
            continue
        with contextlib.ExitStack() as held:
            try:
                for lock in _locks_of(group):
                    held.enter_context(exclusive(lock))
            except Busy:
                continue
            # The locks themselves go last, by being given back.
            yield from _deleted(path for path in chosen if not _is_lock(path))
        yield from (path for path in chosen if _is_lock(path))


def _prune_models(
    installation: Installation, wanted: Collection[Path]
) -> Iterator[Path]:
    store = installation.store
    for folder in entries(installation.home.models):
        name = _model_name(folder)
        if name is None:
            yield from _deleted(x.path for x in _stray(folder) if x.path in wanted)
            continue
        if not any(path == folder or path.parent == folder for path in wanted):
            continue
        with contextlib.suppress(Busy), store.changing(name, wait=False):
            found = [item.path for item in _orphans(store, name)]
            yield from _deleted(
                path for path in found if path in wanted and path != folder
            )
            with contextlib.suppress(OSError):
                folder.rmdir()
                if folder in wanted:
                    yield folder


def _prune_parked(
    installation: Installation, wanted: Collection[Path]
) -> Iterator[Path]:
    for folder in find_parked(installation.home.run):
        if folder not in wanted:
            continue
        with contextlib.suppress(Busy), exclusive(folder / PARKED_LOCK):
            chosen = [path for path in files_of(folder) if path in wanted]
            yield from _deleted(path for path in chosen if not path.is_dir())
            for place in filter(Path.is_dir, chosen):
                place.rmdir()
                yield place
        with contextlib.suppress(OSError):
            folder.rmdir()
            yield folder


def _prune_licenses(
    installation: Installation, wanted: Collection[Path]
) -> Iterator[Path]:
    folder = installation.home.licenses
    chosen = [item.path for item in _temporary(folder) if item.path in wanted]
    if chosen:
        with contextlib.suppress(Busy), exclusive(folder / _LEDGER_LOCK):
            yield from _deleted(chosen)


def _prune_locks(
    installation: Installation, wanted: Collection[Path]
) -> Iterator[Path]:
    folders = (installation.home.licenses, installation.home.run)
    for lock in wanted:
        if _is_lock(lock) and lock.parent in folders:
            # Whoever gets a lock and gives it back takes the file away.
            with contextlib.suppress(Busy), exclusive(lock):
                yield lock


def _deleted(paths: Iterable[Path]) -> Iterator[Path]:
    for path in paths:
        delete(path)
        yield path


def _groups(partial: Path) -> list[list[Path]]:
    """Return the files of unfinished work, those of one piece of work together.

    Files of a download, a conversion or a slot share what comes before the first dot.
    """
    groups: dict[str, list[Path]] = {}
    for path in entries(partial):
        if path.is_symlink() or not path.is_dir():
            groups.setdefault(path.name.partition(".")[0], []).append(path)
    return list(groups.values())


def _is_claimed(group: Sequence[Path], partial: Path) -> bool:
    """Tell whether a living process works at these files, or may do.

    One process holds the lock of the first file of a split model for all of them: so
    what has no lock of its own is left alone while anybody is at work.
    """
    locks = [path for path in group if _is_lock(path)]
    return any(map(is_held, locks or _locks(partial)))


def _locks_of(group: Sequence[Path]) -> list[Path]:
    """Return the locks that whoever goes on with these files would take."""
    locks = {path for path in group if _is_lock(path)}
    first = group[0]
    key = first.name.partition(".")[0]
    locks.add(first.with_name(key + LOCK_SUFFIX))
    if any(_NUMBERED.fullmatch(path.name) for path in group):
        locks.add(first.with_name(f"{key}.0{LOCK_SUFFIX}"))
    return sorted(locks)


def _orphans(store: Store, name: ModelName) -> list[Leftover]:
    """Return what lies in a model's folder and belongs to none of its receipts."""
    folder = store.home.model(name)
    contents = store.contents(name)
    there = entries(folder)
    if not there:
        return [Leftover(folder, 0, Kind.FOLDER)]
    found = _temporary(folder)
    if any(isinstance(item, Damaged) for item in contents):
        # What a damaged receipt names, nobody knows.
        return found
    named = {path for item in contents for path in item.parts}
    rest = [path for path in there if path not in named and not path.is_dir()]
    models = [path for path in rest if path.suffix == _MODEL_SUFFIX]
    with_models = {side for path in models for side in side_files(path)}
    for path in rest:
        if path in models or path in with_models:
            found.append(_leftover(path, Kind.MODEL))
        elif path.name.endswith(_BESIDE):
            found.append(_leftover(path, Kind.BESIDE))
    if not contents:
        kind = Kind.MODEL if models else Kind.BESIDE
        found += [
            _leftover(path, kind)
            for path in store.companions(name)
            if not is_temp(path)
        ]
    return found


def _stray(path: Path) -> list[Leftover]:
    """Say what a file is that lies among the folders of the models."""
    if path.is_dir() and not path.is_symlink():
        return []
    if is_temp(path):
        return [_leftover(path, Kind.TEMPORARY)]
    if path.suffix == _MODEL_SUFFIX:
        return [_leftover(path, Kind.MODEL)]
    return []


def _temporary(folder: Path) -> list[Leftover]:
    return [
        _leftover(path, Kind.TEMPORARY) for path in entries(folder) if is_temp(path)
    ]


def _locks(folder: Path) -> list[Path]:
    return [path for path in entries(folder) if _is_lock(path)]


def _is_lock(path: Path) -> bool:
    return path.suffix == LOCK_SUFFIX


def _model_name(folder: Path) -> ModelName | None:
    """Return the model of a folder, None for what is no folder of ours."""
    if folder.is_symlink() or not folder.is_dir():
        return None
    try:
        return ModelName.parse(folder.name)
    except UsageError:
        return None


def _leftover(path: Path, kind: Kind) -> Leftover:
    return Leftover(path, allocated(path), kind)


def _size(items: Iterable[Leftover]) -> int:
    return sum(item.size for item in items)
