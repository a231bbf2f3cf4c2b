"""What was said in a conversation, turn by turn, and the tokens of it.

Values only. A history grows by a turn at its end, loses turns from its end, and
where it outgrew the context the model sees it from a later turn on: nothing is ever
changed in the middle, so whatever is kept begins with the same tokens.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import chain

from wizard_edge.engine import Finish
from wizard_edge.templates import Message


@dataclass(frozen=True, slots=True)
class Exchange:
    """One question and its answer.

    `prompt` are the tokens of the question as it stands in the whole conversation,
    template and all, `answer` those that were generated, `text` what was shown of
    them.
    """

    question: str
    prompt: tuple[int, ...]
    answer: tuple[int, ...] = ()
    text: str = ""
    finish: Finish = "stop"

    @property
    def size(self) -> int:
        """How many tokens it adds to a conversation."""
        return len(self.prompt) + len(self.answer)


@dataclass(frozen=True, slots=True)
class History:
    """All turns of a conversation, of which the model sees those from `first` on.

    Where that is not the first, `opening` is how its question is spelled at the
    beginning of a prompt.
    """

    turns: tuple[Exchange, ...] = ()
    first: int = 0
    opening: tuple[int, ...] = ()

    @property
    def ids(self) -> tuple[int, ...]:
        """The tokens that the model sees."""
        seen = self.turns[self.first :]
        if not seen:
            return ()
        begin = self.opening if self.first else seen[0].prompt
        rest = (tokens for turn in seen[1:] for tokens in (turn.prompt, turn.answer))
        return tuple(chain(begin, seen[0].answer, *rest))

    @property
    def size(self) -> int:
        """How many tokens the model sees."""
        return sum(turn.size for turn in self.turns) - self.dropped_tokens

    @property
    def dropped_tokens(self) -> int:
        """How much longer the prompt would be with all turns in it."""
        if not self.first:
            return 0
        dropped = sum(turn.size for turn in self.turns[: self.first])
        if self.first == len(self.turns):
            return dropped
        return dropped + len(self.turns[self.first].prompt) - len(self.opening)

    @property
    def messages(self) -> list[Message]:
        """All that was said, also what is no longer seen."""
        return [
            message
            for turn in self.turns
            for message in (
                Message("user", turn.question),
                Message("assistant", turn.text),
            )
        ]

    def add(self, turn: Exchange) -> History:
        """Return the history with a turn behind it."""
        return replace(self, turns=(*self.turns, turn))

    def answered(self, answer: tuple[int, ...], text: str, finish: Finish) -> History:
        """Return the history with an answer to its last question."""
        last = replace(self.turns[-1], answer=answer, text=text, finish=finish)
        return replace(self, turns=(*self.turns[:-1], last))

    def cut(self, count: int) -> History:
        """Return the first `count` turns, all of them seen if none was otherwise."""
        if count > self.first:
            return replace(self, turns=self.turns[:count])
        return History(self.turns[:count])

    def see_from(self, first: int, opening: tuple[int, ...]) -> History:
        """Return the same turns, of which the model sees those from `first` on."""
        return History(self.turns, first, opening)
