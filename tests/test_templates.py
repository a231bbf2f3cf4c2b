from __future__ import annotations

import pytest

from wizard_edge.errors import UsageError
from wizard_edge.templates import (
    EOS,
    TEMPLATES,
    Message,
    Piece,
    find_template,
    join_plain,
    parse_messages,
)

VICUNA = TEMPLATES["vicuna"]


def user(text: str) -> Message:
    return Message("user", text)


def test_vicuna_puts_nothing_between_the_end_and_the_next_question() -> None:
    pieces = VICUNA.render([user("Hi"), Message("assistant", "Hello."), user("Who?")])

    assert pieces == [
        Piece(VICUNA.system + " USER: Hi ASSISTANT: Hello."),  # type: ignore[operator]
        EOS,
        Piece("USER: Who? ASSISTANT:"),
    ]


def test_an_empty_system_text_is_not_the_templates_own() -> None:
    assert VICUNA.open("Hi", system="") == [Piece(" USER: Hi ASSISTANT:")]


def test_alpaca_history_has_no_second_preamble() -> None:
    template = TEMPLATES["alpaca"]
    first = template.render([user("one")])

    pieces = template.render([user("one"), Message("assistant", "1"), user("two")])

    assert pieces == [
        Piece(first[0].text + " 1"),
        EOS,
        Piece("### Instruction:\ntwo\n\n### Response:"),
    ]


def test_alpaca_takes_a_system_text_in_place_of_its_preamble() -> None:
    pieces = TEMPLATES["alpaca"].open("x", system="Answer in Latin.")

    assert pieces == [Piece("Answer in Latin.\n\n### Instruction:\nx\n\n### Response:")]


def test_wizardlm_7b_refuses_a_system_text() -> None:
    with pytest.raises(UsageError, match="no place"):
        TEMPLATES["wizardlm-7b"].render([Message("system", "x"), user("y")])


def test_braces_and_marks_in_user_text_stay_as_they_are() -> None:
    text = "{user} {system} %s \\0 </s>"

    assert VICUNA.open(text)[0].text.endswith(f"USER: {text} ASSISTANT:")


@pytest.mark.parametrize(
    "messages",
    [
        [],
        [Message("system", "only")],
        [Message("assistant", "first")],
        [user("a"), user("b")],
        [user("a"), Message("system", "late")],
    ],
    ids=["none", "system only", "answer first", "two questions", "system late"],
)
def test_messages_out_of_order_are_refused(messages: list[Message]) -> None:
    with pytest.raises(UsageError):
        VICUNA.render(messages)


def test_neighbouring_plain_pieces_are_joined_and_empty_ones_dropped() -> None:
    pieces = [Piece("a"), Piece(""), Piece("b"), EOS, Piece(""), EOS, Piece("c")]

    assert join_plain(pieces) == [Piece("ab"), EOS, EOS, Piece("c")]


def test_an_unknown_template_names_the_known_ones() -> None:
    with pytest.raises(UsageError) as caught:
        find_template("chatml")

    assert caught.value.hint == "known: vicuna, wizardlm-7b, alpaca, alpaca-cot"


def test_messages_are_read_from_json() -> None:
    value = [{"role": "system", "content": "s"}, {"role": "user", "content": "u"}]

    assert parse_messages(value) == [Message("system", "s"), Message("user", "u")]


@pytest.mark.parametrize(
    "value",
    [
        {"role": "user", "content": "x"},
        ["x"],
        [{"role": "user"}],
        [{"role": "tool", "content": "x"}],
        [{"role": "user", "content": 1}],
        [{"role": "user", "content": "x", "name": "y"}],
        [{"role": "user", "content": "\ud800"}],
    ],
    ids=["no list", "no object", "missing", "role", "type", "extra", "surrogate"],
)
def test_what_is_no_message_list_is_refused(value: object) -> None:
    with pytest.raises(UsageError):
        parse_messages(value)
