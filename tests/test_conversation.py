from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from tests.scripted import BOS, EOS, ScriptedEngine
from wizard_edge.conversation import Conversation
from wizard_edge.engine import Chunk, Sampling, never
from wizard_edge.errors import UsageError
from wizard_edge.prompt import encode_messages
from wizard_edge.templates import TEMPLATES, Message

GREEDY = Sampling()
VICUNA = TEMPLATES["vicuna"]
ALPACA = TEMPLATES["alpaca"]


def say(
    conversation: Conversation,
    text: str,
    sampling: Sampling = GREEDY,
    cancelled: Callable[[], bool] = never,
) -> list[Chunk]:
    return list(conversation.ask(text, sampling, cancelled=cancelled))


def text_of(chunks: list[Chunk]) -> str:
    return "".join(chunk.text for chunk in chunks)


def after(count: int) -> Callable[[], bool]:
    """Cancel at the look number `count`."""
    looks = iter(range(count))
    return lambda: next(looks, None) is None


def test_the_answer_comes_without_the_space_that_is_the_templates() -> None:
    conversation = Conversation(ScriptedEngine(" Hello. "), VICUNA)

    assert text_of(say(conversation, "Hi")) == "Hello. "


def test_history_equals_the_rendered_conversation() -> None:
    engine = ScriptedEngine(" Hello.", " I am WizardLM.")
    conversation = Conversation(engine, VICUNA)

    say(conversation, "Hi")
    say(conversation, "Who are you?")

    assert list(conversation.ids) == encode_messages(
        VICUNA, conversation.messages, engine.vocabulary
    )
    assert conversation.messages == [
        Message("user", "Hi"),
        Message("assistant", "Hello."),
        Message("user", "Who are you?"),
        Message("assistant", "I am WizardLM."),
    ]


def test_every_prompt_begins_with_the_history_before_it() -> None:
    engine = ScriptedEngine(" one", " two", " three")
    conversation = Conversation(engine, VICUNA)

    for question in ("a", "b", "c"):
        before = list(conversation.ids)
        say(conversation, question)
        assert engine.prompts[-1][: len(before)] == before


def test_no_token_is_read_twice() -> None:
    conversation = Conversation(ScriptedEngine(" one", " two", " three"), VICUNA)

    last = [say(conversation, question)[-1] for question in ("a", "b", "c")]

    assert [chunk.stats.reread_tokens for chunk in last] == [0, 0, 0]
    assert last[2].stats.cached_tokens > last[1].stats.cached_tokens > 0


def test_another_conversation_in_between_is_counted_as_reading_again() -> None:
    engine = ScriptedEngine(" one", " other", " two")
    conversation = Conversation(engine, VICUNA)
    say(conversation, "a")
    say(Conversation(engine, ALPACA), "something else")

    last = say(conversation, "b")[-1]

    assert last.stats.reread_tokens > 0


def test_a_cut_answer_is_closed_before_the_next_question() -> None:
    engine = ScriptedEngine(" a long answer", " ok")
    conversation = Conversation(engine, VICUNA)

    cut = say(conversation, "tell", Sampling(max_tokens=7))
    say(conversation, "go on")

    assert cut[-1].finish == "length"
    assert text_of(cut) == "a long"
    assert list(conversation.ids) == encode_messages(
        VICUNA, conversation.messages, engine.vocabulary
    )


def test_a_cancelled_answer_is_kept_as_far_as_it_came() -> None:
    conversation = Conversation(ScriptedEngine(" a long answer"), VICUNA)

    chunks = say(conversation, "tell", cancelled=after(6))

    assert chunks[-1].finish == "cancelled"
    assert conversation.messages[-1] == Message("assistant", text_of(chunks))


def test_a_question_cancelled_before_its_answer_is_forgotten() -> None:
    conversation = Conversation(ScriptedEngine(" one", " two"), VICUNA)
    say(conversation, "a")
    before = conversation.ids

    say(conversation, "b", cancelled=lambda: True)

    assert conversation.ids == before
    assert len(conversation.messages) == 2


def test_an_answer_nobody_reads_to_the_end_is_kept_as_far_as_read() -> None:
    conversation = Conversation(ScriptedEngine(" abcdef"), VICUNA)

    chunks = conversation.ask("x", GREEDY)
    read = [next(chunks) for _ in range(4)]
    chunks.close()

    assert text_of(read) == "abc"
    assert conversation.messages[-1] == Message("assistant", "abc")


def test_single_turn_templates_start_fresh() -> None:
    engine = ScriptedEngine(" one", " two")
    conversation = Conversation(engine, ALPACA)

    say(conversation, "a")
    say(conversation, "b")

    assert engine.prompts[1] == encode_messages(
        ALPACA, [Message("user", "b")], engine.vocabulary
    )


def test_history_sends_earlier_turns_of_a_single_turn_template() -> None:
    engine = ScriptedEngine(" one", " two")
    conversation = Conversation(engine, ALPACA, history=True)

    say(conversation, "a")
    say(conversation, "b")

    assert list(conversation.ids) == encode_messages(
        ALPACA, conversation.messages, engine.vocabulary
    )


def test_one_bos_and_only_where_the_vocabulary_wants_one() -> None:
    with_bos = ScriptedEngine(" x", " y")
    without = ScriptedEngine(" x", " y", bos=None)
    for engine in (with_bos, without):
        conversation = Conversation(engine, VICUNA)
        say(conversation, "a")
        say(conversation, "b")

    assert with_bos.prompts[1].count(BOS) == 1
    assert with_bos.prompts[1][0] == BOS
    assert BOS not in without.prompts[1]
    assert with_bos.prompts[1].count(EOS) == 1


def test_a_question_that_does_not_fit_changes_nothing() -> None:
    conversation = Conversation(ScriptedEngine(" one", context=220), VICUNA)
    say(conversation, "a")
    before = conversation.ids

    with pytest.raises(UsageError):
        conversation.ask("x" * 300, GREEDY)

    assert conversation.ids == before


def test_a_system_text_without_a_place_is_refused_at_once() -> None:
    with pytest.raises(UsageError, match="no place for a system text"):
        Conversation(ScriptedEngine(), TEMPLATES["wizardlm-7b"], system="Be brief.")


def test_clear_forgets_the_turns_and_keeps_the_system_text() -> None:
    engine = ScriptedEngine(" one", " two")
    conversation = Conversation(engine, VICUNA, system="Be brief.")
    say(conversation, "a")

    conversation.clear()
    say(conversation, "b")

    messages = [Message("system", "Be brief."), Message("user", "b")]
    assert engine.prompts[1] == encode_messages(VICUNA, messages, engine.vocabulary)


def test_an_answer_that_was_open_does_not_undo_clear() -> None:
    conversation = Conversation(ScriptedEngine(" abcdef"), VICUNA)
    chunks = conversation.ask("x", GREEDY)
    next(chunks)

    conversation.clear()
    chunks.close()

    assert conversation.ids == ()
    assert conversation.messages == []


def test_undo_forgets_the_last_turn_and_reads_nothing_twice() -> None:
    engine = ScriptedEngine(" one", " two", " three")
    conversation = Conversation(engine, VICUNA)
    say(conversation, "a")
    before = conversation.ids
    say(conversation, "b")

    undone = conversation.undo()
    last = say(conversation, "c")[-1]

    assert (undone.question, undone.text) == ("b", "two")
    assert conversation.messages[2:] == [
        Message("user", "c"),
        Message("assistant", "three"),
    ]
    assert last.stats.reread_tokens == 0
    # The last token of an answer is drawn and never evaluated.
    assert last.stats.cached_tokens >= len(before) - 1


def test_undo_of_nothing_is_refused() -> None:
    with pytest.raises(UsageError, match="nothing was asked"):
        Conversation(ScriptedEngine(), VICUNA).undo()


def test_regenerate_evaluates_the_last_prompt_token_only() -> None:
    engine = ScriptedEngine(" one", " two", " other")
    conversation = Conversation(engine, VICUNA)
    say(conversation, "a")
    say(conversation, "b")

    last = list(conversation.regenerate(GREEDY))[-1]

    assert last.stats.read_tokens == 1
    assert last.stats.reread_tokens == 1
    assert engine.prompts[2] == engine.prompts[1]
    assert conversation.messages[2:] == [
        Message("user", "b"),
        Message("assistant", "other"),
    ]


def test_a_turn_stays_where_its_new_answer_never_begins() -> None:
    conversation = Conversation(ScriptedEngine(" one"), VICUNA)
    say(conversation, "a")
    before = conversation.history

    list(conversation.regenerate(GREEDY, cancelled=lambda: True))

    assert conversation.history == before


def test_edit_replaces_a_question_and_forgets_what_follows() -> None:
    engine = ScriptedEngine(" one", " two", " three", " new")
    conversation = Conversation(engine, VICUNA)
    for question in ("a", "b", "c"):
        say(conversation, question)
    kept = conversation.history.cut(1).ids

    last = list(conversation.edit(2, "B", GREEDY))[-1]

    assert [message.content for message in conversation.messages] == [
        *("a", "one"),
        *("B", "new"),
    ]
    assert last.stats.reread_tokens == 0
    assert last.stats.cached_tokens >= len(kept) + len("USER: ")


def test_an_edit_of_a_turn_that_is_not_there_names_how_many_there_are() -> None:
    conversation = Conversation(ScriptedEngine(" one"), VICUNA)
    say(conversation, "a")

    with pytest.raises(UsageError, match="no question 2 of 1"):
        conversation.edit(2, "x", GREEDY)


def test_single_turns_can_be_asked_again() -> None:
    engine = ScriptedEngine(" one", " two", " other")
    conversation = Conversation(engine, ALPACA)
    say(conversation, "a")
    say(conversation, "b")

    last = list(conversation.regenerate(GREEDY))[-1]

    assert engine.prompts[2] == engine.prompts[1]
    assert last.stats.dropped_turns == 0
    assert conversation.messages[0] == Message("user", "a")
    assert conversation.messages[3] == Message("assistant", "other")


def test_a_question_closes_the_answer_that_is_still_open() -> None:
    engine = ScriptedEngine(" abcdef", " two")
    conversation = Conversation(engine, VICUNA)
    reply = conversation.ask("x", GREEDY)
    for _ in range(3):
        next(reply)

    say(conversation, "y")

    assert [message.content for message in conversation.messages] == [
        *("x", "ab"),
        *("y", "two"),
    ]
    assert list(conversation.ids) == encode_messages(
        VICUNA, conversation.messages, engine.vocabulary
    )


def test_an_answer_that_is_closed_twice_joins_once() -> None:
    conversation = Conversation(ScriptedEngine(" abcdef"), VICUNA)
    reply = conversation.ask("x", GREEDY)
    next(reply)

    reply.close()
    reply.close()

    assert len(conversation.history.turns) == 1


def test_an_answer_that_is_dropped_is_kept_as_far_as_read() -> None:
    conversation = Conversation(ScriptedEngine(" abcdef"), VICUNA)
    reply = conversation.ask("x", GREEDY)
    for _ in range(3):
        next(reply)

    del reply

    assert conversation.messages[-1] == Message("assistant", "ab")


def test_an_engine_without_async_answers_says_so() -> None:
    reply = Conversation(ScriptedEngine(" a"), VICUNA).ask("x", GREEDY)

    async def read() -> None:
        await anext(reply)

    with pytest.raises(UsageError, match="plain 'for'"):
        asyncio.run(read())


class Recorded:
    """Remembers what it was told of a conversation."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def record(self, conversation: Conversation) -> None:
        self.told.append(f"{len(conversation.history.turns)} turns")

    def rest(self, conversation: Conversation) -> None:
        self.told.append("rest")


def test_a_recorder_is_told_of_a_turn_before_its_last_chunk_is_read() -> None:
    conversation = Conversation(ScriptedEngine(" a"), VICUNA)
    conversation.recorder = recorded = Recorded()
    reply = conversation.ask("x", GREEDY)
    while next(reply).finish is None:
        pass

    at_the_end = list(recorded.told)
    list(reply)

    assert at_the_end == ["1 turns"]
    assert recorded.told == ["1 turns", "rest"]


@pytest.mark.parametrize("turns", range(4))
def test_undo_of_every_turn_gives_what_was_before(turns: int) -> None:
    engine = ScriptedEngine(*[" answer"] * 4)
    conversation = Conversation(engine, VICUNA)
    seen = []
    for question in range(4):
        seen.append(conversation.ids)
        say(conversation, f"question {question}")

    for _ in range(4 - turns):
        conversation.undo()

    assert conversation.ids == seen[turns]
