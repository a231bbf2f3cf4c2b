"""What a step takes by its rows."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from wizard_edge.step_costs import StepCosts


@pytest.mark.parametrize(
    ("measured", "rows", "cost"),
    [
        ({}, 1, 1.0),
        ({}, 2, 1.16),
        ({4: 1.6}, 3, 1.4),
        ({4: 1.6, 8: 3.2}, 6, 2.4),
        ({4: 1.6}, 6, 2.0),
    ],
)
def test_costs_between_those_that_were_measured(
    measured: Mapping[int, float], rows: int, cost: float
) -> None:
    assert StepCosts(measured).of(rows) == pytest.approx(cost)


def test_costs_follow_the_steps_that_were_seen() -> None:
    costs = StepCosts({4: 1.5})
    for rows, seconds in [(4, 0.2), (1, 0.1), (1, 0.1), (1, 5.0), (4, 0.2)]:
        costs.observe(rows, seconds)

    assert costs.step_s == 0.1
    assert costs.of(4) == pytest.approx(2)


def test_steps_are_forgotten_for_newer_ones() -> None:
    costs = StepCosts()
    for _ in range(20):
        costs.observe(1, 0.1)
        costs.observe(2, 0.1)
    for _ in range(9):
        costs.observe(1, 0.2)
        costs.observe(2, 0.3)

    assert costs.of(2) == pytest.approx(1.5)
