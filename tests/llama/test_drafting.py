"""A draft model follows the text, over a fake of it that knows what comes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.backends import FakeBackend, answer_to
from tests.scripted import EOS
from wizard_edge._llama.drafting import ModelDrafter, check_vocabularies
from wizard_edge.errors import BackendError, UsageError
from wizard_edge.pace import Pace

SIZE = 200
TEXT = [100 + index % 17 for index in range(20)]


class SureBackend(FakeBackend):
    """Says what follows with a certainty that can be set."""

    certainty = 20.0

    def logits(self, row: int, count: int = 1) -> NDArray[np.float32]:
        [[token]] = super().logits(row, 1)
        found = np.zeros((1, SIZE), np.float32)
        found[0, int(token)] = self.certainty
        return found


def drafter(
    backend: FakeBackend,
    cached: list[int] | None = None,
    *,
    known: int = 3000,
    pace: Pace | None = None,
) -> ModelDrafter:
    held = [] if cached is None else cached
    return ModelDrafter(backend, 0, held, known=known, pace=pace or Pace())


def follow(drafter: ModelDrafter, text: Sequence[int], most: int) -> list[int]:
    assert drafter.look(text[:-1], text[-1])
    return drafter.propose(most)


def test_it_guesses_what_the_model_thinks_follows() -> None:
    assert follow(drafter(SureBackend()), TEXT, 5) == answer_to(TEXT, 5)


def test_it_is_silent_where_the_model_is_not_sure() -> None:
    backend = SureBackend()
    backend.certainty = 2.0

    assert follow(drafter(backend), TEXT, 5) == []


def test_a_right_guess_is_not_evaluated_again() -> None:
    backend = SureBackend()
    model = drafter(backend)
    guesses = follow(model, TEXT, 4)
    drawn = answer_to(TEXT, 5)
    before = backend.evaluated

    again = follow(model, [*TEXT, *drawn], 3)

    assert drawn[:4] == guesses
    assert again == answer_to([*TEXT, *drawn], 3)
    # The last guess, what was drawn behind it, and two guesses.
    assert backend.evaluated - before == 4


@pytest.mark.parametrize("right", [0, 1, 2, 3])
def test_a_wrong_guess_is_cut_off(right: int) -> None:
    cached: list[int] = []
    backend = SureBackend()
    model = drafter(backend, cached)
    text = [*TEXT, *follow(model, TEXT, 4)[:right], 190]

    guesses = follow(model, text, 3)

    assert guesses == answer_to(text, 3)
    assert backend.cells[0] == cached == [*text, *guesses[:-1]]


def test_the_next_answer_finds_what_the_last_one_left() -> None:
    cached: list[int] = []
    backend = SureBackend()
    follow(drafter(backend, cached), TEXT, 2)
    before = backend.evaluated

    guesses = follow(drafter(backend, cached), [*TEXT, 150, 151], 1)

    assert guesses == answer_to([*TEXT, 150, 151], 1)
    assert backend.evaluated - before == 2


def test_a_long_prompt_is_read_a_part_at_each_step() -> None:
    backend = SureBackend()
    model = drafter(backend, pace=Pace(200))
    text = [100 + index % 71 for index in range(250)]

    grades = [model.look(text[:-1], text[-1]) for _ in range(8)]

    # In a quarter of a second 50 tokens are read, as far as the pace is known.
    assert grades[0] == 0
    assert grades[-1] > 0
    assert max(len(batch[0].ids) for batch in backend.batches[:1]) == 50
    assert model.propose(3) == answer_to(text, 3)


def test_it_guesses_nothing_behind_the_end() -> None:
    text = next(
        [*TEXT, extra]
        for extra in range(100, 2000)
        if answer_to([*TEXT, extra], 1) == [EOS]
    )

    assert follow(drafter(SureBackend()), text, 5) == [EOS]


def test_a_token_that_only_one_model_knows_ends_the_guesses() -> None:
    foreign = drafter(SureBackend(), known=110)
    first = answer_to(TEXT[:9], 1)[0]

    assert foreign.look([*TEXT, 150], 101) == 0
    assert foreign.look(TEXT[:5], 101) == 0
    assert follow(drafter(SureBackend(), known=first), [1, *[9] * 8], 4) == [
        *_while(lambda token: token < first, answer_to([1, *[9] * 8], 4))
    ]


def _while(fits: Callable[[int], bool], tokens: Sequence[int]) -> list[int]:
    found = []
    for token in tokens:
        if not fits(token):
            break
        found.append(token)
    return found


def test_it_stops_where_its_context_ends() -> None:
    """The backend fails a test that goes beyond it."""
    backend = SureBackend(context=24)
    model = drafter(backend)

    assert len(follow(model, TEXT, 9)) == 4
    assert model.look([*TEXT, 1, 2, 3], 4) == 0


def test_an_error_ends_the_guesses_and_not_the_answer(
    caplog: pytest.LogCaptureFixture,
) -> None:
    cached: list[int] = []
    backend = SureBackend()
    model = drafter(backend, cached)

    def fail() -> None:
        raise BackendError("llama.cpp gave up")

    backend.on_decode = fail
    first = follow(model, TEXT, 3)
    backend.on_decode = lambda: None

    assert first == []
    assert model.look(TEXT, 1) == 0
    assert backend.cells[0] == cached == []
    assert "guesses no more of this answer: llama.cpp gave up" in caplog.text


class Words:
    """A vocabulary of a few pieces."""

    def __init__(self, *pieces: str, bos: int | None = 0, eos: int = 1) -> None:
        self.size = len(pieces)
        self.bos = bos
        self.eos = eos
        self._pieces = pieces

    def spell(self, token: int) -> str:
        return self._pieces[token]

    def piece(self, token: int) -> bytes:
        return self._pieces[token].encode()

    def tokenize(self, text: str) -> list[int]:
        raise NotImplementedError

    def control(self, text: str) -> int:
        raise NotImplementedError

    def is_end(self, token: int) -> bool:
        return token == self.eos


SAME = Words("<s>", "</s>", "a", "b")


@pytest.mark.parametrize(
    "other",
    [SAME, Words("<s>", "</s>", "a"), Words("<s>", "</s>", "a", "b", "[PAD]")],
    ids=["same", "one fewer", "one more"],
)
def test_one_vocabulary_may_have_a_few_more_tokens(other: Words) -> None:
    check_vocabularies(Path("draft.gguf"), other, SAME)


@pytest.mark.parametrize(
    ("other", "reason"),
    [
        (Words(*map(str, range(200))), "200 tokens, not 4"),
        (Words("<s>", "</s>", "a", "c"), "token 3 is 'c', not 'b'"),
        (
            Words("<s>", "</s>", "a", "b", bos=None),
            "bos and eos are None and 1, not 0 and 1",
        ),
        (
            Words("<s>", "</s>", "a", "b", eos=2),
            "bos and eos are 0 and 2, not 0 and 1",
        ),
    ],
    ids=["size", "piece", "bos", "eos"],
)
def test_another_vocabulary_is_refused(other: Words, reason: str) -> None:
    with pytest.raises(UsageError) as caught:
        check_vocabularies(Path("draft.gguf"), other, SAME)

    assert str(caught.value) == (
        f"the draft model draft.gguf has another vocabulary: {reason}"
    )
    assert caught.value.hint is not None
