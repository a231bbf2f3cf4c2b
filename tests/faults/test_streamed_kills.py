"""A few kills of a streamed conversion; the campaign is `make faults`."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.faults.streamed_kills import QUICK, run

pytestmark = pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGKILL")


def test_a_streamed_conversion_survives_kills(tmp_path: Path) -> None:
    tally = run(3, 1, tmp_path, shape=QUICK)

    assert tally.violations == []
    assert tally.kills == 3


@pytest.mark.parametrize("broken", ["fetches anew", "forgets the hash"])
def test_a_broken_converter_is_found_out(broken: str, tmp_path: Path) -> None:
    """Killed late each time, what is fetched anew is much."""
    tally = run(4, 1, tmp_path, shape=QUICK, broken=broken, lines=16)

    assert tally.violations
