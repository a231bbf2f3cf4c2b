"""A conversion that is killed goes on where it was, to the same bytes."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.faults.conversion_kills import run, run_broken

pytestmark = pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGKILL")


def test_the_run_after_a_kill_makes_the_same_file(tmp_path: Path) -> None:
    tally = run(3, 9, tmp_path, most=1)

    assert tally.violations == []
    assert tally.kills >= 2


@pytest.mark.parametrize(
    ("broken", "said"), [("forgets", "began anew"), ("trusts", "is damaged")]
)
def test_a_broken_converter_is_noticed(broken: str, said: str, tmp_path: Path) -> None:
    tally = run_broken(broken, tmp_path)

    assert any(said in violation for violation in tally.violations)
