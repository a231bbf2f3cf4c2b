"""Answers with guesses over the real llama.cpp are those without."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from math import inf, log
from pathlib import Path
from typing import Literal

import pytest

from tests.llama.models import ModelShape, write_random_model
from wizard_edge._llama.backend import LlamaBackend
from wizard_edge._llama.drafting import DraftModel
from wizard_edge._llama.engine import LlamaEngine
from wizard_edge.answers import Answer
from wizard_edge.conversation import Conversation
from wizard_edge.engine import Chunk, LoadOptions, Sampling, Stats
from wizard_edge.errors import UsageError
from wizard_edge.lookup import Lookup
from wizard_edge.prompt import begin, encode
from wizard_edge.scheduler import Scheduler
from wizard_edge.speculation import Drafter, Speculation
from wizard_edge.templates import TEMPLATES
from wizard_edge.turns import Turn

Kind = Literal["lookup", "draft", "both"]
KINDS: tuple[Kind, ...] = ("lookup", "draft", "both")
SAID = "Hi, my name is Ada. What is my name? Your name is Ada. Hi, my name is Ada."
QUESTIONS = (
    SAID,
    "My name is Bob. What is my name?",
    "What is 7 plus 5? What is 7 plus 5? What is 7 plus 5?",
    "I like red. Which colour do I like?",
)
WAYS = {
    "greedy": Sampling(max_tokens=40),
    **{
        f"seed {seed}": Sampling(
            temperature=0.8, top_k=40, top_p=0.95, seed=seed, max_tokens=40
        )
        for seed in range(4)
    },
    "hot": Sampling(temperature=1.5, seed=3, max_tokens=40),
    "penalty": Sampling(temperature=0.8, repeat_penalty=1.3, seed=5, max_tokens=40),
    "grammar": Sampling(
        temperature=0.8,
        grammar='root ::= ("is " | "Ada. " | "my name ")+',
        seed=1,
        max_tokens=40,
    ),
    "schema": Sampling(
        temperature=0.8,
        seed=2,
        max_tokens=40,
        json_schema='{"type": "array", "items": {"enum": [1, 12, 123]}, "minItems": 9}',
    ),
}


@dataclass(frozen=True)
class Plain:
    """The prompts, and for each way their answers without guesses."""

    prompts: list[list[int]]
    answers: dict[str, list[list[int | None]]]


@contextmanager
def guessing(
    target: Path, draft: Path, kind: Kind, options: LoadOptions
) -> Iterator[Scheduler]:
    """Give an engine that guesses wherever it can."""
    backend = LlamaBackend(target, options)
    drafters: list[Callable[[int], Drafter]] = []
    model = DraftModel(draft, options, backend)
    if kind != "draft":
        drafters.append(lambda sequence: Lookup())
    if kind != "lookup":
        drafters.append(model.drafter)
    speculation = Speculation(drafters, weigh=False, close=model.close)
    scheduler = Scheduler(backend, speculation=speculation)
    try:
        yield scheduler
    finally:
        scheduler.close()


def prompts(engine: LlamaEngine) -> list[list[int]]:
    vicuna = TEMPLATES["vicuna"]
    vocabulary = engine.vocabulary
    return [
        begin(vocabulary) + encode(vicuna.open(question), vocabulary)
        for question in QUESTIONS
    ]


def read(answer: Answer) -> tuple[list[int | None], Stats]:
    chunks: list[Chunk] = list(answer)
    return [chunk.token for chunk in chunks], chunks[-1].stats


@pytest.fixture(scope="module")
def plain(apprentice: Callable[[str], Path]) -> Plain:
    options = LoadOptions(threads=1, context=256, deterministic=True, lookup=False)
    with LlamaEngine(apprentice("Q8_0"), options) as engine:
        asked = prompts(engine)
        answers = {
            name: [read(engine.generate(prompt, way))[0] for prompt in asked]
            for name, way in WAYS.items()
        }
    return Plain(asked, answers)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("parallel", [1, 4])
def test_an_answer_is_the_same_token_for_token(
    apprentice: Callable[[str], Path],
    plain: Plain,
    kind: Kind,
    parallel: int,
) -> None:
    options = LoadOptions(threads=1, context=256, deterministic=True, parallel=parallel)
    drafted = accepted = 0
    found: dict[str, list[list[int | None]]] = {}

    with guessing(apprentice("Q8_0"), apprentice("Q4_0"), kind, options) as scheduler:
        for name, way in WAYS.items():
            if parallel == 1:
                answers = [
                    read(scheduler.submit(prompt, way)) for prompt in plain.prompts
                ]
            else:
                coming = [scheduler.submit(prompt, way) for prompt in plain.prompts]
                answers = [read(answer) for answer in coming]
            found[name] = [tokens for tokens, _ in answers]
            drafted += sum(stats.drafted_tokens for _, stats in answers)
            accepted += sum(stats.accepted_tokens for _, stats in answers)

    assert found == plain.answers
    assert 0 < accepted < drafted


def test_the_switches_decide_who_guesses(apprentice: Callable[[str], Path]) -> None:
    drafted = {}
    for lookup in (True, False, None):
        options = LoadOptions(threads=1, context=256, deterministic=True, lookup=lookup)
        with LlamaEngine(apprentice("Q8_0"), options) as engine:
            found = [
                read(engine.generate(prompt, WAYS["hot"])) for prompt in prompts(engine)
            ]
            drafted[lookup] = sum(stats.drafted_tokens for _, stats in found)

    assert drafted[True] > 0
    # Where every token is evaluated alone, nothing can be gained.
    assert drafted[None] == drafted[False] == 0


def test_a_draft_model_guesses_where_it_pays(apprentice: Callable[[str], Path]) -> None:
    options = LoadOptions(
        threads=1, context=256, draft=apprentice("Q4_0"), lookup=True, parallel=2
    )
    with LlamaEngine(apprentice("Q8_0"), options) as engine:
        found = [
            read(engine.generate(prompt, WAYS["greedy"])) for prompt in prompts(engine)
        ]

    assert all(stats.accepted_tokens > 0 for _, stats in found)


def test_guesses_are_counted_by_llama_cpp_too(
    apprentice: Callable[[str], Path],
) -> None:
    """What is evaluated beyond the history are the guesses that were wrong."""
    options = LoadOptions(threads=1, context=512, lookup=True)
    with LlamaEngine(apprentice("Q8_0"), options) as engine:
        conversation = Conversation(engine, TEMPLATES["vicuna"])
        # llama.cpp never says 0 before its first single token.
        list(conversation.ask(SAID, Sampling(max_tokens=3)))
        before, history, vain = engine.evaluated, len(conversation.ids), 0
        for question in QUESTIONS * 2:
            *_, last = conversation.ask(question, Sampling(max_tokens=24))
            vain += last.stats.drafted_tokens - last.stats.accepted_tokens

        evaluated = engine.evaluated - before
        assert vain > 0
        assert abs(evaluated - vain - (len(conversation.ids) - history)) <= 8


def test_a_draft_model_of_another_vocabulary_is_refused(
    apprentice: Callable[[str], Path], tmp_path: Path
) -> None:
    other = write_random_model(tmp_path / "other.gguf", ModelShape())

    with pytest.raises(UsageError) as caught:
        LlamaEngine(apprentice("Q8_0"), LoadOptions(threads=1, draft=other))

    assert str(caught.value) == (
        "the draft model other.gguf has another vocabulary: 264 tokens, not 2048"
    )


# Of an answer four tokens can be drawn: as many texts as can be counted.
LETTERS = 4
DRAWN = 3
ANSWERS = 800
# A chi-square of 63 degrees of freedom is beyond it once in 10^9 times, and seeds
# are the same in every run. Source: the Wilson-Hilferty approximation.
DEGREES = LETTERS**DRAWN - 1
FAR_OFF = DEGREES * (1 - 2 / (9 * DEGREES) + 6.0 * (2 / (9 * DEGREES)) ** 0.5) ** 3


@pytest.fixture(scope="module")
def random_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("random")
    return write_random_model(folder / "random.gguf", ModelShape(width=32))


def histogram(
    path: Path, speculation: Speculation | None, seed: int, kind: type[Scheduler]
) -> tuple[Counter[tuple[int | None, ...]], int]:
    """Count the answers of many seeds, and the guesses that were right."""
    backend = LlamaBackend(path, LoadOptions(threads=1, context=64))
    letters = range(10, 10 + LETTERS)
    # What has just been drawn stands in the prompt, with what may follow.
    prompt = [1, *(letters[i * i % 7 % LETTERS] for i in range(30))]
    others = set(range(backend.vocabulary.size)) - set(letters)
    sampling = Sampling(
        temperature=1,
        max_tokens=DRAWN,
        logit_bias=tuple((token, -inf) for token in sorted(others)),
    )
    scheduler = kind(backend, speculation=speculation)
    counts: Counter[tuple[int | None, ...]] = Counter()
    right = 0
    try:
        answers = [
            scheduler.submit(prompt, replace(sampling, seed=number))
            for number in range(seed, seed + ANSWERS)
        ]
        for tokens, stats in map(read, answers):
            counts[tuple(tokens)] += 1
            right += stats.accepted_tokens
    finally:
        scheduler.close()
    return counts, right


def distance(
    one: Counter[tuple[int | None, ...]], two: Counter[tuple[int | None, ...]]
) -> float:
    """Return the G statistic of the hypothesis that both are of one distribution.

    Source: R. Sokal, F. Rohlf, Biometry, the G-test of independence.
    """
    total = 0.0
    for answer in {*one, *two}:
        mean = (one[answer] + two[answer]) / 2
        total += sum(n * log(n / mean) for n in (one[answer], two[answer]) if n)
    return 2 * total


class Credulous(Scheduler):
    """Takes every guess for right, unseen."""

    def _draw(self, turn: Turn, drafts: list[int], row: int) -> None:
        for draft in drafts:
            turn.draw(draft, self._backend.vocabulary)
        super()._draw(turn, [], row + len(drafts))


def test_answers_with_guesses_are_of_the_same_distribution(random_model: Path) -> None:
    plain, _ = histogram(random_model, None, 1, Scheduler)
    guessed, right = histogram(random_model, looking(), 10**6, Scheduler)
    believed, _ = histogram(random_model, looking(), 2 * 10**6, Credulous)

    assert right > ANSWERS / 20
    assert distance(plain, guessed) < FAR_OFF
    assert distance(plain, believed) > 2 * FAR_OFF


def looking() -> Speculation:
    return Speculation([lambda sequence: Lookup()], weigh=False)
