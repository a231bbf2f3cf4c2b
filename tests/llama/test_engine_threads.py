"""Many callers of one engine over the real llama.cpp."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path

import pytest

from wizard_edge._llama.engine import LlamaEngine
from wizard_edge.conversation import Conversation
from wizard_edge.engine import Chunk, LoadOptions, Sampling
from wizard_edge.prompt import begin, encode
from wizard_edge.templates import TEMPLATES

VICUNA = TEMPLATES["vicuna"]
QUESTIONS = (
    "Hello!",
    "Who are you?",
    "My name is Bob. What is my name?",
    "What is 7 plus 5?",
    "I like red. Which colour do I like?",
    "Tell me something about the sea, and about the mountains behind it.",
)
WAYS = (
    Sampling(max_tokens=20),
    Sampling(temperature=0.8, top_k=40, top_p=0.95, seed=3, max_tokens=20),
    Sampling(temperature=3, seed=11, max_tokens=20, logprobs=0),
)
CASES = list(product(range(len(QUESTIONS)), range(len(WAYS))))
Case = tuple[int, int]
Drawn = tuple[int | None, float | None]


def prompt_of(engine: LlamaEngine, question: int) -> list[int]:
    opening = VICUNA.open(QUESTIONS[question])
    return begin(engine.vocabulary) + encode(opening, engine.vocabulary)


def ask(engine: LlamaEngine, case: Case, **more: object) -> Iterator[Chunk]:
    question, way = case
    owner = more.get("owner")
    return engine.generate(prompt_of(engine, question), WAYS[way], owner=owner)


def tokens(chunks: Iterator[Chunk]) -> list[Drawn]:
    """Return the tokens, with how likely they were where that was asked for."""
    return [
        (chunk.token, chunk.logprobs.logprob if chunk.logprobs else None)
        for chunk in chunks
    ]


def alone(path: Path, options: LoadOptions) -> dict[Case, list[Drawn]]:
    """Return every answer as a caller without neighbours gets it, nothing cached."""
    answers = {}
    for case in CASES:
        with LlamaEngine(path, options) as engine:
            answers[case] = tokens(ask(engine, case))
    return answers


def run_threads(count: int, work: Callable[[int], None]) -> None:
    """Run `work` on that many threads; what one of them raises is raised here."""
    errors: list[BaseException] = []

    def guarded(number: int) -> None:
        try:
            work(number)
        except BaseException as err:  # noqa: BLE001 - raised below
            errors.append(err)

    threads = [
        threading.Thread(target=guarded, args=(number,)) for number in range(count)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    if errors:
        raise errors[0]


@pytest.mark.parametrize("parallel", [1, 4])
@pytest.mark.parametrize("quant", ["F16", "Q4_K_M"])
def test_deterministic_answers_are_those_of_a_caller_alone(
    apprentice: Callable[[str], Path], quant: str, parallel: int
) -> None:
    """Two hundred answers, cold or warm, beside others, some of them given up."""
    path = apprentice(quant)
    options = LoadOptions(threads=1, context=256, parallel=parallel, deterministic=True)
    expected = alone(path, LoadOptions(threads=1, context=256, deterministic=True))
    found: list[tuple[Case, list[Drawn]]] = []

    with LlamaEngine(path, options) as engine:

        def work(number: int) -> None:
            draw = random.Random(number)
            owner = Conversation(engine, VICUNA)
            for _ in range(50):
                case = draw.choice(CASES)
                answer = ask(engine, case, owner=draw.choice([None, owner]))
                if draw.random() < 0.1:
                    next(answer)
                    del answer
                    answer = ask(engine, case)
                found.append((case, tokens(answer)))

        run_threads(4, work)

    assert len(found) == 200
    assert [case for case, answer in found if answer != expected[case]] == []


def test_eight_threads_at_once_and_every_tenth_gives_up(
    apprentice: Callable[[str], Path],
) -> None:
    path = apprentice("Q8_0")
    options = LoadOptions(threads=1, context=256, parallel=4)
    ended: list[str | None] = []

    with LlamaEngine(path, options) as engine:

        def work(number: int) -> None:
            draw = random.Random(number)
            for _ in range(25):
                answer = ask(engine, draw.choice(CASES))
                if draw.random() < 0.1:
                    next(answer)
                    continue
                *_, last = answer
                ended.append(last.finish)

        run_threads(8, work)
        after = tokens(ask(engine, CASES[0]))

    assert set(ended) <= {"stop", "length"}
    assert after


def test_conversations_beside_each_other_keep_their_history(
    apprentice: Callable[[str], Path],
) -> None:
    """Four talk in two sequences: who waits is parked and reads nothing twice."""
    options = LoadOptions(threads=1, context=512, parallel=2)
    reread: list[int] = []

    with LlamaEngine(apprentice("Q8_0"), options) as engine:

        def work(number: int) -> None:
            conversation = Conversation(engine, VICUNA)
            for question in QUESTIONS[:4]:
                *_, last = conversation.ask(question, Sampling())
                reread.append(last.stats.reread_tokens)

        run_threads(4, work)

    assert reread == [0] * 16
