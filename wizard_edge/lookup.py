"""Guesses that a text goes on as it did where it said the same before.

Prompt lookup: code that is edited, a text that is summarised, names and tables repeat
what stands in the prompt. Costs no model, only a book of where which tokens stood.
Source: A. Saxena, Prompt Lookup Decoding (2023),
https://github.com/apoorvumang/prompt-lookup-decoding.
"""

from __future__ import annotations

from collections.abc import Sequence

# How many tokens have to be the same, at least: more of them are looked for first.
_SIZES = (4, 2)
# Of the places where the same tokens stood so many are compared, the latest first.
_PLACES = 8
# So far back they are compared: the one that is alike for longest is believed.
_FAR = 32


class Lookup:
    """The book of one text. Every token is entered once, in constant time."""

    def __init__(self) -> None:
        self._ids: list[int] = []
        self._books = [_Book(size) for size in _SIZES]
        self._place = 0

    def look(self, ids: Sequence[int], drawn: int) -> int:
        """Take in how the text went on; see `Drafter.look`.

        The grade is the number of binary digits of the length of the match: 2 for 2
        and 3 tokens, 3 for 4 to 7, and so on, 6 for 32 and more.
        """
        for token in ids[len(self._ids) :]:
            self._enter(token)
        # A step that was ended in its middle is looked at again.
        if len(self._ids) == len(ids):
            self._enter(drawn)
        length, self._place = self._longest()
        return length.bit_length() if length else 0

    def propose(self, most: int) -> list[int]:
        """Return what followed at the place that `look` found, `most` tokens of it.

        Where that place is near the end the guesses follow themselves: a text that
        goes round in a circle is foreseen as long as it does.
        """
        guesses: list[int] = []
        for place in range(self._place, self._place + most):
            beyond = place - len(self._ids)
            guesses.append(self._ids[place] if beyond < 0 else guesses[beyond])
        return guesses

    def observe(self, accepted: int) -> None:
        """Nothing is learnt from it: the next `look` sees what was drawn."""

    def _enter(self, token: int) -> None:
        # What the last token followed is known only now, with the next one.
        for book in self._books:
            book.enter(self._ids)
        self._ids.append(token)

    def _longest(self) -> tuple[int, int]:
        """Return the length of the longest match, 0 for none, and where it goes on."""
        best = (0, 0)
        for book in self._books:
            for place in book.places(self._ids):
                length = self._alike(place, best[0])
                if length > best[0]:
                    best = (length, place)
                    if length == _FAR:
                        return best
            if best[0]:
                break
        return best

    def _alike(self, place: int, beat: int) -> int:
        """Return how many tokens before `place` are those at the end, 32 at most."""
        ids = self._ids
        end = len(ids)
        most = min(place, _FAR)
        if beat and (most <= beat or ids[place - beat - 1] != ids[end - beat - 1]):
            return 0
        length = 0
        while length < most and ids[place - length - 1] == ids[end - length - 1]:
            length += 1
        return length


class _Book:
    """Where every run of `size` tokens ended: the last place, and those before."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._last: dict[tuple[int, ...], int] = {}
        # By the place where a run ends: where the same one ended before, 0 for none.
        self._before: list[int] = []

    def enter(self, ids: list[int]) -> None:
        """Enter the run that ends with `ids`."""
        end = len(ids)
        if end < self._size:
            self._before.append(0)
            return
        run = tuple(ids[-self._size :])
        self._before.append(self._last.get(run, 0))
        self._last[run] = end

    def places(self, ids: list[int]) -> list[int]:
        """Return where the run that ends `ids` ended before, the latest first."""
        place = self._last.get(tuple(ids[-self._size :]), 0)
        found: list[int] = []
        while place and len(found) < _PLACES:
            found.append(place)
            place = self._before[place]
        return found
