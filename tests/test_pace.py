from __future__ import annotations

from wizard_edge.pace import Pace


def test_before_the_first_step_as_much_as_possible() -> None:
    assert Pace().tokens_within(0.1, least=8, most=512) == 512


def test_a_known_speed_says_how_much_fits() -> None:
    assert Pace(1000).tokens_within(0.1, least=8, most=512) == 100


def test_the_bounds_hold() -> None:
    assert Pace(1).tokens_within(0.1, least=8, most=512) == 8
    assert Pace(1e6).tokens_within(0.1, least=8, most=512) == 512


def test_newer_steps_count_more_and_more() -> None:
    pace = Pace()
    pace.observe(100, 1)
    assert pace.rate == 100

    for _ in range(30):
        pace.observe(50, 1)

    assert pace.rate is not None
    assert 50 <= pace.rate < 51


def test_a_step_without_time_says_nothing() -> None:
    pace = Pace()

    pace.observe(100, 0)

    assert pace.rate is None
