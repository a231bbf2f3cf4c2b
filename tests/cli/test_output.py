from __future__ import annotations

import io
import json
import logging
import sys

import pytest

from wizard_edge.cli import _output
from wizard_edge.cli._failures import Failure
from wizard_edge.cli._output import Output
from wizard_edge.errors import UsageError
from wizard_edge.progress import ProgressEvent

HOSTILE = "a\x1b]52;c;aGk=\x07b\x1b[2J\u202ec"


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make every stream a terminal of 40 columns without colours."""
    monkeypatch.setattr(_output, "is_terminal", lambda stream: True)
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setenv("NO_COLOR", "1")


@pytest.fixture
def log() -> logging.Logger:
    return logging.getLogger("wizard_edge.test")


@pytest.mark.usefixtures("terminal")
def test_an_answer_is_cleaned_for_a_terminal(
    capsys: pytest.CaptureFixture[str],
) -> None:
    output = Output()

    for piece in ("a\x1b", "]52;c;aGk=", "\x07b\x1b[", "2J\u202ec"):
        output.answer(piece)
    output.end_answer()

    assert capsys.readouterr().out == "abc\n"


def test_an_answer_to_a_pipe_is_left_as_it_is(
    capsys: pytest.CaptureFixture[str],
) -> None:
    output = Output()

    output.answer(HOSTILE + "\n")
    output.end_answer()

    assert capsys.readouterr().out == HOSTILE + "\n"


def test_everything_for_a_person_is_cleaned(
    capsys: pytest.CaptureFixture[str],
) -> None:
    output = Output()

    output.text(HOSTILE)
    output.table(["NAME"], [[HOSTILE]])
    output.pairs([("name", HOSTILE)])
    output.say(HOSTILE)
    output.warn(HOSTILE)
    output.fail(Failure(1, "bug", HOSTILE, HOSTILE))

    captured = capsys.readouterr()
    assert captured.out == "abc\nNAME\nabc\nname  abc\n"
    assert captured.err == "abc\nwarning: abc\nerror: abc\nhint: abc\n"


def test_json_is_escaped_and_means_the_same(
    capsys: pytest.CaptureFixture[str],
) -> None:
    Output().document({"text": HOSTILE + "\x9b\udc80é"})

    out = capsys.readouterr().out
    assert json.loads(out) == {"text": HOSTILE + "\x9b\udc80é"}
    assert "é" in out
    assert not {"\x1b", "\u202e", "\x9b"} & set(out)


def test_quiet_keeps_warnings_and_errors(capsys: pytest.CaptureFixture[str]) -> None:
    output = Output()
    output.quiet = True

    output.say("said")
    output.warn("warned")
    output.fail(Failure(2, "usage", "failed"))

    assert capsys.readouterr().err == "warning: warned\nerror: failed\n"


def test_json_keeps_talk_to_itself(capsys: pytest.CaptureFixture[str]) -> None:
    output = Output(as_json=True)

    output.say("said")
    output.warn("warned")
    output.fail(Failure(2, "usage", "failed"))

    assert capsys.readouterr().err == (
        '{"warning": "warned"}\n'
        '{"error": {"code": 2, "kind": "usage", "message": "failed", "hint": null}}\n'
    )


def test_an_error_is_one_line_whatever_it_quotes(
    capsys: pytest.CaptureFixture[str],
) -> None:
    Output().fail(Failure(8, "backend", "first\n  second\r\nerror: third"))

    assert capsys.readouterr().err == "error: first second error: third\n"


def test_an_error_in_mid_answer_begins_on_a_line_of_its_own(
    capsys: pytest.CaptureFixture[str],
) -> None:
    output = Output()

    output.answer("half an ans")
    output.fail(Failure(8, "backend", "gone"))

    assert capsys.readouterr() == ("half an ans\n", "error: gone\n")


@pytest.mark.usefixtures("terminal")
def test_error_is_red_on_a_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("NO_COLOR")
    monkeypatch.setenv("TERM", "xterm")

    Output().fail(Failure(2, "usage", "no"))

    assert capsys.readouterr().err == "\x1b[31m\x1b[1merror:\x1b[0m no\n"


def test_columns_are_aligned_by_what_a_terminal_shows(
    capsys: pytest.CaptureFixture[str],
) -> None:
    Output().table(
        ("NAME", "SIZE", "NOTE"),
        [("日本", "5 MB", ""), ("e\u0301tude", "12.5 GB", "x")],
        right=("SIZE",),
    )

    assert capsys.readouterr().out == (
        "NAME      SIZE  NOTE\n日本      5 MB\ne\u0301tude  12.5 GB  x\n"
    )


@pytest.mark.usefixtures("terminal")
def test_long_values_are_wrapped_on_a_terminal(
    capsys: pytest.CaptureFixture[str],
) -> None:
    Output().pairs([("traps", "one two three four five six seven eight"), ("n", "1")])

    assert capsys.readouterr().out == (
        "traps  one two three four five six seven\n       eight\nn      1\n"
    )


def test_warnings_of_the_log_are_shown(
    log: logging.Logger, capsys: pytest.CaptureFixture[str]
) -> None:
    output = Output()
    output.open_log()
    log.warning("left %s out", "x")
    log.info("news")
    log.debug("detail")
    output.close_log()

    assert capsys.readouterr().err == "warning: left x out\n"


@pytest.mark.parametrize(
    ("verbosity", "expected"), [(1, "news\n"), (2, "news\ndetail\n")]
)
def test_verbose_shows_more_of_the_log(
    verbosity: int,
    expected: str,
    log: logging.Logger,
    capsys: pytest.CaptureFixture[str],
) -> None:
    output = Output()
    output.verbosity = verbosity
    output.open_log()
    log.info("news")
    log.debug("detail")
    output.close_log()

    assert capsys.readouterr().err == expected


def test_the_log_is_left_as_it_was() -> None:
    logger = logging.getLogger("wizard_edge")
    before = (logger.level, logger.propagate, list(logger.handlers))

    output = Output()
    output.open_log()
    output.close_log()

    assert (logger.level, logger.propagate, list(logger.handlers)) == before


def test_no_answer_to_a_question_is_no(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO(""))

    assert Output().confirm("really?") is False
    assert capsys.readouterr().out == ""


def test_json_asks_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n"))

    assert Output(as_json=True).confirm("really?") is False


def test_a_line_that_is_no_text_is_told_and_the_next_is_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    output = Output()
    lines = [b"\xff\n", b"Hi\n"]

    def typed(prompt: str) -> str:
        return lines.pop(0).decode().removesuffix("\n")

    monkeypatch.setattr("builtins.input", typed)

    with pytest.raises(UsageError, match="that line is not UTF-8 text"):
        output.read_line("")
    assert output.read_line("") == "Hi"


def test_progress_in_json(capsys: pytest.CaptureFixture[str]) -> None:
    with Output(as_json=True).progress() as progress:
        for done in range(10_001):
            progress(ProgressEvent("load", done, 10_000, "steps"))

    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 101
    assert json.loads(lines[1]) == {
        "stage": "load",
        "done": 100,
        "total": 10_000,
        "unit": "steps",
    }


def test_quiet_and_brief_work_draw_nothing_in_a_log(
    capsys: pytest.CaptureFixture[str],
) -> None:
    quiet = Output()
    quiet.quiet = True

    with quiet.progress() as progress:
        progress(ProgressEvent("convert", 1, 1))
    with Output().progress(brief=True) as progress:
        progress(ProgressEvent("load", 1, 1))

    assert capsys.readouterr().err == ""


def test_a_closed_stream_is_no_terminal() -> None:
    stream = io.StringIO()
    stream.close()

    assert not _output.is_terminal(stream)
    assert not _output.is_terminal(None)
