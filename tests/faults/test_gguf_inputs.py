"""The validator's campaign finds nothing in a few thousand files, or a missing rule."""

from __future__ import annotations

import importlib.util
import subprocess
import sys

import pytest

from tests.child import ROOT, environment
from tests.faults.gguf_inputs import BREAKS

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="measures with /proc")
LIVE = pytest.mark.skipif(
    importlib.util.find_spec("llama_cpp") is None, reason="llama_cpp is not installed"
)


def campaign(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tests.faults.gguf_inputs", *words],
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )


@LIVE
def test_nothing_is_found() -> None:
    done = campaign()

    assert [line[:2] for line in done.stdout.splitlines()] == ["G1", "G2"]
    assert done.stdout.count(" 0 violations, ") == 2
    assert done.returncode == 0


@pytest.mark.parametrize("rule", BREAKS)
def test_a_rule_that_is_missing_is_noticed(rule: str) -> None:
    done = campaign("--only", "G1", "--break", rule, "--first", "0", "--step", "4096")

    assert "accepted" in done.stdout
    assert done.returncode == 1


@LIVE
@pytest.mark.parametrize("rule", ["floats", "duplicate tokens"])
def test_llama_cpp_dies_of_what_a_rule_keeps_out(rule: str) -> None:
    done = campaign("--only", "G2", "--break", rule, "--first", "0", "--step", "1")

    assert "signal 6" in done.stdout
    assert done.returncode == 1
