from __future__ import annotations

import pytest

from wizard_edge.drift import Watch, has_drifted, is_off
from wizard_edge.pace import Step


def watched(*ratios: float, rows: int = 1) -> Watch:
    watch = Watch(lambda depth: 0.1)
    for ratio in ratios:
        watch.note(Step(rows, 100, 0.1 * ratio))
    return watch


def test_a_session_is_its_usual_token_beside_what_was_measured() -> None:
    ratios = [1.5] * 40 + [9.0] * 10

    assert watched(*ratios).ratio == pytest.approx(1.5)


def test_some_tokens_are_no_session() -> None:
    assert watched(*[1.5] * 20).ratio is None


def test_only_single_tokens_are_compared() -> None:
    assert watched(*[1.5] * 100, rows=32).ratio is None


def test_the_depth_says_what_to_expect() -> None:
    watch = Watch(lambda depth: depth / 1000)
    for depth in range(100, 200):
        watch.note(Step(1, depth, depth / 500))

    assert watch.ratio == pytest.approx(2)


def test_without_a_measurement_there_is_no_drift() -> None:
    watch = Watch(lambda depth: None)
    for _ in range(100):
        watch.note(Step(1, 100, 0.1))

    assert watch.ratio is None


@pytest.mark.parametrize(
    ("ratio", "expected"), [(1.0, False), (1.25, False), (1.4, True), (0.6, True)]
)
def test_a_third_more_or_less_is_off(ratio: float, expected: bool) -> None:
    assert is_off(ratio) is expected


def test_three_sessions_in_a_row_call_for_a_new_measurement() -> None:
    assert [has_drifted([1.5] * count) for count in (0, 2, 3)] == [False, False, True]
