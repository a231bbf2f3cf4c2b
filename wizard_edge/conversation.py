"""A conversation as the token ids that were really read and written.

An answer is kept as the ids the model generated, never tokenized again from its
text, so that the next prompt begins with exactly what lies in the engine's KV cache.
Going back, asking again or asking something else only cuts: what stays is never read
twice. Knows no llama.cpp, no file and no terminal.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Protocol

from wizard_edge.engine import (
    Engine,
    Finish,
    Overflow,
    Sampling,
    Shifting,
    Stats,
    never,
)
from wizard_edge.errors import UsageError
from wizard_edge.history import Exchange, History
from wizard_edge.overflow import fit, plan_removal, room_for_answer
from wizard_edge.replies import Reply
from wizard_edge.slots import shared_prefix
from wizard_edge.spelling import Spelling
from wizard_edge.templates import Message, PromptTemplate

DEFAULT_OVERFLOW: Overflow = "drop-oldest-turns"


class Recorder(Protocol):
    """Keeps a conversation somewhere: told of every change, fails for none."""

    def record(self, conversation: Conversation) -> None:
        """Keep the turns as they are now."""
        ...

    def rest(self, conversation: Conversation) -> None:
        """Keep what takes longer; the reader has seen the end of an answer."""
        ...


class Conversation:
    """One conversation with an engine, under one template.

    A template trained on single questions starts fresh with each question, unless
    `history` asks for earlier turns to be sent along. `overflow` says what happens
    when a question does not fit into the context any more (docs/sessions.md).
    """

    def __init__(
        self,
        engine: Engine,
        template: PromptTemplate,
        *,
        system: str | None = None,
        history: bool | None = None,
        overflow: Overflow | None = None,
    ) -> None:
        """Begin without a turn.

        Raises: UsageError for a system text where the template has no place, and for
        "shift" where the engine cannot.
        """
        # Spelled once here, so that a system text without a place fails at once.
        template.open("", system=system)
        if overflow == "shift" and not _can_shift(engine):
            raise UsageError(
                "this engine cannot shift its context",
                hint="--overflow drop-oldest-turns reads the kept turns again",
            )
        self.engine = engine
        self.template = template
        self.system = system
        self.keeps_history = template.multi_turn if history is None else history
        self.overflow: Overflow = overflow or DEFAULT_OVERFLOW
        self.recorder: Recorder | None = None
        self._history = History()
        # What was evaluated last.
        self._read: tuple[int, ...] = ()
        self._open: weakref.ref[Reply] | None = None

    @property
    def history(self) -> History:
        """All turns, and from which one on the model sees them."""
        return self._history

    @property
    def spelling(self) -> Spelling:
        """How its questions become tokens."""
        return Spelling(self.template, self.system, self.engine.vocabulary)

    @property
    def ids(self) -> tuple[int, ...]:
        """What the model sees, as token ids, BOS first where the vocabulary wants it.

        All turns, or those that still fit into the context.
        """
        return self._history.ids

    @property
    def messages(self) -> list[Message]:
        """All that was said; the first `2 * history.first` are no longer seen."""
        return self._history.messages

    def ask(
        self,
        text: str,
        sampling: Sampling,
        *,
        cancelled: Callable[[], bool] = never,
    ) -> Reply:
        """Put a question and return the answer as it comes; both join the history.

        A cancelled answer is kept as far as it came; a question whose answer never
        began is forgotten again. An answer that is still open is closed first.
        Raises: UsageError when the question does not fit into the context.
        """
        self.settle()
        return self._ask(self._history, text, sampling, cancelled)

    def regenerate(
        self, sampling: Sampling, *, cancelled: Callable[[], bool] = never
    ) -> Reply:
        """Ask the last question again; its new answer takes the place of the old one.

        Raises: UsageError where there is no turn.
        """
        self.settle()
        count = len(self._history.turns)
        last = self._turn(count)
        return self._ask(self._before(count - 1), last.question, sampling, cancelled)

    def edit(
        self,
        number: int,
        text: str,
        sampling: Sampling,
        *,
        cancelled: Callable[[], bool] = never,
    ) -> Reply:
        """Ask another question in place of number `number`, counted from 1.

        What followed it is forgotten once the answer begins.
        Raises: UsageError where there is no such turn; as `ask`.
        """
        self.settle()
        self._turn(number)
        return self._ask(self._before(number - 1), text, sampling, cancelled)

    def undo(self) -> Exchange:
        """Forget the last turn and return it.

        Raises: UsageError where there is none.
        """
        self.settle()
        count = len(self._history.turns)
        last = self._turn(count)
        self._change(self._before(count - 1))
        return last

    def settle(self) -> None:
        """End an answer that is still open; what was read of it is kept."""
        reply = self._open() if self._open is not None else None
        self._open = None
        if reply is not None:
            reply.close()

    def clear(self) -> None:
        """Forget every turn, an answer that is still open too."""
        self._open = None
        self._change(History())

    def restart(self, *, system: str | None) -> None:
        """Forget every turn and go on under another system text.

        Raises: UsageError where the template has no place for it: nothing changes.
        """
        self.template.open("", system=system)
        self.system = system
        self.clear()

    def resume(self, turns: Sequence[Exchange], *, first: int = 0) -> None:
        """Take up turns from elsewhere, of which the model sees those from `first` on.

        They have to be spelled by this template, under this system text.
        """
        self._history = self._seen(History(tuple(turns)), first)
        self._read = self._history.ids[:-1]

    def _ask(
        self,
        base: History,
        text: str,
        sampling: Sampling,
        cancelled: Callable[[], bool],
    ) -> Reply:
        question = Exchange(text, self.spelling.question(text, base.turns))
        asked = self._fitted(base.add(question), sampling)
        prompt = asked.ids
        dropped = self.keeps_history and asked.first > self._history.first
        if dropped and base is self._history:
            self._shift(asked)
        before = self._history
        evaluated = shared_prefix(self._read, prompt)
        if dropped:
            # What is kept was read once, in another place; its last token was not.
            evaluated = max(evaluated, len(prompt) - len(question.prompt) - 1)
        chunks = self.engine.generate(prompt, sampling, owner=self, cancelled=cancelled)

        def count(stats: Stats) -> Stats:
            return replace(
                stats,
                reread_tokens=max(0, evaluated - stats.cached_tokens),
                dropped_turns=asked.first if self.keeps_history else 0,
                dropped_tokens=asked.dropped_tokens if self.keeps_history else 0,
            )

        def join(answer: tuple[int, ...], shown: str, finish: Finish) -> None:
            # Another turn may have been put in its place, or all been forgotten.
            if self._history is before:
                # The last token was drawn, not yet evaluated.
                self._read = (*prompt, *answer[:-1])
                self._change(asked.answered(answer, shown, finish))

        reply = Reply(chunks, count=count, join=join, after=self._rest)
        self._open = weakref.ref(reply)
        return reply

    def _fitted(self, asked: History, sampling: Sampling) -> History:
        if not self.keeps_history:
            return self._seen(asked, len(asked.turns) - 1)
        context = self.engine.context
        return fit(
            asked,
            context=context,
            room=room_for_answer(context, sampling.max_tokens),
            policy=self.overflow,
            spell=self.spelling.opening,
        )

    def _shift(self, asked: History) -> None:
        """Take dropped turns out of the KV cache, where the policy is to shift."""
        engine = self.engine
        if self.overflow != "shift" or not isinstance(engine, Shifting):
            return
        if asked.first == len(asked.turns) - 1 or asked.size >= engine.context:
            return
        kept = replace(asked, turns=asked.turns[:-1])
        held = self._history.ids
        removal = plan_removal(held, kept.ids)
        if removal and engine.shift_state(
            held, first=removal.first, count=removal.count
        ):
            self._read = kept.ids[:-1]
            self._change(kept)

    def _seen(self, history: History, first: int) -> History:
        """Return a history of which the model sees the turns from `first` on."""
        if not 0 < first < len(history.turns):
            return History(history.turns)
        return history.see_from(
            first, self.spelling.opening(history.turns[first].question)
        )

    def _before(self, count: int) -> History:
        """Return what is left where only the first `count` turns stay."""
        if self.keeps_history:
            return self._history.cut(count)
        return self._seen(self._history.cut(count), count - 1)

    def _turn(self, number: int) -> Exchange:
        turns = self._history.turns
        if not 0 < number <= len(turns):
            if not turns:
                raise UsageError("nothing was asked in this conversation yet")
            raise UsageError(f"there is no question {number} of {len(turns)}")
        return turns[number - 1]

    def _change(self, history: History) -> None:
        self._history = history
        if self.recorder is not None:
            self.recorder.record(self)

    def _rest(self) -> None:
        if self.recorder is not None:
            self.recorder.rest(self)


def _can_shift(engine: Engine) -> bool:
    return isinstance(engine, Shifting) and engine.can_shift
