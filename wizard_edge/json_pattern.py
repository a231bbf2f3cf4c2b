"""A regular expression of a JSON schema as a grammar for the inside of a string.

Letters, classes, groups, choices and counts; what a grammar cannot say, such as a
look ahead, is refused.
Source: ECMA-262 section 22.2.1, as JSON Schema Core 2020-12 section 6.4 wants it.
"""

from __future__ import annotations

import re

from wizard_edge.errors import UsageError
from wizard_edge.gbnf import Ranges, complement, either, json_chars, repeated

_DIGITS: Ranges = [(0x30, 0x39)]
_WORDS: Ranges = [(0x30, 0x39), (0x41, 0x5A), (0x5F, 0x5F), (0x61, 0x7A)]
_SPACES: Ranges = [
    (0x09, 0x0D),
    (0x20, 0x20),
    (0xA0, 0xA0),
    (0x1680, 0x1680),
    (0x2000, 0x200A),
    (0x2028, 0x2029),
    (0x202F, 0x202F),
    (0x205F, 0x205F),
    (0x3000, 0x3000),
    (0xFEFF, 0xFEFF),
]
_CLASSES = {"d": _DIGITS, "w": _WORDS, "s": _SPACES}
_LETTERS = {"t": "\t", "n": "\n", "r": "\r", "f": "\f"}
_LINE_ENDS: Ranges = [(0x0A, 0x0A), (0x0D, 0x0D), (0x2028, 0x2029)]
_SIGNS: dict[str, tuple[int, int | None]] = {
    "*": (0, None),
    "+": (1, None),
    "?": (0, 1),
}
_COUNTS = re.compile(r"\{(\d+)(?:(,)(\d*))?\}")
_CODES = re.compile(r"x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})")


def pattern_grammar(pattern: str, char: str) -> str:
    """Return the grammar of strings in which a pattern is found, without quotes.

    `char` is the grammar of any character.
    Raises: UsageError for what a grammar cannot say.
    """
    reader = _Reader(pattern)
    choices = []
    while True:
        begins = reader.take("^")
        inside = reader.sequence()
        ends = reader.take("$")
        parts = ["" if begins else f"({char})*", inside, "" if ends else f"({char})*"]
        choices.append(" ".join(part for part in parts if part) or '""')
        if not reader.take("|"):
            break
    if reader.left:
        raise reader.refuse(reader.left[0])
    return either(choices)


class _Reader:
    """Goes through a pattern from left to right."""

    def __init__(self, pattern: str) -> None:
        self._pattern = pattern
        self._at = 0

    @property
    def left(self) -> str:
        return self._pattern[self._at :]

    def take(self, mark: str) -> bool:
        if not self.left.startswith(mark):
            return False
        self._at += len(mark)
        return True

    def refuse(self, what: str) -> UsageError:
        return UsageError(
            f"the JSON schema has the pattern {self._pattern!r}, of which {what!r} "
            "cannot be enforced"
        )

    def sequence(self) -> str:
        items = []
        while self.left and self.left[0] not in "|)$":
            items.append(self._counted(self._item()))
        return " ".join(items)

    def _item(self) -> str:
        if self.take("("):
            if self.left.startswith("?") and not self.take("?:"):
                raise self.refuse("(" + self.left[:2])
            choices = [self.sequence() or '""']
            while self.take("|"):
                choices.append(self.sequence() or '""')
            if not self.take(")"):
                raise self.refuse(self.left[:1] or "(")
            # Its own brackets: what counts it counts all of it.
            return f"({' | '.join(choices)})"
        ranges = self._class() if self.take("[") else self._single()
        found = json_chars(ranges)
        if found is None:
            raise self.refuse(self._pattern)
        return found

    def _counted(self, item: str) -> str:
        counts = _COUNTS.match(self.left)
        if counts:
            end = counts[3] if counts[2] else counts[1]
            least, most = int(counts[1]), int(end) if end else None
            self._at += counts.end()
        elif self.left[:1] in _SIGNS:
            least, most = _SIGNS[self.left[0]]
            self._at += 1
        else:
            return item
        # Whether it takes much or little, the texts are the same.
        self.take("?")
        if self.left[:1] in _SIGNS or (most is not None and most < least):
            raise self.refuse(self._pattern)
        return '""' if most == 0 else repeated(item, least, most)

    def _single(self) -> Ranges:
        letter = self.left[0]
        self._at += 1
        if letter == "\\":
            return self._escaped()
        if letter == ".":
            return complement(_LINE_ENDS)
        if letter in "*+?{^":
            raise self.refuse(letter)
        return [(ord(letter), ord(letter))]

    def _escaped(self) -> Ranges:
        code = _CODES.match(self.left)
        if code:
            self._at += code.end()
            value = int(code[1] or code[2], 16)
            return [(value, value)]
        if not self.left:
            raise self.refuse("\\")
        letter = self.left[0]
        self._at += 1
        if letter.lower() in _CLASSES:
            ranges = _CLASSES[letter.lower()]
            return ranges if letter.islower() else complement(ranges)
        if letter.isalnum() and letter not in _LETTERS:
            raise self.refuse("\\" + letter)
        letter = _LETTERS.get(letter, letter)
        return [(ord(letter), ord(letter))]

    def _class(self) -> Ranges:
        negated = self.take("^")
        ranges: Ranges = []
        while not self.take("]"):
            if not self.left:
                raise self.refuse("[")
            low = self._member()
            if self.left.startswith("-") and not self.left.startswith("-]"):
                self._at += 1
                high = self._member() if self.left else []
                if len(low) != 1 or len(high) != 1 or low[0][0] > high[0][0]:
                    raise self.refuse("-")
                low = [(low[0][0], high[0][1])]
            ranges += low
        return complement(ranges) if negated else ranges

    def _member(self) -> Ranges:
        letter = self.left[0]
        self._at += 1
        if letter != "\\":
            return [(ord(letter), ord(letter))]
        if self.take("b"):
            return [(0x08, 0x08)]
        return self._escaped()
