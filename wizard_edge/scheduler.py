"""The step loop: one thread that owns the backend and answers many callers.

Every step takes the waiting work of all sequences, a part of a prompt here and a
single token there, evaluates it as one batch, draws the next tokens and hands them
to their readers. Knows no llama.cpp: a `Backend` computes.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

from wizard_edge.answers import Answer, Outbox
from wizard_edge.backend import Backend
from wizard_edge.engine import Logprobs, Sampling, never
from wizard_edge.errors import BackendError, UsageError
from wizard_edge.jobs import LISTENS_EVERY_S, Chore, Job, Reservation, join
from wizard_edge.kv_cache import KvCache
from wizard_edge.pace import Pace, Step, unobserved
from wizard_edge.parking import Parking
from wizard_edge.scoring import logprobs_of
from wizard_edge.shares import Share, count_rows, divide
from wizard_edge.slots import Place, Slot
from wizard_edge.speculation import Speculation
from wizard_edge.turns import Turn

_logger = logging.getLogger(__name__)
_Result = TypeVar("_Result")

# A step that may take longer can be ended in its middle, at the price of a question
# at every node of llama.cpp's graph.
_SHORT_S = 0.2
_FEW_ROWS = 8
# How long a step may take that reads prompts: while others wait for their next token,
# and where nobody does. What is lost by ending one in the middle is read again.
_SHARED_STEP_S = 0.1
_LONE_STEP_S = 4.0
_LEAST_SHARED = 8
_LEAST_LONE = 64


class Scheduler:
    """Answers callers from any thread, as many at once as the backend has sequences.

    Others wait in the order in which they came.
    """

    def __init__(
        self,
        backend: Backend,
        *,
        parking: Parking | None = None,
        pace: Pace | None = None,
        observe: Callable[[Step], None] = unobserved,
        speculation: Speculation | None = None,
        load_s: float = 0.0,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        """Own `backend`, and what guesses beside it; nothing runs before a call.

        `observe` is told of every step that came to its end, between two steps.
        """
        self._backend = backend
        self._pace = pace or Pace()
        self._observe = observe
        self._speculation = speculation
        self._load_s = load_s
        self._clock = clock
        self.cache = KvCache(backend, parking or Parking(0))
        self._waiting: deque[Turn | Reservation] = deque()
        self._active: list[Turn] = []
        self._jobs: deque[Job[object]] = deque()
        self._job: Job[object] | None = None
        self._chore: Chore | None = None
        self._resting = False
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._closed = False

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._closed

    def submit(
        self,
        prompt: Sequence[int],
        sampling: Sampling,
        *,
        owner: object | None = None,
        cancelled: Callable[[], bool] = never,
    ) -> Answer:
        """Queue a prompt and return its answer, which comes by itself.

        Raises: UsageError when the prompt is empty, leaves no room in the context or
        the engine is closed; for a grammar or schema that is not usable.
        """
        self._check_open()
        room = self._backend.context - len(prompt)
        if not prompt:
            raise UsageError("the prompt is empty")
        if room <= 0:
            raise UsageError(
                f"a prompt of {len(prompt)} tokens in a context of "
                f"{self._backend.context}"
            )
        # Made here, so that a bad grammar is an answer to this call.
        chooser = self._backend.chooser(sampling, prompt)
        outbox = Outbox()
        turn = Turn(
            prompt,
            sampling,
            owner,
            chooser,
            outbox,
            clock=self._clock,
            limit=room
            if sampling.max_tokens is None
            else min(room, sampling.max_tokens),
            load_s=self._load_s,
        )
        self._enqueue(turn)
        return Answer(
            outbox,
            lambda: self._cancel(turn),
            cancelled=cancelled,
            closed=lambda: self._closed,
        )

    def run(self, work: Callable[[Backend, Callable[[], bool]], _Result]) -> _Result:
        """Do something with the backend between two steps, and wait for it.

        `work` is given the backend, and a question that says yes once the caller was
        interrupted, for `Backend.decode`.
        Raises: what `work` raises; UsageError when the engine is closed.
        """
        if threading.current_thread() is self._thread:
            return work(self._backend, never)
        job = Job(work)
        with self._changed:
            self._check_open()
            self._start()
            self._jobs.append(job)  # type: ignore[arg-type]
            self._changed.notify()
        return job.wait()

    def rest_with(
        self,
        work: Callable[[Backend, Callable[[], bool]], Iterator[None]],
        *,
        after_s: float,
    ) -> None:
        """Do something step by step in the time when nobody asks for anything.

        That time begins when nobody has for `after_s`. `work` is given the backend,
        which it must leave as it finds it, and a question that says yes as soon as
        somebody waits; it is a generator, closed with the engine. While one is not
        done, another is not taken.
        Raises: UsageError when the engine is closed.
        """
        with self._changed:
            self._check_open()
            self._start()
            if self._chore is None:
                self._chore = Chore(work, after_s)
            self._changed.notify()

    @contextmanager
    def reserve(self) -> Iterator[Slot]:
        """Lend an emptied slot to a caller, who fills it through `run`."""
        wanted = Reservation()
        self._enqueue(wanted)
        try:
            while not wanted.granted.wait(LISTENS_EVERY_S):
                self._check_open()
            if wanted.slot is None:
                raise UsageError("the engine is closed")
            yield wanted.slot
        finally:
            with self._changed:
                wanted.over = True
                if wanted.slot is not None:
                    wanted.slot.busy = False
                self._changed.notify()

    def close(self) -> None:
        """End every answer and free the backend. A second call does nothing.

        Waits for the step that is running, whose reading of a prompt ends at once.
        """
        with self._changed:
            thread, first = self._thread, not self._closed
            self._closed = True
            self._changed.notify()
        if thread is None and first:
            self._free()
        elif thread is not None and thread is not threading.current_thread():
            join(thread)

    def _check_open(self) -> None:
        if self._closed:
            raise UsageError("the engine is closed")

    def _enqueue(self, item: Turn | Reservation) -> None:
        with self._changed:
            self._check_open()
            self._start()
            self._waiting.append(item)
            self._changed.notify()

    def _start(self) -> None:
        """Bring the thread up. Under the lock."""
        if self._thread is None:
            self._thread = threading.Thread(
                target=self._loop, name="wizard-edge engine", daemon=True
            )
            self._thread.start()

    def _cancel(self, turn: Turn) -> None:
        turn.cancelled = True
        with self._changed:
            self._changed.notify()

    def _loop(self) -> None:
        try:
            while self._wait_for_work():
                try:
                    if self._resting:
                        self._rest()
                    else:
                        self._step()
                # The border of this thread: an error ends answers, not the engine.
                except Exception as err:
                    _logger.exception("a step of the engine failed")
                    self._fail_all(err)
        finally:
            self._end()

    def _wait_for_work(self) -> bool:
        with self._changed:
            while not self._has_work():
                if not self._changed.wait(self._patience()):
                    self._resting = True
                    return True
            self._resting = False
            return not self._closed

    def _has_work(self) -> bool:
        return bool(self._closed or self._jobs or self._active or self._can_admit())

    def _patience(self) -> float | None:
        """Return how long to wait for work before resting, in s; None for ever."""
        if self._chore is None:
            return None
        return 0.0 if self._resting else self._chore.after_s

    def _is_wanted(self) -> bool:
        return self._closed or bool(self._jobs) or bool(self._waiting)

    def _rest(self) -> None:
        chore = self._chore
        if chore is not None and not chore.do(self._backend, self._is_wanted):
            self._chore = None
            self._resting = False

    def _can_admit(self) -> bool:
        return bool(self._waiting) and (
            any(not slot.busy for slot in self.cache.slots)
            or any(item.over for item in self._waiting)
        )

    def _step(self) -> None:
        self._run_jobs()
        self._drop_cancelled()
        self._admit()
        self._guess()
        shares = self._divide()
        if not shares:
            return
        if any(share.reads for share in shares):
            for turn in self._active:
                turn.flush()
        begun = self._clock()
        try:
            whole = self._backend.decode(
                [share.span for share in shares], stopped=self._stopper(shares)
            )
        except BackendError as err:
            for share in shares:
                self._fail(share.turn, err)
            return
        if not whole:
            for share in shares:
                slot = share.turn.place
                self.cache.cut(slot, len(slot.cached))
            return
        self._note_step(shares, self._clock() - begun)
        row = 0
        for share in shares:
            try:
                self._deliver(share, row)
            except UsageError as err:
                # Such as a grammar that allows nothing more.
                self._fail(share.turn, err)
            row += len(share.ids)

    def _run_jobs(self) -> None:
        while self._jobs:
            self._job = self._jobs.popleft()
            self._job.do(self._backend)
            self._job = None

    def _drop_cancelled(self) -> None:
        with self._changed:
            gone = [item for item in self._waiting if item.over]
            for item in gone:
                self._waiting.remove(item)
        for item in gone:
            if isinstance(item, Turn):
                item.cancel()
                item.chooser.close()
        for turn in [turn for turn in self._active if turn.cancelled]:
            turn.cancel()
            self._release(turn)

    def _admit(self) -> None:
        """Give free slots to who waits, in order."""
        while self._waiting:
            item = self._waiting[0]
            prompt = item.prompt if isinstance(item, Turn) else []
            owner = _holder(item) if isinstance(item, Turn) else None
            place = self.cache.choose(prompt, owner)
            if place is None:
                return
            with self._changed:
                self._waiting.popleft()
                place.slot.busy = True
            if isinstance(item, Reservation):
                self._grant(item, place.slot)
                continue
            self._begin(item, place, owner)

    def _begin(self, turn: Turn, place: Place, owner: object | None) -> None:
        turn.begin(place.slot)
        if self._speculation is not None:
            turn.guesses = self._speculation.begin(place.slot.index)
        self._active.append(turn)
        try:
            self.cache.settle(turn.prompt, place, owner)
        except BackendError as err:
            self._fail(turn, err)
        else:
            turn.note_cached()

    def _grant(self, wanted: Reservation, slot: Slot) -> None:
        self.cache.empty(slot)
        with self._changed:
            # Who asked may have gone meanwhile.
            slot.busy = not wanted.over
            wanted.grant(slot)

    def _guess(self) -> None:
        """Put guesses behind the drawn tokens, in a step that reads no prompt.

        A batch that reads one leaves no arithmetic unit idle.
        """
        if not all(turn.pending for turn in self._active):
            return
        rows = sum(len(turn.pending) for turn in self._active)
        for turn in self._active:
            most = min(turn.left - 1, self._backend.batch - rows)
            # Those of a step that was ended in its middle are still there.
            if turn.guesses is None or most <= 0 or len(turn.pending) > 1:
                continue
            guesses = turn.guesses.guess(
                turn.place.cached, turn.pending[0], others=rows - 1, most=most
            )
            turn.pending += guesses
            rows += len(guesses)

    def _divide(self) -> list[Share]:
        """Say what the next step evaluates."""
        batch = self._backend.batch
        turns = self._active
        if not self._backend.mixes:
            # Each in its turn.
            turns = self._active[:1]
            self._active = self._active[1:] + turns
        if any(turn.pending for turn in self._active):
            seconds, least = _SHARED_STEP_S, _LEAST_SHARED
        else:
            seconds, least = _LONE_STEP_S, _LEAST_LONE
        reading = self._pace.tokens_within(seconds, least=least, most=batch)
        return divide(turns, batch=batch, reading=reading)

    def _stopper(self, shares: Sequence[Share]) -> Callable[[], bool] | None:
        """Return what ends a long step in its middle; None for a short one."""
        rows = count_rows(shares)
        rate = self._pace.rate
        if rows <= _FEW_ROWS or (rate is not None and rows <= rate * _SHORT_S):
            return None
        turns = [share.turn for share in shares if share.reads]
        return lambda: self._closed or any(turn.cancelled for turn in turns)

    def _note_step(self, shares: Sequence[Share], seconds: float) -> None:
        rows = count_rows(shares)
        if any(share.reads for share in shares):
            if rows > _FEW_ROWS:
                self._pace.observe(rows, seconds)
        elif self._speculation is not None:
            self._speculation.costs.observe(rows, seconds)
        deepest = max(len(share.turn.place.cached) for share in shares)
        self._observe(Step(rows, deepest, seconds))

    def _deliver(self, share: Share, row: int) -> None:
        """Draw what follows the tokens that were evaluated from `row` on."""
        turn, ids, reads = share.turn, share.ids, share.reads
        turn.place.cached += ids
        if not reads:
            self._draw(turn, ids[1:], row)
            return
        turn.note_read(len(ids))
        if not turn.unread:
            # Only the last token of a prompt is looked at.
            self._draw(turn, [], row + len(ids) - 1)

    def _draw(self, turn: Turn, drafts: list[int], row: int) -> None:
        """Draw tokens as long as the drafts foresee them.

        Every token is drawn from the model's own distribution by the answer's own
        sampler, a draft only saves the step in between. So an answer is what it
        would be without drafts.
        """
        accepted = 0
        goes_on = True
        if drafts:
            turn.note_drafted(len(drafts))
        for index, draft in enumerate([*drafts, None]):
            token = turn.chooser.sample(row + index)
            likely = self._look_up(turn, token, row + index)
            right = token == draft
            goes_on = turn.draw(token, self._backend.vocabulary, likely, guessed=right)
            if not (right and goes_on):
                break
            accepted += 1
        if drafts:
            slot = turn.place
            self.cache.cut(slot, len(slot.cached) - (len(drafts) - accepted))
            if turn.guesses is not None:
                turn.guesses.settle(len(drafts), accepted)
        if not goes_on:
            self._release(turn)

    def _look_up(self, turn: Turn, token: int, row: int) -> Logprobs | None:
        top = turn.sampling.logprobs
        if top is None:
            return None
        [logits] = self._backend.logits(row)
        return logprobs_of(logits, token, top)

    def _release(self, turn: Turn) -> None:
        turn.chooser.close()
        self._active.remove(turn)
        with self._changed:
            turn.place.busy = False

    def _fail(self, turn: Turn, error: BaseException) -> None:
        turn.fail(error)
        self.cache.forget(turn.place)
        self._release(turn)

    def _fail_all(self, error: BaseException) -> None:
        for turn in list(self._active):
            self._fail(turn, error)

    def _end(self) -> None:
        """Tell everybody who still waits, then free the backend."""
        error = UsageError("the engine is closed")
        with self._changed:
            waiting, self._waiting = list(self._waiting), deque()
            jobs, self._jobs = list(self._jobs), deque()
        for turn in [*self._active, *waiting]:
            if isinstance(turn, Turn):
                turn.fail(error)
                turn.chooser.close()
            else:
                turn.granted.set()
        self._active.clear()
        for job in jobs:
            job.fail(error)
        if self._chore is not None:
            self._chore.close()
        self._free()

    def _free(self) -> None:
        self.cache.close()
        if self._speculation is not None:
            self._speculation.close()
        self._backend.close()


def _holder(turn: Turn) -> object | None:
    return turn.owner() if turn.owner is not None else None
