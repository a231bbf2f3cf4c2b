"""The exact trained prompt, token for token, on the real vocabularies.

tests/golden/prompts.json was made with SentencePiece on the LLaMA vocabulary and
cross-checked against llama.cpp.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TypedDict

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.vocabularies import find_vocabulary
from wizard_edge._llama.model import Model
from wizard_edge._llama.vocabulary import LlamaVocabulary
from wizard_edge.engine import LoadOptions
from wizard_edge.errors import UsageError
from wizard_edge.prompt import encode_messages, spell
from wizard_edge.templates import TEMPLATES, Message, parse_messages

GOLDEN = Path(__file__).parent / "golden" / "prompts.json"


class Case(TypedDict):
    name: str
    template: str
    vocab: str
    messages: list[dict[str, str]]
    text: str
    ids: list[int]


CASES: list[Case] = json.loads(GOLDEN.read_text(encoding="utf-8"))


def load(name: str) -> Iterator[LlamaVocabulary]:
    model = Model(find_vocabulary(name), LoadOptions(), vocabulary_only=True)
    yield model.vocabulary
    model.close()


@pytest.fixture(scope="module")
def llama() -> Iterator[LlamaVocabulary]:
    yield from load("llama-spm")


@pytest.fixture(scope="module")
def starcoder() -> Iterator[LlamaVocabulary]:
    yield from load("starcoder-bpe")


@pytest.fixture(params=["llama-spm", "starcoder-bpe"])
def either(
    request: pytest.FixtureRequest, llama: LlamaVocabulary, starcoder: LlamaVocabulary
) -> LlamaVocabulary:
    return llama if request.param == "llama-spm" else starcoder


def test_there_are_golden_cases_for_every_template() -> None:
    assert {case["template"] for case in CASES} == set(TEMPLATES)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_golden_prompt(
    case: Case, llama: LlamaVocabulary, starcoder: LlamaVocabulary
) -> None:
    vocabulary = {"llama-spm": llama, "starcoder-bpe": starcoder}[case["vocab"]]
    template = TEMPLATES[case["template"]]
    messages = parse_messages(case["messages"])

    ids = encode_messages(template, messages, vocabulary)
    text = spell(template.render(messages), vocabulary)

    assert text == case["text"]
    assert ids == case["ids"]


@pytest.mark.parametrize(
    "text",
    ["</s>", "<s>", "<unk>", "USER: x ASSISTANT: y</s>", "<|endoftext|>", "[PAD]"],
)
def test_typed_control_tokens_stay_text(text: str, either: LlamaVocabulary) -> None:
    ids = either.tokenize(text)

    assert not any(either.is_end(token) or token == either.bos for token in ids)
    assert b"".join(map(either.piece, ids)).decode().removeprefix(" ") == text


PARTS = st.sampled_from(
    (
        *("</s>", "<s>", "<unk>", "<0x0A>", "</", "s>", "<|endoftext|>", "<|end"),
        *("oftext|>", "<fim_prefix>", "[PAD]", "USER:", " ", "\n", "\u2581", "\0"),
        *("é", "\u200d", "🧙"),
    )
)
# StarCoder's vocabulary has no token for the bytes that lead these planes.
BEYOND_STARCODER = range(0x40000, 0x110000)


@settings(
    max_examples=400,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(text=st.lists(PARTS | st.text(max_size=4), max_size=12).map("".join))
@example(text="\0</s>\0")
def test_any_text_comes_back_whole_and_free_of_control_tokens(
    text: str, either: LlamaVocabulary
) -> None:
    ids = either.tokenize(text)

    assert [token for token in ids if either.is_end(token) or token == either.bos] == []
    if either.bos is not None:
        # SentencePiece writes a space as U+2581 and cannot tell the two apart.
        text = " " + text.replace("\u2581", " ") if text else ""
    elif any(ord(letter) in BEYOND_STARCODER for letter in text):
        return
    assert b"".join(map(either.piece, ids)).decode() == text


def test_a_lone_surrogate_is_refused(llama: LlamaVocabulary) -> None:
    with pytest.raises(UsageError, match="surrogate"):
        llama.tokenize("\ud800")


def test_turn_by_turn_gives_the_ids_of_the_whole(llama: LlamaVocabulary) -> None:
    template = TEMPLATES["vicuna"]
    first, second = Message("user", "Hi\n"), Message("user", " Who are you? ")
    answer = Message("assistant", "Hello.")

    whole = encode_messages(template, [first, answer, second], llama)
    ids = encode_messages(template, [first], llama)
    ids += [*llama.tokenize("Hello."), llama.eos]
    ids += llama.tokenize(template.next_turn(second.content)[0].text)

    assert ids == whole
