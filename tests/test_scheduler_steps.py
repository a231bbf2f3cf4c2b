"""What the step loop tells of its steps, and does while it has none."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import pytest

from tests.backends import FakeBackend, answer_to
from wizard_edge.backend import Backend
from wizard_edge.engine import Sampling
from wizard_edge.pace import Pace, Step
from wizard_edge.scheduler import Scheduler


def test_every_step_is_told_with_its_depth_and_time() -> None:
    now = 0.0
    backend = FakeBackend()

    def pass_time() -> None:
        nonlocal now
        now += 0.5

    backend.on_decode = pass_time
    steps: list[Step] = []
    scheduler = Scheduler(
        backend, pace=Pace(1000), observe=steps.append, clock=lambda: now
    )
    list(scheduler.submit([7] * 40, Sampling(max_tokens=3)))
    scheduler.close()

    assert steps == [Step(40, 0, 0.5), Step(1, 40, 0.5), Step(1, 41, 0.5)]


def test_a_step_of_several_answers_has_the_depth_of_the_longest() -> None:
    steps: list[Step] = []
    scheduler = Scheduler(FakeBackend(sequences=2), observe=steps.append)
    # Both are there before the next step.
    answers = scheduler.run(
        lambda backend, stopped: [
            scheduler.submit([7] * length, Sampling(max_tokens=2))
            for length in (30, 50)
        ]
    )
    for answer in answers:
        list(answer)
    scheduler.close()

    assert [(step.rows, step.depth) for step in steps] == [(80, 0), (2, 50)]


class Chore:
    """Work of some steps that keeps what it saw, and can be waited for."""

    def __init__(self, steps: int, *, broken: bool = False) -> None:
        self.steps = steps
        self.broken = broken
        self.seen: list[bool] = []
        self.begun = threading.Event()
        self.ended = threading.Event()
        self.during: Callable[[], object] = lambda: None

    def work(self, backend: Backend, wanted: Callable[[], bool]) -> Iterator[None]:
        try:
            for _ in range(self.steps):
                self.begun.set()
                self.during()
                self.seen.append(wanted())
                yield
            if self.broken:
                raise OSError("a chore that fails")
        finally:
            self.ended.set()


def test_who_rests_does_a_chore_to_its_end() -> None:
    chore = Chore(3)
    scheduler = Scheduler(FakeBackend())
    scheduler.rest_with(chore.work, after_s=0)
    ended = chore.ended.wait(20)
    scheduler.close()

    assert (ended, chore.seen) == (True, [False] * 3)


def test_a_chore_gives_way_and_goes_on_afterwards() -> None:
    chore = Chore(3)
    asked = threading.Event()
    chore.during = lambda: asked.wait(20)
    scheduler = Scheduler(FakeBackend())
    scheduler.rest_with(chore.work, after_s=0)
    chore.begun.wait(20)
    answer = scheduler.submit([7] * 40, Sampling(max_tokens=3))
    asked.set()
    chunks = list(answer)
    ended = chore.ended.wait(20)
    scheduler.close()

    assert [chunk.token for chunk in chunks] == answer_to([7] * 40, 3)
    assert (ended, chore.seen) == (True, [True, False, False])


def test_a_chore_waits_until_nobody_has_asked_for_some_time() -> None:
    chore = Chore(1)
    scheduler = Scheduler(FakeBackend())
    scheduler.rest_with(chore.work, after_s=1000)
    list(scheduler.submit([7] * 40, Sampling(max_tokens=3)))
    scheduler.close()

    assert not chore.begun.is_set()


def test_closing_ends_a_chore_in_its_middle() -> None:
    chore = Chore(10**9)
    scheduler = Scheduler(FakeBackend())
    scheduler.rest_with(chore.work, after_s=0)
    chore.begun.wait(20)
    scheduler.close()

    assert chore.ended.is_set()


def test_a_chore_that_fails_is_nobodys_error(caplog: pytest.LogCaptureFixture) -> None:
    chore = Chore(1, broken=True)
    scheduler = Scheduler(FakeBackend())
    scheduler.rest_with(chore.work, after_s=0)
    chore.ended.wait(20)
    chunks = list(scheduler.submit([7] * 40, Sampling(max_tokens=3)))
    scheduler.close()

    assert len(chunks) == 3
    assert "what the engine did while idle failed" in caplog.text
