"""How tokens are drawn, against numpy on the logits and llama.cpp's own samplers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from math import inf
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from wizard_edge._llama.backend import LlamaBackend
from wizard_edge._llama.engine import LlamaEngine
from wizard_edge.backend import Span
from wizard_edge.engine import LoadOptions, Sampling
from wizard_edge.errors import UsageError
from wizard_edge.prompt import begin, encode
from wizard_edge.templates import TEMPLATES

LETTER = "root ::= [a-m]"
PERSON = """
root ::= "{\\"name\\": \\"" [A-Z] [a-z]* "\\", \\"age\\": " [0-9]+ "}"
"""


@pytest.fixture(scope="module")
def backend(apprentice: Callable[[str], Path]) -> Iterator[LlamaBackend]:
    loaded = LlamaBackend(apprentice("Q8_0"), LoadOptions(threads=1))
    yield loaded
    loaded.close()


@pytest.fixture(scope="module")
def engine(apprentice: Callable[[str], Path]) -> Iterator[LlamaEngine]:
    with LlamaEngine(apprentice("Q8_0"), LoadOptions(threads=1, parallel=2)) as loaded:
        yield loaded


@pytest.fixture
def prompt(backend: LlamaBackend) -> list[int]:
    pieces = TEMPLATES["vicuna"].open("Hello!")
    return begin(backend.vocabulary) + encode(pieces, backend.vocabulary)


@pytest.fixture
def logits(backend: LlamaBackend, prompt: list[int]) -> NDArray[np.float32]:
    """What follows the prompt; its last row is there to be drawn from."""
    backend.cut(0, 0)
    backend.decode([Span(0, 0, prompt, len(prompt) - 1)])
    [row] = backend.logits(len(prompt) - 1)
    return np.asarray(row)


def draw(backend: LlamaBackend, sampling: Sampling, prompt: list[int]) -> int:
    chooser = backend.chooser(sampling, prompt)
    token = chooser.sample(len(prompt) - 1)
    chooser.close()
    return token


def text_of(engine: LlamaEngine, prompt: list[int], sampling: Sampling) -> str:
    return "".join(chunk.text for chunk in engine.generate(prompt, sampling))


def test_a_logit_bias_is_added(
    backend: LlamaBackend, prompt: list[int], logits: NDArray[np.float32]
) -> None:
    rng = np.random.default_rng(5)
    for _ in range(20):
        biases = rng.normal(0, 8, len(logits)).astype("f4")
        sampling = Sampling(logit_bias=tuple(enumerate(map(float, biases))))

        assert draw(backend, sampling, prompt) == (logits + biases).argmax()


def test_a_bias_of_minus_infinity_forbids_a_token(
    backend: LlamaBackend, prompt: list[int], logits: NDArray[np.float32]
) -> None:
    *_, third, second, first = map(int, logits.argsort())

    one = Sampling(logit_bias=((first, -inf),))
    two = Sampling(logit_bias=((first, -inf), (second, -inf)))
    wild = [
        Sampling(temperature=9, seed=seed, logit_bias=((first, -inf),))
        for seed in range(300)
    ]

    assert draw(backend, one, prompt) == second
    assert draw(backend, two, prompt) == third
    assert first not in {draw(backend, sampling, prompt) for sampling in wild}


def test_a_bias_comes_before_the_penalty(
    backend: LlamaBackend, prompt: list[int], logits: NDArray[np.float32]
) -> None:
    """Added behind it the same bias would make the token the likeliest."""
    seen = list(set(prompt[-64:]))
    token = min(seen, key=lambda token: abs(logits[token]))
    penalised = logits.copy()
    penalised[seen] = np.where(logits[seen] > 0, logits[seen] / 2, logits[seen] * 2)
    penalised[token] = -inf
    best = penalised.max()
    bias = float(2 * best - 1 - logits[token])
    assert logits[token] / 2 + bias > best

    sampling = Sampling(repeat_penalty=2, logit_bias=((token, bias),))

    assert draw(backend, sampling, prompt) == penalised.argmax()


def test_a_bias_for_a_token_that_does_not_exist_is_refused_at_once(
    engine: LlamaEngine, prompt: list[int]
) -> None:
    size = engine.vocabulary.size
    every = tuple((token, -inf) for token in range(size))
    before = engine.evaluated

    with pytest.raises(UsageError, match=f"token {size}, but the vocabulary has"):
        engine.generate(prompt, Sampling(logit_bias=((size, 1.0),)))
    with pytest.raises(UsageError, match="forbids every token"):
        engine.generate(prompt, Sampling(logit_bias=every))

    assert engine.evaluated == before


def test_without_filters_a_grammar_rescales_the_distribution(
    backend: LlamaBackend, prompt: list[int], logits: NDArray[np.float32]
) -> None:
    """Drawing first and looking at the grammar afterwards changes no probability."""
    pieces = [backend.vocabulary.piece(token) for token in range(len(logits))]
    letters = [t for t, piece in enumerate(pieces) if piece in b"abcdefghijklm"]
    letters = [token for token in letters if len(pieces[token]) == 1]
    weights = np.exp(logits[letters].astype("f8") / 4)
    weights /= weights.sum()
    count = 4000

    drawn = Counter(
        draw(backend, Sampling(temperature=4, seed=seed, grammar=LETTER), prompt)
        for seed in range(count)
    )

    assert set(drawn) <= set(letters)
    expected = weights * count
    observed = np.array([drawn[token] for token in letters])
    common = expected >= 5
    chi = ((observed - expected) ** 2 / expected)[common].sum()
    # Of about 25 degrees of freedom: 1 in a million would be larger.
    assert chi < 80
    assert len(letters) > 12


def test_a_grammar_chooses_as_llama_cpp_with_the_grammar_first(
    backend: LlamaBackend, prompt: list[int]
) -> None:
    library = backend._library
    params = library.llama_sampler_chain_default_params()
    chain = library.llama_sampler_chain_init(params)
    handle = backend.vocabulary.handle
    grammar = library.llama_sampler_init_grammar(handle, PERSON.encode(), b"root")
    library.llama_sampler_chain_add(chain, grammar)
    library.llama_sampler_chain_add(chain, library.llama_sampler_init_greedy())
    ours = backend.chooser(Sampling(grammar=PERSON), prompt)
    ids = list(prompt)
    backend.cut(0, 0)
    backend.decode([Span(0, 0, ids, len(ids) - 1)])
    row = len(ids) - 1

    for _ in range(40):
        token = library.llama_sampler_sample(chain, backend.handle, row)
        assert ours.sample(row) == token
        if backend.vocabulary.is_end(token):
            break
        ids.append(token)
        backend.decode([Span(0, len(ids) - 1, [token], 0)])
        row = 0

    library.llama_sampler_free(chain)
    ours.close()
    assert len(ids) > len(prompt) + 10


def test_what_grammar_and_bias_leave_nothing_of_ends_that_answer_alone(
    engine: LlamaEngine, prompt: list[int]
) -> None:
    """llama.cpp would end the process."""
    expected = text_of(engine, prompt, Sampling())
    endless = Sampling(
        grammar='root ::= "yes"', logit_bias=((engine.vocabulary.eos, -inf),)
    )

    beside = engine.generate(prompt, Sampling())
    answer = engine.generate(prompt, endless)
    said = next(answer).text
    with pytest.raises(UsageError, match="forbids all that the grammar allows"):
        said += "".join(chunk.text for chunk in answer)

    assert "yes".startswith(said)
    assert "".join(chunk.text for chunk in beside) == expected
    assert text_of(engine, prompt, Sampling()) == expected


def test_a_grammar_holds_under_every_filter(
    engine: LlamaEngine, prompt: list[int]
) -> None:
    for seed in range(20):
        sampling = Sampling(
            temperature=3,
            top_k=5,
            top_p=0.9,
            min_p=0.01,
            repeat_penalty=1.5,
            seed=seed,
            max_tokens=8,
            grammar='root ::= [0-9] "," root',
        )

        text = text_of(engine, prompt, sampling)

        digits = text.split(",")
        assert all(len(d) == 1 and d.isdigit() for d in digits if d), text
