"""The campaigns find nothing in a few thousand cases, and something when broken."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.child import ROOT, environment

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="measures with /proc")


def run_campaigns(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tests.faults.converter_inputs", *words],
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )


def test_no_figure_has_a_violation() -> None:
    done = run_campaigns()

    lines = done.stdout.splitlines()
    assert [line[:2] for line in lines] == ["M4", "M5", "M6", "M7"]
    assert all(" 0 violations, " in line for line in lines)
    assert done.returncode == 0


@pytest.mark.parametrize(
    ("broken", "figure", "said"),
    [
        ("overlap", "M4", "overlaps or leaves a gap"),
        ("allow-list", "M5", "ran os.system"),
        ("depth", "M6", "980 lists deep: accepted"),
        ("translation", "M7", "TypeError"),
    ],
)
def test_a_broken_reader_is_noticed(broken: str, figure: str, said: str) -> None:
    done = run_campaigns("--only", figure, "--break", broken)

    assert said in done.stdout
    assert done.returncode == 1
