"""Measuring over the real llama.cpp; what is faster here is nobody's expectation."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from itertools import count
from pathlib import Path
from typing import TypeVar

import pytest

from wizard_edge._llama.measuring import Bench, measure
from wizard_edge._llama.model import Model
from wizard_edge.engine import LoadOptions
from wizard_edge.tuning import MOST_SAMPLES, Plan

PLAN = Plan((False, True), (64, 128), usual=1, threads=(1,))
_Result = TypeVar("_Result")


@pytest.fixture(scope="module")
def model(apprentice: Callable[[str], Path]) -> Iterator[Model]:
    loaded = Model(apprentice("Q8_0"), LoadOptions())
    yield loaded
    loaded.close()


def outcome(steps: Generator[None, None, _Result]) -> tuple[_Result, int]:
    """Run all steps; return what they come to and how many they were."""
    for done in count():
        try:
            next(steps)
        except StopIteration as end:
            return end.value, done
    raise AssertionError


def ticking(step: float) -> Callable[[], float]:
    """Return a clock that goes on by `step` whenever it is read."""
    times = count()
    return lambda: next(times) * step


def test_everything_in_the_plan_is_measured(model: Model) -> None:
    timings, _ = outcome(measure(model, Plan((False, True), (64, 128), 1, (1, 2))))

    assert set(timings.tokens) == {(f, d) for f in (False, True) for d in (64, 128)}
    assert set(timings.threads) == set(timings.prompts) == {1, 2}
    assert set(timings.rows) == {1, 2, 4, 8}
    assert timings.quiet


def test_one_candidate_needs_no_race(model: Model) -> None:
    timings, _ = outcome(measure(model, PLAN))

    assert (timings.threads, timings.prompts) == ({}, {})
    assert len(timings.tokens) == 4


def test_a_quantized_cache_is_measured_with_flash_attention(model: Model) -> None:
    plan = Plan((True,), (64,), usual=1, threads=(1,))
    timings, _ = outcome(measure(model, plan, kv_type="q8_0"))

    assert set(timings.tokens) == {(True, 64)}


def test_times_are_those_of_the_clock(model: Model) -> None:
    timings, _ = outcome(measure(model, PLAN, clock=ticking(0.25)))

    assert set(timings.tokens.values()) | set(timings.rows.values()) == {0.25}


def test_what_the_time_does_not_suffice_for_is_left_out(model: Model) -> None:
    timings, _ = outcome(measure(model, PLAN, clock=ticking(5)))

    assert set(timings.tokens) == {(False, 64), (True, 64)}
    assert timings.rows == {}


def test_others_who_work_meanwhile_are_noted(model: Model) -> None:
    timings, _ = outcome(measure(model, PLAN, busy=lambda: 1.0))

    assert not timings.quiet


def test_who_is_wanted_elsewhere_ends_a_batch_and_does_it_again(model: Model) -> None:
    asked = count()
    # Yes for the whole of the first batch that asks.
    stopped = [True]

    def is_wanted() -> bool:
        next(asked)
        return stopped[0]

    steps = measure(model, PLAN, stopped=is_wanted)
    for _ in range(4):
        next(steps)
    stopped[0] = False
    timings, _ = outcome(steps)

    assert next(asked) > 1
    assert len(timings.tokens) == 4


def test_every_evaluation_is_a_step_of_its_own(model: Model) -> None:
    _, steps = outcome(measure(model, PLAN, clock=ticking(0.001)))

    # Equal candidates run to the end, at two depths; a first sample each.
    assert steps >= 2 * 2 * (MOST_SAMPLES + 1)


def test_closed_in_the_middle_it_frees_what_it_made(model: Model) -> None:
    steps = measure(model, PLAN)
    for _ in range(6):
        next(steps)
    steps.close()

    with pytest.raises(StopIteration):
        next(steps)


@pytest.mark.parametrize("flash", [False, True])
def test_the_cache_is_filled_without_reading(model: Model, flash: bool) -> None:
    bench = Bench(model, Plan((flash,), (512,), 1, (1,)), flash=flash)
    outcome(bench.fill(16))
    read = bench.state_size
    outcome(bench.fill(512))
    filled = bench.state_size
    spent = [bench.time(rows) for rows in (1, 8, 16)]
    after = bench.state_size
    bench.close()

    # 16 cells were read; what does not grow with them is small.
    assert 30 < filled / read <= 32
    assert after == filled
    assert all(spent)
