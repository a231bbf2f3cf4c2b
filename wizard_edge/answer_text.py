"""The bytes of tokens to text that can be shown: whole characters, no stop text."""

from __future__ import annotations

import codecs
from collections.abc import Sequence


class AnswerText:
    """Turns the bytes of one answer into text, and tells where a stop text comes.

    The stop text that is complete first ends the answer; of those that end with the
    same character the longest. So the text does not depend on how the bytes were cut
    into tokens. What could be the beginning of a stop text is held back until the
    next tokens have shown whether it is one.
    """

    def __init__(self, stop: Sequence[str] = ()) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._stop = tuple(stop)
        self._held = ""
        self.stopped = False

    def feed(self, piece: bytes) -> str:
        """Return the text that is certain after these bytes.

        Sets `stopped` where a stop text is complete: the text ends before it, and
        nothing more is certain.
        """
        return self._take(self._decoder.decode(piece), hold=True)

    def end(self) -> str:
        """Return what was held back, half characters as the replacement character."""
        return self._take(self._decoder.decode(b"", True), hold=False)

    def _take(self, text: str, *, hold: bool) -> str:
        if self.stopped:
            return ""
        self._held += text
        cut = self._find_stop()
        if cut is not None:
            self.stopped = True
            return self._release(cut)
        doubtful = self._doubtful() if hold else 0
        return self._release(len(self._held) - doubtful)

    def _find_stop(self) -> int | None:
        """Return where the stop text begins that is complete first."""
        found = [
            (start + len(stop), start)
            for stop in self._stop
            if (start := self._held.find(stop)) >= 0
        ]
        return min(found)[1] if found else None

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
