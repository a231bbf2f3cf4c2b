"""Carries out the steps of a plan: reads in order, quantizes and writes in parallel.

Knows no format of checkpoints and none of files, only places.
"""

from __future__ import annotations

import zlib
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass

import numpy as np

from wizard_edge.errors import Corrupt
from wizard_edge.progress import Progress, ProgressEvent, silent
from wizard_edge_converters.checkpoint import Checkpoint
from wizard_edge_converters.journal import Journal, StepDone
from wizard_edge_converters.plan import BLOCKS_AHEAD, Block, Plan, Step
from wizard_edge_converters.quality import Deviation
from wizard_edge_converters.quantize import (
    Encoded,
    NotFinite,
    Weights,
    encode_block,
)
from wizard_edge_converters.writer import PartFiles


@dataclass(frozen=True, slots=True)
class _Read:
    """A block that was read; `mark` only with the last one of its step."""

    number: int
    step: Step
    block: Block
    data: bytes
    mark: str | None


@dataclass(frozen=True, slots=True)
class _Written:
    """A block that was written: for each place its CRC-32 and its deviation."""

    size: int
    sums: list[int]
    deviations: list[Deviation]


def write_tensors(
    plan: Plan,
    checkpoint: Checkpoint,
    work: PartFiles,
    *,
    threads: int,
    importance: Weights | None = None,
    progress: Progress = silent,
) -> None:
    """Carry out the steps that the journal does not have yet, and note each there.

    Blocks are read in the plan's order; `BLOCKS_AHEAD` for each thread are in memory,
    and one that is being read.
    Raises: Corrupt naming the tensor; NotEnough.
    """
    total = sum(step.source.size for step in plan.steps)
    first = len(work.journal.progress.steps)
    done = sum(step.source.size for step in plan.steps[:first])
    collected = _Collected(work, keep=checkpoint.is_remote)
    # What is ahead of the journal when a run is killed has to be fetched again.
    ahead = 1 if checkpoint.is_remote else BLOCKS_AHEAD
    running: deque[tuple[_Read, Future[_Written]]] = deque()

    def carry(read: _Read) -> _Written:
        encoded = _encode(read, checkpoint, importance)
        for place, item in zip(read.step.places, encoded, strict=True):
            offset = place.offset + read.block.start * place.row_size
            work.parts[place.file].write(offset, item.data)
        return _Written(
            len(read.data),
            [zlib.crc32(item.data) for item in encoded],
            [item.deviation for item in encoded],
        )

    def wait() -> None:
        nonlocal done
        read, future = running.popleft()
        written = future.result()
        collected.add(read, written)
        done += written.size
        progress(ProgressEvent("convert", done, total))

    with ThreadPoolExecutor(threads) as pool, closing(collected):
        try:
            for read in _read_blocks(plan, checkpoint, work.journal):
                running.append((read, pool.submit(carry, read)))
                if len(running) > ahead * threads:
                    wait()
            while running:
                wait()
            collected.finish()
        except BaseException:
            for _, future in running:
                future.cancel()
            raise


class _Collected:
    """What is known of the step whose blocks come in, until it is whole.

    With `keep`, what was written goes to the disk meanwhile, as fast as it takes it:
    after a power cut the next run finds most of it.
    """

    def __init__(self, work: PartFiles, *, keep: bool) -> None:
        self._work = work
        self._blocks: list[_Written] = []
        self._syncing = ThreadPoolExecutor(1) if keep else None
        self._sync: Future[None] | None = None

    def add(self, read: _Read, written: _Written) -> None:
        self._blocks.append(written)
        if read.mark is None:
            return
        places = range(len(read.step.places))
        self._work.journal.add_step(
            StepDone(
                read.number,
                tuple(
                    np.array([b.sums[place] for b in self._blocks], dtype=np.uint32)
                    for place in places
                ),
                tuple(
                    sum((b.deviations[place] for b in self._blocks), Deviation())
                    for place in places
                ),
                read.mark,
            )
        )
        self._blocks = []
        if self._syncing and (self._sync is None or self._sync.done()):
            self.finish()
            self._sync = self._syncing.submit(self._work.sync)

    def finish(self) -> None:
        """Wait for the disk. Raises: OSError where it did not take all bytes."""
        # The system tells it once: a later fsync of the same bytes succeeds.
        if self._sync is not None:
            self._sync.result()

    def close(self) -> None:
        if self._syncing:
            self._syncing.shutdown()


def _read_blocks(
    plan: Plan, checkpoint: Checkpoint, journal: Journal
) -> Iterator[_Read]:
    """Read what is missing in order, and finish each weight file when it is through."""
    known = journal.progress
    first = len(known.steps)
    marks = {plan.steps[done.step].source.file: done.mark for done in known.steps}
    by_file: dict[str, list[tuple[int, Step]]] = {}
    for number, step in enumerate(plan.steps):
        by_file.setdefault(step.source.file, []).append((number, step))
    for file, steps in by_file.items():
        missing = [(number, step) for number, step in steps if number >= first]
        # A file is through before the last of its blocks are written.
        if file in known.files and not missing:
            continue
        if file in marks:
            checkpoint.resume(file, marks[file])
        for number, step in missing:
            yield from _read_step(number, step, checkpoint)
        journal.add_file(checkpoint.finish(file))
    for checked in checkpoint.others():
        journal.add_file(checked)


def _read_step(number: int, step: Step, checkpoint: Checkpoint) -> Iterator[_Read]:
    for block in step.blocks():
        start, count = block.start * step.columns, block.rows * step.columns
        data = checkpoint.read(step.source, start, count)
        last = block.index == step.block_count - 1
        mark = checkpoint.mark(step.source.file) if last else None
        yield _Read(number, step, block, data, mark)


def _encode(
    read: _Read, checkpoint: Checkpoint, importance: Weights | None
) -> list[Encoded]:
    try:
        return encode_block(read.data, read.step, read.block, importance)
    except NotFinite as err:
        source = read.step.source
        raise Corrupt(
            checkpoint.label(source.file), str(err), where=f"tensor {source.name}"
        ) from err
