"""Named sessions over the real llama.cpp, with the bundled model."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from wizard_edge._llama.engine import LlamaEngine
from wizard_edge.conversation import Conversation
from wizard_edge.engine import KvPart, LoadOptions, Sampling, Stats
from wizard_edge.errors import BackendError
from wizard_edge.names import SessionName
from wizard_edge.paths import Home
from wizard_edge.session_folders import SessionFolder
from wizard_edge.sessions import ModelFile, Session
from wizard_edge.templates import TEMPLATES

VICUNA = TEMPLATES["vicuna"]
OPTIONS = LoadOptions(threads=1, context=256)
SHORT = Sampling(max_tokens=6)
LONG = Sampling(max_tokens=24)
NAME = SessionName.parse("work")
MODEL = ModelFile("apprentice:Q8_0", "apprentice.Q8_0.gguf", 1, "a" * 64)
QUESTIONS = ("Hi, my name is Ada.", "What is 7 plus 5?", "Who are you?")


def ask(conversation: Conversation, text: str, sampling: Sampling = SHORT) -> Stats:
    return list(conversation.ask(text, sampling))[-1].stats


def evaluations(stats: Stats) -> int:
    """Return how many tokens an answer evaluates: new ones, and wrong guesses."""
    guesses = stats.drafted_tokens - stats.accepted_tokens
    return stats.read_tokens + stats.new_tokens - 1 + guesses


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


Open = Callable[..., AbstractContextManager[tuple[LlamaEngine, Session, Conversation]]]


@pytest.fixture
def opened(apprentice: Callable[[str], Path], home: Home) -> Open:
    """Return a function that opens the session with an engine of its own."""

    @contextmanager
    def open_it(
        options: LoadOptions = OPTIONS,
    ) -> Iterator[tuple[LlamaEngine, Session, Conversation]]:
        with (
            LlamaEngine(apprentice("Q8_0"), options) as engine,
            Session(home, NAME, MODEL) as session,
        ):
            yield engine, session, session.resume(engine, VICUNA)

    return open_it


@pytest.mark.parametrize("kv_type", ["f16", "q8_0"])
def test_a_restart_evaluates_what_is_new(kv_type: str, opened: Open) -> None:
    options = replace(OPTIONS, kv_type=kv_type)  # type: ignore[arg-type]
    with opened(options) as (_, _, conversation):
        for question in QUESTIONS:
            ask(conversation, question)
        tokens = len(conversation.ids)
        expected = ask(conversation, "And now?", LONG).new_tokens
        answer = conversation.history.turns[-1].answer
        conversation.undo()

    with opened(options) as (engine, session, again):
        before = engine.evaluated
        stats = ask(again, "And now?", LONG)

        # llama.cpp counts one token each where there was none.
        assert engine.evaluated - max(before - 2, 0) == evaluations(stats)
    assert session.resumed.reason is None
    assert session.resumed.restored == stats.cached_tokens == tokens - 1
    assert stats.reread_tokens == 0
    assert again.history.turns[-1].answer == answer
    assert stats.new_tokens == expected


def test_a_state_of_another_kv_type_is_read_again(opened: Open) -> None:
    with opened() as (_, _, conversation):
        ask(conversation, QUESTIONS[0])

    with opened(replace(OPTIONS, kv_type="q8_0")) as (_, session, again):
        stats = ask(again, QUESTIONS[1])

    assert session.resumed.reason == (
        "its saved state is of another llama.cpp or another KV type"
    )
    assert stats.cached_tokens == 0
    assert len(again.history.turns) == 2


def test_parts_that_are_gone_are_read_again(home: Home, opened: Open) -> None:
    with opened() as (_, _, conversation):
        for question in QUESTIONS:
            ask(conversation, question)
        first = len(conversation.history.cut(1).ids)
    for path in sorted(SessionFolder(home, NAME).state.iterdir())[1:]:
        path.unlink()

    with opened() as (_, session, again):
        stats = ask(again, "And now?")

    assert session.resumed.restored == stats.cached_tokens == first - 1
    assert session.resumed.reason == "not all of its state was saved"


def test_an_engine_of_several_sequences_saves_whole_states(
    home: Home, opened: Open
) -> None:
    several = replace(OPTIONS, parallel=2)
    with opened(several) as (_, _, conversation):
        for question in QUESTIONS:
            ask(conversation, question)
    files = list(SessionFolder(home, NAME).state.iterdir())

    with opened(several) as (_, session, again):
        stats = ask(again, "And now?")

    assert len(files) == 1
    assert session.resumed.to_read == 1
    assert stats.cached_tokens == len(again.history.cut(3).ids) - 1


def test_an_engine_of_several_sequences_refuses_parts(
    apprentice: Callable[[str], Path],
) -> None:
    options = replace(OPTIONS, parallel=2)
    with LlamaEngine(apprentice("Q8_0"), options) as engine:
        parts = [KvPart(0, 1, b"x"), KvPart(1, 1, b"y")]

        with pytest.raises(BackendError, match="whole states only"):
            engine.restore_state([1, 2], parts)


def test_a_smaller_context_reads_what_still_fits(opened: Open) -> None:
    with opened() as (_, _, conversation):
        for number in range(8):
            ask(conversation, f"What is {number} plus 5?")

    with opened(replace(OPTIONS, context=128)) as (_, session, again):
        stats = ask(again, "And now?")

    assert session.resumed.restored == 0
    assert session.resumed.reason == "it has outgrown the context"
    assert stats.dropped_turns > 0
    assert len(again.history.turns) == 9


def test_a_shifted_state_comes_back(
    apprentice: Callable[[str], Path], home: Home
) -> None:
    def talk(turns: int) -> tuple[Session, list[Stats], tuple[int, ...]]:
        with (
            LlamaEngine(apprentice("Q8_0"), OPTIONS) as engine,
            Session(home, NAME, MODEL) as session,
        ):
            conversation = session.resume(engine, VICUNA, overflow="shift")
            stats = [ask(conversation, f"What is {n}?") for n in range(turns)]
            return session, stats, conversation.ids

    _, before, ids = talk(20)
    session, after, _ = talk(1)

    assert before[-1].dropped_turns > 0
    assert session.resumed.to_read == 1
    assert after[0].cached_tokens == len(ids) - 1
