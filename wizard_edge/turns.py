"""One answer on its way: what of its prompt is read, what was drawn, what it cost.

The step loop asks a turn for the tokens to evaluate next and tells it what was drawn.
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable, Sequence
from dataclasses import replace

from wizard_edge.answer_text import AnswerText
from wizard_edge.answers import Outbox
from wizard_edge.backend import Chooser
from wizard_edge.engine import Chunk, Finish, Logprobs, Sampling, Stats, Vocabulary
from wizard_edge.slots import Slot
from wizard_edge.speculation import Guesses

# A reader is woken so often at most: where tokens come faster, one that runs for each
# of them takes the cores from what computes the next. Nobody sees the difference.
_WAKES_EVERY_S = 0.008
# A reader hears so often how far the reading of a long prompt has come.
_REPORTS_EVERY_S = 1.0


class Turn:
    """An answer that waits or is worked at. For the engine's thread alone."""

    def __init__(
        self,
        prompt: Sequence[int],
        sampling: Sampling,
        owner: object | None,
        chooser: Chooser,
        outbox: Outbox,
        *,
        clock: Callable[[], float],
        limit: int,
        load_s: float,
    ) -> None:
        """`limit` is how many tokens may be drawn at most."""
        self.prompt = list(prompt)
        self.sampling = sampling
        self.owner = None if owner is None else weakref.ref(owner)
        self.chooser = chooser
        self.cancelled = False
        self.slot: Slot | None = None
        # Drawn and not evaluated yet: one token, and guesses of what follows it.
        self.pending: list[int] = []
        self.guesses: Guesses | None = None
        self._outbox = outbox
        self._flushed = -math.inf
        self._clock = clock
        self._limit = limit
        self._text = AnswerText(sampling.stop)
        self._created = self._mark = self._reported = clock()
        self._stats = Stats(prompt_tokens=len(prompt), load_s=load_s)

    @property
    def over(self) -> bool:
        """Whether nobody waits for it any more."""
        return self.cancelled

    @property
    def place(self) -> Slot:
        """The slot that was taken."""
        assert self.slot is not None
        return self.slot

    @property
    def unread(self) -> int:
        """How many tokens of the prompt are not in the cache yet."""
        return 0 if self.slot is None else len(self.prompt) - len(self.slot.cached)

    @property
    def left(self) -> int:
        """How many more tokens may be drawn."""
        return self._limit - self._stats.new_tokens

    def begin(self, slot: Slot) -> None:
        """Take a slot, which is to hold the beginning of the prompt."""
        self.slot = slot
        now = self._clock()
        self._stats = replace(self._stats, wait_s=now - self._created)
        self._mark = self._reported = now

    def note_cached(self) -> None:
        """Take note of what of the prompt is in the slot."""
        cached = len(self.prompt) - self.unread
        self._stats = replace(self._stats, cached_tokens=cached)

    def note_read(self, count: int) -> None:
        """Take note of tokens of the prompt that were evaluated."""
        now = self._clock()
        self._stats = replace(
            self._stats,
            read_tokens=self._stats.read_tokens + count,
            prompt_s=now - self._mark,
        )
        if self.unread and now - self._reported >= _REPORTS_EVERY_S:
            self._reported = now
            self._outbox.put(Chunk(None, "", None, self._stats))

    def note_drafted(self, count: int) -> None:
        """Take note of guesses that were evaluated."""
        drafted = self._stats.drafted_tokens + count
        self._stats = replace(self._stats, drafted_tokens=drafted)

    def draw(
        self,
        token: int,
        vocabulary: Vocabulary,
        logprobs: Logprobs | None = None,
        *,
        guessed: bool = False,
    ) -> bool:
        """Hand a drawn token to the reader; False when it was the last one.

        The last one counts as no right guess: what was evaluated of it is cut off.
        """
        now = self._clock()
        if not self._stats.new_tokens:
            self._mark = now
        self._stats = replace(
            self._stats,
            new_tokens=self._stats.new_tokens + 1,
            generate_s=now - self._mark,
        )
        text = self._text.feed(vocabulary.piece(token))
        finish = self._finish(token, vocabulary)
        if finish is not None and not self._text.stopped:
            text += self._text.end()
        if guessed and finish is None:
            accepted = self._stats.accepted_tokens + 1
            self._stats = replace(self._stats, accepted_tokens=accepted)
        self._outbox.hold(Chunk(token, text, finish, self._stats, logprobs))
        if finish is not None or now - self._flushed >= _WAKES_EVERY_S:
            self._flushed = now
            self.flush()
        self.pending = [token]
        return finish is None

    def flush(self) -> None:
        """Hand over what was held back, before a step that may take long."""
        self._outbox.flush()

    def cancel(self) -> None:
        """Tell the reader that it ends here, without a token."""
        self._outbox.put(Chunk(None, self._text.end(), "cancelled", self._stats))

    def fail(self, error: BaseException) -> None:
        """Tell the reader what went wrong."""
        self._outbox.put(error)

    def _finish(self, token: int, vocabulary: Vocabulary) -> Finish | None:
        if vocabulary.is_end(token) or self._text.stopped:
            return "stop"
        if self.cancelled:
            return "cancelled"
        return "length" if self.left == 0 else None
