"""Brings the file of a session's turns to what a conversation has become.

A turn more is a line more, on the disk when `write` returns. Anything else, such as a
turn that was undone, replaces the file: what was taken back is not kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from wizard_edge import private
from wizard_edge.history import Exchange, History
from wizard_edge.transcripts import (
    Header,
    SavedTurn,
    Transcript,
    header_line,
    turn_line,
)


class TurnFile:
    """What a file says, where it is sound up to."""

    def __init__(self, path: Path, found: Transcript | None) -> None:
        """`found` is what was read from `path`, None where nothing was."""
        self.path = path
        self.header = found.header if found else None
        self._saved = list(found.turns) if found else []
        self._size = found.size if found else 0

    @property
    def is_new(self) -> bool:
        """Whether nothing was written yet."""
        return self.header is None

    def respell(self, turns: Sequence[Exchange]) -> None:
        """Take other tokens for the turns; their times stay."""
        self._saved = [
            replace(saved, turn=turn)
            for saved, turn in zip(self._saved, turns, strict=True)
        ]

    def write(self, header: Header, history: History, now: str) -> None:
        """Write what is new, or all where something else has changed.

        Raises: NotEnough on a full disk, Refused where writing is not allowed: the
        file is as it was, but for half a line that the next call cuts off.
        """
        wanted = self._wanted(history, now)
        known = len(self._saved)
        if header == self.header and wanted[:known] == self._saved:
            lines = b"".join(map(turn_line, wanted[known:]))
            if lines:
                private.append(self.path, lines, at=self._size)
            self._size += len(lines)
        else:
            parts = [header_line(header), *map(turn_line, wanted)]
            private.write(self.path, parts)
            self._size = sum(map(len, parts))
        self.header, self._saved = header, wanted

    def _wanted(self, history: History, now: str) -> list[SavedTurn]:
        """Return the turns for the file, those that are in it as they are there."""
        turns: list[SavedTurn] = []
        for saved, turn in zip(self._saved, history.turns, strict=False):
            if saved.turn != turn:
                break
            turns.append(saved)
        for index, turn in enumerate(history.turns[len(turns) :], len(turns)):
            turns.append(SavedTurn(turn, min(history.first, index), now))
        if turns and len(turns) < len(self._saved):
            # After a turn was taken back the model may see earlier ones again.
            turns[-1] = replace(turns[-1], first=min(history.first, len(turns) - 1))
        return turns
