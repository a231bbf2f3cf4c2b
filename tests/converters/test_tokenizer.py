"""Vocabularies are put together as llama.cpp's converter does it, strictly read."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.converters.bpe_files import added_token, template_processing, write_bpe
from tests.converters.checkpoints import Shape, llama_config, sentencepiece_model
from wizard_edge.errors import CannotConvert, Corrupt
from wizard_edge_converters.bpe import SPECIAL_MAP
from wizard_edge_converters.config import Config
from wizard_edge_converters.directory import Directory
from wizard_edge_converters.hparams import Hparams
from wizard_edge_converters.llama import read_llama
from wizard_edge_converters.special_tokens import TOKENIZER
from wizard_edge_converters.spm import MODEL
from wizard_edge_converters.tokenizer import read_vocabulary
from wizard_edge_converters.vocabulary import ADDED, CONFIG, TokenType, Vocabulary


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / MODEL).write_bytes(sentencepiece_model(300))
    return tmp_path


def hparams(size: int = 300, **ids: int) -> Hparams:
    return read_llama(
        Config(
            "config.json",
            llama_config(Shape(vocabulary=size))
            | {"pad_token_id": None}
            | {f"{kind}_token_id": index for kind, index in ids.items()},
        ),
        "llama",
    )


def read(
    folder: Path, size: int = 300, ids: Mapping[str, int] | None = None, **files: object
) -> Vocabulary:
    names = {"added": ADDED, "config": CONFIG, "map": SPECIAL_MAP, "json": TOKENIZER}
    for key, value in files.items():
        (folder / names[key]).write_text(json.dumps(value))
    return read_vocabulary(Directory(folder), hparams(size, **(ids or {})))


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

    assert vocabulary.adds == {"bos": False, "eos": True}
    assert vocabulary.add_space_prefix is False
    assert vocabulary.chat_template == "{{ x }}"


def test_bos_is_added_where_nobody_says(folder: Path) -> None:
    assert read(folder).adds == {"bos": True}


def test_a_config_that_calls_eos_bos_is_not_believed(folder: Path) -> None:
    vocabulary = read(folder, ids={"bos": 2, "pad": 7})

    assert vocabulary.special_ids == {"bos": 1, "eos": 2, "unk": 0, "pad": 7}
    assert "bos is 2" in vocabulary.notes[0]


def test_a_map_that_calls_eos_bos_changes_nothing(folder: Path) -> None:
    """Those of WizardCoder-Python and WizardLM-13B-V1.2 do."""
    names = dict.fromkeys(("bos_token", "eos_token", "unk_token"), "</s>")

    assert read(folder, map=names) == read(folder)
    assert read(folder, map=names).special_ids["bos"] == 1


def test_a_tokenizer_json_that_calls_eos_bos_is_not_believed(folder: Path) -> None:
    vocabulary = read(
        folder,
        config={"bos_token": "</s>", "eos_token": "</s>"},
        json={
            "added_tokens": [added_token(1, "<s>"), added_token(2, "</s>")],
            "post_processor": template_processing("<s>"),
        },
    )

    assert (vocabulary.special_ids["bos"], vocabulary.special_ids["eos"]) == (1, 2)
    assert vocabulary.adds["bos"] is True
    assert vocabulary.notes == (
        "a config says bos is 2, tokenizer.model says 1: it counts",
    )


def test_two_added_tokens_fill_two_rows(folder: Path) -> None:
    """WizardMath-70B-V1.0 has 32002 rows."""
    vocabulary = read(folder, 302, added={"<pad>": 300, "[PAD]": 301})

    assert vocabulary.tokens[300:] == ("<pad>", "[PAD]")
    assert vocabulary.types[300:] == (TokenType.USER_DEFINED,) * 2
    assert vocabulary.notes == ()


def test_code_llama_of_32016_rows_can_fill_in(folder: Path) -> None:
    assert read(folder, 32016).infill_end == 32010
    assert read(folder, 32001).infill_end is None


def test_a_llama_without_a_model_file_has_bpe(tmp_path: Path) -> None:
    """DeepSeek-Coder, of which WizardCoder-33B-V1.1 is made."""
    write_bpe(tmp_path, "deepseek")

    vocabulary = read_vocabulary(Directory(tmp_path), hparams(310))

    assert (vocabulary.model, vocabulary.pre) == ("gpt2", "deepseek-coder")
    assert vocabulary.add_space_prefix is None


def test_a_llama_with_bpe_may_say_how_texts_begin(tmp_path: Path) -> None:
    write_bpe(tmp_path, "json")

    vocabulary = read_vocabulary(Directory(tmp_path), hparams(310))

    assert vocabulary.add_space_prefix is False


def test_a_llama_of_as_many_rows_as_starcoder_adds_no_bos(tmp_path: Path) -> None:
    write_bpe(tmp_path, "deepseek")

    assert read_vocabulary(Directory(tmp_path), hparams(310)).adds["bos"] is True
    assert read_vocabulary(Directory(tmp_path), hparams(49152)).adds["bos"] is False


def test_special_ids_without_a_row_are_left_out(folder: Path) -> None:
    vocabulary = read(folder, ids={"pad": 300})

    assert "pad" not in vocabulary.special_ids
    assert vocabulary.notes == (
        "config.json says pad is 300, which has no row in the embedding of 300",
    )


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("chat_template.jinja", "{{ x }}"),
        ("chat_template.json", '{"chat_template": "{{ x }}"}'),
    ],
)
def test_a_template_may_lie_in_a_file_of_its_own(
    name: str, content: str, folder: Path
) -> None:
    (folder / name).write_text(content)

    assert read(folder, config={"legacy": True}).chat_template == "{{ x }}"
    assert read(folder, config={"chat_template": "{{ y }}"}).chat_template == "{{ y }}"


@pytest.mark.parametrize("content", [b"", b"x" * 100, b"\x0a\xff", b"{}"])
def test_a_bad_model_is_named(content: bytes, folder: Path) -> None:
    (folder / MODEL).write_bytes(content)

    with pytest.raises(Corrupt, match=r"tokenizer\.model"):
        read(folder)


def test_a_missing_model_is_named(tmp_path: Path) -> None:
    """WizardLM-13B-V1.1 and WizardMath came without one."""
    with pytest.raises(CannotConvert, match=r"no tokenizer\.model") as caught:
        read(tmp_path)

    assert caught.value.hint == (
        "some repositories lack it: it is that of the base model"
    )


def test_a_tokenizer_json_does_not_replace_the_model_it_was_made_from(
    tmp_path: Path,
) -> None:
    """llama.cpp's converter takes it, without scores, and then cuts texts wrongly."""
    model = {"type": "BPE", "byte_fallback": True, "vocab": {"a": 0}, "merges": []}

    with pytest.raises(CannotConvert, match="lacks its scores") as caught:
        read(tmp_path, json={"model": model, "decoder": {"type": "Sequence"}})

    assert "tokenizer.model" in (caught.value.hint or "")


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
