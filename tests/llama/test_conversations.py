"""Conversations over the real llama.cpp: what it counts itself is never more."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from wizard_edge._llama.engine import LlamaEngine
from wizard_edge.conversation import Conversation
from wizard_edge.engine import LoadOptions, Overflow, Sampling, Stats
from wizard_edge.errors import UsageError
from wizard_edge.prompt import encode_messages
from wizard_edge.templates import TEMPLATES, Message

VICUNA = TEMPLATES["vicuna"]
SHORT = Sampling(max_tokens=8)
CONTEXT = 256


@pytest.fixture(scope="module")
def engine(apprentice: Callable[[str], Path]) -> Iterator[LlamaEngine]:
    options = LoadOptions(threads=1, context=CONTEXT, lookup=False)
    with LlamaEngine(apprentice("Q8_0"), options) as loaded:
        # Before that llama.cpp counts one token each where there was none.
        list(loaded.generate([loaded.vocabulary.eos] * 2, SHORT))
        yield loaded


def read(replies: Iterator[object]) -> Stats:
    *_, last = replies
    stats: Stats = last.stats  # type: ignore[attr-defined]
    return stats


def ask(conversation: Conversation, question: str) -> Stats:
    return read(conversation.ask(question, SHORT))


def test_every_token_of_a_conversation_is_evaluated_once(engine: LlamaEngine) -> None:
    before = engine.evaluated
    conversation = Conversation(engine, VICUNA)
    stats = [ask(conversation, f"Hi {turn}") for turn in range(8)]

    assert conversation.history.first == 0
    # All but what another conversation has read, and the token drawn last.
    new = len(conversation.ids) - stats[0].cached_tokens - 1
    assert engine.evaluated - before == new


def test_asking_again_evaluates_one_prompt_token(engine: LlamaEngine) -> None:
    conversation = Conversation(engine, VICUNA)
    ask(conversation, "Hello!")
    ask(conversation, "Who are you?")
    before = engine.evaluated

    stats = read(conversation.regenerate(SHORT))

    assert stats.cached_tokens == stats.prompt_tokens - 1
    assert engine.evaluated - before == 1 + stats.new_tokens - 1


def test_an_edit_evaluates_the_new_question_only(engine: LlamaEngine) -> None:
    conversation = Conversation(engine, VICUNA)
    for question in ("Hello!", "Who are you?", "What is 2 plus 3?"):
        ask(conversation, question)
    kept = conversation.history.cut(1).ids
    before = engine.evaluated

    stats = read(conversation.edit(2, "What is 7 plus 5?", SHORT))

    assert stats.reread_tokens == 0
    assert stats.cached_tokens >= len(kept) - 1
    assert engine.evaluated - before == stats.read_tokens + stats.new_tokens - 1
    assert [turn.question for turn in conversation.history.turns] == [
        "Hello!",
        "What is 7 plus 5?",
    ]


def test_undo_reads_nothing_twice(engine: LlamaEngine) -> None:
    conversation = Conversation(engine, VICUNA)
    ask(conversation, "Hello!")
    kept = conversation.ids
    ask(conversation, "Who are you?")
    conversation.undo()

    stats = ask(conversation, "What is your name?")

    assert stats.reread_tokens == 0
    assert stats.cached_tokens >= len(kept) - 1


@pytest.mark.parametrize("overflow", ["drop-oldest-turns", "shift"])
def test_a_conversation_goes_on_beyond_the_context(
    engine: LlamaEngine, overflow: Overflow
) -> None:
    conversation = Conversation(engine, VICUNA, overflow=overflow)
    before, expected = engine.evaluated, 0
    reread = 0
    for turn in range(24):
        stats = ask(conversation, f"What is {turn} plus 5?")
        expected += stats.read_tokens + stats.new_tokens - 1
        reread += stats.reread_tokens

    assert conversation.history.first > 8
    assert len(conversation.ids) <= CONTEXT
    assert engine.evaluated - before == expected
    assert (reread == 0) == (overflow == "shift")


def test_shifted_tokens_are_spelled_as_an_opening(engine: LlamaEngine) -> None:
    sampling = Sampling(max_tokens=40)
    conversation = Conversation(engine, VICUNA, overflow="shift")
    while not conversation.history.first:
        read(conversation.ask("Hi, my name is Ada.", sampling))

    seen: list[Message] = conversation.messages[2 * conversation.history.first :]
    assert list(conversation.ids) == encode_messages(VICUNA, seen, engine.vocabulary)


def test_exact_results_and_shifting_exclude_each_other(
    apprentice: Callable[[str], Path],
) -> None:
    options = LoadOptions(threads=1, context=CONTEXT, deterministic=True)
    with LlamaEngine(apprentice("Q8_0"), options) as exact:
        with pytest.raises(UsageError, match="cannot shift"):
            Conversation(exact, VICUNA, overflow="shift")
        with pytest.raises(UsageError, match="cannot shift"):
            exact.shift_state([1, 2, 3], first=1, count=1)


def test_an_answer_is_awaited(engine: LlamaEngine) -> None:
    conversation = Conversation(engine, VICUNA)

    async def talk() -> str:
        return "".join([c.text async for c in conversation.ask("Hello!", SHORT)])

    text = asyncio.run(talk())

    assert text
    assert conversation.messages[-1] == Message("assistant", text)


def test_an_awaited_answer_that_is_cancelled_is_kept_as_far_as_read(
    engine: LlamaEngine,
) -> None:
    conversation = Conversation(engine, VICUNA)

    async def talk() -> str:
        reply = conversation.ask("Tell me a story.", Sampling(max_tokens=60))
        text = ""
        async for chunk in reply:
            text += chunk.text
            if chunk.stats.new_tokens == 3:
                break
        task = asyncio.ensure_future(anext(reply))
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        return text

    text = asyncio.run(talk())

    assert len(conversation.history.turns[-1].answer) == 3
    assert conversation.messages[-1] == Message("assistant", text)
