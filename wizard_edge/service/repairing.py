"""Fetch the damaged chunks of installed files again, and nothing but those.

A file of the store is never written to: a copy with the right chunks takes its place
when its SHA-256 is the receipt's. What a file was fetched as says where to ask; for a
file that was imported, the registry may know it by its hash.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from wizard_edge.chunks import CHUNK_SIZE
from wizard_edge.copying import copy_range
from wizard_edge.errors import Corrupt, WizardEdgeError
from wizard_edge.files import open_regular, translated
from wizard_edge.hub import Hub
from wizard_edge.part_files import check_space, raise_full
from wizard_edge.progress import Progress, ProgressEvent, silent
from wizard_edge.receipts import Piece
from wizard_edge.scanning import scan
from wizard_edge.service.installation import Installation
from wizard_edge.service.pieces import find_pieces, way_to_make_anew
from wizard_edge.service.verification import (
    DamagedChunk,
    Inspection,
    Verified,
    inspect_all,
    is_current,
    judged,
    removed_meanwhile,
    renew_sums,
)
from wizard_edge.store import Slot


@dataclass(frozen=True, slots=True)
class _Part:
    """Bytes to fetch: `begin` to `end` of a piece, for `offset` of the file."""

    piece: Piece
    begin: int
    end: int
    offset: int


def repair(
    installation: Installation, refs: Sequence[str] = (), *, progress: Progress = silent
) -> list[Verified]:
    """Check the files of models, all of them without `refs`, and mend what is wrong.

    Events: `verify`, `repair` and `check` in bytes. What could not be mended is in
    the result with the reason.
    Raises: as `verify`; ConfigError for an environment that describes no hub.
    """
    seen = list(inspect_all(installation, refs, progress))
    hub: Hub | None = None
    results: list[Verified] = []
    for item in seen:
        if isinstance(item, Verified):
            results.append(item)
            continue
        before = judged(installation.store, item)
        if before.error is not None:
            hub = hub or Hub.from_environment(installation.environ)
            before = _mend(installation, hub, item, before, progress)
        results.append(before)
    return results


def _mend(
    installation: Installation,
    hub: Hub,
    seen: Inspection,
    before: Verified,
    progress: Progress,
) -> Verified:
    """Mend one file, or say why that cannot be done."""
    store, file = installation.store, seen.file
    try:
        if not seen.begins_right and not seen.damaged:
            raise Corrupt(
                seen.path,
                f"{before.problem}, and no sums say where",
                hint=way_to_make_anew(installation, seen.installed.receipt),
            )
        pieces = (
            find_pieces(installation, hub, seen.installed, file) if seen.damaged else ()
        )
        with store.open_slot(seen.installed.receipt.model, file.name) as slot:
            fetched = _build(hub, seen, pieces, slot, progress)
            after = _check(installation, seen, slot, progress)
            store.replace(seen.installed, file, slot.temp)
    except WizardEdgeError as err:
        if not is_current(store, seen.installed):
            return removed_meanwhile(seen)
        if isinstance(err, Corrupt) or not isinstance(before.error, Corrupt):
            return replace(before, error=err)
        # It stays damaged, whatever was in the way.
        return replace(before, error=err, damage=before.error)
    return Verified(
        name=before.name,
        quant=before.quant,
        path=before.path,
        note=renew_sums(store, after) if seen.damaged else "brought to its size",
        repaired=seen.damaged,
        fetched=fetched,
    )


def _build(
    hub: Hub,
    seen: Inspection,
    pieces: Sequence[Piece],
    slot: Slot,
    progress: Progress,
) -> int:
    """Fill a slot with what is right of a file and with what is fetched.

    Returns the bytes fetched. Raises: NotEnough, Refused, HubError, NotFound.
    """
    size = seen.file.size
    check_space(slot.temp.parent, size, hint="--home DIR moves the store")
    parts = list(_parts(seen.damaged, pieces))
    total = sum(part.end - part.begin for part in parts)
    done = 0
    with translated(slot.temp, size):
        try:
            with slot.temp.open("xb") as target:
                target.truncate(size)
                _copy_good(seen, target.fileno())
                for part in parts:
                    target.seek(part.offset)
                    for data in _fetch(hub, part):
                        target.write(data)
                        done += len(data)
                        progress(ProgressEvent("repair", done, total))
        except OSError as err:
            raise_full(slot.temp, size, err)
    return done


def _copy_good(seen: Inspection, target: int) -> None:
    """Copy what lies between the damaged chunks."""
    place = 0
    gaps = [(chunk.offset, chunk.offset + chunk.size) for chunk in seen.damaged]
    good: list[tuple[int, int]] = []
    for start, end in [*gaps, (seen.file.size, seen.file.size)]:
        if start > place:
            good.append((place, start - place))
        place = end
    if not good:
        return
    source = open_regular(seen.path)
    try:
        for offset, size in good:
            copy_range(source, target, offset, size)
    finally:
        os.close(source)


def _parts(damaged: Sequence[DamagedChunk], pieces: Sequence[Piece]) -> Iterator[_Part]:
    """Yield what to fetch: neighbours together, but no more than one piece at once."""
    for start, end in _runs(damaged):
        begins = 0
        for piece in pieces:
            first, last = max(start, begins), min(end, begins + piece.size)
            if first < last:
                yield _Part(piece, first - begins, last - begins, first)
            begins += piece.size


def _runs(damaged: Sequence[DamagedChunk]) -> list[tuple[int, int]]:
    runs: list[tuple[int, int]] = []
    for chunk in damaged:
        end = chunk.offset + chunk.size
        if runs and runs[-1][1] == chunk.offset:
            runs[-1] = runs[-1][0], end
        else:
            runs.append((chunk.offset, end))
    return runs


def _fetch(hub: Hub, part: _Part) -> Iterator[bytes]:
    with hub.open_piece(part.piece, part.begin, part.end) as stream:
        while data := stream.read(CHUNK_SIZE):
            yield data


def _check(
    installation: Installation, seen: Inspection, slot: Slot, progress: Progress
) -> Inspection:
    """Read the copy and see that it is right, chunk by chunk and as a whole.

    Raises: Corrupt.
    """
    done = 0

    def advance(size: int) -> None:
        nonlocal done
        done += size
        progress(ProgressEvent("check", done, seen.file.size))

    after = replace(seen, found=scan(slot.temp, seen.grid, advance))
    if after.right:
        return after
    fetched = {chunk.chunk for chunk in seen.damaged}
    wrong = [chunk.chunk for chunk in after.damaged if chunk.chunk in fetched]
    problem = (
        f"what is served for chunk {wrong[0]} is not what was installed"
        if wrong
        else "every chunk fits its sum, and yet its sha256 is another"
    )
    anew = way_to_make_anew(installation, seen.installed.receipt)
    raise Corrupt(seen.path, problem, hint=anew)
