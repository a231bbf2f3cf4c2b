"""A hostile checkpoint is refused by name: nothing runs, nothing is left behind.

The whole corpus goes through the pipeline in one child process, a sample of it
through the program itself.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.child import ROOT, environment
from tests.faults.corpus import (
    ADDRESS_SPACE,
    PROGRAMS,
    Case,
    all_cases,
    listing,
    write_bases,
)
from tests.faults.pickles import Trap, malicious_pickles

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="measures with /proc")

MOST_MEMORY = 196 << 20
MOST_SECONDS = 2.0


class Port:
    """A listening socket that nobody has a reason to connect to."""

    def __init__(self, listener: socket.socket) -> None:
        self._listener = listener
        self.number = listener.getsockname()[1]

    def was_called(self) -> bool:
        try:
            self._listener.accept()[0].close()
        except BlockingIOError:
            return False
        return True


@pytest.fixture(scope="module")
def port() -> Iterator[Port]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        yield Port(listener)


# Any: a JSON report whose shape is that of `corpus.main`.
Report = dict[str, Any]


def run_corpus(folder: Path, port: Port, *flags: str) -> Report:
    done = subprocess.run(
        [sys.executable, "-m", "tests.faults.corpus", folder, str(port.number), *flags],
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2_000:]
    report: Report = json.loads(done.stdout)
    return report


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("corpus")


@pytest.fixture(scope="module")
def report(folder: Path, port: Port) -> Report:
    return run_corpus(folder, port)


def test_the_corpus_is_large(report: Report) -> None:
    counts = Counter(name.partition(":")[0] for name in report["refusals"])

    assert counts["pickle"] >= 200
    assert counts["zip"] >= 40
    assert counts["safetensors"] >= 40


def test_every_case_is_refused_as_damaged_or_not_convertible(report: Report) -> None:
    wrong = {
        name: refusal
        for name, refusal in report["refusals"].items()
        if refusal["code"] not in (3, 6, 9) and name not in report["harmless"]
    }

    assert wrong == {}


def test_what_is_harmless_is_converted_or_refused(report: Report) -> None:
    codes = {report["refusals"][name]["code"] for name in report["harmless"]}

    assert codes <= {0, 6, 9}


def test_messages_name_what_is_wrong_in_one_line(report: Report) -> None:
    wrong = {
        name: refusal["message"]
        for name, refusal in report["refusals"].items()
        if refusal["error"]
        and (
            report["said"][name] not in refusal["message"]
            or not refusal["message"].isprintable()
            or len(refusal["message"]) > 500
        )
    }

    assert wrong == {}


def test_nothing_is_left_behind(report: Report) -> None:
    changed = [
        name
        for name, refusal in report["refusals"].items()
        if refusal["changed"] and refusal["error"]
    ]

    assert changed == []


def test_nothing_ran(report: Report, folder: Path, port: Port) -> None:
    assert report["events"] == []
    assert report["imported"] == []
    assert not (folder / "canary").exists()
    assert not port.was_called()


def test_no_case_costs_much(report: Report) -> None:
    costly = {
        name: (refusal["memory"], refusal["seconds"])
        for name, refusal in report["refusals"].items()
        if refusal["memory"] > MOST_MEMORY or refusal["seconds"] > MOST_SECONDS
    }

    assert costly == {}


# Teeth ---------------------------------------------------------------------------


def test_an_opened_allow_list_would_be_noticed(tmp_path: Path, port: Port) -> None:
    report = run_corpus(tmp_path, port, "--open-allow-list")

    assert any(event.startswith("os.system") for event in report["events"])
    assert any(event.startswith("exec") for event in report["events"])
    assert (tmp_path / "canary").exists()
    assert port.was_called()


def test_the_pickles_do_harm_to_who_trusts_them(tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    pickles = malicious_pickles(Trap(str(canary), 1))
    harmful = []
    for name in (
        *("os.system by reduce", "os.system by stack-global", "os.system by inst"),
        *("os.system by obj", "builtins.exec by reduce", "posix.system by reduce"),
        *("pickle.dumps protocol 4", "a call whose result is dropped"),
    ):
        child = [sys.executable, "-c", LOAD]
        subprocess.run(child, input=pickles[name], check=False, capture_output=True)
        if canary.exists():
            harmful.append(name)
            canary.unlink()

    assert len(harmful) == 8


LOAD = """
import io, pickle, sys
class Trusting(pickle.Unpickler):
    def find_class(self, module, name):
        if module.startswith("torch"):
            return lambda *arguments: None
        return super().find_class(module, name)
    def persistent_load(self, value):
        return value
Trusting(io.BytesIO(sys.stdin.buffer.read())).load()
"""


# The program itself --------------------------------------------------------------

# One for every way of being refused.
SAMPLE = (
    "pickle: escapes for a terminal in a name",
    "zip: name b'../../../../etc/cron.d/x'",
    "safetensors: overlap by one element",
    "config.json: hidden_size is below zero",
    "tokenizer.model: a field of 2^40 bytes",
    "pytorch_model.bin.index.json: only absent shards",
)


def program(source: Path, output: Path) -> subprocess.CompletedProcess[str]:
    """Run `convert` in a folder that holds programs of the checkpoint."""
    limit = f"import resource as r; r.setrlimit(r.RLIMIT_AS, ({ADDRESS_SPACE},) * 2)"
    run = "import runpy; runpy.run_module('wizard_edge', run_name='__main__')"
    words = [sys.executable, "-P", "-c", f"{limit}; {run}"]
    return subprocess.run(
        [*words, "convert", str(source), "-q", "F16", "-o", str(output)],
        cwd=source,
        env=environment(output.parent),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory, port: Port) -> tuple[Path, Trap]:
    folder = tmp_path_factory.mktemp("bases")
    trap = Trap(str(folder.parent / "program-canary"), port.number)
    write_bases(folder, trap)
    return folder, trap


@pytest.fixture(scope="module")
def cases(bases: tuple[Path, Trap]) -> dict[str, Case]:
    folder, trap = bases
    found = list(all_cases(trap, folder))
    named = {case.name: case for case in found}
    assert len(named) == len(found)
    return {name: named[name] for name in SAMPLE}


@pytest.mark.parametrize("name", SAMPLE)
def test_the_program_says_it_in_one_line(
    name: str,
    bases: tuple[Path, Trap],
    cases: dict[str, Case],
    port: Port,
    tmp_path: Path,
) -> None:
    folder, trap = bases
    case = cases[name]
    source = folder / case.base
    good = (source / case.spoilt.file).read_bytes()
    (source / case.spoilt.file).write_bytes(case.spoilt.data)
    before = listing(source)

    done = program(source, tmp_path / "model.gguf")
    after = listing(source)
    (source / case.spoilt.file).write_bytes(good)

    first, *hints = done.stderr.splitlines()
    assert first.startswith("error: ")
    assert all(line.startswith("hint: ") for line in hints)
    assert (done.stdout, done.returncode) == ("", 3 if "absent" in name else 6)
    assert done.stderr.replace("\n", "").isprintable()
    assert after == before
    assert os.listdir(tmp_path) == []  # noqa: PTH208 - hidden files count as well
    assert not Path(trap.canary).exists()
    assert not port.was_called()


def test_programs_in_a_checkpoint_are_never_run(
    bases: tuple[Path, Trap], tmp_path: Path
) -> None:
    """A good checkpoint converts, though it asks for trust_remote_code."""
    folder, trap = bases

    done = program(folder / "safetensors", tmp_path / "model.gguf")

    assert done.returncode == 0, done.stderr
    assert (folder / "safetensors" / "modeling_llama.py").exists()
    assert not list(folder.rglob("__pycache__"))
    assert not Path(trap.canary).exists()


def test_the_programs_would_leave_a_trace(
    bases: tuple[Path, Trap], tmp_path: Path
) -> None:
    folder, trap = bases
    canary = Path(trap.canary)

    for name in PROGRAMS:
        subprocess.run([sys.executable, folder / "bin" / name], check=True)
        assert canary.exists()
        canary.unlink()
