from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from tests.cli.conftest import Cli
from tests.machines import LAPTOP
from wizard_edge.fitting import Machine
from wizard_edge.gguf_types import GgmlType
from wizard_edge.progress import Progress, ProgressEvent
from wizard_edge.speed import Kernels

MACHINE = """\
cores      4, 2 used
memory     16.5 GB, 16.5 GB free now, a model may use 14.0 GB
disk       1.0 TB free
backends   CPU (small)
bandwidth  38.0 GB/s of memory
weights    Q4_K 20.0 GB/s, Q8_0 30.0 GB/s
"""


@pytest.fixture(autouse=True)
def laptop(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """Measure the same machine every time, which gives two threads."""
    rates = {GgmlType.Q4_K: 20e9, GgmlType.Q8_0: 30e9}
    machine = replace(
        LAPTOP, backends=("CPU (small)",), kernels=Kernels(rates, {1: 8e9, 4: 1.2e10})
    )

    # Any: the rest of what is asked for.
    def measure(*asked: Any, progress: Progress, **more: Any) -> Machine:
        progress(ProgressEvent("measure", 0, 3, "steps"))
        return machine

    monkeypatch.setattr("wizard_edge.service.fit.measure", measure)
    monkeypatch.setattr("wizard_edge.service.fit.find_load", lambda: 0.3)
    cli("config", "threads", "2")


def test_a_model_in_a_quant(cli: Cli) -> None:
    result = cli("fit", "wizardmath-7b-v1.1:Q4_K_M")

    assert result.stdout == MACHINE + (
        "\n"
        "QUANT   WEIGHTS  KV CACHE  SCRATCH   TOTAL  FITS  TOKENS/S  FROM\n"
        "Q4_K_M   4.4 GB    537 MB   457 MB  5.4 GB  yes        2.8  ready file\n"
        "\n"
        "Q4_K_M is the best that is worth its size: with 4096 tokens of context it "
        "takes 5.4 GB of 14.0 GB of RAM, about 2.8 tokens/s\n"
    )
    assert result.stderr == "measuring this machine\n"
    assert result.exit_code == 0


def test_a_model_that_does_not_fit(cli: Cli) -> None:
    result = cli("fit", "wizardlm-2-8x22b")

    assert result.stdout == MACHINE + (
        "\n"
        "QUANT   WEIGHTS  KV CACHE  SCRATCH    TOTAL  FITS       TOKENS/S  FROM\n"
        "Q4_K_M  84.9 GB    940 MB   679 MB  86.6 GB  no memory         -  ready file\n"
        "\n"
        "no quant fits: Q4_K_M, the smallest, takes 86.6 GB of RAM with 4096 tokens of "
        "context, and 14.0 GB of 16.5 GB may be used\n"
    )
    assert result.exit_code == 0


def test_verbose_says_why_of_every_quant(cli: Cli) -> None:
    result = cli("fit", "13b:Q8_0", "-v")

    assert result.stderr == (
        "measuring this machine\nQ8_0: needs 17.8 GB of RAM, 14.0 GB may be used\n"
    )


def test_every_model_in_the_quant_that_suits(cli: Cli) -> None:
    rows = cli("fit").stdout.removeprefix(MACHINE).splitlines()

    assert [" ".join(row.split()) for row in rows[:4]] == [
        "",
        "NAME QUANT WEIGHTS KV CACHE TOTAL FITS TOKENS/S",
        "apprentice Q8_0 4.5 MB 2.1 MB 75.2 MB yes 2167.3",
        "wizardlm-70b-v1.0 Q2_K 29.3 GB 1.3 GB 31.6 GB no memory -",
    ]
    assert max(map(len, rows)) <= 88


def test_json_has_all_of_it(cli: Cli) -> None:
    result = cli("fit", "13b", "--json")

    found = json.loads(result.stdout)
    [model] = found["models"]
    assert found["machine"]["weights"] == {"Q4_K": 20e9, "Q8_0": 30e9}
    assert (model["name"], model["chosen"]) == ("wizardlm-13b-v1.2", "Q4_K_M")
    assert {
        *("quant", "weights", "kv_cache", "scratch", "total", "fits", "why"),
        "tokens_per_s",
    } <= set(model["variants"][0])
    assert model["variants"][0]["fits"] is False
    assert result.exit_code == 0


def test_a_small_cache_is_counted(cli: Cli) -> None:
    result = cli("fit", "13b:Q2_K", "--kv-type", "q8_0", "--json")

    [variant] = json.loads(result.stdout)["models"][0]["variants"]
    assert variant["kv_cache"] == 2 * 40 * 4096 * 5120 * 34 // 32


def test_a_busy_machine_is_told_of(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wizard_edge.service.fit.find_load", lambda: 2.04)

    result = cli("fit", "13b", "--quiet")

    assert result.stderr == (
        "warning: other programs used 2.0 of 4 cores in the last minute: without them "
        "it is faster\n"
    )


def test_an_unknown_model_is_not_found(cli: Cli) -> None:
    result = cli("fit", "wizardlm-99b")

    assert result.exit_code == 3
    assert result.stdout == ""


def test_a_wrong_name_is_told_before_anything_is_measured(cli: Cli) -> None:
    result = cli("fit", "nobody")

    assert result.exit_code == 3
    assert result.stderr.startswith("error: unknown model 'nobody'\n")
