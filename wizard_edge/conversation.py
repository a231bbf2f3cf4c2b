"""A conversation as the token ids that were really read and written.

The history only grows: an answer is kept as the ids the model generated, never
tokenized again from its text, so that the next prompt begins with exactly what
lies in the engine's KV cache. Knows no llama.cpp, no file and no terminal.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

from wizard_edge.engine import Chunk, Engine, Sampling, never
from wizard_edge.prompt import begin, encode
from wizard_edge.templates import ANSWER_SPACE, Message, PromptTemplate


class Conversation:
    """One conversation with an engine, under one template.

    A template trained on single questions starts fresh with each question, unless
    `history` asks for earlier turns to be sent along.
    """

    def __init__(
        self,
        engine: Engine,
        template: PromptTemplate,
        *,
        system: str | None = None,
        history: bool | None = None,
    ) -> None:
        """Raises: UsageError for a system text where the template has no place."""
        # Spelled once here, so that a system text without a place fails at once.
        template.open("", system=system)
        self.engine = engine
        self.template = template
        self.system = system
        self.keeps_history = template.multi_turn if history is None else history
        self.messages: list[Message] = []
        self._ids: list[int] = []
        self._evaluated = 0
        # Counts the calls of `clear`, which an open answer must not undo.
        self._cleared = 0

    @property
    def ids(self) -> tuple[int, ...]:
        """The whole history as token ids, BOS first where the vocabulary wants one."""
        return tuple(self._ids)

    def ask(
        self,
        text: str,
        sampling: Sampling,
        *,
        cancelled: Callable[[], bool] = never,
    ) -> Iterator[Chunk]:
        """Put a question and yield the answer; both join the history.

        A cancelled answer is kept as far as it came; a question whose answer never
        began is forgotten again.
        Raises: UsageError when the question does not fit into the context.
        """
        if not self.keeps_history:
            self.clear()
        prompt = self._prompt(text)
        chunks = self.engine.generate(prompt, sampling, owner=self, cancelled=cancelled)
        return self._answer(text, prompt, chunks)

    def clear(self) -> None:
        """Forget every turn; the system text stays."""
        self.messages.clear()
        self._ids.clear()
        self._evaluated = 0
        self._cleared += 1

    def _prompt(self, text: str) -> list[int]:
        vocabulary = self.engine.vocabulary
        if not self._ids:
            opening = self.template.open(text, system=self.system)
            return begin(vocabulary) + encode(opening, vocabulary)
        # An answer that was cut short has no end token of its own.
        end = [] if vocabulary.is_end(self._ids[-1]) else [vocabulary.eos]
        return self._ids + end + encode(self.template.next_turn(text), vocabulary)

    def _answer(
        self, text: str, prompt: list[int], chunks: Iterator[Chunk]
    ) -> Iterator[Chunk]:
        answer: list[int] = []
        parts: list[str] = []
        cleared = self._cleared
        try:
            for chunk in chunks:
                if chunk.token is not None:
                    answer.append(chunk.token)
                shown = chunk.text if parts else _without_space(chunk.text)
                if chunk.text:
                    parts.append(shown)
                reread = max(0, self._evaluated - chunk.stats.cached_tokens)
                stats = replace(chunk.stats, reread_tokens=reread)
                yield replace(chunk, text=shown, stats=stats)
        finally:
            close = getattr(chunks, "close", None)
            if close is not None:
                close()
            if answer and cleared == self._cleared:
                self._ids = prompt + answer
                # The last token was drawn, not yet evaluated.
                self._evaluated = len(self._ids) - 1
                self.messages.append(Message("user", text))
                self.messages.append(Message("assistant", "".join(parts)))


def _without_space(text: str) -> str:
    """Drop the space a trained answer begins with: it belongs to the template."""
    return text.removeprefix(ANSWER_SPACE)
