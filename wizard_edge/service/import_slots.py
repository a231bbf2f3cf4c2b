"""Where imported bytes go before they are a model, and who may write there.

A copy whose hash is known beforehand lies in `partial/import-HASH.part` and stays
there when it is interrupted; any other lies in a slot of the store, which goes with
whoever opened it. Locks of the same names keep two imports of the same apart.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from hashlib import sha256
from pathlib import Path

from wizard_edge.errors import Interrupted
from wizard_edge.files import translated
from wizard_edge.locking import SUFFIX as LOCK_SUFFIX
from wizard_edge.locking import exclusive
from wizard_edge.names import ModelName, RelPath
from wizard_edge.part_files import check_space
from wizard_edge.paths import place
from wizard_edge.service.candidates import Candidate, GivenFile
from wizard_edge.service.installation import Installation
from wizard_edge.service.taking import How, Taken, take
from wizard_edge.store import PARTIAL_SUFFIX, Slot

__all__ = ["STAGE", "alone", "check_room", "keys", "open_slots", "take_all"]

STAGE = "import"


def check_room(installation: Installation, candidate: Candidate) -> None:
    kept = sum(
        temp.stat().st_size
        for file in candidate.files
        if (temp := _kept(installation, file)) and temp.exists()
    )
    check_space(
        installation.home.root,
        max(candidate.size - kept, 0),
        hint="--how link takes no room; --home DIR moves the store",
    )


@contextlib.contextmanager
def alone(installation: Installation, *keys: str) -> Iterator[None]:
    """Keep others from importing the same; who comes second finds it installed."""
    partial = installation.home.partial
    with translated(partial):
        partial.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as held:
        for key in keys:
            lock = place(partial, RelPath.parse(f"{STAGE}-{key}{LOCK_SUFFIX}"))
            held.enter_context(exclusive(lock, waiting=lambda: None))
        yield


def keys(candidate: Candidate) -> list[str]:
    """Name what is imported: by hashes where those are said, else by where it lies.

    In one order for all, so that two never wait for each other.
    """
    known = {file.sha256 for file in candidate.files if file.sha256}
    if known:
        return sorted(known)
    paths = [str(path.resolve()) for file in candidate.files for path in file.paths]
    return [sha256("\n".join(paths).encode("utf-8", "surrogateescape")).hexdigest()]


def open_slots(
    installation: Installation,
    candidate: Candidate,
    model: ModelName,
    files: Sequence[RelPath],
    how: How,
    opened: contextlib.ExitStack,
) -> list[Slot]:
    """Give each file a slot; `opened` keeps those that do not stay.

    Raises: Refused for a symbolic link to what lies in the store.
    """
    slots = []
    for given, file in zip(candidate.files, files, strict=True):
        if how is How.SYMLINK:
            installation.store.check_link(given.paths[0])
        temp = _kept(installation, given) if how is How.COPY else None
        slots.append(
            Slot(model, file, temp)
            if temp
            else opened.enter_context(installation.store.open_slot(model, file))
        )
    return slots


def take_all(
    candidate: Candidate,
    slots: Sequence[Slot],
    how: How,
    advance: Callable[[int], None],
) -> list[Taken]:
    """Fill all slots; what is worth going on from stays when that fails.

    Raises: as `take`; Interrupted where an interrupted copy can go on.
    """
    with _going_on(slots, how):
        return [
            _take(given, slot, how, advance)
            for given, slot in zip(candidate.files, slots, strict=True)
        ]


def _take(
    given: GivenFile, slot: Slot, how: How, advance: Callable[[int], None]
) -> Taken:
    try:
        with translated(slot.temp, given.size):
            return take(given, slot, how, advance)
    except BaseException:
        # What is worth nothing is not kept.
        if slot.temp.is_file() and not slot.temp.stat().st_size:
            slot.temp.unlink()
        raise


def _kept(installation: Installation, given: GivenFile) -> Path | None:
    """Return where a copy stays when it is interrupted; None where it does not."""
    if given.sha256 is None:
        return None
    name = f"{STAGE}-{given.sha256}{PARTIAL_SUFFIX}"
    return place(installation.home.partial, RelPath.parse(name))


@contextlib.contextmanager
def _going_on(slots: Sequence[Slot], how: How) -> Iterator[None]:
    """Say how to go on where something is kept of an interrupted copy."""
    try:
        yield
    except KeyboardInterrupt as err:
        if how is How.COPY and any(_is_kept(slot) for slot in slots):
            hint = "the same command goes on where this one ended"
            raise Interrupted(hint=hint) from err
        raise


def _is_kept(slot: Slot) -> bool:
    return slot.temp.name.startswith(f"{STAGE}-") and slot.temp.exists()
