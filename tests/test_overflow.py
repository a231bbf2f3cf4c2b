"""Conversations that outgrow the context, under each policy."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest

from tests.scripted import ScriptedEngine
from wizard_edge.conversation import Conversation
from wizard_edge.engine import Overflow, Sampling, Stats
from wizard_edge.errors import UsageError
from wizard_edge.overflow import Removal, fit, plan_removal, room_for_answer
from wizard_edge.prompt import encode_messages
from wizard_edge.spelling import Spelling
from wizard_edge.templates import TEMPLATES, Message

VICUNA = TEMPLATES["vicuna"]
GREEDY = Sampling(max_tokens=40)
CONTEXT = 400
SYSTEM = "Be brief."


def chat(
    overflow: Overflow, turns: int, *, context: int = CONTEXT, **said: bool
) -> tuple[ScriptedEngine, Conversation, list[Stats]]:
    """Hold a conversation of turns that take 40 tokens each."""
    engine = ScriptedEngine(*[f" answer {n:02}." for n in range(99)], context=context)
    for name, value in said.items():
        setattr(engine, name, value)
    conversation = Conversation(engine, VICUNA, system=SYSTEM, overflow=overflow)
    return engine, conversation, [ask(conversation, n) for n in range(turns)]


def ask(conversation: Conversation, number: int) -> Stats:
    question = f"question {number:02}"
    return list(conversation.ask(question, GREEDY))[-1].stats


def seen(conversation: Conversation) -> list[Message]:
    messages = conversation.messages[2 * conversation.history.first :]
    return [Message("system", SYSTEM), *messages]


@pytest.mark.parametrize("overflow", ["drop-oldest-turns", "shift"])
def test_what_is_seen_is_always_a_whole_conversation(overflow: Overflow) -> None:
    engine, conversation, _ = chat(overflow, 0)
    for number in range(40):
        ask(conversation, number)

        assert list(conversation.ids) == encode_messages(
            VICUNA, seen(conversation), engine.vocabulary
        )
        assert conversation.history.size == len(conversation.ids) <= CONTEXT


def test_old_turns_go_in_blocks_and_the_prefix_is_read_once() -> None:
    _, conversation, stats = chat("drop-oldest-turns", 40)

    dropped = [each.dropped_turns for each in stats]
    assert dropped == sorted(dropped)
    changes = [n for n in range(1, 40) if dropped[n] != dropped[n - 1]]
    # Half of the context is free after each: room for several turns.
    assert [after - before for before, after in pairwise(changes)] == [5] * 6
    assert all(
        each.reread_tokens == 0 for n, each in enumerate(stats) if n not in changes
    )
    assert len(conversation.messages) == 80


def test_the_counts_say_how_much_longer_the_prompt_would_have_been() -> None:
    _, short, stats = chat("drop-oldest-turns", 20)
    _, long, whole = chat("drop-oldest-turns", 20, context=4096)

    assert [each.prompt_tokens + each.dropped_tokens for each in stats] == [
        each.prompt_tokens for each in whole
    ]
    assert short.messages == long.messages


def test_what_was_read_in_another_place_is_counted_as_read_again() -> None:
    _, _, stats = chat("drop-oldest-turns", 20)
    cut = next(each for each in stats if each.dropped_turns)

    assert cut.reread_tokens > 0
    assert cut.cached_tokens >= len(SYSTEM)


def test_room_is_kept_for_the_answer() -> None:
    engine, conversation, _ = chat("drop-oldest-turns", 6)

    list(conversation.ask("question", Sampling(max_tokens=150)))

    assert len(engine.prompts[-1]) + 150 <= CONTEXT


def test_a_shift_reads_the_question_only() -> None:
    engine, _, stats = chat("shift", 40)

    assert stats[-1].dropped_turns > 0
    assert [each.reread_tokens for each in stats] == [0] * 40
    total = sum(each.read_tokens + each.new_tokens - 1 for each in stats)
    assert engine.evaluated == total
    # Question and template, and the end token of the answer before.
    assert max(each.read_tokens for each in stats[1:]) <= 32


def test_a_shift_that_the_engine_cannot_do_is_read_again() -> None:
    engine, conversation, _ = chat("shift", 6)
    engine.cached = []

    for number in range(6, 12):
        ask(conversation, number)

    assert conversation.history.first > 0
    assert list(conversation.ids) == encode_messages(
        VICUNA, seen(conversation), engine.vocabulary
    )


def test_an_engine_that_cannot_shift_is_refused_at_once() -> None:
    with pytest.raises(UsageError, match="cannot shift") as caught:
        chat("shift", 0, can_shift=False)

    assert "drop-oldest-turns" in str(caught.value.hint)


def test_error_gives_the_counts_and_changes_nothing() -> None:
    _, conversation, stats = chat("error", 10)
    before = conversation.history

    with pytest.raises(UsageError) as caught:
        ask(conversation, 10)

    assert [each.dropped_turns for each in stats] == [0] * 10
    assert caught.value.message == (
        "the conversation has 400 tokens and the question 29, the context takes 400"
    )
    assert "--overflow drop-oldest-turns" in str(caught.value.hint)
    assert conversation.history == before


@pytest.mark.parametrize("overflow", ["drop-oldest-turns", "shift", "error"])
def test_a_question_that_does_not_fit_alone_is_an_error(overflow: Overflow) -> None:
    _, conversation, _ = chat(overflow, 3)
    before = conversation.history

    with pytest.raises(UsageError):
        conversation.ask("x" * CONTEXT, GREEDY)

    assert conversation.history == before


def test_undo_brings_back_dropped_turns_where_no_other_is_left() -> None:
    engine, conversation, _ = chat("drop-oldest-turns", 8)
    first = conversation.history.first
    while len(conversation.history.turns) > first:
        conversation.undo()

    ask(conversation, 77)

    assert conversation.history.first == 0
    assert list(conversation.ids) == encode_messages(
        VICUNA, seen(conversation), engine.vocabulary
    )


def test_asking_again_after_a_drop_gives_the_same_prompt() -> None:
    engine, conversation, _ = chat("drop-oldest-turns", 0)
    for number in range(20):
        ask(conversation, number)
        last = list(conversation.regenerate(GREEDY))[-1]

        assert engine.prompts[-1] == engine.prompts[-2]
        assert last.stats.read_tokens == 1


def test_a_long_question_drops_all_turns_but_not_the_system_text() -> None:
    engine, conversation, _ = chat("drop-oldest-turns", 3)

    [*_, last] = conversation.ask("y" * 330, GREEDY)

    assert last.stats.dropped_turns == 3
    messages = [Message("system", SYSTEM), Message("user", "y" * 330)]
    assert engine.prompts[-1] == encode_messages(VICUNA, messages, engine.vocabulary)


@pytest.mark.parametrize(
    ("max_tokens", "room"), [(None, 100), (30, 30), (1000, 200)], ids=str
)
def test_the_room_for_an_answer_is_bounded(max_tokens: int | None, room: int) -> None:
    assert room_for_answer(CONTEXT, max_tokens) == room


def test_a_history_that_fits_stays_what_it_is() -> None:
    engine, conversation, _ = chat("drop-oldest-turns", 3)
    spelling = Spelling(VICUNA, SYSTEM, engine.vocabulary)
    asked = replace(conversation.history)

    fitting = fit(
        asked,
        context=CONTEXT,
        room=100,
        policy="drop-oldest-turns",
        spell=spelling.opening,
    )

    assert fitting is asked


@pytest.mark.parametrize(
    ("before", "after", "removal"),
    [
        ("system one two", "system two", Removal(7, 4)),
        ("aab", "ab", Removal(1, 1)),
        ("abc", "axc", None),
        ("abc", "ac!", None),
        ("abc", "abc", None),
        ("abc", "ab", Removal(2, 1)),
    ],
    ids=str,
)
def test_a_removal_is_what_makes_one_prompt_the_other(
    before: str, after: str, removal: Removal | None
) -> None:
    ids = [list(map(ord, text)) for text in (before, after)]

    assert plan_removal(*ids) == removal
