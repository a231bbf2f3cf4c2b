"""Processes that speak like the one `bench` starts, and some that do not."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import asdict
from pathlib import Path

import pytest

from tests.service.benching import OPENED
from wizard_edge.engine import LoadOptions
from wizard_edge.errors import (
    BackendError,
    Corrupt,
    NotEnough,
    UsageError,
    WizardEdgeError,
)
from wizard_edge.progress import Progress, ProgressEvent, silent
from wizard_edge.service import bench_process
from wizard_edge.service.bench_plan import Budget, OutOfTime
from wizard_edge.service.bench_process import BenchProcess, Request
from wizard_edge.service.bench_values import Spoken

LOADED = json.dumps({"ok": asdict(OPENED)})


def process(
    *lines: str, after: str = "", seconds: float = 60.0, progress: Progress = silent
) -> BenchProcess:
    """Return a process that answers each question with a line, then does `after`."""
    script = (
        "import sys, os, time\n"
        f"for line in {list(lines)!r}:\n"
        "    sys.stdin.readline()\n"
        "    print(line, flush=True)\n"
        f"sys.stdin.readline()\n{after}\n"
    )
    request = Request(Path("m.gguf"), None, LoadOptions(), Path())
    command = [sys.executable, "-c", script]
    return BenchProcess(request, Budget(seconds), progress=progress, command=command)


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_answers_are_values() -> None:
    answer = json.dumps({"ok": {"tokens": 64, "seconds": 2.0}})

    with process(LOADED, answer) as subject:
        assert subject.opened == OPENED
        assert subject.generate(0, 64, 2.0) == Spoken(64, 2.0)
        assert subject.age_s > 0


def test_progress_is_passed_on() -> None:
    events: list[ProgressEvent] = []
    event = ProgressEvent("load", 50, 100, "steps")
    lines = json.dumps({"progress": asdict(event)}) + "\n" + LOADED

    with process(lines, progress=events.append):
        pass

    assert events == [event]


@pytest.mark.skipif(os.name == "nt", reason="pids are looked up as POSIX does")
def test_leaving_the_block_ends_the_process() -> None:
    subject = process(LOADED, after="time.sleep(60)")

    with subject:
        assert is_alive(subject.pid)

    assert not is_alive(subject.pid)


@pytest.mark.skipif(os.name == "nt", reason="signals are those of POSIX")
@pytest.mark.parametrize(
    ("after", "message"),
    [
        (
            "print('out of luck', file=sys.stderr); os.abort()",
            "the process of the model ended with signal 6: out of luck",
        ),
        ("os._exit(3)", "the process of the model ended with status 3: it gave no"),
    ],
    ids=["abort", "exit"],
)
def test_a_process_that_ends_is_told_with_its_last_words(
    after: str, message: str
) -> None:
    with process(LOADED, after=after) as subject:
        with pytest.raises(BackendError) as told:
            subject.peak_memory()
        with pytest.raises(BackendError):
            subject.peak_memory()

    assert told.value.message.startswith(message)


@pytest.mark.parametrize(
    ("code", "kind"),
    [(2, UsageError), (6, Corrupt), (7, NotEnough), (8, BackendError)],
    ids=["usage", "corrupt", "memory", "backend"],
)
def test_an_error_of_the_process_is_ours(code: int, kind: type[Exception]) -> None:
    told = {"code": code, "message": "no", "hint": "why not"}

    with pytest.raises(kind) as raised, process(json.dumps({"error": told})):
        pass

    error = raised.value
    assert isinstance(error, WizardEdgeError)
    assert (error.exit_code, error.message, error.hint) == (code, "no", "why not")


@pytest.mark.skipif(os.name == "nt", reason="pids are looked up as POSIX does")
def test_what_takes_too_long_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench_process, "_GRACE_S", 0.0)

    with process(LOADED, after="time.sleep(60)", seconds=5.0) as subject:
        subject._budget.seconds = 0.0
        with pytest.raises(OutOfTime):
            subject.peak_memory()
        assert not is_alive(subject.pid)
        with pytest.raises(OutOfTime):
            subject.peak_memory()
