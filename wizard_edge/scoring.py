"""How likely the tokens of a text were, out of logits. Pure arithmetic over numpy."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from wizard_edge.engine import MOST_LOGPROBS, Logprobs, Scorer
from wizard_edge.errors import UsageError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class ScoredToken:
    """A token of a text, how it is written, and how likely it was.

    Of the first one nothing is known.
    """

    token: int
    text: str
    logprobs: Logprobs | None


def logprobs_of(logits: NDArray[np.float32], token: int, top: int) -> Logprobs:
    """Return how likely a token was, and the `top` likeliest ones, from its logits.

    `logits` has the shape (vocabulary,). Of equally likely tokens that with the
    lower id comes first.
    """
    import numpy as np

    shifted = logits.astype(np.float64) - logits.max()
    logs = shifted - np.log(np.exp(shifted).sum())
    # A whole sort of 32,000 would cost ten times as much.
    most = min(top, len(logs))
    first = np.argpartition(-logs, most - 1)[:most] if most else np.arange(0)
    if most:
        # What is as likely as the last one may have been left out for it.
        first = np.flatnonzero(logs >= logs[first].min())
    order = first[np.argsort(-logs[first], kind="stable")][:most]
    pairs = tuple((int(index), float(logs[index])) for index in order)
    return Logprobs(float(logs[token]), pairs)


def score_prompt(
    scorer: Scorer, ids: Sequence[int], *, top: int = 0
) -> Iterator[Logprobs | None]:
    """Yield how likely each token of a text was after those before it.

    The first is None: nothing comes before it. The logarithms are of the model's own
    distribution, before any filter.
    Raises: UsageError when there is no id, or more than the context takes.
    """
    if not 0 <= top <= MOST_LOGPROBS:
        raise UsageError(f"logprobs must be from 0 to {MOST_LOGPROBS}, got {top}")
    place = 0
    for block in scorer.score(ids):
        if place == 0:
            yield None
        for row in block:
            place += 1
            # What follows the last token nobody knows.
            if place < len(ids):
                yield logprobs_of(row, ids[place], top)


def score_text(
    scorer: Scorer, ids: Sequence[int], *, top: int = 0
) -> list[ScoredToken]:
    """Return the tokens of a text with how likely they were. As `score_prompt`."""
    spell = scorer.vocabulary.spell
    found = score_prompt(scorer, ids, top=top)
    return [
        ScoredToken(token, spell(token), logprobs)
        for token, logprobs in zip(ids, found, strict=True)
    ]
