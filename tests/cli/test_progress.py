from __future__ import annotations

import io
import re
from collections.abc import Callable

from wizard_edge.cli._progress import Bar, Lines
from wizard_edge.progress import ProgressEvent


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def clock(*times: float) -> Callable[[], float]:
    """Return a clock that shows these times in turn, then the last for ever."""
    left = list(times)
    return lambda: left.pop(0) if len(left) > 1 else left[0]


def test_an_unknown_total_is_told_every_few_seconds() -> None:
    written: list[str] = []
    lines = Lines(written.append, clock(0, 2, 3, 7))

    for done in (10, 20, 30, 40):
        lines(ProgressEvent("read", done, 0))

    assert written == ["read: 20 B", "read: 40 B"]


def test_long_work_writes_a_line_per_tenth() -> None:
    written: list[str] = []
    lines = Lines(written.append, clock(0, 5))

    lines(ProgressEvent("convert", 0, 2000 * 10**6))
    for done in range(0, 2001, 50):
        lines(ProgressEvent("convert", done * 10**6, 2000 * 10**6))
    lines(ProgressEvent("verify", 1, 1, "tensors"))

    assert [line.partition(",")[0] for line in written] == [
        *(f"convert: {10 * tenth}% of 2.0 GB" for tenth in range(11)),
        "verify: 100% of 1 tensors",
    ]


def test_work_that_is_over_at_once_writes_no_line() -> None:
    written: list[str] = []
    lines = Lines(written.append, clock(0, 1.9))

    for done in range(11):
        lines(ProgressEvent("convert", done, 10))

    assert written == []


def test_work_that_is_over_at_once_draws_no_bar() -> None:
    stream = Terminal()
    bar = Bar(stream, clock(0, 0.1))

    bar(ProgressEvent("load", 1, 2))
    bar(ProgressEvent("load", 2, 2))
    bar.close()

    assert stream.getvalue() == ""


def test_a_bar_shows_stage_share_and_amount_and_leaves_the_screen() -> None:
    stream = Terminal()
    bar = Bar(stream, clock(0, 9))

    bar(ProgressEvent("read", 0, 10**9))
    bar(ProgressEvent("convert [bold]", 25 * 10**7, 10**9))
    bar.close()

    screen = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", stream.getvalue())
    assert "convert [bold]" in screen
    assert "25% 250 MB" in screen
    assert stream.getvalue().endswith("\x1b[2K")


def test_a_bar_that_was_closed_for_a_question_comes_back() -> None:
    stream = Terminal()
    bar = Bar(stream, clock(0, 0, 9, 9))

    bar(ProgressEvent("import", 0, 10**9))
    bar(ProgressEvent("import", 10**9, 10**9))
    bar.close()
    asked = len(stream.getvalue())
    bar(ProgressEvent("verify", 25 * 10**7, 10**9))
    bar.close()

    assert "verify" in stream.getvalue()[asked:]


def test_lines_tell_speed_and_the_time_that_is_left() -> None:
    written: list[str] = []
    lines = Lines(written.append, clock(0, 10, 20))

    for done in (0, 10, 20):
        lines(ProgressEvent("download", done * 10**8, 10**10))

    assert written == [
        "download: 10% of 10.0 GB, 100 MB/s, 1 min 30 s left",
        "download: 20% of 10.0 GB, 100 MB/s, 1 min 20 s left",
    ]


def test_what_was_there_before_is_no_speed() -> None:
    written: list[str] = []
    lines = Lines(written.append, clock(0, 10))

    lines(ProgressEvent("download", 5 * 10**9, 10**10))
    lines(ProgressEvent("download", 6 * 10**9, 10**10))

    assert written == ["download: 60% of 10.0 GB, 100 MB/s, 40.0 s left"]


def test_the_speed_is_that_of_the_last_seconds() -> None:
    written: list[str] = []
    lines = Lines(written.append, clock(0, 100, 110))

    for done in (0, 1, 2):
        lines(ProgressEvent("download", done * 10**9, 10**10))

    assert written[-1] == "download: 20% of 10.0 GB, 100 MB/s, 1 min 20 s left"


def test_other_units_have_a_time_that_is_left() -> None:
    written: list[str] = []
    lines = Lines(written.append, clock(0, 10))

    lines(ProgressEvent("convert", 0, 100, "tensors"))
    lines(ProgressEvent("convert", 20, 100, "tensors"))

    assert written == ["convert: 20% of 100 tensors, 40.0 s left"]
