"""When to guess how an answer goes on, and how far: as far as it saves time.

A step that evaluates a token and guesses of what follows it yields as many tokens as
guesses were right, and one more; it takes longer than a step of one token. What is
gained depends on the machine and on the text. Both are learnt from what happens, so
that a text which does not repeat is answered as fast as without guesses.
Source of the gain: Leviathan, Kalman, Matias, Fast Inference from Transformers via
Speculative Decoding (arXiv 2211.17192), section 3.3.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

from wizard_edge.step_costs import StepCosts

# A batch of more rows costs a CPU in proportion, and delays everybody else's tokens.
MOST_ROWS = 16
# One step in so many has no guesses, so that the cost of such a step stays known.
_PLAIN_EVERY = 64
# What has to be gained before it is worth to guess, in steps.
_WORTH = 1.05
# What guesses may have cost more than they gained in an answer, in steps: so much, and
# one more in so many tokens. No guess is made that could lose more.
_STAKE = 1.0
_STAKE_EVERY = 100
# And of what they gained so much is kept to be staked.
_MOST_GAINED = 6.0
# How likely a guess is right before one was made, by its grade, and how many guesses
# that counts for. Only a beginning: what happens soon counts for more.
_HOPES = (0.0, 0.1, 0.25, 0.6, 0.8, 0.9, 0.95)
_HOPE_COUNTS = 2.0
# What was seen counts half after 70 tokens, so that a text may change its mind.
_FADING = 0.99


class Drafter(Protocol):
    """Guesses how one text goes on.

    A text only grows: `ids` of a call begin with what was drawn until the last one.
    """

    def look(self, ids: Sequence[int], drawn: int) -> int:
        """Take in a text, and the token drawn behind it.

        Returns the grade of what would be proposed, from 1 to 6 as it is likely to
        be right, and 0 for nothing.
        """
        ...

    def propose(self, most: int) -> list[int]:
        """Guess at most so many tokens that follow what `look` took in."""
        ...

    def observe(self, accepted: int) -> None:
        """Hear how many of the guesses were right."""
        ...


class Odds:
    """How often the guesses of one drafter were right in one text, by grade."""

    def __init__(self) -> None:
        # Right guesses, wrong ones, and at how many tokens that was.
        self._seen: dict[int, tuple[float, float, int]] = {}

    def right(self, grade: int, tokens: int) -> float:
        """Return how likely a guess is right whose predecessors were."""
        hits, misses, at = self._seen.get(grade, (0.0, 0.0, tokens))
        faded = _FADING ** (tokens - at)
        hope = _HOPES[grade]
        hits = hits * faded + hope * _HOPE_COUNTS
        misses = misses * faded + (1 - hope) * _HOPE_COUNTS
        return hits / (hits + misses)

    def observe(self, grade: int, drafted: int, accepted: int, tokens: int) -> None:
        """Take note of guesses: of the wrong ones only the first was tried."""
        hits, misses, at = self._seen.get(grade, (0.0, 0.0, tokens))
        faded = _FADING ** (tokens - at)
        missed = accepted < drafted
        self._seen[grade] = (hits * faded + accepted, misses * faded + missed, tokens)


class Guesses:
    """The guesses of one answer: asks its drafters, and learns what they are worth."""

    def __init__(
        self,
        drafters: Iterable[Drafter],
        costs: StepCosts,
        *,
        weigh: bool,
        clock: Callable[[], float],
    ) -> None:
        self._backers = [_Backer(drafter) for drafter in drafters]
        self._costs = costs
        self._weigh = weigh
        self._clock = clock
        self._first: int | None = None
        self._tokens = 0
        self._streak = 0
        self._made: _Made | None = None

    def guess(
        self, ids: Sequence[int], drawn: int, *, others: int, most: int
    ) -> list[int]:
        """Return guesses of what follows the token drawn behind `ids`.

        At most `most`, and none where they do not promise to save time. `others` is
        how many rows the step has beside the token and its guesses.
        """
        if self._first is None:
            self._first = len(ids)
        self._tokens = len(ids) - self._first
        self._made = None
        if self._weigh and (not self._costs.begun or self._streak >= _PLAIN_EVERY):
            self._streak = 0
            return []
        for backer in self._backers:
            guesses = self._ask(backer, ids, drawn, others, most)
            if guesses:
                self._streak += 1
                return guesses
        self._streak = 0
        return []

    def settle(self, drafted: int, accepted: int) -> None:
        """Hear how many of the guesses were evaluated, and how many were right."""
        if self._made is None:
            return
        made, self._made = self._made, None
        made.backer.drafter.observe(accepted)
        made.backer.odds.observe(made.grade, drafted, accepted, self._tokens)
        plain = self._costs.of(made.others + 1)
        cost = self._costs.of(made.others + 1 + drafted) / plain + made.drafting
        gained = (made.others + 1 + accepted) / (made.others + 1)
        made.backer.gain(gained - cost)

    def _ask(
        self,
        backer: _Backer,
        ids: Sequence[int],
        drawn: int,
        others: int,
        most: int,
    ) -> list[int]:
        if self._weigh and self._stake(backer) <= 0:
            return []
        most = min(most, MOST_ROWS - others - 1)
        if most <= 0:
            return []
        grade = backer.drafter.look(ids, drawn)
        if not grade:
            return []
        count = self._best(backer, grade, others, most) if self._weigh else most
        if not count:
            return []
        begun = self._clock()
        guesses = backer.drafter.propose(count)
        seconds = self._clock() - begun
        drafting = seconds / self._costs.step_s if self._costs.step_s else 0.0
        backer.guess_cost = drafting / max(1, len(guesses))
        if guesses:
            self._made = _Made(backer, grade, others, drafting)
        else:
            backer.gain(-drafting)
        return guesses

    def _best(self, backer: _Backer, grade: int, others: int, most: int) -> int:
        """Return how many guesses promise the most tokens for the time, 0 for none."""
        right = backer.odds.right(grade, self._tokens)
        plain = self._costs.of(others + 1)
        stake = self._stake(backer)
        best, best_count = _WORTH, 0
        likely, tokens = 1.0, float(others + 1)
        for count in range(1, most + 1):
            likely *= right
            tokens += likely
            cost = self._costs.of(others + 1 + count) / plain
            cost += count * backer.guess_cost
            gain = tokens / (others + 1) / cost
            if cost - 1 <= stake and gain > best:
                best, best_count = gain, count
        return best_count

    def _stake(self, backer: _Backer) -> float:
        """Return how many steps may be lost now."""
        return backer.gained + _STAKE + self._tokens / _STAKE_EVERY


class Speculation:
    """What an engine knows of guessing: who guesses, and what a step costs."""

    def __init__(
        self,
        drafters: Sequence[Callable[[int], Drafter]],
        *,
        costs: StepCosts | None = None,
        weigh: bool = True,
        clock: Callable[[], float] = time.perf_counter,
        close: Callable[[], None] = lambda: None,
    ) -> None:
        """`drafters` make one of each kind for an answer in that sequence.

        The first is asked first. Without `weigh` they guess as often and as far as
        they can. `close` frees what they hold together.
        """
        self._drafters = drafters
        self._weigh = weigh
        self._clock = clock
        self.costs = costs or StepCosts()
        self.close = close

    def begin(self, sequence: int) -> Guesses:
        """Return the guesses of an answer that begins in a sequence."""
        drafters = [make(sequence) for make in self._drafters]
        return Guesses(drafters, self.costs, weigh=self._weigh, clock=self._clock)


class _Backer:
    """A drafter, what is known of it in this text and what it has gained so far.

    `gained` and `guess_cost` are in steps of one token.
    """

    def __init__(self, drafter: Drafter) -> None:
        self.drafter = drafter
        self.odds = Odds()
        self.gained = 0.0
        self.guess_cost = 0.0

    def gain(self, steps: float) -> None:
        self.gained = min(self.gained + steps, _MOST_GAINED)


class _Made:
    """Guesses that are being evaluated; `drafting` is what it took to make them."""

    def __init__(
        self, backer: _Backer, grade: int, others: int, drafting: float
    ) -> None:
        self.backer = backer
        self.grade = grade
        self.others = others
        self.drafting = drafting
