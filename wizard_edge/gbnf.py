"""Small pieces of llama.cpp's grammar language (GBNF): literals, classes, ranges.

Source: llama.cpp 0c1e57098, grammars/README.md; src/llama-grammar.cpp, `parse_char`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence

from wizard_edge.errors import UsageError

Ranges = list[tuple[int, int]]

LAST_CHAR = 0x10FFFF
# MAX_REPETITION_THRESHOLD of llama-grammar.cpp, beyond which an upper bound is dropped
# without a word.
MOST_REPEATED = 2000
_SURROGATES = (0xD800, 0xDFFF)
# What JSON cannot hold as it is inside a string, RFC 8259 section 7, and DEL, which
# terminals act upon.
_BARRED: Ranges = [(0, 0x1F), (0x22, 0x22), (0x5C, 0x5C), (0x7F, 0x7F), _SURROGATES]
# The character -> what stands for it behind a backslash.
_ESCAPED = {'"': '"', "\\": "\\", "\b": "b", "\f": "f", "\n": "n", "\r": "r", "\t": "t"}


def literal(text: str) -> str:
    """Return the grammar of exactly this text."""
    return '"' + "".join(_spell(letter, '"\\') for letter in text) + '"'


def either(choices: Iterable[str]) -> str:
    """Return the grammar of one of several, each once, in brackets where needed."""
    found = list(dict.fromkeys(choices))
    return found[0] if len(found) == 1 else f"({' | '.join(found)})"


def repeated(what: str, least: int, most: int | None) -> str:
    """Return the grammar of something several times; `most` None has no end.

    Raises: UsageError for more than llama.cpp counts to.
    """
    for count in (least, most or 0):
        if count > MOST_REPEATED:
            raise UsageError(f"a grammar counts to {MOST_REPEATED}, not to {count}")
    if (least, most) == (1, 1):
        return what
    signs = {(0, None): "*", (1, None): "+", (0, 1): "?"}
    counts = f"{{{least},{'' if most is None else most}}}"
    return f"({what}){signs.get((least, most), counts)}"


def json_chars(ranges: Ranges) -> str | None:
    """Return the grammar of one of these characters within a string of JSON.

    Control characters that have no short escape are left out, for they need none
    of a model's words. None where nothing is left.
    """
    plain = [piece for piece in complement(_BARRED) for piece in _within(piece, ranges)]
    choices = []
    if plain:
        choices.append("[" + "".join(map(_spell_range, plain)) + "]")
    for letter, escape in _ESCAPED.items():
        if any(low <= ord(letter) <= high for low, high in ranges):
            choices.append(literal("\\" + escape))
    return either(choices) if choices else None


def complement(ranges: Ranges) -> Ranges:
    """Return all characters that are in none of these ranges."""
    found, start = [], 0
    for low, high in sorted(ranges):
        if low > start:
            found.append((start, low - 1))
        start = max(start, high + 1)
    if start <= LAST_CHAR:
        found.append((start, LAST_CHAR))
    return found


def whole_numbers(low: int, high: int) -> str:
    """Return the grammar of the numbers from `low` to `high`, both 0 or more."""
    choices: list[str] = []
    while low <= high:
        # The last number with as many digits.
        end = min(high, 10 ** len(str(low)) - 1)
        choices += _same_length(str(low), str(end))
        low = end + 1
    return either(choices)


def json_text(value: object) -> str:
    """Write a constant as JSON, letters as they are where they can be written.

    Raises: ValueError for a number that JSON does not have.
    """
    text = json.dumps(value, ensure_ascii=False, allow_nan=False)
    try:
        text.encode()
    except UnicodeEncodeError:
        return json.dumps(value)
    return text.replace("\x7f", "\\u007f")


def _same_length(low: str, high: str) -> Sequence[str]:
    """Return grammars that together are the numbers between two of as many digits."""
    if low == high:
        return [literal(low)]
    head, rest = low[0], len(low) - 1
    if head == high[0]:
        inner = either(_same_length(low[1:], high[1:]))
        return [f"{literal(head)} {inner}"]
    if rest == 0:
        return [f"[{low}-{high}]"]
    first, last = int(head), int(high[0])
    choices = []
    if low[1:] != "0" * rest:
        inner = either(_same_length(low[1:], "9" * rest))
        choices.append(f"{literal(head)} {inner}")
        first += 1
    if high[1:] != "9" * rest:
        last -= 1
    if first <= last:
        choices.append(f"[{first}-{last}] {repeated('[0-9]', rest, rest)}")
    if high[1:] != "9" * rest:
        inner = either(_same_length("0" * rest, high[1:]))
        choices.append(f"{literal(high[0])} {inner}")
    return choices


def _within(piece: tuple[int, int], ranges: Ranges) -> Ranges:
    low, high = piece
    cut = [(max(low, first), min(high, last)) for first, last in ranges]
    return [(first, last) for first, last in cut if first <= last]


def _spell_range(span: tuple[int, int]) -> str:
    low, high = (_spell(chr(code), "[]^-\\") for code in span)
    return low if low == high else f"{low}-{high}"


def _spell(letter: str, marks: str) -> str:
    code = ord(letter)
    if letter in marks or not letter.isprintable():
        if code <= 0xFF:
            return f"\\x{code:02X}"
        return f"\\u{code:04X}" if code <= 0xFFFF else f"\\U{code:08X}"
    return letter
