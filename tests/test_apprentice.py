"""What the bundled model can do, measured from the shipped files.

Held-out conversations are played through the real engine with the model's own
answers as history, at Q8_0 and at Q4_K_M. `pytest -s` shows the figures.

The model is so small that a second thread of one engine waits more than it works, so
each engine gets one, and the quants are examined side by side.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

import pytest

from tests.conftest import CHECKPOINT
from tools.apprentice import corpus, phrases
from tools.apprentice.conversation import Conversation as Script
from tools.apprentice.scoring import Answer, Score, report, scores
from wizard_edge._llama.engine import LlamaEngine
from wizard_edge.conversation import Conversation
from wizard_edge.engine import LoadOptions, Sampling
from wizard_edge.templates import TEMPLATES

SEED = 20_000
CONVERSATIONS = 800
# An answer of the corpus has 60 tokens at most; one that is still going has not ended.
LIMIT = Sampling(max_tokens=96)
MAX_SIZE = 15_000_000
MIN_ENDED = 0.98
MIN_RIGHT = 0.90
MAX_LOSS = 0.05
# A recall counts where the fact was told two turns earlier or more.
QUANTS = ("Q8_0", "Q4_K_M")
KINDS = ("recall_name", "recall_colour", "recall_town", "sum")

Exam = dict[str, Score]


@cache
def held_out() -> tuple[Script, ...]:
    """Return conversations that no training has seen, each once."""
    unique = {script.text: script for script in corpus.held_out(SEED, CONVERSATIONS)}
    return tuple(unique.values())


@pytest.fixture(scope="module")
def exam(apprentice: Callable[[str], Path]) -> dict[str, Exam]:
    """Return what each quant scored."""

    def examine(path: Path) -> Exam:
        with LlamaEngine(path, LoadOptions(threads=1, prompt_threads=1)) as engine:
            return {score.kind: score for score in scores(answers(engine))}

    paths = [apprentice(quant) for quant in QUANTS]
    conversations = len(held_out())
    with ThreadPoolExecutor(len(QUANTS)) as pool:
        exams = dict(zip(QUANTS, pool.map(examine, paths), strict=True))
    for quant, found in exams.items():
        print(f"\n{quant}, {conversations} conversations\n{report(found.values())}")
    return exams


def answers(engine: LlamaEngine) -> Iterator[Answer]:
    """Play every held-out conversation."""
    for script in held_out():
        conversation = Conversation(engine, TEMPLATES["vicuna"])
        for turn in script.turns:
            chunks = list(conversation.ask(turn.user, LIMIT))
            text = "".join(chunk.text for chunk in chunks)
            yield Answer(turn, text, chunks[-1].finish == "stop")


def test_the_checkpoint_is_small() -> None:
    size = sum(path.stat().st_size for path in CHECKPOINT.iterdir())

    assert size <= MAX_SIZE


def test_no_held_out_conversation_was_trained_on() -> None:
    note = json.loads((CHECKPOINT / "training.json").read_text(encoding="utf-8"))
    recipe = note["recipe"]
    seed, invented = recipe["seed"], recipe["invented"]
    trained = {
        script.text
        for scripts in (
            corpus.training(seed, recipe["conversations"], invented=invented),
            corpus.drills(seed, recipe["drills"]),
        )
        for script in scripts
    }

    assert len(held_out()) >= 500
    assert not trained & {script.text for script in held_out()}


def test_there_are_a_hundred_names_to_tell_apart() -> None:
    assert len(set(phrases.NAMES)) >= 100


def test_the_exam_asks_enough_of_each_kind(exam: dict[str, Exam]) -> None:
    assert all(exam["Q8_0"][kind].asked >= 40 for kind in KINDS)


@pytest.mark.slow
def test_answers_end_by_themselves(exam: dict[str, Exam]) -> None:
    assert exam["Q8_0"]["ended"].share >= MIN_ENDED


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_q8_0_is_right(exam: dict[str, Exam], kind: str) -> None:
    assert exam["Q8_0"][kind].share >= MIN_RIGHT


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["ended", *KINDS])
def test_q4_k_m_loses_little(exam: dict[str, Exam], kind: str) -> None:
    assert exam["Q4_K_M"][kind].share >= exam["Q8_0"][kind].share - MAX_LOSS
