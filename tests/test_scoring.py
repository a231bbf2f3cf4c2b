"""Log probabilities, of models whose logits are known and of the bundled one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from math import inf, log
from pathlib import Path
from typing import cast

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from tests.backends import FakeBackend
from tests.scripted import CharVocabulary
from wizard_edge._llama.engine import LlamaEngine
from wizard_edge.engine import Chunk, LoadOptions, Logprobs, Sampling
from wizard_edge.errors import UsageError
from wizard_edge.prompt import begin, encode
from wizard_edge.scheduler import Scheduler
from wizard_edge.scoring import logprobs_of, score_prompt
from wizard_edge.templates import TEMPLATES

HALVES = np.log(np.array([0.5, 0.125, 0.25, 0.125], np.float32))


class FixedScorer:
    """Expects the same wherever it is asked, and gives it in blocks of two."""

    vocabulary = CharVocabulary()

    def __init__(self, logits: NDArray[np.float32]) -> None:
        self._logits = logits

    def score(
        self, ids: Sequence[int], *, first: int = 0
    ) -> Iterator[NDArray[np.float32]]:
        for start in range(first, len(ids), 2):
            yield np.tile(self._logits, (min(2, len(ids) - start), 1))

    def close(self) -> None:
        pass


class CountingBackend(FakeBackend):
    """Counts how often logits were looked at."""

    looked = 0

    def logits(self, row: int, count: int = 1) -> NDArray[np.float32]:
        self.looked += 1
        return np.zeros((count, 200_000), np.float32)


@pytest.fixture(scope="module")
def engine(apprentice: Callable[[str], Path]) -> Iterator[LlamaEngine]:
    with LlamaEngine(apprentice("Q8_0"), LoadOptions(threads=1, parallel=2)) as loaded:
        yield loaded


@pytest.fixture
def prompt(engine: LlamaEngine) -> list[int]:
    pieces = TEMPLATES["vicuna"].open("Hello!")
    return begin(engine.vocabulary) + encode(pieces, engine.vocabulary)


def about(value: float) -> float:
    """Return what is equal to a number that was rounded a little."""
    return cast(float, pytest.approx(value))


def close_to(expected: Logprobs) -> Logprobs:
    top = tuple((token, about(value)) for token, value in expected.top)
    return Logprobs(about(expected.logprob), top)


def likely(chunk: Chunk) -> Logprobs:
    assert chunk.logprobs is not None
    return chunk.logprobs


def test_the_likeliest_come_first_and_equal_ones_by_their_id() -> None:
    found = logprobs_of(HALVES + 3, 2, 3)

    assert found == close_to(
        Logprobs(log(0.25), ((0, log(0.5)), (2, log(0.25)), (1, log(0.125))))
    )


def test_more_than_there_are_is_all_and_none_is_none() -> None:
    assert [t for t, _ in logprobs_of(HALVES, 1, 20).top] == [0, 2, 1, 3]
    assert logprobs_of(HALVES, 1, 0) == close_to(Logprobs(log(0.125)))


def test_a_token_that_cannot_be_has_minus_infinity() -> None:
    logits = np.array([0, -inf, 0], np.float32)

    assert logprobs_of(logits, 1, 1) == close_to(Logprobs(-inf, ((0, log(0.5)),)))


@given(st.lists(st.floats(-1e4, 1e4, width=32), min_size=1, max_size=40))
def test_probabilities_add_up_to_one(values: list[float]) -> None:
    top = logprobs_of(np.array(values, np.float32), 0, len(values)).top

    logs = [value for _, value in top]
    assert sum(np.exp(logs)) == pytest.approx(1)
    assert logs == sorted(logs, reverse=True)
    assert sorted(token for token, _ in top) == list(range(len(values)))


def test_a_prompt_is_scored_from_its_second_token_on() -> None:
    scores = list(score_prompt(FixedScorer(HALVES), [3, 0, 2, 1, 3], top=1))

    best = ((0, about(log(0.5))),)
    assert scores == [
        None,
        Logprobs(about(log(0.5)), best),
        Logprobs(about(log(0.25)), best),
        Logprobs(about(log(0.125)), best),
        Logprobs(about(log(0.125)), best),
    ]


def test_a_prompt_of_one_token_has_nothing_to_score() -> None:
    assert list(score_prompt(FixedScorer(HALVES), [3])) == [None]


def test_more_than_can_be_shown_is_refused() -> None:
    with pytest.raises(UsageError, match="logprobs must be from 0 to 20, got 21"):
        next(score_prompt(FixedScorer(HALVES), [3], top=21))


def test_logits_are_looked_at_only_where_they_are_asked_for() -> None:
    backend = CountingBackend()
    scheduler = Scheduler(backend)
    plain = list(scheduler.submit([5, 6], Sampling(max_tokens=4)))
    before = backend.looked
    asked = list(scheduler.submit([5, 6], Sampling(max_tokens=4, logprobs=0)))
    scheduler.close()

    assert (before, backend.looked) == (0, 4)
    assert {chunk.logprobs for chunk in plain} == {None}
    assert [likely(chunk).logprob for chunk in asked] == [about(-log(200_000))] * 4


def test_an_answer_tells_what_scoring_it_again_tells(
    engine: LlamaEngine, prompt: list[int]
) -> None:
    """Drawn under filters, a bias and a grammar: the model's own distribution."""
    sampling = Sampling(
        temperature=3,
        top_k=9,
        seed=1,
        max_tokens=12,
        repeat_penalty=1.3,
        logprobs=4,
        grammar="root ::= [a-z ]{60}",
        logit_bias=((prompt[-1], 2.0),),
    )
    beside = engine.generate(prompt, Sampling())
    chunks = list(engine.generate(prompt, sampling))
    beside.close()

    ids = [token for chunk in chunks if (token := chunk.token) is not None]
    scores = list(score_prompt(engine, prompt + ids, top=4))[len(prompt) :]

    assert len(chunks) == 12
    for chunk, score in zip(chunks, scores, strict=True):
        assert score is not None
        assert likely(chunk).logprob == pytest.approx(score.logprob, abs=0.05)
        assert [v for _, v in likely(chunk).top] == pytest.approx(
            [v for _, v in score.top], abs=0.05
        )


def test_scores_are_the_log_softmax_of_the_logits(
    engine: LlamaEngine, prompt: list[int]
) -> None:
    logits = engine.logits(prompt).astype(np.float64)
    logs = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))

    first, *scores = score_prompt(engine, prompt, top=2)

    assert first is None
    for place, score in enumerate(scores):
        assert score is not None
        two = tuple(int(t) for t in np.argsort(-logs[place])[:2])
        assert score.logprob == about(logs[place][prompt[place + 1]])
        assert score.top == tuple((t, about(logs[place][t])) for t in two)
