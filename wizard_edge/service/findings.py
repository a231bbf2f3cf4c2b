"""What a diagnosis is made of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Level = Literal["ok", "note", "problem"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of a diagnosis: how bad, about what, and the next thing to do.

    What is well may have a hint too: how to get what is not there.
    """

    about: str
    level: Level
    what: str
    hint: str | None = None


def listed(names: tuple[str, ...] | list[str]) -> str:
    """Return names in a row, commas between them."""
    return ", ".join(names) or "nothing in particular"
