"""The bytes of tokens to text that can be shown: whole characters, no stop text."""

from __future__ import annotations

import codecs
from collections.abc import Sequence


class AnswerText:
    """Turns the bytes of one answer into text, and tells where a stop text comes.

    What could be the beginning of a stop text is held back until the next tokens
    have shown whether it is one.
    """

    def __init__(self, stop: Sequence[str] = ()) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._stop = tuple(stop)
        self._held = ""
        self.stopped = False

    def feed(self, piece: bytes) -> str:
        """Return the text that is certain after these bytes.

        Sets `stopped` where a stop text is complete: the text ends before it.
        """
        self._held += self._decoder.decode(piece)
        found = [at for stop in self._stop if (at := self._held.find(stop)) >= 0]
        if found:
            self.stopped = True
            text, self._held = self._held[: min(found)], ""
            return text
        return self._release(len(self._held) - self._doubtful())

    def end(self) -> str:
        """Return what was held back, half characters as the replacement character."""
        self._held += self._decoder.decode(b"", True)
        return self._release(len(self._held))

    def _release(self, count: int) -> str:
        text, self._held = self._held[:count], self._held[count:]
        return text

    def _doubtful(self) -> int:
        """Return how long the end is that may become a stop text."""
        longest = max(map(len, self._stop), default=1) - 1
        for length in range(min(longest, len(self._held)), 0, -1):
            end = self._held[-length:]
            if any(stop.startswith(end) for stop in self._stop):
                return length
        return 0
