"""What one step evaluates: whose tokens, and how many of each.

Pure: looks at turns and changes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from wizard_edge.backend import Span
from wizard_edge.turns import Turn


@dataclass(frozen=True, slots=True)
class Share:
    """Tokens of one turn: a part of its prompt, or what was drawn and guessed."""

    turn: Turn
    ids: list[int]

    @property
    def reads(self) -> bool:
        """Whether this is of the prompt."""
        return not self.turn.pending

    @property
    def span(self) -> Span:
        """Where they go. Of a prompt only the last token's logits are looked at."""
        start = len(self.turn.place.cached)
        count = len(self.ids)
        if not self.reads:
            return Span(self.turn.place.index, start, self.ids, 0)
        ends = start + count == len(self.turn.prompt)
        return Span(self.turn.place.index, start, self.ids, count - ends)


def divide(turns: Sequence[Turn], *, batch: int, reading: int) -> list[Share]:
    """Divide a batch: every drawn token first, then the room fairly among prompts.

    At most `batch` tokens in all, at most `reading` of them of prompts.
    """
    shares: list[Share] = []
    room = batch
    for turn in turns:
        if turn.pending:
            ids = turn.pending[: max(1, min(len(turn.pending), room))]
            shares.append(Share(turn, ids))
            room -= len(ids)
    room = min(room, reading)
    # Who needs least first: what it leaves is divided among the others.
    readers = sorted(
        (turn for turn in turns if not turn.pending), key=lambda turn: turn.unread
    )
    for index, turn in enumerate(readers):
        count = min(turn.unread, max(1, room // (len(readers) - index)), room)
        if count > 0:
            start = len(turn.place.cached)
            shares.append(Share(turn, turn.prompt[start : start + count]))
            room -= count
    return shares


def count_rows(shares: Sequence[Share]) -> int:
    """Return how many tokens some shares have together."""
    return sum(len(share.ids) for share in shares)
