"""Guesses within the step loop: over a backend whose answers show every slip."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from random import Random

import pytest

from tests.backends import FakeBackend, answer_to, following
from wizard_edge.engine import Chunk, Sampling
from wizard_edge.scheduler import Scheduler
from wizard_edge.speculation import Drafter, Speculation

PROMPTS = [[100 + seed * 7 + index for index in range(30)] for seed in range(4)]


class Seer:
    """Knows what follows, and tells it up to a slip of its own now and then."""

    def __init__(self, *, slips: float = 0.3, seed: int = 1) -> None:
        self._slips = slips
        self._random = Random(seed)
        self._ids: list[int] = []
        self.asked = 0

    def look(self, ids: Sequence[int], drawn: int) -> int:
        self._ids = [*ids, drawn]
        return 5

    def propose(self, most: int) -> list[int]:
        self.asked += 1
        ids = list(self._ids)
        for _ in range(self._random.randint(0, most)):
            token = following(ids)
            ids.append(token + (self._random.random() < self._slips))
        return ids[len(self._ids) :]

    def observe(self, accepted: int) -> None:
        pass


def guessing(make: Callable[[], Drafter] = Seer) -> Speculation:
    return Speculation([lambda sequence: make()], weigh=False)


@pytest.fixture
def opened() -> Iterator[Callable[..., Scheduler]]:
    schedulers: list[Scheduler] = []

    def start(backend: FakeBackend, make: Callable[[], Drafter] = Seer) -> Scheduler:
        schedulers.append(Scheduler(backend, speculation=guessing(make)))
        return schedulers[-1]

    yield start
    for scheduler in schedulers:
        scheduler.close()


def tokens(chunks: Sequence[Chunk]) -> list[int | None]:
    return [chunk.token for chunk in chunks]


@pytest.mark.parametrize("slips", [0.0, 0.3, 1.0])
def test_an_answer_is_the_same_with_guesses(
    opened: Callable[..., Scheduler], slips: float
) -> None:
    backend = FakeBackend()
    scheduler = opened(backend, lambda: Seer(slips=slips))

    for prompt in PROMPTS:
        chunks = list(scheduler.submit(prompt, Sampling(max_tokens=60)))

        assert tokens(chunks) == answer_to(prompt, 60)
        assert [chunk.stats.new_tokens for chunk in chunks] == list(
            range(1, len(chunks) + 1)
        )


def test_four_answers_at_once_are_the_same_with_guesses(
    opened: Callable[..., Scheduler],
) -> None:
    scheduler = opened(FakeBackend(sequences=4))

    answers = [scheduler.submit(p, Sampling(max_tokens=50)) for p in PROMPTS]

    assert [tokens(list(a)) for a in answers] == [answer_to(p, 50) for p in PROMPTS]


def test_right_guesses_save_steps_and_are_counted(
    opened: Callable[..., Scheduler],
) -> None:
    backend = FakeBackend()
    scheduler = opened(backend, lambda: Seer(slips=0))

    *_, last = list(scheduler.submit(PROMPTS[1], Sampling(max_tokens=40)))

    stats = last.stats
    assert 0 < stats.accepted_tokens <= stats.drafted_tokens
    # One step reads the prompt and gives a token.
    steps = len(backend.batches) - 1
    assert steps + stats.accepted_tokens == stats.new_tokens - 1
    # A guess that was wrong, or came behind the end, was evaluated in vain.
    vain = stats.drafted_tokens - stats.accepted_tokens
    assert backend.evaluated == len(PROMPTS[1]) + stats.new_tokens - 1 + vain


def test_guesses_leave_nothing_behind_for_the_next_turn(
    opened: Callable[..., Scheduler],
) -> None:
    backend = FakeBackend()
    scheduler = opened(backend)
    history = list(PROMPTS[0])

    for _ in range(20):
        *_, last = chunks = list(scheduler.submit(history, Sampling(max_tokens=9)))
        answer = [chunk.token for chunk in chunks if chunk.token is not None]
        assert answer == answer_to(history, 9)
        assert backend.cells[0] == [*history, *answer[:-1]]
        history += [*answer, 77, 78]

    assert last.stats.read_tokens == 3


@pytest.mark.parametrize("most", [1, 2, 3])
def test_no_more_is_guessed_than_may_be_drawn(
    opened: Callable[..., Scheduler], most: int
) -> None:
    backend = FakeBackend()
    scheduler = opened(backend, lambda: Seer(slips=0))

    list(scheduler.submit(PROMPTS[2], Sampling(max_tokens=most)))

    # The first batch reads the prompt.
    assert all(len(batch[0].ids) <= most for batch in backend.batches[1:])


def test_guesses_end_where_the_context_does(opened: Callable[..., Scheduler]) -> None:
    """The backend fails a test that goes beyond it."""
    context = 60
    scheduler = opened(FakeBackend(context=context), lambda: Seer(slips=0))

    for prompt in PROMPTS:
        *_, last = chunks = list(scheduler.submit(prompt, Sampling()))

        assert tokens(chunks) == answer_to(prompt, context - len(prompt))
        assert last.finish in ("stop", "length")


def test_nothing_is_guessed_in_a_step_that_reads_a_prompt(
    opened: Callable[..., Scheduler],
) -> None:
    backend = FakeBackend(sequences=2)
    scheduler = opened(backend)

    answers = [scheduler.submit(p * 9, Sampling(max_tokens=30)) for p in PROMPTS]
    for answer in answers:
        list(answer)

    for batch in backend.batches:
        if any(span.logits_from for span in batch):
            assert all(len(s.ids) == 1 for s in batch if not s.logits_from)


def test_a_step_that_was_ended_is_done_again_with_its_guesses(
    opened: Callable[..., Scheduler],
) -> None:
    backend = FakeBackend()
    whole = backend.decode

    def every_third_is_ended(spans, *, stopped=None):  # type: ignore[no-untyped-def]
        done = whole(spans)
        return done and len(backend.batches) % 3 != 0

    backend.decode = every_third_is_ended  # type: ignore[method-assign]
    scheduler = opened(backend, lambda: Seer(slips=0))

    chunks = list(scheduler.submit(PROMPTS[3], Sampling(max_tokens=40)))

    assert tokens(chunks) == answer_to(PROMPTS[3], 40)
    assert len(backend.batches) > 3
    for number in range(3, len(backend.batches), 3):
        assert backend.batches[number] == backend.batches[number - 1]


def test_closing_the_engine_frees_what_guesses() -> None:
    freed: list[bool] = []
    for run in (True, False):
        backend = FakeBackend()
        speculation = Speculation([], close=lambda: freed.append(True))
        scheduler = Scheduler(backend, speculation=speculation)
        if run:
            list(scheduler.submit(PROMPTS[0], Sampling(max_tokens=2)))
        scheduler.close()
        assert backend.closed

    assert freed == [True, True]
