from __future__ import annotations

import pytest

from wizard_edge.units import (
    format_bytes,
    format_count,
    format_days_ago,
    format_seconds,
    parse_bytes,
)


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (999_949, "1.0 MB"),
        (4_080_000_000, "4.1 GB"),
        (41_420_000_000, "41.4 GB"),
        (276_000_000_000, "276 GB"),
        (5 * 10**15, "5000 TB"),
    ],
)
def test_sizes_are_decimal(size: int, text: str) -> None:
    assert format_bytes(size) == text


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("12", 12),
        ("4G", 4 * 10**9),
        ("1.5 GB", 1_500_000_000),
        ("512MiB", 512 * 2**20),
        ("1k", 1000),
    ],
)
def test_sizes_are_read(text: str, size: int) -> None:
    assert parse_bytes(text) == size


@pytest.mark.parametrize("text", ["", "G", "-1", "1X", "1 2", "nan", "1i"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not a size"):
        parse_bytes(text)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.04, "0.0 s"),
        (59.94, "59.9 s"),
        (59.96, "1 min 00 s"),
        (185, "3 min 05 s"),
        (7800, "2 h 10 min"),
        (float("inf"), "-"),
        (-1, "-"),
    ],
)
def test_durations_have_two_parts_at_most(seconds: float, text: str) -> None:
    assert format_seconds(seconds) == text


def test_parameters_are_counted_in_billions() -> None:
    assert [format_count(n) for n in (12, 3_700_000, 6_738_415_616)] == [
        "12",
        "3.7 M",
        "6.7 B",
    ]


@pytest.mark.parametrize(
    ("days", "text"),
    [
        (-1, "today"),
        (0, "today"),
        (1, "yesterday"),
        (2, "2 days ago"),
        (13, "13 days ago"),
        (14, "2 weeks ago"),
        (60, "8 weeks ago"),
        (61, "2 months ago"),
        (299, "9 months ago"),
        (300, "a year ago"),
        (547, "a year ago"),
        (730, "2 years ago"),
    ],
)
def test_days_are_told_in_the_largest_unit_that_fits(days: int, text: str) -> None:
    assert format_days_ago(days) == text
    assert len(text) <= 12
