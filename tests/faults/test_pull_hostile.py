"""Some hostile strings in some fields; the campaign has all of both."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.faults.pull_hostile import cases, run, sample
from tests.faults.pulling import REF

pytestmark = pytest.mark.skipif(os.name == "nt", reason="Windows has no fork")

COUNT = 24


def test_hostile_strings_do_no_harm(tmp_path: Path) -> None:
    tally = run(tmp_path, sample(1, COUNT))

    assert tally.violations == []
    assert tally.cases == COUNT


@pytest.mark.parametrize(
    ("broken", "field", "title", "ref"),
    [
        ("believes names", "rfilename", "parent", "hf:somebody/Model:F32"),
        ("shares its token", "Location", "another origin", REF),
        ("prints what it gets", "X-Error-Message", "escape", REF),
    ],
)
def test_a_credulous_pull_is_found_out(
    broken: str, field: str, title: str, ref: str, tmp_path: Path
) -> None:
    [case] = [c for c in cases() if (c.field, c.title, c.ref) == (field, title, ref)]

    assert run(tmp_path, [case], broken=broken).violations
    assert run(tmp_path, [case]).violations == []
