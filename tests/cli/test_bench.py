from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

# What is passed on without being looked at.
from typing import Any

import pytest

from tests.child import environment
from tests.cli.conftest import Cli
from wizard_edge.hardware import Cores
from wizard_edge.service.bench_plan import Plan
from wizard_edge.service.bench_report import (
    FirstToken,
    GenerationSpeed,
    Limits,
    Loading,
    MachineFound,
    MemoryUsed,
    PromptSpeed,
    Report,
    SettingsUsed,
    TogetherSpeed,
)
from wizard_edge.service.bench_values import Figure, LeftOut


def figure(median: float, spread: float = 0.0) -> Figure:
    return Figure(median, median - spread, median + spread, 3)


REPORT = Report(
    model="wizardlm-7b:Q4_K_M",
    quant="Q4_K_M",
    sha256="0123456789abcdef" * 4,
    file_bytes=4_080_000_000,
    measured="2026-01-02T03:04:05Z",
    machine=MachineFound(
        devices=("CPU (Cortex-A76)",),
        cores=Cores(4, 4, 4),
        memory_bytes=8_400_000_000,
        load_cores=0.3,
        cores_share=0.98,
        speed_after=1.0,
    ),
    settings=SettingsUsed(
        threads=4,
        prompt_threads=4,
        context_tokens=2048,
        batch_tokens=512,
        step_tokens=512,
        flash_attention=False,
        kv_type="f16",
        gpu_layers="auto",
        mmap=True,
        mlock=False,
        repack=True,
        deterministic=False,
        llama_cpp="0.3.36 NEON = 1 | DOTPROD = 1",
        tool="wizard-edge 1",
        rounds=3,
        max_time_s=300.0,
        cold=False,
    ),
    limits=Limits(
        memory_bytes_per_s=11e9,
        weights_bytes_per_s={"Q4_K": 9e9, "Q6_K": 8e9},
        matrix_flop_per_s={"Q4_K": 130e9, "Q6_K": 90e9},
        read_bytes_per_token=4_000_000_000,
        flop_per_prompt_token=13_000_000_000,
    ),
    loading=Loading(figure(4.0, 0.5), figure(3.4, 0.4), figure(6.0, 0.5), 0.999),
    prompts=(
        PromptSpeed(128, figure(8.0, 0.5), 9.9, 0.808),
        PromptSpeed(512, figure(7.5), 9.9, 0.757),
    ),
    generation=(
        GenerationSpeed(0, figure(2.4, 0.12), 2.75, 0.873, 2.28),
        GenerationSpeed(512, figure(2.2), 2.6, 0.846, 2.1),
    ),
    first_token=FirstToken(
        480, 32, figure(68.2), figure(4.3), figure(4.71), figure(0.41)
    ),
    together=(TogetherSpeed(1, figure(2.4)), TogetherSpeed(4, figure(6.1))),
    memory=MemoryUsed(5_200_000_000, 5_340_000_000, 524_288, 524_400),
    left_out=(LeftOut("generation at depth 1024", "the context has 1024 tokens"),),
    notes=(),
)
TABLE = """\
model     wizardlm-7b:Q4_K_M, 4.1 GB, sha256 0123456789ab
machine   CPU (Cortex-A76), 4 cores, 8.4 GB
settings  threads 4, for prompts 4, context 2048, batch 512,
          flash attention off, KV cache f16, GPU layers auto, llama.cpp 0.3.36
limits    memory 11.0 GB/s, matrices Q4_K 130, Q6_K 90 GFLOP/s
memory    5.2 GB at most, fit says 5.3 GB, KV cache 524 kB a token
file      100% of it in the page cache

SECONDS                               MEDIAN     LOW    HIGH
start of the process to loaded         4.000   3.500   4.500
start of the process to first token    6.000   5.500   6.500
first token, 512 tokens to read       68.200  68.200  68.200
first token, 480 of them cached        4.300   4.300   4.300
first token, 480 of them from a file   4.710   4.710   4.710

TOKENS/S                   MEDIAN  LOW  HIGH  LIMIT  SHARE  FIT SAYS
reading a prompt of 128       8.0  7.5   8.5    9.9    81%
reading a prompt of 512       7.5  7.5   7.5    9.9    76%
generation at depth 0         2.4  2.3   2.5    2.8    87%       2.3
generation at depth 512       2.2  2.2   2.2    2.6    85%       2.1
4 conversations, together     6.1  6.1   6.1

left out: generation at depth 1024: the context has 1024 tokens
"""


@pytest.fixture
def reported(monkeypatch: pytest.MonkeyPatch) -> Callable[[Report], dict[str, Any]]:
    """Return a function that puts a report in the place of a measurement.

    What was asked for comes into the dictionary that it returns.
    """

    def put(report: Report) -> dict[str, Any]:
        asked: dict[str, Any] = {}

        def bench(installation: object, ref: str, **given: Any) -> Report:
            asked.update(given, ref=ref)
            return report

        monkeypatch.setattr("wizard_edge.service.bench.bench", bench)
        return asked

    return put


def test_a_page_for_a_person(
    cli: Cli, reported: Callable[[Report], dict[str, Any]]
) -> None:
    asked = reported(REPORT)

    result = cli("bench", "7b")

    assert result.stdout == TABLE
    assert result.stderr == ""
    assert (asked["ref"], asked["plan"], asked["cold"]) == ("7b", Plan(), False)


def test_the_page_is_one_look(
    cli: Cli, reported: Callable[[Report], dict[str, Any]]
) -> None:
    many = tuple(LeftOut(f"generation at depth {n}", "no time") for n in range(20))
    full = replace(
        REPORT,
        generation=(*REPORT.generation, REPORT.generation[0]),
        together=(*REPORT.together, TogetherSpeed(2, figure(4.0))),
        left_out=many,
    )
    reported(full)

    lines = cli("bench", "7b").stdout.splitlines()

    assert len(lines) <= 30
    assert max(map(len, lines)) <= 80
    assert lines[-1] == "left out: 15 more, which --json names"


def test_what_was_not_measured_has_no_row(
    cli: Cli, reported: Callable[[Report], dict[str, Any]]
) -> None:
    nothing = Loading(None, None, None, None)
    first = FirstToken(480, 32, None, None, None, None)
    memory = MemoryUsed(None, None, None, None)
    reported(
        replace(
            REPORT,
            limits=None,
            loading=nothing,
            first_token=first,
            memory=memory,
            prompts=(PromptSpeed(128, figure(2000.0), None, None),),
            generation=(),
            together=(),
            left_out=(),
        )
    )

    assert cli("bench", "7b").stdout.splitlines()[4:] == [
        "",
        "TOKENS/S                 MEDIAN   LOW  HIGH  LIMIT  SHARE  FIT SAYS",
        "reading a prompt of 128    2000  2000  2000",
    ]


def test_json_has_all_of_it(
    cli: Cli, reported: Callable[[Report], dict[str, Any]]
) -> None:
    reported(REPORT)

    result = cli("bench", "7b", "--json")

    found = json.loads(result.stdout)
    assert found["settings"]["llama_cpp"] == "0.3.36 NEON = 1 | DOTPROD = 1"
    assert found["generation"][0] == {
        "depth_tokens": 0,
        "tokens_per_s": {"median": 2.4, "low": 2.28, "high": 2.52, "rounds": 3},
        "limit_tokens_per_s": 2.75,
        "memory_share": 0.873,
        "predicted_tokens_per_s": 2.28,
    }
    assert found["left_out"] == [
        {"what": "generation at depth 1024", "why": "the context has 1024 tokens"}
    ]
    assert result.stderr == ""


def test_options_say_what_is_measured(
    cli: Cli, reported: Callable[[Report], dict[str, Any]]
) -> None:
    asked = reported(REPORT)
    words = "--prompt 64 --depth 0,256 --parallel= --rounds 5 --max-time 9 --cold"

    cli("bench", "7b", *words.split(), "-t", "3", "-c", "512", "--kv-type", "q8_0")

    assert asked["plan"] == Plan((64,), (0, 256), (), 5, 9.0)
    assert asked["cold"] is True
    flags = asked["settings"]
    assert (flags.threads, flags.ctx_size, flags.kv_type) == (3, 512, "q8_0")


def test_what_makes_it_slower_is_told_with_quiet_too(
    cli: Cli, reported: Callable[[Report], dict[str, Any]]
) -> None:
    reported(replace(REPORT, notes=("it is hot",)))

    assert cli("bench", "7b", "--quiet").stderr == "warning: it is hot\n"


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["wizardlm-99b"], 3, "error: unknown model 'wizardlm-99b'"),
        (["./none.gguf"], 3, "error: no such file or directory: none.gguf"),
        (["./bad.gguf"], 6, "error: bad.gguf is damaged"),
        (["7b", "--depth", "x"], 2, "error: invalid value for '--depth': 'x' is not a"),
        (["7b", "--rounds", "0"], 2, "error: rounds must be from 1 to 100, got 0"),
    ],
    ids=["model", "file", "damage", "depth", "rounds"],
)
def test_what_cannot_be_measured_is_one_line(
    cli: Cli, tmp_path: Path, words: list[str], code: int, message: str
) -> None:
    (tmp_path / "bad.gguf").write_bytes(b"GGUF")

    result = cli("bench", *words, "--quiet")

    assert result.stderr.startswith(message)
    assert (result.stdout, result.exit_code) == ("", code)


@pytest.mark.skipif(sys.platform != "linux", reason="children are looked up in /proc")
@pytest.mark.parametrize(
    "number", [signal.SIGINT, signal.SIGTERM], ids=lambda n: n.name
)
def test_an_end_in_the_middle_leaves_no_process_and_no_file(
    number: signal.Signals, apprentice: Callable[[str], Path], tmp_path: Path
) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    words = ["bench", str(apprentice("Q8_0")), "--json", "-t", "1", "--rounds", "100"]

    with subprocess.Popen(
        [sys.executable, "-m", "wizard_edge", *words, "--max-time", "300"],
        env=environment(tmp_path, TMPDIR=str(scratch)),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if b'"measure"' in line:
                break
        children = _children(process.pid)
        process.send_signal(number)
        output, errors = process.communicate(timeout=60)

    assert len(children) == 1
    assert not any(_is_alive(pid) for pid in children)
    assert list(scratch.iterdir()) == []
    assert (output, process.returncode) == (b"", 128 + number)
    if number == signal.SIGINT:
        last = json.loads(errors.splitlines()[-1])
        assert last["error"]["kind"] == "interrupted"


@pytest.mark.skipif(sys.platform != "linux", reason="children are looked up in /proc")
def test_the_process_ends_with_the_program(
    apprentice: Callable[[str], Path], tmp_path: Path
) -> None:
    """`kill -9` gives nobody the time to end anything."""
    words = ["bench", str(apprentice("Q8_0")), "--json", "-t", "1", "--rounds", "100"]

    with subprocess.Popen(
        [sys.executable, "-m", "wizard_edge", *words, "--max-time", "300"],
        env=environment(tmp_path),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if b'"measure"' in line:
                break
        [child] = _children(process.pid)
        watched = os.pidfd_open(child)
        process.kill()
        process.communicate(timeout=60)

    assert select.select([watched], [], [], 30.0)[0] == [watched]
    os.close(watched)


def _children(pid: int) -> list[int]:
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            # The parent's id is the second field behind the name in brackets.
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == pid:
            found.append(int(folder.name))
    return found


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
