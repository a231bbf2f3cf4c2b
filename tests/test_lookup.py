"""Prompt lookup: what is foreseen of a text, and at what cost."""

from __future__ import annotations

from collections import UserList
from random import Random
from typing import Any

import pytest

from wizard_edge.lookup import Lookup


def guess(text: str, most: int = 4) -> tuple[int, str]:
    """Return the grade and the guesses for a text of one token a character."""
    lookup = Lookup()
    ids = [ord(letter) for letter in text]
    grade = lookup.look(ids[:-1], ids[-1])
    return grade, "".join(map(chr, lookup.propose(most))) if grade else ""


def test_a_text_that_was_said_before_goes_on_as_it_did() -> None:
    assert guess("the quick brown fox; the qui") == (3, "ck b")


@pytest.mark.parametrize("text", ["", "a", "ab", "abcdefg", "abcda"])
def test_nothing_is_guessed_without_two_tokens_that_were_there_before(
    text: str,
) -> None:
    assert guess(" " + text) == (0, "")


@pytest.mark.parametrize(
    ("length", "grade"), [(2, 2), (3, 2), (4, 3), (7, 3), (8, 4), (16, 5), (40, 6)]
)
def test_the_grade_tells_how_long_the_match_is(length: int, grade: int) -> None:
    run = "".join(chr(500 + index) for index in range(length))

    assert guess(f"x{run}y{run}")[0] == grade


def test_the_place_that_is_alike_for_longest_is_believed() -> None:
    assert guess("of the good dog. In the good cat. of the good", 1) == (4, " ")
    assert guess("1 of the good dog. In the good cat. 1 of the good ", 3)[1] == "dog"


def test_of_two_that_are_alike_the_later_is_believed() -> None:
    assert guess("the cat, the dog, the ", 3)[1] == "dog"


def test_a_longer_match_far_behind_is_found_behind_many_short_ones() -> None:
    short = "".join(f"{chr(300 + index)}yz!" for index in range(20))

    assert guess(f"wxyz?{short}wxyz", 1) == (3, "?")


def test_a_circle_is_foreseen_beyond_its_end() -> None:
    assert guess("abcabcabc", 8)[1] == "abcabcab"
    assert guess("zaaaa", 5)[1] == "aaaaa"


def test_what_was_drawn_since_is_taken_in_step_by_step() -> None:
    """One book over a growing text guesses what a new book over the whole does."""
    random = Random(1)
    ids = [random.randrange(5) for _ in range(400)]
    lookup = Lookup()

    place = 10
    while place < len(ids):
        grade = lookup.look(ids[:place], ids[place])
        fresh = Lookup()
        assert fresh.look(ids[:place], ids[place]) == grade
        assert not grade or fresh.propose(9) == lookup.propose(9)
        place += random.randrange(1, 4)


def test_a_step_that_was_ended_is_looked_at_again() -> None:
    lookup = Lookup()
    ids = [1, 2, 3, 4, 1, 2, 3]

    first = lookup.look(ids, 4), lookup.propose(4)
    again = lookup.look(ids, 4), lookup.propose(4)

    assert first == again == (3, [1, 2, 3, 4])


def test_a_step_reads_only_what_is_new_of_a_long_text() -> None:
    ids = Counting(index % 7 + 100 * (index % 11) for index in range(5000))
    lookup = Lookup()
    lookup.look(ids, 1)
    ids.append(1)
    ids.read = 0

    for token in range(20):
        lookup.look(ids, token)
        ids.append(token)

    assert ids.read == 0


class Counting(UserList[int]):
    """A list that counts the tokens that are read of it."""

    read = 0

    def __getitem__(self, index: Any) -> Any:  # Any: an index or a slice, as a list.
        found = self.data[index]
        self.read += len(found) if isinstance(index, slice) else 1
        return found
