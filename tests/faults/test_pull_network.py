"""A few bad networks; the campaign has them all."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.pull_network import CASES, CHANGES, CUTS, QUICK, run, run_changes

SOME = (
    "a byte flipped once",
    "a byte flipped always",
    "one byte too many",
    "Range ignored after a cut",
    "Content-Range of other bytes",
    "a login page for a file",
)


def test_a_link_that_is_cut_again_and_again_brings_the_file(tmp_path: Path) -> None:
    some = ("cut every 64 KiB", "cut every 1 MiB", "reset every 64 KiB")

    tally = run(tmp_path, {title: CUTS[title] for title in some}, size=QUICK)

    assert tally.violations == []
    assert tally.succeeded == tally.cases


def test_bad_answers_end_in_right_bytes_or_an_error(tmp_path: Path) -> None:
    tally = run(tmp_path, {title: CASES[title] for title in SOME}, size=QUICK)

    assert tally.violations == []


def test_a_file_that_changed_meanwhile_is_never_spliced(tmp_path: Path) -> None:
    tally = run_changes(tmp_path, CHANGES, size=QUICK)

    assert tally.violations == []
    assert tally.succeeded == tally.cases


@pytest.mark.parametrize(
    ("broken", "title"),
    [
        ("checks nothing", "a byte flipped always"),
        ("splices", "another hash on the redirect"),
    ],
)
def test_a_trusting_pull_is_found_out(broken: str, title: str, tmp_path: Path) -> None:
    cases = {title: CASES[title]}

    assert run(tmp_path, cases, size=QUICK, broken=broken).violations


def test_a_pull_that_splices_is_found_out(tmp_path: Path) -> None:
    changes = {"another ETag": CHANGES["another ETag"]}

    assert run_changes(tmp_path, changes, size=QUICK, broken="splices").violations
