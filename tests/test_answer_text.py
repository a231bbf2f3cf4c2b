from __future__ import annotations

from collections.abc import Iterable, Sequence

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from wizard_edge.answer_text import AnswerText

LETTERS = st.text("ab", min_size=1, max_size=4)
TEXTS = st.text("abé🧙", max_size=12)


def feed(text: AnswerText, pieces: Iterable[bytes]) -> list[str]:
    """Feed pieces until a stop text is complete; what was held back comes last."""
    shown = []
    for piece in pieces:
        shown.append(text.feed(piece))
        if text.stopped:
            return shown
    return [*shown, text.end()]


def cut(data: bytes, places: Iterable[int]) -> list[bytes]:
    """Cut bytes at these places, as tokens do."""
    ends = sorted({place % (len(data) + 1) for place in places} | {len(data)})
    starts = [0, *ends[:-1]]
    return [data[start:end] for start, end in zip(starts, ends, strict=True)]


def expected(text: str, stop: Sequence[str]) -> str:
    """Return a text up to where the stop text begins that is complete first."""
    for end in range(len(text) + 1):
        begins = [end - len(s) for s in stop if text[:end].endswith(s)]
        if begins:
            return text[: min(begins)]
    return text


def test_without_a_stop_text_all_is_shown_at_once() -> None:
    assert feed(AnswerText(), [b"Hel", b"lo"]) == ["Hel", "lo", ""]


@pytest.mark.parametrize(
    ("stop", "pieces", "shown"),
    [
        (["lo"], ["Hel", "lo!"], ["He", "l"]),
        (["\nUSER:"], ["Hi", "\n", "US", "ER", ":", "x"], ["Hi", "", "", "", ""]),
        (["aab"], ["a", "a", "a", "b"], ["", "", "a", ""]),
        (["aab"], ["aaab"], ["a"]),
        (["ab"], ["a", "a", "c"], ["", "a", "ac", ""]),
        (["abc"], ["xab"], ["x", "ab"]),
        (["x", "axb"], ["axb"], ["a"]),
        (["x", "axb"], ["a", "x", "b"], ["", "a"]),
        (["bc", "abc"], ["abc"], [""]),
        (["bc", "abc"], ["a", "b", "c"], ["", "", ""]),
        (["b", "a"], ["xab"], ["x"]),
        (["aba", "bb"], ["ab", "b"], ["", "a"]),
    ],
    ids=[
        "across two pieces",
        "across many",
        "overlaps itself",
        "overlaps itself in one piece",
        "begins anew",
        "unfinished at the end",
        "inside another in one piece",
        "inside another",
        "the end of another in one piece",
        "the end of another",
        "the first wins",
        "a candidate inside a candidate",
    ],
)
def test_stop_texts(stop: list[str], pieces: list[str], shown: list[str]) -> None:
    assert feed(AnswerText(stop), [piece.encode() for piece in pieces]) == shown


def test_a_stop_text_that_begins_within_a_character() -> None:
    wizard = "🧙".encode()

    text = AnswerText(["🧙!"])

    shown = feed(text, [b"a" + wizard[:1], wizard[1:3], wizard[3:], b"!"])
    assert shown == ["a", "", "", ""]
    assert text.stopped


def test_a_half_character_at_the_end_is_shown_as_one() -> None:
    assert feed(AnswerText(), ["é".encode()[:1]]) == ["", "\ufffd"]


def test_a_stop_text_is_found_in_what_the_end_completes() -> None:
    text = AnswerText(["a\ufffd"])

    assert feed(text, [b"xa", "é".encode()[:1]]) == ["x", "", ""]
    assert text.stopped


def test_nothing_comes_after_a_stop_text() -> None:
    text = AnswerText(["b"])

    assert [text.feed(b"abc"), text.feed(b"d"), text.end()] == ["a", "", ""]


@given(TEXTS, st.lists(LETTERS, max_size=3), st.lists(st.integers(0, 99)))
@example("aaab", ["aab"], [1, 2, 3])
@example("abcd", ["abcd", "bc"], [4])
def test_the_text_is_the_whole_one_up_to_the_first_stop_text(
    whole: str, stop: list[str], places: list[int]
) -> None:
    pieces = cut(whole.encode(), places)

    assert "".join(feed(AnswerText(stop), pieces)) == expected(whole, stop)


@given(st.binary(max_size=12), st.lists(st.integers(0, 99)))
def test_bytes_that_are_no_text_do_not_depend_on_the_cuts(
    data: bytes, places: list[int]
) -> None:
    shown = "".join(feed(AnswerText(), cut(data, places)))

    assert shown == data.decode("utf-8", "replace")


@given(TEXTS, st.lists(LETTERS, min_size=1, max_size=3))
def test_what_is_held_back_may_still_become_a_stop_text(
    whole: str, stop: list[str]
) -> None:
    text = AnswerText(stop)

    for end, letter in enumerate(whole, start=1):
        text.feed(letter.encode())
        held = text._held
        assert held == "" or any(s.startswith(held) for s in stop)
        assert held == "" or whole[:end].endswith(held) or text.stopped
