"""A fake behind the `Backend` seam: sequences of tokens, and a rule what follows.

It is strict where llama.cpp is: a token goes where the sequence ends, logits exist
only where they were asked for. What follows a sequence depends on all of its tokens,
so a token that is missing, doubled or another's changes the answer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from tests.scripted import EOS, CharVocabulary
from wizard_edge.backend import Span
from wizard_edge.engine import Blob, Sampling
from wizard_edge.errors import BackendError

_ALPHABET = "abcdefghijklmnopqrstuvwxyz"


def answer_to(prompt: Sequence[int], count: int) -> list[int]:
    """Return the `count` tokens that follow a prompt, or fewer where EOS comes."""
    ids = list(prompt)
    while len(ids) < len(prompt) + count:
        ids.append(following(ids))
        if ids[-1] == EOS:
            break
    return ids[len(prompt) :]


def following(ids: Sequence[int]) -> int:
    digest = crc32(np.asarray(ids, np.int64).tobytes())
    if digest % 50 == 0:
        return EOS
    return CharVocabulary().tokenize(_ALPHABET[digest % len(_ALPHABET)])[0]


class FakeBackend:
    """Sequences of `context` tokens; keeps what it was asked to do."""

    def __init__(
        self, *, sequences: int = 1, context: int = 4096, batch: int = 512
    ) -> None:
        self.vocabulary = CharVocabulary()
        self.sequences = sequences
        self.context = context
        self.batch = batch
        self.saves_parts = sequences == 1
        self.mixes = True
        self.cells: list[list[int]] = [[] for _ in range(sequences)]
        self.batches: list[list[Span]] = []
        self.evaluated = 0
        self.closed = False
        self.choosers = 0
        # Called within every batch; what it raises is what the batch raises.
        self.on_decode: Callable[[], None] = lambda: None
        self.refuses_states = False
        self._rows: dict[int, int] = {}

    def decode(
        self, spans: Sequence[Span], *, stopped: Callable[[], bool] | None = None
    ) -> bool:
        assert not self.closed
        assert self.mixes or len(spans) == 1
        assert 0 < sum(len(span.ids) for span in spans) <= self.batch
        self.batches.append(list(spans))
        self._rows = dict(self._evaluate(spans))
        self.on_decode()
        return not (stopped is not None and stopped())

    def chooser(self, sampling: Sampling, prompt: Sequence[int]) -> FakeChooser:
        self.choosers += 1
        return FakeChooser(self)

    def logits(self, row: int, count: int = 1) -> NDArray[np.float32]:
        rows = [self._rows[row + index] for index in range(count)]
        return np.asarray([[token] for token in rows], np.float32)

    def cut(self, sequence: int, length: int) -> None:
        del self.cells[sequence][length:]

    def copy(self, source: int, target: int, length: int) -> None:
        self.cells[target] = self.cells[source][:length]

    def shift(self, sequence: int, first: int, count: int) -> None:
        del self.cells[sequence][first : first + count]

    def save(self, sequence: int, first: int = 0, end: int | None = None) -> bytearray:
        assert self.saves_parts or (first == 0 and end is None)
        cells = self.cells[sequence][first:end]
        return bytearray(np.asarray(cells, np.int64).tobytes())

    def restore(self, sequence: int, parts: Sequence[Blob]) -> None:
        self.cells[sequence] = []
        if self.refuses_states:
            raise BackendError("llama.cpp refuses a saved state")
        for part in parts:
            self.cells[sequence] += np.frombuffer(part, np.int64).tolist()

    def close(self) -> None:
        assert not self.closed
        self.closed = True

    def sampled(self, row: int) -> int:
        return self._rows[row]

    def _evaluate(self, spans: Sequence[Span]) -> Iterator[tuple[int, int]]:
        row = 0
        for span in spans:
            cells = self.cells[span.sequence]
            assert span.start == len(cells), "a hole, or a token over another"
            for index, token in enumerate(span.ids):
                cells.append(token)
                if index >= span.logits_from:
                    yield row, following(cells)
                row += 1
                self.evaluated += 1
            assert len(cells) <= self.context


class FakeChooser:
    """Draws what follows; counts itself out when closed."""

    def __init__(self, backend: FakeBackend) -> None:
        self._backend = backend

    def sample(self, row: int) -> int:
        return self._backend.sampled(row)

    def close(self) -> None:
        self._backend.choosers -= 1
