"""Sizes, rates and durations as people read them. Knows nothing else."""

from __future__ import annotations

import re
from math import isfinite

_UNITS = ("B", "kB", "MB", "GB", "TB")
_FACTORS = {
    "": 1,
    "k": 1000,
    "m": 1000**2,
    "g": 1000**3,
    "t": 1000**4,
    "ki": 1024,
    "mi": 1024**2,
    "gi": 1024**3,
    "ti": 1024**4,
}
_SIZE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([kmgt]?i?)b?\s*", re.IGNORECASE)


def format_bytes(size: int) -> str:
    """Write a size in decimal units, as model pages and disks are labelled."""
    value = float(size)
    for unit in _UNITS:
        if abs(value) < 999.5 or unit == _UNITS[-1]:
            digits = 0 if unit == "B" or abs(value) >= 99.95 else 1
            return f"{value:.{digits}f} {unit}"
        value /= 1000
    raise AssertionError("unreachable: the last unit takes everything")


def parse_bytes(text: str) -> int:
    """Read a size such as `4G`, `1.5 GB` or `512MiB`; a bare number is bytes.

    Raises: ValueError when the text is no size.
    """
    match = _SIZE.fullmatch(text)
    if not match or match[2].lower() not in _FACTORS:
        raise ValueError(f"not a size: {text!r}")
    return int(float(match[1]) * _FACTORS[match[2].lower()])


def format_seconds(seconds: float) -> str:
    """Write a duration with two parts at most: `0.4 s`, `3 min 05 s`, `2 h 10 min`."""
    if not isfinite(seconds) or seconds < 0:
        return "-"
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min"


def format_days_ago(days: int) -> str:
    """Write how long ago a day was, in 12 columns at most: `today`, `3 days ago`."""
    if days < 1:
        return "today"
    if days == 1:
        return "yesterday"
    for size, limit, unit in (
        (1, 14, "days"),
        (7, 61, "weeks"),
        (30.44, 300, "months"),
    ):
        if days < limit:
            return f"{int(days // size)} {unit} ago"
    years = round(days / 365.25) or 1
    return "a year ago" if years == 1 else f"{years} years ago"


def format_count(number: int) -> str:
    """Write a count of parameters: `6.7 B`, `13.0 B`, `3.7 M`."""
    for factor, unit in ((10**9, "B"), (10**6, "M"), (10**3, "k")):
        if number >= factor:
            return f"{number / factor:.1f} {unit}"
    return str(number)
