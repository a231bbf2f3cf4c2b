"""Vectors of texts over the real llama.cpp, with the bundled model."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from wizard_edge._llama.backend import LlamaBackend
from wizard_edge._llama.embedding import embed_text
from wizard_edge._llama.engine import LlamaEngine
from wizard_edge.backend import Span
from wizard_edge.engine import LoadOptions, Sampling
from wizard_edge.errors import BackendError, UsageError
from wizard_edge.prompt import begin, encode
from wizard_edge.scheduler import Scheduler
from wizard_edge.templates import TEMPLATES

LONG = [1] + [token % 900 + 10 for token in range(999)]


@pytest.fixture(scope="module")
def engine(apprentice: Callable[[str], Path]) -> Iterator[LlamaEngine]:
    with LlamaEngine(apprentice("F16"), LoadOptions(threads=1)) as loaded:
        yield loaded


@pytest.fixture
def backend(apprentice: Callable[[str], Path]) -> Iterator[LlamaBackend]:
    loaded = LlamaBackend(apprentice("F16"), LoadOptions(threads=1))
    yield loaded
    loaded.close()


def ids_of(engine: LlamaEngine, text: str) -> list[int]:
    return begin(engine.vocabulary) + engine.vocabulary.tokenize(text)


def one_by_one(backend: LlamaBackend, ids: Sequence[int]) -> NDArray[np.float64]:
    """Compute the vector of a text token by token."""
    states = []
    for place, token in enumerate(ids):
        state = backend.read_states(Span(0, place, [token], 0))
        assert state is not None
        states.append(state[0])
    mean = np.mean(states, axis=0, dtype=np.float64)
    return np.asarray(mean / np.linalg.norm(mean))


def test_a_vector_for_each_text_of_length_one(engine: LlamaEngine) -> None:
    texts = [ids_of(engine, text) for text in ("Hello!", "What is 7 plus 5?", "Bye")]

    vectors = engine.embed(texts)

    assert len(vectors) == 3
    assert vectors.dtype == np.dtype("f4")
    assert np.linalg.norm(vectors, axis=1) == pytest.approx([1, 1, 1])
    assert engine.embed([]).shape == (0, vectors.shape[1])


def test_a_text_in_one_batch_is_the_text_token_by_token(
    engine: LlamaEngine, backend: LlamaBackend
) -> None:
    ids = ids_of(engine, "Hi, my name is Ada. What is 7 plus 5?")

    [vector] = engine.embed([ids])

    np.testing.assert_allclose(vector, one_by_one(backend, ids), atol=1e-3)


def test_a_text_of_several_batches_is_the_text_in_small_parts(
    engine: LlamaEngine, backend: LlamaBackend
) -> None:
    [vector] = engine.embed([LONG])

    backend.batch = 61
    scheduler = Scheduler(backend)
    parts = embed_text(scheduler, backend, LONG)
    scheduler.run(lambda same, stopped: None)
    np.testing.assert_allclose(vector, parts, atol=1e-3)
    scheduler.close()


def test_texts_alike_in_wording_lie_nearer(engine: LlamaEngine) -> None:
    texts = ("What is 7 plus 5?", "What is 3 plus 5?", "Hi, my name is Ada.")

    first, second, third = engine.embed([ids_of(engine, text) for text in texts])

    assert first @ second > first @ third


def test_an_answer_is_the_same_before_beside_and_behind(engine: LlamaEngine) -> None:
    pieces = TEMPLATES["vicuna"].open("Hello!")
    prompt = begin(engine.vocabulary) + encode(pieces, engine.vocabulary)
    before = engine.logits(prompt)
    answer = [chunk.token for chunk in engine.generate(prompt, Sampling())]

    engine.embed([prompt, LONG])

    assert (engine.logits(prompt) == before).all()
    assert [c.token for c in engine.generate(prompt, Sampling())] == answer


def test_a_batch_that_fails_leaves_the_context_as_it_was(
    backend: LlamaBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[bool] = []
    set_embeddings = backend._library.llama_set_embeddings

    def note(context: object, value: bool) -> None:
        asked.append(value)
        set_embeddings(context, value)

    monkeypatch.setattr(backend._library, "llama_set_embeddings", note)
    # A position that does not follow what is there.
    backend.decode([Span(0, 0, [1, 5], 1)])
    with pytest.raises(BackendError):
        backend.read_states(Span(0, 0, [7], 0))
    stopped = backend.read_states(Span(0, 2, LONG[:500], 0), stopped=lambda: True)

    assert stopped is None
    assert asked == [True, False, True, False]


@pytest.mark.parametrize("count", [0, 1025])
def test_a_text_that_does_not_fit_is_refused(engine: LlamaEngine, count: int) -> None:
    with pytest.raises(UsageError, match=f"{count} tokens to embed"):
        engine.embed([[1, 5], [1] * count])
