"""What happens when a conversation outgrows the context: nothing in silence.

Pure: says from which turn on a prompt sees its conversation. Turns go as wholes, the
oldest first and several at once, so that what is left begins alike for many turns
and is read once; the system text never goes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from wizard_edge.engine import Overflow
from wizard_edge.errors import UsageError
from wizard_edge.history import History
from wizard_edge.slots import shared_prefix

# Where nobody says how long an answer may be, and at most, in parts of the context.
_ROOM = 1 / 4
_MOST_ROOM = 1 / 2
# Turns go until this part of the context is free.
_FREE = 1 / 2


@dataclass(frozen=True, slots=True)
class Removal:
    """Tokens to take out of the middle of a prompt, to make it another."""

    first: int
    count: int


def room_for_answer(context: int, max_tokens: int | None) -> int:
    """Return how many tokens of the context are kept free for an answer."""
    if max_tokens is None:
        return int(context * _ROOM)
    return min(max_tokens, int(context * _MOST_ROOM))


def fit(
    asked: History,
    *,
    context: int,
    room: int,
    policy: Overflow,
    spell: Callable[[str], tuple[int, ...]],
) -> History:
    """Return a history, its last turn a question without an answer, that fits.

    `spell` gives the tokens of a question that begins a prompt. A question that does
    not fit alone is left to the engine to refuse.
    Raises: UsageError under the policy "error".
    """
    last = len(asked.turns) - 1
    if policy == "error":
        if asked.size >= context and asked.first < last:
            raise _outgrown(asked, context)
        return asked
    if asked.size + room <= context:
        return asked
    enough = min(int(context * (1 - _FREE)), context - room)
    fitting = asked
    for first in range(asked.first + 1, last + 1):
        fitting = asked.see_from(first, spell(asked.turns[first].question))
        if fitting.size <= enough:
            break
    return fitting


def plan_removal(before: Sequence[int], after: Sequence[int]) -> Removal | None:
    """Return what to take out of `before` to make it `after`; None if that is not all.

    The beginning is kept as far as both agree.
    """
    count = len(before) - len(after)
    first = shared_prefix(before, after)
    if count <= 0 or tuple(before[first + count :]) != tuple(after[first:]):
        return None
    return Removal(first, count)


def _outgrown(asked: History, context: int) -> UsageError:
    question = len(asked.turns[-1].prompt)
    return UsageError(
        f"the conversation has {asked.size - question} tokens and the question "
        f"{question}, the context takes {context}",
        hint="start a new conversation, or let old turns go: "
        "--overflow drop-oldest-turns",
    )
