from __future__ import annotations

from wizard_edge.download._rate import Rate


class Time:
    """A clock that sleeping moves on."""

    def __init__(self) -> None:
        self.now = 100.0
        self.slept = 0.0

    def clock(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        self.slept += seconds


def test_bytes_take_the_time_they_should() -> None:
    time = Time()
    rate = Rate(1000, time.sleep, time.clock)

    for _ in range(100):
        rate.took(50)

    assert abs(time.slept - 5.0) < 0.11


def test_time_that_passed_anyway_is_not_waited_for() -> None:
    time = Time()
    rate = Rate(1000, time.sleep, time.clock)

    for _ in range(100):
        time.now += 0.05
        rate.took(50)

    assert time.slept < 0.11


def test_a_pause_is_not_made_up_for() -> None:
    time = Time()
    rate = Rate(1000, time.sleep, time.clock)
    time.now += 60

    rate.took(1000)

    assert abs(time.slept - 0.9) < 0.01


def test_a_slow_line_is_asked_for_little_at_once() -> None:
    assert Rate(100_000, lambda _: None).piece(1 << 18) == 5_000
    assert Rate(None, lambda _: None).piece(1 << 18) == 1 << 18


def test_without_a_limit_nothing_is_waited_for() -> None:
    time = Time()

    Rate(None, time.sleep, time.clock).took(1 << 40)

    assert time.slept == 0
