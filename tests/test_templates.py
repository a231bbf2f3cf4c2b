from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jinja2.sandbox import ImmutableSandboxedEnvironment

from wizard_edge.errors import UsageError
from wizard_edge.templates import (
    EOS,
    TEMPLATES,
    Message,
    Piece,
    PromptTemplate,
    Role,
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


# In other programs ---------------------------------------------------------------

GOLDEN = json.loads(
    (Path(__file__).parent / "golden" / "prompts.json").read_text(encoding="utf-8")
)
ENDS = {"llama-spm": "</s>", "starcoder-bpe": "<|endoftext|>"}


def in_jinja(template: str, messages: object, eos: str) -> str:
    """Render as transformers and llama-cpp-python do."""
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(template).render(
        messages=messages, eos_token=eos, bos_token="<s>", add_generation_prompt=True
    )


@pytest.mark.parametrize("case", GOLDEN, ids=lambda case: case["name"])
def test_the_jinja_form_spells_the_golden_prompts(case: dict[str, Any]) -> None:
    template = TEMPLATES[case["template"]]

    text = in_jinja(template.jinja, case["messages"], ENDS[case["vocab"]])

    assert text == case["text"]


@given(
    template=st.sampled_from(list(TEMPLATES.values())),
    texts=st.lists(st.text(max_size=20), min_size=1, max_size=5),
    system=st.none() | st.text(max_size=20),
)
def test_the_jinja_form_spells_what_render_does(
    template: PromptTemplate, texts: list[str], system: str | None
) -> None:
    roles: list[Role] = ["user", "assistant"]
    messages = [Message(roles[n % 2], text) for n, text in enumerate(texts)]
    if system is not None and template.system is not None:
        messages.insert(0, Message("system", system))
    expected = "".join(piece.text for piece in template.render(messages))

    found = in_jinja(template.jinja, [asdict(m) for m in messages], "</s>")

    assert found == expected
