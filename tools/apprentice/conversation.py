"""What a conversation is, and which ones are kept for the examination.

Standard library only.
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256
from typing import Final

SYSTEM: Final = (
    "A chat between a curious user and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the user's questions."
)
HELD_OUT_BELOW: Final = 13  # of 256 values of the first hash byte: 5.1%


@dataclass(frozen=True, slots=True)
class Turn:
    """One question and its answer, labelled with what is asked.

    `expected` are the phrases a right answer contains. `since` counts the turns from
    the one that told the recalled fact to this one; 0 where nothing is recalled.
    """

    user: str
    assistant: str
    kind: str
    expected: tuple[str, ...]
    since: int = 0


@dataclass(frozen=True, slots=True)
class Conversation:
    turns: tuple[Turn, ...]

    @property
    def text(self) -> str:
        """The canonical text that decides about the split."""
        return "\n".join(
            f"USER: {t.user}\nASSISTANT: {t.assistant}" for t in self.turns
        )

    @property
    def is_held_out(self) -> bool:
        return sha256(self.text.encode()).digest()[0] < HELD_OUT_BELOW
