"""The tokens of a conversation's questions, as its template spells them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from wizard_edge.engine import Vocabulary
from wizard_edge.history import Exchange
from wizard_edge.prompt import begin, encode
from wizard_edge.templates import ANSWER_SPACE, EOS, Piece, PromptTemplate


@dataclass(frozen=True, slots=True)
class Spelling:
    """A template under a system text, for one vocabulary."""

    template: PromptTemplate
    system: str | None
    vocabulary: Vocabulary

    def opening(self, question: str) -> tuple[int, ...]:
        """Return the tokens of a question that begins a prompt."""
        pieces = self.template.open(question, system=self.system)
        return tuple(begin(self.vocabulary) + encode(pieces, self.vocabulary))

    def question(self, text: str, before: Sequence[Exchange]) -> tuple[int, ...]:
        """Return the tokens of a question that follows these turns."""
        if not before:
            return self.opening(text)
        # An answer that was cut short has no end token of its own.
        ended = self.vocabulary.is_end(before[-1].answer[-1])
        end = [] if ended else [self.vocabulary.eos]
        return tuple(end + encode(self.template.next_turn(text), self.vocabulary))

    def again(
        self, turns: Sequence[Exchange], *, answers: bool = False
    ) -> tuple[Exchange, ...]:
        """Return turns of another template, or system text, in this one's spelling.

        Answers keep the tokens that were generated, unless `answers` says that their
        model had another vocabulary.
        """
        spelled: list[Exchange] = []
        for turn in turns:
            answer = turn.answer
            if answers:
                text = Piece(ANSWER_SPACE + turn.text)
                answer = tuple(encode([text, EOS], self.vocabulary))
            prompt = self.question(turn.question, spelled)
            spelled.append(replace(turn, prompt=prompt, answer=answer))
        return tuple(spelled)
