"""What the step loop tells of its steps."""

from __future__ import annotations

from tests.backends import FakeBackend
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
