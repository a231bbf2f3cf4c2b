"""Answers of the apprentice, judged and counted by what was asked.

Standard library only, so that a test can score any program that runs the model.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from tools.apprentice.conversation import Turn

EARLIER: Final = 2  # turns between telling and asking that count as remembering


@dataclass(frozen=True, slots=True)
class Answer:
    """What the model said to one turn, and whether it stopped by itself."""

    turn: Turn
    text: str
    ended: bool

    @property
    def is_right(self) -> bool:
        return is_right(self.turn, self.text)


@dataclass(frozen=True, slots=True)
class Score:
    kind: str
    right: int
    asked: int

    @property
    def share(self) -> float:
        return self.right / self.asked if self.asked else 1.0


def is_right(turn: Turn, answer: str) -> bool:
    """Say whether an answer to this turn holds what was expected.

    A sum is judged by the last number of the answer, everything else by its key
    phrases, ignoring case. Claiming to be another model is always wrong.
    """
    if turn.kind.startswith("sum"):
        numbers = re.findall(r"\d+", answer)
        return bool(numbers) and numbers[-1] == turn.expected[-1]
    said = answer.casefold()
    if any(f"i am {other}" in said for other in ("wizardlm", "wizardcoder", "human")):
        return False
    return all(_mentions(said, phrase.casefold()) for phrase in turn.expected)


def _mentions(said: str, phrase: str) -> bool:
    return re.search(rf"(?<!\w){re.escape(phrase)}(?!\w)", said) is not None


def scores(answers: Iterable[Answer]) -> list[Score]:
    """Count right answers by kind; a recall counts only from `EARLIER` turns on."""
    counts: dict[str, list[int]] = {}
    for answer in answers:
        kind = answer.turn.kind
        if kind.startswith("recall_") and answer.turn.since < EARLIER:
            kind = "recent_" + kind.removeprefix("recall_")
        if kind.startswith("tell_"):
            kind = "tell"
        for name in (kind, "all"):
            count = counts.setdefault(name, [0, 0])
            count[0] += answer.is_right
            count[1] += 1
        ended = counts.setdefault("ended", [0, 0])
        ended[0] += answer.ended
        ended[1] += 1
    return [Score(kind, *counts[kind]) for kind in sorted(counts)]


def report(found: Iterable[Score]) -> str:
    """Return one line per kind: right of asked, and the share in percent."""
    return "\n".join(
        f"{s.kind:18} {s.right:5} of {s.asked:5}  {100 * s.share:5.1f}%" for s in found
    )
