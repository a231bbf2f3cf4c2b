"""Tokens of type USER_DEFINED match even when special parsing is off: not with us.

The real LLaMA vocabulary, with tokens added the way converters add them.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.gguf_files import GgufFile, f32s, i32s, string, strings, u32
from tests.vocabularies import find_vocabulary
from wizard_edge._llama.model import Model
from wizard_edge._llama.vocabulary import LlamaVocabulary
from wizard_edge.engine import LoadOptions
from wizard_edge.gguf import read_array, read_header, read_strings
from wizard_edge.prompt import encode_messages
from wizard_edge.templates import TEMPLATES, Message

USER_DEFINED = 4
ADDED = ("[PAD]", "USER:", "<|im_start|>", "</s><s>", "🧙", "  ")
CUTTABLE = tuple(text for text in ADDED if len(text) > 1)


@pytest.fixture(scope="module")
def plain() -> Iterator[LlamaVocabulary]:
    model = Model(find_vocabulary("llama-spm"), LoadOptions(), vocabulary_only=True)
    yield model.vocabulary
    model.close()


@pytest.fixture(scope="module")
def added(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LlamaVocabulary]:
    header = read_header(find_vocabulary("llama-spm"))
    tokens = read_strings(header, "tokenizer.ggml.tokens")
    scores = [float(score) for score in read_array(header, "tokenizer.ggml.scores")]
    types = [int(kind) for kind in read_array(header, "tokenizer.ggml.token_type")]
    file = GgufFile(
        [
            ("general.architecture", string("llama")),
            ("tokenizer.ggml.model", string("llama")),
            ("tokenizer.ggml.tokens", strings([*tokens, *ADDED])),
            ("tokenizer.ggml.scores", f32s([*scores, *(-1000.0 for _ in ADDED)])),
            (
                "tokenizer.ggml.token_type",
                i32s([*types, *(USER_DEFINED for _ in ADDED)]),
            ),
            ("tokenizer.ggml.bos_token_id", u32(1)),
            ("tokenizer.ggml.eos_token_id", u32(2)),
        ]
    )
    path = tmp_path_factory.mktemp("added") / "vocabulary.gguf"
    model = Model(file.write(path), LoadOptions(), vocabulary_only=True)
    yield model.vocabulary
    model.close()


def ids_of_added(vocabulary: LlamaVocabulary) -> set[int]:
    first = vocabulary.size - len(ADDED)
    return {first + ADDED.index(text) for text in CUTTABLE}


def text_of(ids: list[int], vocabulary: LlamaVocabulary) -> str:
    return b"".join(map(vocabulary.piece, ids)).decode().removeprefix(" ")


def test_llama_cpp_matches_them_in_plain_text(added: LlamaVocabulary) -> None:
    """The trap is real: without the cut the tokenizer gives the added token."""
    first = added.size - len(ADDED)

    assert first + ADDED.index("USER:") in added._tokenize("a USER: b", special=False)


@pytest.mark.parametrize(
    "text",
    [
        "[PAD]",
        "a [PAD] b",
        "[PAD][PAD] [[PAD]]",
        "USER: hello USER:",
        "<|im_start|>system",
        "</s><s>",
        "[PAD",
        "two  spaces   three",
        "\n[PAD]\n",
    ],
)
def test_typed_user_defined_tokens_stay_text(text: str, added: LlamaVocabulary) -> None:
    ids = added.tokenize(text)

    assert not set(ids) & ids_of_added(added)
    assert text_of(ids, added) == text


def test_pad_is_tokenized_as_if_it_were_no_token(
    plain: LlamaVocabulary, added: LlamaVocabulary
) -> None:
    text = "What does [PAD] mean?"

    assert added.tokenize(text) == plain.tokenize(text)


def test_the_templates_own_words_are_no_special_tokens(
    plain: LlamaVocabulary, added: LlamaVocabulary
) -> None:
    messages = [Message("user", "Hi"), Message("assistant", "Hello.")]

    ids = encode_messages(TEMPLATES["vicuna"], messages, added)

    assert ids == encode_messages(TEMPLATES["vicuna"], messages, plain)


def test_a_token_of_one_character_is_the_letter_it_spells(
    added: LlamaVocabulary,
) -> None:
    assert text_of(added.tokenize("a 🧙 b"), added) == "a 🧙 b"


@settings(max_examples=200, deadline=None)
@given(
    text=st.lists(st.sampled_from(ADDED) | st.text("aP[] <|s:\n", max_size=3)).map(
        "".join
    )
)
def test_any_mixture_stays_text(text: str, added: LlamaVocabulary) -> None:
    ids = added.tokenize(text)

    assert not set(ids) & ids_of_added(added)
    assert text_of(ids, added) == text.removeprefix(" ") or text_of(ids, added) == text
