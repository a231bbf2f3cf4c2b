from __future__ import annotations

from wizard_edge.drift import Watch
from wizard_edge.governor import Governor
from wizard_edge.pace import Step
from wizard_edge.steering import Steering


class Box:
    """Four cores, what others do on them, and what the backend was told."""

    def __init__(self, *, generate: int = 3, prompt: int = 4) -> None:
        self.now = 0.0
        self.busy = 0.0
        self.told: list[tuple[int, int]] = []
        self.watch = Watch(lambda depth: 0.1)
        governor = Governor(
            1, processors=4, busy=lambda: self.busy, clock=lambda: self.now
        )
        self.steering = Steering(
            governor,
            lambda generate, prompt: self.told.append((generate, prompt)),
            threads=generate,
            prompt_threads=prompt,
            watch=self.watch,
        )

    def steps(self, count: int, seconds: float = 0.5, rows: int = 1) -> None:
        for _ in range(count):
            self.now += seconds
            self.steering.observe(Step(rows, 100, seconds))


def test_on_a_quiet_machine_nothing_is_changed() -> None:
    box = Box()
    box.steps(20)

    assert box.told == []


def test_others_take_threads_and_give_them_back() -> None:
    box = Box()
    box.busy = 1.0
    box.steps(5)
    box.busy = 2.0
    box.steps(5)
    box.busy = 0.0
    box.steps(5)

    # Three threads fit beside one core of others: only prompts lose one.
    assert box.told == [(3, 3), (2, 2), (3, 4)]


def test_the_first_step_is_already_done_with_what_is_left() -> None:
    box = Box()
    box.busy = 3.0
    box.steering.look()

    assert box.told == [(1, 1)]


def test_steps_that_read_prompts_look_around_too() -> None:
    box = Box()
    box.busy = 3.0
    box.steps(1, rows=512)

    assert box.told == [(1, 1)]


def test_another_choice_holds_from_now_on() -> None:
    box = Box()
    box.steering.settle(2, 4)
    box.busy = 3.0
    box.steps(1)
    box.busy = 0.0
    box.steps(3)

    assert box.told == [(2, 4), (1, 1), (2, 4)]


def test_only_steps_with_all_threads_are_watched() -> None:
    box = Box()
    box.steps(60, seconds=0.1)
    before = box.watch.ratio
    box.busy = 3.0
    box.steps(10, seconds=0.1)
    box.steps(200, seconds=0.3)

    assert (before, box.watch.ratio) == (1.0, 1.0)


def test_slow_steps_without_a_reason_are_the_governors_too() -> None:
    box = Box()
    box.steps(70, seconds=0.1)
    box.steps(6, seconds=0.9)

    assert box.told == [(3, 3)]
