from __future__ import annotations

from collections.abc import Callable

from wizard_edge.governor import Governor


class Box:
    """A machine of four cores, its clock, and what others do on it."""

    def __init__(self, *, busy: float | None = 0.0) -> None:
        self.now = 0.0
        self.busy = busy

    def governor(self, most: int = 4) -> Governor:
        return Governor(
            most, processors=4, busy=lambda: self.busy, clock=lambda: self.now
        )

    def look(self, governor: Governor, times: int = 1) -> int:
        for _ in range(times):
            self.now += 0.5
            governor.look()
        return governor.threads

    def step(
        self, governor: Governor, seconds: Callable[[int], float], times: int
    ) -> list[int]:
        """Take steps that last `seconds` of the threads; return the threads of each."""
        used = []
        for _ in range(times):
            used.append(governor.threads)
            lasted = seconds(governor.threads)
            self.now += lasted
            governor.note(lasted)
        return used


def test_a_quiet_machine_gives_all_threads() -> None:
    box = Box()
    governor = box.governor()

    assert (box.look(governor, 10), governor.most) == (4, 4)


def test_each_core_that_others_keep_busy_costs_a_thread() -> None:
    used = []
    for busy in (0.4, 1.0, 2.2, 4.0, 9.0):
        box = Box(busy=busy)
        used.append(box.look(box.governor()))

    assert used == [4, 3, 2, 1, 1]


def test_fewer_threads_than_cores_leave_room_for_others() -> None:
    box = Box(busy=2.0)

    assert box.look(box.governor(most=2)) == 2


def test_threads_come_back_when_it_stays_quiet() -> None:
    box = Box(busy=2.0)
    governor = box.governor()
    box.look(governor)
    box.busy = 0.1
    first = box.look(governor)

    assert (first, box.look(governor)) == (2, 4)


def test_threads_stay_away_while_the_others_are_in_between() -> None:
    box = Box(busy=1.0)
    governor = box.governor()
    box.look(governor)
    box.busy = 0.45

    assert box.look(governor, 20) == 3


def test_who_comes_and_goes_does_not_take_the_threads_along() -> None:
    box = Box(busy=1.0)
    governor = box.governor()
    used = set()
    for busy in (1.0, 0.0) * 10:
        box.busy = busy
        used.add(box.look(governor))

    assert used == {3}


def test_the_others_are_looked_at_twice_a_second_only() -> None:
    box = Box()
    governor = box.governor()
    box.look(governor)
    box.busy = 3.0
    box.now += 0.4
    governor.look()

    assert governor.threads == 4


def test_slow_steps_without_a_reason_try_a_thread_less() -> None:
    box = Box()
    governor = box.governor()
    box.step(governor, lambda threads: 0.1, 70)
    box.now += 10

    used = box.step(governor, lambda threads: 0.5 if threads == 4 else 0.15, 20)

    assert used[-1] == 3


def test_a_thread_less_that_gains_nothing_is_taken_back() -> None:
    box = Box(busy=None)
    governor = box.governor()
    box.step(governor, lambda threads: 0.1, 70)
    box.now += 10

    used = box.step(governor, lambda threads: 1.6 / threads, 20)

    assert 3 in used
    assert used[-1] == 4


def test_a_throttled_machine_is_not_tried_over_and_over() -> None:
    box = Box(busy=None)
    governor = box.governor()
    box.step(governor, lambda threads: 0.1, 70)
    box.now += 10

    used = box.step(governor, lambda threads: 1.6 / threads, 500)

    assert used.count(3) < 10


def test_a_thread_given_up_for_slow_steps_comes_back() -> None:
    box = Box(busy=None)
    governor = box.governor(most=2)
    box.step(governor, lambda threads: 0.1, 70)
    box.now += 10
    slow = box.step(governor, lambda threads: 0.5 if threads == 2 else 0.15, 30)

    used = box.step(governor, lambda threads: 0.2 / threads, 200)

    assert (slow[-1], used[-1]) == (1, 2)


def test_noise_changes_nothing() -> None:
    box = Box(busy=None)
    governor = box.governor()
    lengths = iter((0.1, 0.12, 0.1, 0.6, 0.11) * 100)

    used = box.step(governor, lambda threads: next(lengths), 400)

    assert set(used) == {4}


def test_others_work_ends_a_trial() -> None:
    box = Box()
    governor = box.governor()
    box.step(governor, lambda threads: 0.1, 70)
    box.now += 10
    box.step(governor, lambda threads: 0.5, 5)
    trying = governor.threads
    box.busy = 3.0
    box.look(governor)
    box.step(governor, lambda threads: 0.1, 2)
    box.busy = 0.0
    box.look(governor, 2)

    assert (trying, governor.threads) == (3, 4)


def test_another_choice_begins_anew() -> None:
    box = Box(busy=3.0)
    governor = box.governor()
    box.look(governor)
    governor.settle(2)

    assert (governor.threads, governor.most) == (2, 2)
