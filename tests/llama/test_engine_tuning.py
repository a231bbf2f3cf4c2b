"""The engine measures at rest and keeps its threads in bounds."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from wizard_edge._llama.engine import LlamaEngine
from wizard_edge.drift import Watch
from wizard_edge.engine import LoadOptions, Sampling
from wizard_edge.governor import Governor
from wizard_edge.progress import ProgressEvent
from wizard_edge.tuning import Plan, Timings, Tuned

PLAN = Plan((False, True), (64,), usual=1, threads=(1,))
TUNED = Tuned(False, 2, 2, {}, {})
FEW = Sampling(max_tokens=8)


@pytest.fixture
def model(apprentice: Callable[[str], Path]) -> Path:
    return apprentice("Q8_0")


def test_an_engine_is_measured_when_it_is_asked(model: Path) -> None:
    events: list[ProgressEvent] = []
    with LlamaEngine(model, LoadOptions(threads=1)) as engine:
        before = list(engine.generate([1, 3, 5], FEW))
        timings = engine.measure(PLAN, progress=events.append)
        after = list(engine.generate([1, 3, 5], FEW))

    assert set(timings.tokens) == {(False, 64), (True, 64)}
    assert [chunk.token for chunk in before] == [chunk.token for chunk in after]
    assert len(events) > 4
    assert {event.stage for event in events} == {"tune"}


def test_an_engine_at_rest_is_measured_once(model: Path) -> None:
    measured: list[tuple[Plan, Timings]] = []
    done = threading.Event()

    def settle(plan: Plan, timings: Timings) -> Tuned | None:
        measured.append((plan, timings))
        done.set()
        return None

    with LlamaEngine(model, LoadOptions(threads=1)) as engine:
        engine.measure_at_rest(lambda: PLAN, settle, after_s=0)
        waited = done.wait(60)
        list(engine.generate([1, 3, 5], FEW))

    assert waited
    [(plan, timings)] = measured
    assert plan == PLAN
    assert set(timings.rows) == {1, 2, 4, 8}


def test_what_was_measured_holds_from_then_on(model: Path) -> None:
    done = threading.Event()

    def settle(plan: Plan, timings: Timings) -> Tuned | None:
        done.set()
        return TUNED

    governor = Governor(1, processors=8)
    with LlamaEngine(model, LoadOptions(threads=1), governor=governor) as engine:
        before = engine.settings
        engine.measure_at_rest(lambda: PLAN, settle, after_s=0)
        done.wait(60)
        after = engine.settings

    assert (before.threads, before.prompt_threads) == (1, 1)
    assert after == replace(before, threads=2, prompt_threads=2)


def test_where_there_is_nothing_to_measure_nothing_is(model: Path) -> None:
    asked = threading.Event()

    def plan() -> None:
        asked.set()

    def settle(plan: Plan, timings: Timings) -> Tuned | None:
        raise AssertionError(timings)

    with LlamaEngine(model, LoadOptions(threads=1)) as engine:
        engine.measure_at_rest(plan, settle, after_s=0)
        waited = asked.wait(60)
        chunks = list(engine.generate([1, 3, 5], FEW))

    assert waited
    assert chunks[-1].finish is not None


def test_an_engine_closes_in_the_middle_of_a_measurement(model: Path) -> None:
    begun = threading.Event()

    def plan() -> Plan:
        begun.set()
        return replace(PLAN, depths=(64, 128, 192, 256))

    engine = LlamaEngine(model, LoadOptions(threads=1))
    engine.measure_at_rest(plan, lambda plan, timings: None, after_s=0)
    begun.wait(60)
    engine.close()


def test_others_leave_fewer_threads(model: Path) -> None:
    busy = [0.0]
    governor = Governor(2, processors=2, busy=lambda: busy[0], clock=iter_clock())
    options = LoadOptions(threads=2, lookup=False)
    with LlamaEngine(model, options, governor=governor) as engine:
        list(engine.generate([1, 3, 5], FEW))
        alone = engine.settings.threads
        busy[0] = 1.0
        list(engine.generate([1, 3, 5], FEW))
        beside = engine.settings.threads
        busy[0] = 0.0
        for _ in range(3):
            list(engine.generate([1, 3, 5], FEW))
        again = engine.settings.threads

    assert (alone, beside, again) == (2, 1, 2)


def test_others_who_are_there_already_are_seen_before_the_first_step(
    model: Path,
) -> None:
    governor = Governor(2, processors=2, busy=lambda: 1.0)
    with LlamaEngine(model, LoadOptions(threads=2), governor=governor) as engine:
        made = engine.settings

    assert (made.threads, made.prompt_threads) == (1, 1)


def test_the_watch_hears_of_single_tokens(model: Path) -> None:
    watch = Watch(lambda depth: 1e-9)
    governor = Governor(1, processors=8)
    options = LoadOptions(threads=1, lookup=False)
    with LlamaEngine(model, options, governor=governor, watch=watch) as engine:
        while watch.ratio is None:
            list(engine.generate([1, 3, 5], Sampling(max_tokens=32)))

    assert watch.ratio > 1


def iter_clock() -> Callable[[], float]:
    """Return a clock that goes on by a second whenever it is read."""
    times = iter(range(10**6))
    return lambda: float(next(times))
