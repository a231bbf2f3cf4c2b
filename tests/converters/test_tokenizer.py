"""Vocabularies are put together as llama.cpp's converter does it, strictly read."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.converters.checkpoints import sentencepiece_model
from wizard_edge.errors import CannotConvert, Corrupt
from wizard_edge_converters.directory import Directory
from wizard_edge_converters.tokenizer import (
    ADDED,
    CONFIG,
    MODEL,
    TokenType,
    Vocabulary,
    read_vocabulary,
)

IDS = {"bos": 1, "eos": 2}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / MODEL).write_bytes(sentencepiece_model(300))
    return tmp_path


def read(folder: Path, size: int = 300, **files: object) -> Vocabulary:
    names = {"added": ADDED, "config": CONFIG}
    for key, value in files.items():
        (folder / names[key]).write_text(json.dumps(value))
    return read_vocabulary(Directory(folder), size, IDS)


def test_pieces_keep_text_score_and_type(folder: Path) -> None:
    vocabulary = read(folder)

    assert vocabulary.tokens[:4] == ("<unk>", "<s>", "</s>", "<0x00>")
    assert vocabulary.tokens[259:262] == ("\u2581", "a", "b")
    assert vocabulary.scores[261] == -2.0
    assert vocabulary.types[:4] == (
        TokenType.UNKNOWN,
        TokenType.CONTROL,
        TokenType.CONTROL,
        TokenType.BYTE,
    )
    assert vocabulary.special_ids == {"bos": 1, "eos": 2, "unk": 0}
    assert vocabulary.notes == ()


def test_rows_beyond_the_pieces_are_padding(folder: Path) -> None:
    vocabulary = read(folder, 302)

    assert vocabulary.tokens[300:] == ("[PAD300]", "[PAD301]")
    assert vocabulary.types[300:] == (TokenType.UNUSED, TokenType.UNUSED)
    assert vocabulary.scores[300:] == (-10000.0, -10000.0)


def test_an_added_token_fills_its_row(folder: Path) -> None:
    vocabulary = read(folder, 302, added={"[PAD]": 300})

    assert vocabulary.tokens[300:] == ("[PAD]", "[PAD301]")
    assert vocabulary.types[300] is TokenType.USER_DEFINED


def test_an_added_token_without_a_row_is_left_out(folder: Path) -> None:
    """WizardLM-13B-V1.2 has 32000 rows and an added token 32000."""
    vocabulary = read(folder, 300, added={"[PAD]": 300})

    assert len(vocabulary.tokens) == 300
    assert vocabulary.notes == (
        "added token '[PAD]' is left out: its id 300 has no row in the embedding of "
        "300",
    )


def test_more_pieces_than_rows_are_left_out(folder: Path) -> None:
    vocabulary = read(folder, 290)

    assert len(vocabulary.tokens) == 290
    assert "10 pieces more" in vocabulary.notes[0]


def test_settings_are_taken_over(folder: Path) -> None:
    vocabulary = read(
        folder,
        config={
            "add_bos_token": False,
            "add_eos_token": True,
            "add_prefix_space": False,
            "chat_template": "{{ x }}",
        },
    )

    assert (vocabulary.add_bos, vocabulary.add_eos) == (False, True)
    assert vocabulary.add_space_prefix is False
    assert vocabulary.chat_template == "{{ x }}"


def test_bos_is_added_where_nobody_says(folder: Path) -> None:
    assert read(folder).add_bos is True
    assert read(folder).add_eos is None


def test_a_config_that_calls_eos_bos_is_not_believed(folder: Path) -> None:
    """special ids of several WizardLM repositories have bos `</s>`."""
    vocabulary = read_vocabulary(Directory(folder), 300, {"bos": 2, "pad": 7})

    assert vocabulary.special_ids == {"bos": 1, "eos": 2, "unk": 0, "pad": 7}
    assert "bos is 2" in vocabulary.notes[0]


@pytest.mark.parametrize("content", [b"", b"x" * 100, b"\x0a\xff", b"{}"])
def test_a_bad_model_is_named(content: bytes, folder: Path) -> None:
    (folder / MODEL).write_bytes(content)

    with pytest.raises(Corrupt, match=r"tokenizer\.model"):
        read(folder)


def test_a_missing_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(CannotConvert, match=r"no tokenizer\.model"):
        read(tmp_path)


@pytest.mark.parametrize(
    "added",
    [{"a": -1}, {"a": "1"}, {"a": 1.0}, {"a": True}, {"": 299}, {"\ud800": 299}],
    ids=repr,
)
def test_senseless_added_tokens_are_refused(
    added: dict[str, object], folder: Path
) -> None:
    with pytest.raises(Corrupt, match=r"added_tokens\.json"):
        read(folder, added=added)


@pytest.mark.parametrize(
    "decoder",
    [
        [],
        {"-1": {"content": "a"}},
        {"x": {"content": "a"}},
        {"9" * 30: {"content": "a"}},
        {"299": {"content": 1}},
        {"299": "a"},
        {"299": {"content": ""}},
    ],
    ids=repr,
)
def test_a_senseless_decoder_is_refused(decoder: object, folder: Path) -> None:
    with pytest.raises(Corrupt, match=r"tokenizer_config\.json"):
        read(folder, config={"added_tokens_decoder": decoder})


def test_a_token_twice_is_refused(folder: Path) -> None:
    """llama.cpp would abort the process when it loads such a file."""
    with pytest.raises(Corrupt, match="has the ids 1 and 299"):
        read(folder, added={"<s>": 299})


def test_settings_that_are_no_truth_values_are_refused(folder: Path) -> None:
    with pytest.raises(Corrupt, match="add_bos_token"):
        read(folder, config={"add_bos_token": "yes"})


def test_code_in_the_repository_is_never_loaded(folder: Path) -> None:
    canary = folder / "canary"
    (folder / "tokenizer.py").write_text(f"open({str(canary)!r}, 'w')")

    read(folder, config={"auto_map": {"AutoTokenizer": ["tokenizer.Tokenizer", None]}})

    assert not canary.exists()
