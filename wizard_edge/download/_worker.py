"""One connection after the other: takes what nobody fetches and writes it down."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from threading import Event, Lock, Thread
from time import monotonic

from wizard_edge.chunks import Grid
from wizard_edge.download._claims import Claims
from wizard_edge.download._follower import Follower, sum_of
from wizard_edge.download._partial import Partial, Stopped
from wizard_edge.download._rate import Rate
from wizard_edge.download._values import Source, Stream, Wanted
from wizard_edge.errors import HubError, NotFound, Refused

_logger = logging.getLogger(__name__)

# Asked for at once: small enough to stay in the processor's cache until it is hashed.
_PIECE = 256 << 10
# A mirror that brings less than this, in bytes/s over so many seconds, is left.
_MIRROR_RATE = 16_000
_MIRROR_S = 20.0


@dataclass(slots=True)
class Shared:
    """What all connections of a download work on.

    `done` counts the bytes that are there, `received` those of this run; `serial` is
    set where a server sends whole files only. `changed` wakes whoever waits.
    """

    wanted: Wanted
    sources: list[Source]
    partial: Partial
    claims: Claims
    follower: Follower
    rate: Rate
    changed: Callable[[], None]
    stop: Event
    done: int = 0
    received: int = 0
    serial: bool = False
    lock: Lock = field(default_factory=Lock)

    @property
    def grid(self) -> Grid:
        return self.partial.grid

    def count(self, written: int, *, received: int = 0) -> None:
        """Add to what is there and to what came."""
        with self.lock:
            self.done += written
            self.received += received

    def drop(self, source: Source, error: Exception) -> bool:
        """Give up a mirror; False for the one source that is not to be given up."""
        with self.lock:
            if not source.is_mirror:
                return False
            if source in self.sources:
                self.sources.remove(source)
                # That it sends no parts says nothing of the others.
                self.serial = False
                _logger.warning("mirror left: %s", error)
            return True


class Worker:
    """Fetches until nothing is left to claim. `error` is why it ended before.

    `opened` is set once a server answered with what was asked.
    """

    def __init__(self, shared: Shared, number: int) -> None:
        self.error: Exception | None = None
        self.opened = False
        self._shared = shared
        self._thread = Thread(target=self._run, name=f"fetch {number}", daemon=True)

    def start(self) -> None:
        self._thread.start()

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    def join(self, timeout_s: float) -> None:
        self._thread.join(timeout_s)

    def _run(self) -> None:
        shared = self._shared
        try:
            while not shared.stop.is_set():
                claimed = shared.claims.take()
                if claimed is None:
                    break
                self._fetch(claimed)
        except Stopped:
            pass
        # A thread's border: whoever waits for the download raises it.
        except Exception as err:  # noqa: BLE001
            self.error = err
        finally:
            shared.changed()

    def _fetch(self, claimed: range) -> None:
        """Fetch claimed chunks; what is left of them after an error goes back."""
        shared = self._shared
        source = shared.sources[0]
        progress = _Progress(claimed.start)
        try:
            self._fetch_from(source, claimed, progress)
        except (HubError, NotFound, Refused) as err:
            if not shared.drop(source, err):
                raise
        finally:
            shared.claims.give_back(range(progress.next, claimed.stop))

    def _fetch_from(self, source: Source, claimed: range, progress: _Progress) -> None:
        shared, grid = self._shared, self._shared.grid
        index = grid.piece(claimed.start)
        start = grid.start(index)
        first, last = grid.span(claimed.start), grid.span(claimed[-1])
        piece = shared.wanted.pieces[index]
        with source.open(piece, first.offset - start, last.end - start) as stream:
            stream.open()
            self._note_answer(stream, whole=claimed == grid.numbers(index))
            pace = _Pace(source, is_limited=shared.rate.is_limited)
            for number in claimed:
                self._take_chunk(stream, number, pace)
                progress.next = number + 1

    def _note_answer(self, stream: Stream, *, whole: bool) -> None:
        if not self.opened:
            self.opened = True
            # Asked for all, a server sends all: nothing is known of parts.
            if not stream.in_parts and not whole:
                self._shared.serial = True
                self._shared.claims.widen()
            self._shared.changed()

    def _take_chunk(self, stream: Stream, number: int, pace: _Pace) -> None:
        shared = self._shared
        span = shared.grid.span(number)
        offset, data = span.offset, []
        try:
            while offset < span.end:
                wanted = shared.rate.piece(min(_PIECE, span.end - offset))
                piece = stream.read_some(wanted)
                if shared.stop.is_set():
                    raise Stopped
                if not piece:
                    raise HubError(f"{shared.wanted.name} ended before its end")
                shared.partial.write(offset, piece)
                data.append(piece)
                offset += len(piece)
                shared.count(len(piece), received=len(piece))
                pace.took(len(piece))
                shared.rate.took(len(piece))
            if shared.follower.take(number, data):
                return
            shared.partial.record(number, sum_of(data))
        except BaseException:
            # A part of a chunk is fetched again.
            shared.count(span.offset - offset)
            raise
        shared.follower.offer(number, data)


class _Pace:
    """Sees that a mirror is worth waiting for: there is the hub to ask instead."""

    def __init__(
        self,
        source: Source,
        *,
        is_limited: bool,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._is_watched = source.is_mirror and not is_limited
        self._name = source.name
        self._clock = clock
        self._since = clock()
        self._taken = 0

    def took(self, size: int) -> None:
        """Note bytes that came. Raises: HubError for a mirror that is too slow."""
        if not self._is_watched:
            return
        self._taken += size
        passed = self._clock() - self._since
        if passed < _MIRROR_S:
            return
        if self._taken < _MIRROR_RATE * passed:
            raise HubError(
                f"{self._name} sends {self._taken / passed:.0f} bytes a second"
            )
        self._since, self._taken = self._clock(), 0


@dataclass(slots=True)
class _Progress:
    """The first chunk that is not whole."""

    next: int
