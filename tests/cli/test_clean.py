"""Nothing that comes from outside can steer the terminal."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wizard_edge.cli._clean import (
    _LONGEST,
    StreamCleaner,
    clean,
    clean_line,
    escape_json,
)

HARMFUL = [
    pytest.param("\x1b[31mred\x1b[0m", "red", id="colour"),
    pytest.param("a\x1b[2J\x1b[Hb", "ab", id="clear screen"),
    pytest.param("\x1b]52;c;aGk=\x07x", "x", id="clipboard, BEL"),
    pytest.param("\x1b]52;c;aGk=\x1b\\x", "x", id="clipboard, ST"),
    pytest.param("\x9d52;c;aGk=\x9cx", "x", id="clipboard, C1"),
    pytest.param("\x9b31mred", "red", id="C1 control sequence"),
    pytest.param("\x1bPq#0\x1b\\x", "x", id="device control string"),
    pytest.param("\x1b(0qqq\x1b(B", "qqq", id="character set"),
    pytest.param("\x1bcx", "x", id="full reset"),
    pytest.param("\x1b]0;never ended", "0;never ended", id="unfinished string"),
    pytest.param("\x1b]0;a\nb\x07", "0;a\nb", id="string over two lines"),
    pytest.param("a\rb\x08c\x07d\x00e\x7ff", "abcdef", id="C0"),
    pytest.param("a\x85b", "ab", id="C1"),
    pytest.param("abc\u202egpj.exe\u202c", "abcgpj.exe", id="bidi override"),
    pytest.param("\u2066a\u2069\u200eb\u061c", "ab", id="bidi marks"),
    pytest.param("\udc80", "\ufffd", id="lone surrogate"),
    pytest.param("\x1b", "", id="bare escape"),
    pytest.param("\x1b\x1b[\x1b[31mx", "x", id="escapes in a row"),
]

HARMLESS = "a\tb\nnäive 日本語 \u200d👩‍🚀 [31m ]0; ~^_ \u05e9\u05dc\u05d5\u05dd"

_pieces = st.lists(
    st.one_of(
        st.sampled_from([*"\x1b[]\x9b\x9d\x9c\x07\\\n3m; P(B\u202e\r", "x" * _LONGEST]),
        st.text(max_size=3),
    ),
    max_size=30,
)


@pytest.mark.parametrize(("text", "expected"), HARMFUL)
def test_harmful_text_is_removed(text: str, expected: str) -> None:
    assert clean(text) == expected


def test_ordinary_text_is_untouched() -> None:
    assert clean(HARMLESS) == HARMLESS


def test_clean_line_stays_on_one_line() -> None:
    assert clean_line("a\nb\t\x1b[1mc  d\n") == "a b c d"


@given(_pieces)
def test_pieces_come_out_as_the_whole_does(pieces: list[str]) -> None:
    cleaner = StreamCleaner()

    shown = "".join(cleaner.feed(piece) for piece in pieces) + cleaner.finish()

    assert shown == clean("".join(pieces))


@given(_pieces)
def test_no_control_survives(pieces: list[str]) -> None:
    shown = clean("".join(pieces))

    assert clean(shown) == shown
    assert not [char for char in shown if char < " " and char not in "\t\n"]


def test_text_without_an_escape_is_never_held_back() -> None:
    cleaner = StreamCleaner()

    assert cleaner.feed("half a wor") == "half a wor"


def test_an_unfinished_sequence_is_not_held_back_for_ever() -> None:
    cleaner = StreamCleaner()

    shown = cleaner.feed("\x1b]0;") + cleaner.feed("x" * 2 * _LONGEST)

    assert shown.endswith("x" * 2 * _LONGEST)


def test_a_long_hostile_text_takes_no_time() -> None:
    hostile = "\x9d\x1b]\x1b[1;" * 200_000

    assert "\x1b" not in clean(hostile)


@given(st.text())
def test_escaped_json_means_the_same(text: str) -> None:
    written = escape_json(json.dumps(text, ensure_ascii=False))

    assert json.loads(written) == text
    assert clean(written) == written
