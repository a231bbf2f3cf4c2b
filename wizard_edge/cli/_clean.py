"""Text from outside, made harmless before it reaches a terminal.

A model, a file name or a licence text may hold escape sequences that move the
cursor, set the clipboard or turn the reading direction. What is removed here
leaves no trace; ordinary text is untouched. Knows nothing but text.
"""

from __future__ import annotations

import re

# An unfinished sequence is held back no longer than this; what is longer is text.
_LONGEST = 1024

# ECMA-48: control sequences (5.4), control strings (5.6), other escapes (ECMA-35, 13).
_PARAMETERS = rf"(?:\x1b\[|\x9b)[0-?]{{0,{_LONGEST}}}[ -/]{{0,{_LONGEST}}}"
_STRING = (
    r"(?:\x1b[\]PX^_]|[\x9d\x90\x98\x9e\x9f])"
    rf"[^\x07\n\x1b\x80-\x9f]{{0,{_LONGEST}}}"
)
_ESCAPE = rf"\x1b[ -/]{{0,{_LONGEST}}}"
_SEQUENCE = rf"{_PARAMETERS}[@-~]|{_STRING}(?:\x07|\x1b\\|\x9c)|{_ESCAPE}[0-~]"

# C0 and C1 but for tab and line feed, and the marks of Unicode's bidi algorithm.
_CONTROL = r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]"

_HARMFUL = re.compile(f"{_SEQUENCE}|{_CONTROL}")
_UNFINISHED = re.compile(rf"(?:{_PARAMETERS}|{_STRING}\x1b?|{_ESCAPE})\Z")
_SURROGATE = re.compile(r"[\ud800-\udfff]")
_UNSAFE_IN_JSON = re.compile(
    r"[\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)


def clean(text: str) -> str:
    """Remove escape sequences and controls; a lone surrogate becomes U+FFFD."""
    return _SURROGATE.sub("\ufffd", _HARMFUL.sub("", text))


def clean_line(text: str) -> str:
    """Clean text that must stay on one line: line breaks and tabs become spaces."""
    return " ".join(clean(text).split())


def escape_json(text: str) -> str:
    r"""Write what `clean` removes as \uXXXX, which JSON reads as the same character.

    `json.dumps` has written C0 controls that way already.
    """
    return _UNSAFE_IN_JSON.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


class StreamCleaner:
    """`clean` for text that comes in pieces, where a sequence may be cut in two."""

    def __init__(self) -> None:
        self._held = ""

    def feed(self, text: str) -> str:
        """Return what can be shown by now; an unfinished sequence waits."""
        text = self._held + text
        match = _UNFINISHED.search(text)
        end = match.start() if match else len(text)
        self._held = text[end:]
        return clean(text[:end])

    def finish(self) -> str:
        """Return what was held back, now that nothing follows it."""
        held, self._held = self._held, ""
        return clean(held)
