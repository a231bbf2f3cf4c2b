"""The step loop over a fake backend whose answers show every slip of the book."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import pytest

from tests.backends import FakeBackend, answer_to
from wizard_edge.backend import Span
from wizard_edge.engine import Chunk, Sampling
from wizard_edge.errors import BackendError, UsageError
from wizard_edge.pace import Pace
from wizard_edge.parking import Parking
from wizard_edge.scheduler import Scheduler

LONG = [300 + index % 97 for index in range(2000)]
FEW = Sampling(max_tokens=6)


class Conversation:
    """Somebody who owns what lies in the cache."""


class Gate:
    """Holds a backend within its next batch until it is opened."""

    def __init__(self, backend: FakeBackend) -> None:
        self.entered = threading.Event()
        self.opened = threading.Event()
        backend.on_decode = self._hold

    def _hold(self) -> None:
        self.entered.set()
        assert self.opened.wait(20)


@contextmanager
def running(
    backend: FakeBackend, *, parking: int = 0, pace: Pace | None = None
) -> Iterator[Scheduler]:
    scheduler = Scheduler(backend, parking=Parking(parking), pace=pace)
    try:
        yield scheduler
    finally:
        scheduler.close()


def tokens(chunks: Iterator[Chunk]) -> list[int | None]:
    return [chunk.token for chunk in chunks]


def prompt(seed: int, length: int = 40) -> list[int]:
    return [100 + seed * 7 + index % (11 + seed) for index in range(length)]


def rows(batch: Sequence[Span]) -> dict[int, int]:
    return {span.sequence: len(span.ids) for span in batch}


def test_an_answer_is_what_follows_the_prompt() -> None:
    with running(FakeBackend()) as scheduler:
        *_, last = chunks = list(scheduler.submit(prompt(1), FEW))

    assert [chunk.token for chunk in chunks] == answer_to(prompt(1), 6)
    assert (last.finish, last.stats.new_tokens) == ("length", 6)
    assert last.stats.read_tokens == last.stats.prompt_tokens == 40


def test_a_next_turn_evaluates_only_what_is_new() -> None:
    backend = FakeBackend()
    with running(backend) as scheduler:
        answer = [t for t in tokens(scheduler.submit(prompt(1), FEW)) if t]
        before = backend.evaluated
        history = [*prompt(1), *answer, 77, 78]
        *_, last = scheduler.submit(history, FEW)

    # The last token of the answer was drawn, not evaluated.
    assert last.stats.cached_tokens == len(history) - 3
    assert last.stats.read_tokens == 3
    assert backend.evaluated - before == 3 + 5


def test_many_answers_come_at_once_in_one_batch_each_step() -> None:
    backend = FakeBackend(sequences=4)
    gate = Gate(backend)
    with running(backend) as scheduler:
        first = scheduler.submit(prompt(0), FEW)
        assert gate.entered.wait(20)
        others = [scheduler.submit(prompt(seed), FEW) for seed in (1, 2, 3)]
        gate.opened.set()
        answers = [tokens(answer) for answer in (first, *others)]

    assert answers == [answer_to(prompt(seed), 6) for seed in range(4)]
    assert max(len(batch) for batch in backend.batches) == 4


def test_where_sequences_do_not_mix_each_comes_in_its_turn() -> None:
    backend = FakeBackend(sequences=3)
    backend.mixes = False
    gate = Gate(backend)
    with running(backend) as scheduler:
        answers = [scheduler.submit(prompt(0), FEW)]
        assert gate.entered.wait(20)
        answers += [scheduler.submit(prompt(seed), FEW) for seed in (1, 2)]
        gate.opened.set()
        found = [tokens(answer) for answer in answers]

    assert found == [answer_to(prompt(seed), 6) for seed in range(3)]
    served = [batch[0].sequence for batch in backend.batches]
    first, second, third = served[1:4]
    assert len({first, second, third}) == 3
    # The first one began before the others came.
    assert served == [first, *[first, second, third] * 5, second, third]


def test_more_callers_than_sequences_wait_in_their_order() -> None:
    backend = FakeBackend(sequences=2)
    gate = Gate(backend)
    with running(backend) as scheduler:
        answers = [scheduler.submit(prompt(seed), FEW) for seed in range(6)]
        assert gate.entered.wait(20)
        gate.opened.set()
        found = [tokens(answer) for answer in answers]

    assert found == [answer_to(prompt(seed), 6) for seed in range(6)]
    firsts = [
        span.ids[0] for batch in backend.batches for span in batch if len(span.ids) > 1
    ]
    assert firsts == [prompt(seed)[0] for seed in range(6)]


def test_a_long_prompt_is_read_in_parts_beside_a_running_answer() -> None:
    """Ten tokens are read in the time that a step may take beside an answer."""
    backend = FakeBackend(sequences=2)
    gate = Gate(backend)
    with running(backend, pace=FixedPace(100)) as scheduler:
        short = scheduler.submit(prompt(1), Sampling(max_tokens=30))
        assert gate.entered.wait(20)
        long = scheduler.submit(LONG[:200], FEW)
        gate.opened.set()
        answers = tokens(short), tokens(long)

    assert answers == (answer_to(prompt(1), 30), answer_to(LONG[:200], 6))
    beside = [counts for batch in backend.batches if len(counts := rows(batch)) == 2]
    assert {max(counts.values()) for counts in beside[:10]} == {10}
    assert {min(counts.values()) for counts in beside} == {1}


def test_prompts_share_a_step_fairly_and_leave_what_they_do_not_need() -> None:
    backend = FakeBackend(sequences=3, batch=90)
    gate = Gate(backend)
    with running(backend) as scheduler:
        answers = [scheduler.submit([5], Sampling(max_tokens=1))]
        assert gate.entered.wait(20)
        answers += [scheduler.submit(LONG[:length], FEW) for length in (10, 300, 301)]
        gate.opened.set()
        for answer in answers:
            list(answer)

    assert sorted(rows(backend.batches[1]).values()) == [10, 40, 40]


def test_a_single_step_reads_as_much_as_a_batch_takes() -> None:
    backend = FakeBackend()
    with running(backend) as scheduler:
        list(scheduler.submit(LONG, FEW))

    assert [len(batch[0].ids) for batch in backend.batches[:4]] == [512, 512, 512, 464]


def test_a_slow_machine_reads_in_shorter_steps() -> None:
    backend = FakeBackend()
    with running(backend, pace=FixedPace(20)) as scheduler:
        list(scheduler.submit(LONG[:200], FEW))

    assert [len(batch[0].ids) for batch in backend.batches[:3]] == [80, 80, 40]


def test_cancelling_frees_the_sequence_within_one_token() -> None:
    backend = FakeBackend()
    with running(backend) as scheduler:
        endless = scheduler.submit(prompt(3), Sampling())
        next(endless)
        endless.close()
        answer = tokens(scheduler.submit(prompt(4), FEW))

    assert answer == answer_to(prompt(4), 6)
    assert backend.choosers == 0


def test_a_dropped_answer_is_a_cancelled_one() -> None:
    backend = FakeBackend()
    gate = Gate(backend)
    with running(backend) as scheduler:
        scheduler.submit(LONG[:40], Sampling(max_tokens=10**6))
        gc.collect()
        gate.opened.set()
        assert tokens(scheduler.submit(prompt(4), FEW)) == answer_to(prompt(4), 6)

    assert len(backend.batches) < 10


def test_the_reading_of_a_prompt_ends_in_its_middle() -> None:
    backend = FakeBackend()
    gate = Gate(backend)
    stop = threading.Event()
    with running(backend) as scheduler:
        answer = scheduler.submit(LONG, FEW, cancelled=stop.is_set)
        assert gate.entered.wait(20)
        stop.set()
        opener = threading.Timer(0.3, gate.opened.set)
        opener.start()
        [chunk] = answer
        again = tokens(scheduler.submit(LONG, FEW))
        opener.join()

    assert (chunk.token, chunk.finish) == (None, "cancelled")
    assert again == answer_to(LONG, 6)


def test_a_waiting_answer_can_be_cancelled() -> None:
    backend = FakeBackend()
    gate = Gate(backend)
    with running(backend) as scheduler:
        first = scheduler.submit(prompt(1), FEW)
        assert gate.entered.wait(20)
        scheduler.submit(prompt(2), FEW).close()
        third = scheduler.submit(prompt(3), FEW)
        gate.opened.set()
        assert tokens(first) == answer_to(prompt(1), 6)
        assert tokens(third) == answer_to(prompt(3), 6)

    assert backend.choosers == 0


def test_a_shared_beginning_is_copied_not_read() -> None:
    system = LONG[:60]
    backend = FakeBackend(sequences=2)
    one, two = Conversation(), Conversation()
    with running(backend) as scheduler:
        list(scheduler.submit([*system, 1, 5], FEW, owner=one))
        *_, last = chunks = list(scheduler.submit([*system, 9, 5], FEW, owner=two))

    assert last.stats.cached_tokens == 60
    assert [chunk.token for chunk in chunks] == answer_to([*system, 9, 5], 6)


def test_a_beginning_is_copied_from_a_sequence_that_is_busy() -> None:
    system = LONG[:60]
    backend = FakeBackend(sequences=2)
    with running(backend) as scheduler:
        busy = scheduler.submit([*system, 1, 5], Sampling(max_tokens=500))
        next(busy)
        *_, last = scheduler.submit([*system, 9, 5], FEW)

    assert last.stats.cached_tokens == 60


def test_a_conversation_that_gave_way_comes_back_without_reading() -> None:
    backend = FakeBackend()
    one, two = Conversation(), Conversation()
    with running(backend, parking=10**6) as scheduler:
        list(scheduler.submit(prompt(1), FEW, owner=one))
        list(scheduler.submit(prompt(2), FEW, owner=two))
        follow = [*prompt(1), *answer_to(prompt(1), 6), 8]
        *_, last = chunks = list(scheduler.submit(follow, FEW, owner=one))

    assert last.stats.read_tokens == 2
    assert [chunk.token for chunk in chunks] == answer_to(follow, 6)


def test_without_a_budget_it_is_read_again() -> None:
    backend = FakeBackend()
    one, two = Conversation(), Conversation()
    with running(backend, parking=0) as scheduler:
        list(scheduler.submit(prompt(1), FEW, owner=one))
        list(scheduler.submit(prompt(2), FEW, owner=two))
        *_, last = scheduler.submit(prompt(1), FEW, owner=one)

    assert last.stats.cached_tokens == 0


def test_what_a_conversation_gives_up_itself_is_not_parked() -> None:
    """A question asked anew goes another way on purpose."""
    backend = FakeBackend()
    one = Conversation()
    with running(backend, parking=10**6) as scheduler:
        list(scheduler.submit([*LONG[:50], 1, 2], FEW, owner=one))
        list(scheduler.submit([*LONG[:10], 3, 4], FEW, owner=one))
        *_, last = scheduler.submit([*LONG[:50], 1, 2], FEW, owner=one)

    assert last.stats.cached_tokens == 10


def test_a_parked_beginning_serves_another_conversation_and_stays_parked() -> None:
    system = LONG[:60]
    backend = FakeBackend()
    one, two, three = Conversation(), Conversation(), Conversation()
    follow = [*system, 1, 5, *answer_to([*system, 1, 5], 6), 8]
    with running(backend, parking=10**6) as scheduler:
        list(scheduler.submit([*system, 1, 5], FEW, owner=one))
        list(scheduler.submit(prompt(2), FEW, owner=two))
        *_, third = scheduler.submit([*system, 9, 5], FEW, owner=three)
        list(scheduler.submit(prompt(2), FEW, owner=two))
        *_, first = scheduler.submit(follow, FEW, owner=one)

    assert third.stats.cached_tokens == 60
    assert first.stats.read_tokens == 2


def test_a_parked_state_that_is_refused_is_read_anew() -> None:
    backend = FakeBackend()
    one, two = Conversation(), Conversation()
    with running(backend, parking=10**6) as scheduler:
        list(scheduler.submit(prompt(1), FEW, owner=one))
        list(scheduler.submit(prompt(2), FEW, owner=two))
        backend.refuses_states = True
        *_, last = chunks = list(scheduler.submit(prompt(1), FEW, owner=one))

    assert last.stats.cached_tokens == 0
    assert [chunk.token for chunk in chunks] == answer_to(prompt(1), 6)


def test_an_error_of_the_backend_ends_the_answers_of_its_batch_only() -> None:
    backend = FakeBackend()

    def fail() -> None:
        raise BackendError("llama.cpp gave up with status -3")

    with running(backend) as scheduler:
        backend.on_decode = fail
        with pytest.raises(BackendError, match="status -3"):
            list(scheduler.submit(prompt(1), FEW))
        backend.on_decode = lambda: None
        after = tokens(scheduler.submit(prompt(1), FEW))

    assert after == answer_to(prompt(1), 6)
    assert backend.choosers == 0


def test_an_error_that_nobody_foresaw_ends_answers_not_the_engine(
    caplog: pytest.LogCaptureFixture,
) -> None:
    backend = FakeBackend()

    def fail() -> None:
        raise ZeroDivisionError

    with running(backend) as scheduler:
        backend.on_decode = fail
        with pytest.raises(ZeroDivisionError):
            list(scheduler.submit(prompt(1), FEW))
        backend.on_decode = lambda: None
        after = tokens(scheduler.submit(prompt(1), FEW))

    assert after == answer_to(prompt(1), 6)
    assert "a step of the engine failed" in caplog.text


def test_closing_ends_every_answer_and_frees_the_backend() -> None:
    backend = FakeBackend()
    gate = Gate(backend)
    scheduler = Scheduler(backend)
    running_one = scheduler.submit(prompt(1), Sampling())
    waiting = scheduler.submit(prompt(2), FEW)
    assert gate.entered.wait(20)

    closer = threading.Thread(target=scheduler.close)
    closer.start()
    gate.opened.set()
    closer.join(20)

    assert backend.closed
    assert backend.choosers == 0
    for answer in (running_one, waiting):
        with pytest.raises(UsageError, match="closed"):
            next(answer)
    with pytest.raises(UsageError, match="closed"):
        scheduler.submit(prompt(1), FEW)
    with pytest.raises(UsageError, match="closed"):
        scheduler.run(lambda backend, stopped: None)


def test_a_scheduler_that_never_ran_frees_the_backend_too() -> None:
    backend = FakeBackend()

    scheduler = Scheduler(backend)
    scheduler.close()
    scheduler.close()

    assert backend.closed


def test_work_runs_between_steps_on_the_thread_of_the_engine() -> None:
    backend = FakeBackend()
    missing: dict[str, int] = {}
    with running(backend) as scheduler:
        here = scheduler.run(lambda backend, stopped: threading.current_thread().name)
        nested = scheduler.run(
            lambda backend, stopped: scheduler.run(lambda again, stopped: again)
        )
        with pytest.raises(KeyError):
            scheduler.run(lambda backend, stopped: missing["no"])

    assert here == "wizard-edge engine"
    assert nested is backend


def test_a_reserved_slot_is_empty_and_nobody_elses() -> None:
    backend = FakeBackend(sequences=2)
    with running(backend) as scheduler:
        list(scheduler.submit(prompt(1), FEW))
        list(scheduler.submit(prompt(2), FEW))
        with scheduler.reserve() as slot:
            emptied = list(backend.cells[slot.index])
            list(scheduler.submit(prompt(3), FEW))
            list(scheduler.submit(prompt(4), FEW))
            after = list(backend.cells[slot.index])
        assert not slot.busy

    assert (emptied, after) == ([], [])


@pytest.mark.parametrize("sequences", [1, 4])
def test_threads_get_the_answers_they_asked_for(sequences: int) -> None:
    backend = FakeBackend(sequences=sequences)
    found: dict[tuple[int, int], list[int | None]] = {}
    errors: list[BaseException] = []

    def caller(number: int, ask: Callable[..., Iterator[Chunk]]) -> None:
        owner = Conversation()
        try:
            for turn in range(20):
                seed = (number * 5 + turn) % 13
                answer = ask(prompt(seed), FEW, owner=owner)
                if turn % 5 == 4:
                    next(answer)
                    del answer
                else:
                    found[seed, number * 100 + turn] = tokens(answer)
        except BaseException as err:  # noqa: BLE001 - looked at below
            errors.append(err)

    with running(backend, parking=10**5) as scheduler:
        threads = [
            threading.Thread(target=caller, args=(number, scheduler.submit))
            for number in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)

    assert errors == []
    assert len(found) == 8 * 16
    assert all(
        answer == answer_to(prompt(seed), 6) for (seed, _), answer in found.items()
    )
    assert backend.choosers == 0


class FixedPace(Pace):
    """A machine that never changes its speed."""

    def observe(self, tokens: int, seconds: float) -> None:
        pass


def test_a_reader_need_not_wake_for_every_fast_token() -> None:
    """All of them within eight milliseconds, by a clock that stands still."""
    backend = FakeBackend()
    scheduler = Scheduler(backend, clock=lambda: 1.0)
    woken: list[bool] = []
    try:
        answer = scheduler.submit(prompt(1), FEW)
        answer._outbox.wake = lambda: woken.append(True)
        found = tokens(answer)
    finally:
        scheduler.close()

    assert found == answer_to(prompt(1), 6)
    # The first token, and the last with all between them.
    assert len(woken) <= 2
