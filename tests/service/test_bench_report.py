from __future__ import annotations

from dataclasses import replace

import pytest

from tests.service.benching import OPENED
from wizard_edge.gguf_types import GgmlType
from wizard_edge.hardware import Cores
from wizard_edge.memory import Dimensions
from wizard_edge.service import bench_report
from wizard_edge.service.bench_plan import Samples
from wizard_edge.service.bench_report import MachineFound, Speeds, Weights
from wizard_edge.service.bench_values import Figure
from wizard_edge.speed import SHARE_OF_PARTS, Kernels

# 1 GB of weights are read for a token, 2 G of them multiplied by one of a prompt.
WEIGHTS = Weights(
    size=1_100_000_000,
    quant="Q4_K_M",
    dimensions=Dimensions(
        layers=10, hidden=1000, ffn=3000, heads=10, kv_width=1000, vocabulary=32_000
    ),
    read={GgmlType.Q4_K: 900_000_000, GgmlType.Q6_K: 100_000_000},
    multiplied={GgmlType.Q4_K: 1_800_000_000, GgmlType.Q6_K: 200_000_000},
)
SPEEDS = Speeds(
    bandwidth=10e9,
    kernels=Kernels({GgmlType.Q4_K: 9e9, GgmlType.Q6_K: 5e9}, {1: 1e12}),
    products={GgmlType.Q4_K: 360e9, GgmlType.Q6_K: 200e9},
)
QUIET = MachineFound(
    devices=("CPU (small)",),
    cores=Cores(4, 4, 4),
    memory_bytes=8 * 10**9,
    load_cores=0.5,
    cores_share=0.99,
    speed_after=0.98,
)


def samples() -> Samples:
    return Samples(
        OPENED,
        prompts={512: [41.0, 42.0, 40.0]},
        cold_s={512: [12.5]},
        history=480,
        question=32,
        depths={0: [7.5, 8.5, 8.0], 512: [6.0]},
        together={4: [20.0], 2: [14.0]},
    )


def test_generation_is_a_share_of_the_bandwidth() -> None:
    [first, behind] = bench_report.generation_speeds(samples(), SPEEDS, WEIGHTS)

    # Behind half of an answer lie 32 tokens, in one step of 256 cells of 40 kB.
    cells = 256 * 2 * 10 * 2000
    limit = 10e9 / (1e9 + cells)
    assert first.tokens_per_s == Figure(8.0, 7.5, 8.5, 3)
    assert first.limit_tokens_per_s == pytest.approx(limit)
    assert first.memory_share == pytest.approx(8.0 / limit)
    assert behind.limit_tokens_per_s == pytest.approx(10e9 / (1e9 + 3 * cells))
    assert behind.depth_tokens == 512


def test_generation_stands_beside_what_fit_says() -> None:
    [first, _] = bench_report.generation_speeds(samples(), SPEEDS, WEIGHTS)

    attention = 2 * 10 * 256 * 2000 / 1e12
    assert first.predicted_tokens_per_s == pytest.approx(
        SHARE_OF_PARTS / (0.1 + 0.02 + attention)
    )


def test_a_prompt_is_a_share_of_the_speed_of_its_matrices() -> None:
    [prompt] = bench_report.prompt_speeds(samples(), SPEEDS, WEIGHTS)

    # 3.6 GFLOP at 360 and 0.4 at 200: 12 ms a token.
    assert prompt.limit_tokens_per_s == pytest.approx(1 / 0.012)
    assert prompt.matrix_share == pytest.approx(41.0 * 0.012)


def test_without_limits_there_are_speeds() -> None:
    [prompt] = bench_report.prompt_speeds(samples(), None, WEIGHTS)
    [first, _] = bench_report.generation_speeds(samples(), None, WEIGHTS)

    assert (prompt.limit_tokens_per_s, prompt.matrix_share) == (None, None)
    assert (first.memory_share, first.predicted_tokens_per_s) == (None, None)
    assert first.tokens_per_s.median == 8.0


def test_a_model_of_unknown_sizes_has_no_limit_of_generation() -> None:
    unknown = replace(WEIGHTS, dimensions=None)

    [first, _] = bench_report.generation_speeds(samples(), SPEEDS, unknown)

    assert first.limit_tokens_per_s is None
    assert bench_report.kv_bytes_per_token(unknown, "f16") is None


def test_the_limits_are_those_of_the_machine_and_the_model() -> None:
    found = bench_report.limits(SPEEDS, WEIGHTS)

    assert found.read_bytes_per_token == 1_000_000_000
    assert found.flop_per_prompt_token == 4_000_000_000
    assert found.matrix_flop_per_s == {"Q4_K": 360e9, "Q6_K": 200e9}


def test_a_cold_start_is_the_longest_prompt() -> None:
    first = bench_report.first_token(samples())

    assert (first.history_tokens, first.question_tokens) == (480, 32)
    assert first.cold_s == Figure(12.5, 12.5, 12.5, 1)
    assert first.warm_s is None


def test_one_conversation_is_the_first_of_several() -> None:
    found = bench_report.together_speeds(samples())

    assert [(item.conversations, item.tokens_per_s.median) for item in found] == [
        (1, 8.0),
        (2, 14.0),
        (4, 20.0),
    ]


def test_a_token_takes_a_k_and_a_v_of_every_layer() -> None:
    assert bench_report.kv_bytes_per_token(WEIGHTS, "f16") == 2 * 10 * 2000


@pytest.mark.parametrize(
    ("machine", "on_gpu", "begins"),
    [
        (QUIET, False, []),
        (replace(QUIET, load_cores=None, cores_share=None), False, []),
        (replace(QUIET, load_cores=2.0), False, ["other programs used 2.0 of 4 cores"]),
        (replace(QUIET, cores_share=0.5), False, ["the threads had their cores for 5"]),
        (replace(QUIET, speed_after=0.6), False, ["at the end the machine did 60%"]),
        (QUIET, True, ["a GPU may do the work"]),
    ],
    ids=["quiet", "unknown", "busy", "shared", "hot", "gpu"],
)
def test_what_makes_the_figures_smaller_is_said(
    machine: MachineFound, on_gpu: bool, begins: list[str]
) -> None:
    found = list(bench_report.notes(machine, on_gpu=on_gpu))

    assert [text[: len(head)] for text, head in zip(found, begins, strict=True)] == (
        begins
    )
