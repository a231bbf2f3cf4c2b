"""What the step loop drives: the seam between scheduling and whatever computes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from wizard_edge.engine import Blob, Sampling, Vocabulary

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Span:
    """Tokens of one sequence that follow each other, to be evaluated in one batch.

    The first lies at position `start`. Logits are wanted of those from index
    `logits_from` on.
    """

    sequence: int
    start: int
    ids: Sequence[int]
    logits_from: int


class Chooser(Protocol):
    """Draws the tokens of one answer, one after the other."""

    def sample(self, row: int) -> int:
        """Draw the next token from the logits of a row of the last batch."""
        ...

    def close(self) -> None: ...


class Backend(Protocol):
    """A model and a KV cache of several sequences. One thread only.

    `context` counts the tokens of one sequence, `sequences` how many there are,
    `batch` the rows that one `decode` takes. Rows of a batch are counted over all
    its spans in order.
    """

    @property
    def vocabulary(self) -> Vocabulary: ...
    @property
    def context(self) -> int: ...
    @property
    def sequences(self) -> int: ...
    @property
    def batch(self) -> int: ...
    @property
    def mixes(self) -> bool:
        """Whether a batch may hold tokens of several sequences."""
        ...

    @property
    def saves_parts(self) -> bool:
        """Whether `save` can begin behind the first token."""
        ...

    def decode(
        self, spans: Sequence[Span], *, stopped: Callable[[], bool] | None = None
    ) -> bool:
        """Evaluate a batch; False when `stopped` ended it before its end.

        What a batch that did not end has put into its sequences is undefined: `cut`
        them back.
        Raises: BackendError.
        """
        ...

    def chooser(self, sampling: Sampling, prompt: Sequence[int]) -> Chooser:
        """Return what draws the tokens behind `prompt`. From any thread.

        Raises: UsageError for a grammar or schema that is not usable.
        """
        ...

    def logits(self, row: int, count: int = 1) -> NDArray[np.float32]:
        """Return a copy of the logits of rows of the last batch, (count, vocabulary).

        They follow each other, and all of them were asked for.
        """
        ...

    def cut(self, sequence: int, length: int) -> None:
        """Forget the tokens of a sequence from position `length` on."""
        ...

    def copy(self, source: int, target: int, length: int) -> None:
        """Make a sequence the first `length` tokens of another."""
        ...

    def shift(self, sequence: int, first: int, count: int) -> None:
        """Drop `count` tokens from position `first` on; those behind move up."""
        ...

    def save(self, sequence: int, first: int = 0, end: int | None = None) -> bytearray:
        """Return what is kept of a sequence from position `first` to before `end`.

        None is the end of all. Where `saves_parts` is not, only the whole is saved.
        """
        ...

    def restore(self, sequence: int, parts: Sequence[Blob]) -> None:
        """Fill a sequence with what was saved, parts that follow each other.

        Raises: BackendError where a part does not fit: the sequence is empty then.
        """
        ...

    def close(self) -> None: ...
