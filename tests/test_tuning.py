from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from tests.gguf_files import GgufFile, small_llama, string
from wizard_edge.engine import KvType, LoadOptions
from wizard_edge.gguf import Header, read_header
from wizard_edge.hardware import Cores
from wizard_edge.memory import Dimensions
from wizard_edge.tuning import (
    Plan,
    Timings,
    Tuned,
    apply,
    choose,
    choose_flash,
    choose_threads,
    is_clear,
    key_of,
    plan_measurement,
)

PI = Cores(4, 4, 4)
LAPTOP = Cores(logical=8, physical=4, fast=4)
# 0.5 MiB of KV cache a token.
LLAMA_7B = Dimensions(32, 4096, 11008, 32, 4096, 32000)
PLENTY = 64 << 30
TUNED = Tuned(
    flash_attention=True,
    threads=3,
    prompt_threads=4,
    batch_cost={2: 1.2},
    token_s={512: 0.05, 1024: 0.06},
)


@pytest.mark.parametrize(
    ("cores", "expected"),
    [
        pytest.param(PI, (4, 3, 2), id="Pi"),
        pytest.param(LAPTOP, (4, 8, 3, 2), id="hyper-threads"),
        pytest.param(Cores(12, 8, 4), (4, 8, 12, 3, 2), id="hybrid"),
        pytest.param(Cores(8, 4, 4, quota=2.5), (2, 1), id="quota"),
        pytest.param(Cores(1, 1, 1), (1,), id="one core"),
        pytest.param(Cores(2, 2, 2), (2, 1), id="two cores"),
    ],
)
def test_threads_worth_comparing(cores: Cores, expected: tuple[int, ...]) -> None:
    plan = plan_measurement(cores, LoadOptions(), LLAMA_7B, free=PLENTY)

    assert plan is not None
    assert (plan.usual, plan.threads) == (expected[0], expected)
    assert plan.quiet


@pytest.mark.parametrize(
    ("busy", "threads"),
    [(0.3, (4, 3, 2)), (0.6, (3,)), (2.2, (2,)), (9.0, (1,))],
)
def test_on_a_busy_machine_only_threads_with_a_core_are_measured(
    busy: float, threads: tuple[int, ...]
) -> None:
    plan = plan_measurement(PI, LoadOptions(), LLAMA_7B, free=PLENTY, busy=busy)

    assert plan is not None
    assert (plan.usual, plan.threads) == (4, threads)
    assert plan.quiet is (busy < 0.5)


@pytest.mark.parametrize(
    ("kv_type", "expected"), [("f16", (False, True)), ("q8_0", (True,))]
)
def test_a_quantized_cache_leaves_no_choice_of_flash_attention(
    kv_type: KvType, expected: tuple[bool, ...]
) -> None:
    plan = plan_measurement(PI, LoadOptions(kv_type=kv_type), LLAMA_7B, free=PLENTY)

    assert plan is not None
    assert plan.flash == expected


@pytest.mark.parametrize(
    ("free", "expected"),
    [(8 << 30, (512, 1024)), (4 << 30, (512,)), (1 << 30, None)],
    ids=["plenty", "little", "none"],
)
def test_the_measurement_takes_a_quarter_of_the_free_memory_at_most(
    free: int, expected: tuple[int, ...] | None
) -> None:
    plan = plan_measurement(PI, LoadOptions(), LLAMA_7B, free=free)

    assert (None if plan is None else plan.depths) == expected


@pytest.mark.parametrize(
    ("on", "off", "expected"),
    [
        ((50, 60), (55, 70), True),
        ((55, 70), (50, 60), False),
        ((49, 80), (50, 60), False),
        ((50.1, 60.1), (50, 60), True),
    ],
    ids=["faster", "slower", "slower where it is deep", "equal"],
)
def test_flash_attention_is_chosen_over_all_depths(
    on: tuple[float, float], off: tuple[float, float], expected: bool
) -> None:
    tokens = {
        (flash, depth): time
        for flash, times in ((True, on), (False, off))
        for depth, time in zip((512, 1024), times, strict=True)
    }

    assert choose_flash(tokens) is expected


def test_a_depth_measured_one_way_only_decides_nothing() -> None:
    tokens = {(False, 512): 50.0, (True, 512): 60.0, (True, 1024): 1.0}

    assert choose_flash(tokens) is False


def test_without_a_measurement_flash_attention_is_off() -> None:
    assert choose_flash({}) is False
    assert choose_flash({(False, 512): 0.1}) is False


def test_where_it_is_the_only_one_flash_attention_is_on() -> None:
    assert choose_flash({(True, 512): 0.1}) is True


@pytest.mark.parametrize(
    ("times", "expected"),
    [
        ({4: 0.10, 3: 0.13, 2: 0.18}, 4),
        ({4: 0.100, 3: 0.101, 2: 0.15}, 3),
        ({4: 0.10, 8: 0.09}, 8),
        ({}, 4),
    ],
    ids=["fastest", "fewer as good", "hyper-threads", "not measured"],
)
def test_the_fewest_of_the_fastest_threads_are_chosen(
    times: Mapping[int, float], expected: int
) -> None:
    assert choose_threads(times, usual=4) == expected


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ([1.0], [9.0], False),
        ([1.0, 1.1], [1.3, 1.4], True),
        ([1.3, 1.4], [1.0, 1.1], True),
        ([1.0, 1.3], [1.2, 1.4], False),
        ([1.0] * 4, [1.0] * 4, True),
    ],
    ids=["too few", "faster", "slower", "mixed", "enough of them"],
)
def test_samples_decide_when_they_are_clear_or_many(
    one: list[float], other: list[float], expected: bool
) -> None:
    assert is_clear(one, other) is expected


PLAN = Plan((False, True), (512, 1024), 4, (4, 3))
TIMINGS = Timings(
    tokens={
        (False, 512): 0.09,
        (False, 1024): 0.108,
        (True, 512): 0.12,
        (True, 1024): 0.15,
    },
    threads={4: 0.100, 3: 0.090},
    prompts={4: 0.020, 3: 0.026},
    rows={1: 0.10, 2: 0.11, 4: 0.15},
)


def test_times_become_settings() -> None:
    tuned = choose(TIMINGS, PLAN)

    assert (tuned.flash_attention, tuned.threads) == (False, 3)
    assert tuned.prompt_threads == 4
    assert tuned.batch_cost == pytest.approx({2: 1.1, 4: 1.5})
    assert tuned.token_s == pytest.approx({512: 0.09, 1024: 0.108})


@pytest.mark.parametrize(
    ("timings", "plan"),
    [(replace(TIMINGS, quiet=False), PLAN), (TIMINGS, replace(PLAN, quiet=False))],
    ids=["others came", "others were there"],
)
def test_a_busy_machine_says_nothing_of_threads_and_seconds(
    timings: Timings, plan: Plan
) -> None:
    tuned = choose(timings, plan)

    assert (tuned.threads, tuned.prompt_threads, tuned.token_s) == (4, 4, {})
    assert (tuned.flash_attention, tuned.quiet) == (False, False)
    assert tuned.batch_cost == pytest.approx({2: 1.1, 4: 1.5})


def test_what_was_not_measured_is_as_it_is_without() -> None:
    assert choose(Timings(), PLAN) == Tuned(False, 4, 4, {}, {})


def test_a_token_behind_more_others_takes_longer() -> None:
    assert TUNED.seconds_at(768) == pytest.approx(0.055)
    assert TUNED.seconds_at(2048) == pytest.approx(0.08)
    assert replace(TUNED, token_s={512: 0.05}).seconds_at(4000) == 0.05
    assert replace(TUNED, token_s={}).seconds_at(512) is None


def test_noise_does_not_make_deep_tokens_faster() -> None:
    assert replace(TUNED, token_s={512: 0.06, 1024: 0.05}).seconds_at(4000) == 0.06


def test_settings_fill_in_what_nobody_said() -> None:
    assert apply(TUNED, LoadOptions(), PI) == LoadOptions(
        threads=3, prompt_threads=4, flash_attention=True
    )


def test_what_somebody_said_stays() -> None:
    said = LoadOptions(threads=1, prompt_threads=2, flash_attention=False)

    assert apply(TUNED, said, PI) == said


def test_threads_that_somebody_said_hold_for_the_prompt_too() -> None:
    assert apply(TUNED, LoadOptions(threads=2), PI).prompt_threads == 2


@pytest.mark.parametrize(
    "options", [LoadOptions(), LoadOptions(deterministic=True)], ids=["plain", "same"]
)
def test_without_a_measurement_there_is_a_thread_for_each_core(
    options: LoadOptions,
) -> None:
    tuned = TUNED if options.deterministic else None

    assert apply(tuned, options, PI) == replace(options, threads=4)


class TestKey:
    @pytest.fixture
    def header(self, tmp_path: Path) -> Header:
        return self.header_of(small_llama(), tmp_path)

    def header_of(self, file: GgufFile, folder: Path) -> Header:
        return read_header(file.write(folder / "model.gguf"))

    def key(self, header: Header, **changed: object) -> str:
        given = {"cores": PI, "processor": "Cortex-A76", "build": "b1", **changed}
        options = given.pop("options", LoadOptions())
        return key_of(header, options, **given)  # type: ignore[arg-type]

    def test_holds_for_models_of_one_shape(
        self, header: Header, tmp_path: Path
    ) -> None:
        other = small_llama().set("general.name", string("another"))

        assert self.key(header) == self.key(self.header_of(other, tmp_path))

    def test_tells_shapes_and_types_apart(self, header: Header, tmp_path: Path) -> None:
        others = [small_llama(blocks=2), small_llama(width=32, weights=8)]
        keys = {self.key(self.header_of(other, tmp_path)) for other in others}

        assert len({*keys, self.key(header)}) == 3

    def test_tells_machines_builds_and_caches_apart(self, header: Header) -> None:
        keys = {
            self.key(header, **changed)
            for changed in (
                {},
                {"cores": replace(PI, quota=2.0)},
                {"processor": "Cortex-A72"},
                {"build": "b2"},
                {"options": LoadOptions(kv_type="q8_0")},
                {"options": LoadOptions(gpu_layers=8)},
                {"options": LoadOptions(repack=False)},
            )
        }

        assert len(keys) == 7

    def test_does_not_ask_for_threads(self, header: Header) -> None:
        options = LoadOptions(threads=1, flash_attention=True, context=99)

        assert self.key(header) == self.key(header, options=options)
