"""A few disks that are too small for a pull; the campaign has 20."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.faults.pull_disk import possible, run

pytestmark = pytest.mark.skipif(os.name == "nt", reason="needs a POSIX system")


@pytest.mark.parametrize("mode", sorted({"limit", possible()}))
def test_a_full_disk_is_told_and_nothing_is_lost(mode: str, tmp_path: Path) -> None:
    tally = run(tmp_path, 3, mode="tmpfs" if mode == "tmpfs" else "limit")

    assert tally.violations == []
    assert 0 < tally.full < tally.disks


@pytest.mark.parametrize("broken", ["leaves its part", "does not translate"])
def test_a_careless_pull_is_found_out(broken: str, tmp_path: Path) -> None:
    assert run(tmp_path, 1, mode="limit", broken=broken).violations
