"""Several processes pull one model; the campaign has 16, and kills 20 of them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.faults.pull_together import QUICK, run

pytestmark = pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGKILL")


def test_one_fetches_and_the_others_wait(tmp_path: Path) -> None:
    tally = run(tmp_path, 4, 1, size=QUICK)

    assert tally.violations == []
    assert tally.kills == 1


@pytest.mark.parametrize("broken", ["no lock", "starts over"])
def test_a_pull_for_itself_alone_is_found_out(broken: str, tmp_path: Path) -> None:
    assert run(tmp_path, 2, 1, size=QUICK, broken=broken).violations
