from __future__ import annotations

import pytest

from tests.service.benching import Machine
from wizard_edge.errors import BackendError, NotEnough
from wizard_edge.progress import ProgressEvent
from wizard_edge.service.bench_plan import OutOfTime, Plan, run_plan
from wizard_edge.service.bench_values import Figure, LeftOut

PLAN = Plan(max_s=1000.0)


def test_with_time_enough_everything_is_measured() -> None:
    machine = Machine()

    samples = run_plan(PLAN, machine.open, machine.budget(1000))

    assert samples.left_out == []
    assert samples.prompts == {128: [100.0] * 3, 512: [100.0] * 3}
    assert samples.depths == {depth: [10.0] * 3 for depth in (0, 512, 1024)}
    assert samples.together == {2: [20.0] * 3, 4: [40.0] * 3}
    assert samples.cold_s[512] == [pytest.approx(5.12)] * 3
    assert samples.warm_s == [pytest.approx(0.32)] * 3
    assert samples.resumed_s == [pytest.approx(0.82)] * 3
    assert samples.restore_s == [0.5] * 3
    assert samples.ready_s == [pytest.approx(3.0)] * 3
    assert samples.first_token_s == [pytest.approx(3.16)] * 3
    assert (samples.history, samples.question) == (480, 32)
    assert samples.saved_bytes == 480_000
    assert samples.cores == [pytest.approx(0.75)] * 6
    assert samples.peak_bytes == 10**9


def test_everything_is_measured_once_before_anything_is_measured_again() -> None:
    machine = Machine()

    run_plan(PLAN, machine.open, machine.budget(1000))

    reads = [call for call in machine.calls if call[0] == "read"]
    # The first prompt twice: it brings the weights up, then tells the pace.
    counts = (16, 16, 128, 512, 128, 512, 128, 512)
    assert reads[:8] == [("read", count) for count in counts]
    # Behind the prompt whose beginning is the history, before another one is read.
    first = machine.calls.index(("read", 512))
    assert machine.calls[first + 1 : first + 8] == [
        ("peak_memory",),
        *[("follow", 480, 32), ("resume", 480, 32)] * 3,
    ]


def test_one_model_is_open_at_a_time() -> None:
    machine = Machine()

    run_plan(PLAN, machine.open, machine.budget(1000))

    opened = [call for call in machine.calls if call[0] == "open"]
    assert opened == [("open", count) for count in (1, 2, 4, 1, 1)]
    assert machine.open_now == 0


def test_what_there_is_no_time_for_is_named() -> None:
    """A board that reads 8 tokens/s: a prompt of 512 takes a minute."""
    machine = Machine(reads=8.0, speaks=2.5)

    samples = run_plan(Plan(), machine.open, machine.budget(60))

    assert machine.now < 60
    assert samples.prompts == {128: [8.0, 8.0]}
    assert list(samples.depths) == [0]
    assert (samples.history, samples.warm_s, samples.resumed_s) == (96, [4.0], [4.5])
    assert list(samples.together) == [2]
    kept = "the time was kept for the rest"
    assert samples.left_out == [
        LeftOut("generation at depth 512", "about 1 min 06 s, 32.5 s were left"),
        LeftOut("generation at depth 1024", "about 2 min 10 s, 32.5 s were left"),
        LeftOut("prompt of 512 tokens", "about 1 min 04 s, 32.5 s were left"),
        LeftOut("first token, history there, from round 2 on", kept),
        LeftOut("prompts, from round 2 on", kept),
        LeftOut("4 conversations at once", "about 4.5 s, 0.5 s were left"),
        LeftOut("loading, from round 2 on", "about 5.0 s, 0.5 s were left"),
    ]


def test_what_takes_longer_than_it_may_is_left_out() -> None:
    machine = Machine(limit_s=9.0)

    samples = run_plan(PLAN, machine.open, machine.budget(1000))

    assert samples.prompts == {128: [100.0]}
    assert samples.depths == {0: [10.0, 10.0]}
    assert samples.together == {}
    assert samples.left_out[0] == LeftOut(
        "generation at depth 0, from round 3 on", "the time was over"
    )


def test_a_model_that_is_never_loaded_is_an_error() -> None:
    machine = Machine(limit_s=2.0)

    with pytest.raises(OutOfTime):
        run_plan(PLAN, machine.open, machine.budget(2))


def test_what_the_context_has_no_room_for_is_named() -> None:
    machine = Machine(context=512)

    samples = run_plan(PLAN, machine.open, machine.budget(1000))

    assert {item.what: item.why for item in samples.left_out} == {
        "generation at depth 512": "the context has 512 tokens",
        "generation at depth 1024": "the context has 512 tokens",
        "prompt of 512 tokens": "the context has 512 tokens",
    }


def test_a_full_disk_costs_one_figure() -> None:
    full = NotEnough("disk", needed=2, free=1)
    machine = Machine(errors={"resume": full})

    samples = run_plan(PLAN, machine.open, machine.budget(1000))

    assert samples.left_out == [
        LeftOut("first token, history from a file", full.message)
    ]
    assert list(samples.together) == [2, 4]


def test_where_nothing_can_be_measured_the_first_error_is_told() -> None:
    machine = Machine(
        errors={name: BackendError(f"no {name}") for name in ("generate", "together")}
    )

    with pytest.raises(BackendError, match="no generate"):
        run_plan(
            Plan(prompts=(4096,), max_s=1000.0), machine.open, machine.budget(1000)
        )


def test_a_short_prompt_is_half_history() -> None:
    machine = Machine()
    plan = Plan(prompts=(16, 8), max_s=1000.0)

    samples = run_plan(plan, machine.open, machine.budget(1000))

    assert (samples.history, samples.question) == (8, 8)


def test_a_prompt_that_is_not_in_the_cache_any_more_is_read_again() -> None:
    machine = Machine()
    plan = Plan(prompts=(64,), max_s=1000.0)

    samples = run_plan(plan, machine.open, machine.budget(1000))

    before = machine.calls.index(("follow", 32, 32))
    assert machine.calls[before - 1] == ("read", 64)
    assert samples.cold_s[64] == [pytest.approx(0.64)] * 4


def test_progress_counts_to_the_end() -> None:
    machine = Machine()
    events: list[ProgressEvent] = []

    run_plan(PLAN, machine.open, machine.budget(1000), progress=events.append)

    assert [event.done for event in events] == sorted(event.done for event in events)
    assert events[-1] == ProgressEvent("measure", 30, 30, "steps")


def test_a_figure_is_the_median_with_its_spread() -> None:
    assert Figure.of([3.0, 1.0, 2.0, 10.0]) == Figure(2.5, 1.0, 10.0, 4)
    assert Figure.of([]) is None
