"""Has a file fetched: starts the connections, reports, and judges the end."""

from __future__ import annotations

import contextlib
import hashlib
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from threading import Condition, Event
from time import monotonic

from wizard_edge.chunks import Chunks, Grid
from wizard_edge.download._claims import Claims
from wizard_edge.download._follower import Follower, WrongBytes
from wizard_edge.download._partial import Partial
from wizard_edge.download._rate import Rate
from wizard_edge.download._values import Fetched, Options, Source, Wanted
from wizard_edge.download._worker import Shared, Worker
from wizard_edge.errors import HubError, Interrupted, NotEnough, WizardEdgeError
from wizard_edge.names import Sha256
from wizard_edge.progress import Progress, ProgressEvent, silent
from wizard_edge.units import format_bytes

_logger = logging.getLogger(__name__)

# How often progress is reported.
_REPORT_S = 0.1
# For threads to notice that it is over; one that waits for a server may take longer,
# and writes nothing then.
_STOP_S = 0.5


def download(
    wanted: Wanted,
    folder: Path,
    sources: Sequence[Source],
    options: Options | None = None,
    *,
    progress: Progress = silent,
) -> Fetched:
    """Fetch a file into `folder`, or go on where an earlier run of its key ended.

    `sources` are asked in their order; the last is the one whose errors count. Bytes
    that turn out wrong are fetched once more from the start, without the mirrors.
    Events: `download` in bytes. The caller keeps others from the same key.
    Raises: NotEnough before the first byte or when the disk fills up; HubError,
    NotFound, Refused; Corrupt for bytes that are not what was stated, and for a disk
    that fails; Interrupted on Ctrl-C; and what `options.look` does. What was fetched
    stays for the next run, unless it is wrong.
    """
    options = options or Options()
    partial = Partial(folder, wanted.key, Grid([p.size for p in wanted.pieces]))
    try:
        return _try(wanted, partial, sources, options, progress)
    except WrongBytes as err:
        _logger.warning("fetched again from the start: %s", err.message)
    except _LookedWrong as err:
        # A mirror or an earlier run may be to blame.
        _logger.info("fetched again from the start: %s", err)
    partial.discard()
    trusted = [source for source in sources if not source.is_mirror]
    try:
        return _try(wanted, partial, trusted, options, progress)
    except WrongBytes:
        partial.discard()
        raise
    except _LookedWrong as err:
        partial.discard()
        raise err.error from err


class _LookedWrong(Exception):
    """What is there so far was refused with `error`."""

    def __init__(self, error: WizardEdgeError) -> None:
        super().__init__(error.message)
        self.error = error


def _try(
    wanted: Wanted,
    partial: Partial,
    sources: Sequence[Source],
    options: Options,
    progress: Progress,
) -> Fetched:
    try:
        with partial.open():
            run = _Run(wanted, partial, sources, options, progress)
            with run.running():
                digest = run.wait()
            _check(wanted, partial, digest)
            partial.sync()
    except NotEnough:
        # What an earlier run left is kept, and nothing else fills the disk.
        if partial.is_new:
            partial.discard()
        raise
    except BaseException:
        if partial.is_new and not partial.sums:
            partial.discard()
        raise
    sums = [partial.sums[number] for number in range(partial.grid.count)]
    chunks = Chunks(partial.grid, digest, sums)
    return Fetched(partial.path, partial.journal, chunks, run.received)


class _Run:
    """The threads of one download, as seen by the one that waits for them."""

    def __init__(
        self,
        wanted: Wanted,
        partial: Partial,
        sources: Sequence[Source],
        options: Options,
        progress: Progress,
    ) -> None:
        grid = partial.grid
        self._wanted = wanted
        self._partial = partial
        self._options = options
        self._progress = progress
        self._woken = Condition()
        self._wakes = 0
        self._looks = [look for look in options.looks if look < grid.size]
        self._stop = Event()
        self._follower = Follower(partial, wanted.pieces, self._lost, self._wake)
        self._shared = Shared(
            wanted=wanted,
            sources=list(sources),
            partial=partial,
            claims=Claims(grid, partial.sums, options.connections),
            follower=self._follower,
            rate=Rate(options.rate, self._stop.wait),
            changed=self._wake,
            stop=self._stop,
            done=sum(grid.span(number).size for number in partial.sums),
        )
        self._workers: list[Worker] = []
        self._connections = options.connections

    @property
    def received(self) -> int:
        return self._shared.received

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Run the threads while the block does, and let none of them write after."""
        self._follower.start()
        try:
            yield
        except KeyboardInterrupt as err:
            raise Interrupted(
                f"interrupted with {format_bytes(self._shared.done)} of "
                f"{format_bytes(self._wanted.size)} fetched",
                hint="run the same command again: it goes on from there",
            ) from err
        finally:
            self._stop.set()
            self._follower.stop(_STOP_S)
            end = monotonic() + _STOP_S
            for worker in self._workers:
                worker.join(max(0.0, end - monotonic()))

    def wait(self) -> Sha256:
        """Report and look until all is fetched and hashed; return the SHA-256."""
        while True:
            with self._woken:
                wakes = self._wakes
            self._report()
            self._look()
            if self._follower.error is not None:
                raise self._follower.error
            if self._follower.sha256 is not None:
                return self._follower.sha256
            self._man()
            with self._woken:
                if wakes == self._wakes:
                    self._woken.wait(_REPORT_S)

    def _man(self) -> None:
        """See that as many connections work as may; raise the error that ended all."""
        # Asked once: one that ends meanwhile is judged the next time.
        states = [(worker, worker.alive) for worker in self._workers]
        ended = [worker for worker, is_alive in states if not is_alive]
        alive = [worker for worker, is_alive in states if is_alive]
        for worker in ended:
            self._judge(worker, alone=not alive)
        self._workers = alive
        if self._shared.serial:
            self._connections = 1
        may = self._connections if any(w.opened for w in alive) else 1
        while len(self._workers) < may and self._shared.claims:
            worker = Worker(self._shared, len(self._workers))
            worker.start()
            self._workers.append(worker)

    def _judge(self, worker: Worker, *, alone: bool) -> None:
        """Let the others go on where a server wants fewer connections."""
        if worker.error is None:
            return
        if alone or not isinstance(worker.error, HubError):
            raise worker.error
        self._connections = max(1, self._connections - 1)
        _logger.info("one connection less: %s", worker.error)

    def _look(self) -> None:
        position = self._follower.position
        if self._looks and position >= self._looks[0] and self._options.look:
            self._looks = [look for look in self._looks if look > position]
            try:
                self._options.look(self._partial.path, position)
            except WizardEdgeError as err:
                raise _LookedWrong(err) from err

    def _report(self) -> None:
        total = self._wanted.size
        self._progress(ProgressEvent("download", self._shared.done, total))

    def _lost(self, number: int) -> None:
        self._shared.count(-self._partial.grid.span(number).size)
        self._shared.claims.give_back(range(number, number + 1))
        self._wake()

    def _wake(self) -> None:
        with self._woken:
            self._wakes += 1
            self._woken.notify_all()


def _check(wanted: Wanted, partial: Partial, digest: Sha256) -> None:
    """Compare the whole with what was stated. Raises: WrongBytes."""
    if wanted.sha256 not in (None, digest):
        raise WrongBytes(wanted.name)
    for index, blob in enumerate(wanted.blobs):
        piece = wanted.pieces[index]
        if blob is None or piece.sha256 is not None:
            continue
        # Files that git itself holds are small.
        data = partial.read(partial.grid.start(index), piece.size)
        # Source: Pro Git, section 10.2, Object Storage.
        head = f"blob {len(data)}\0".encode()
        if hashlib.sha1(head + data, usedforsecurity=False).hexdigest() != blob:
            raise WrongBytes(piece.path or wanted.name)
