"""Special tokens come from three files, as llama.cpp's converter reads them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.converters.bpe_files import added_token, template_processing
from tests.converters.checkpoints import Shape, llama_config
from wizard_edge.errors import CannotConvert, Corrupt
from wizard_edge_converters.config import Config
from wizard_edge_converters.directory import Directory
from wizard_edge_converters.hparams import Hparams
from wizard_edge_converters.llama import read_llama
from wizard_edge_converters.special_tokens import SpecialTokens, read_special_tokens

ADDED = [added_token(1, "<s>"), added_token(2, "</s>"), added_token(9, "<sep>")]
BYTE_LEVEL = {"type": "ByteLevel"}


def hparams(**ids: int) -> Hparams:
    none = dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id"))
    named = {f"{kind}_token_id": index for kind, index in ids.items()}
    return read_llama(Config("c", llama_config(Shape()) | none | named), "llama")


def read(
    post: object,
    config: Mapping[str, object],
    folder: Path,
    *,
    added: object = ADDED,
    **ids: int,
) -> SpecialTokens:
    tokenizer = {"added_tokens": added, "post_processor": post}
    return read_special_tokens(tokenizer, config, hparams(**ids), Directory(folder))


def test_a_template_says_what_is_added(tmp_path: Path) -> None:
    names = {"bos_token": "<s>", "eos_token": "</s>", "add_eos_token": False}

    special = read(template_processing("<s>"), names, tmp_path)

    assert list(special.adds.items()) == [("bos", True), ("sep", False), ("eos", False)]
    assert special.ids == {"bos": 1, "eos": 2}


def test_the_template_outweighs_the_settings(tmp_path: Path) -> None:
    settings = {"bos_token": "<s>", "add_bos_token": False}

    assert read(template_processing("<s>"), settings, tmp_path).adds["bos"] is True


def test_byte_level_adds_nothing(tmp_path: Path) -> None:
    special = read(BYTE_LEVEL, {"add_bos_token": True}, tmp_path)

    assert special.adds == {"bos": False, "eos": False}


def test_processors_may_stand_in_a_row(tmp_path: Path) -> None:
    row = {"type": "Sequence", "processors": [BYTE_LEVEL, template_processing("<s>")]}

    special = read(row, {"bos_token": "<s>"}, tmp_path)

    assert special.adds == {"bos": True, "eos": False, "sep": False}


def test_a_token_that_ends_texts_is_eos(tmp_path: Path) -> None:
    """What was called eos before ends a turn."""
    a = {"Sequence": {"id": "A"}}
    template = {"type": "TemplateProcessing", "single": [a, special_item("</s>")]}

    special = read(template, {"eos_token": "<sep>"}, tmp_path)

    assert special.adds == {"eos": True}
    assert special.ids == {"eos": 2, "eot": 9}


def test_a_separator_between_two_texts_is_seen(tmp_path: Path) -> None:
    a, b = ({"Sequence": {"id": name}} for name in "AB")
    pair = [a, special_item("<sep>"), b]
    template = {"type": "TemplateProcessing", "single": [a], "pair": pair}

    special = read(template, {"sep_token": "<sep>"}, tmp_path)

    assert special.adds == {"sep": True}
    assert special.ids == {"eos": 9, "sep": 9}


def test_classes_stand_in_for_begin_and_end(tmp_path: Path) -> None:
    special = read(None, {"cls_token": "<s>", "sep_token": "<sep>"}, tmp_path)

    assert special.ids == {"bos": 1, "eos": 9, "sep": 9, "cls": 1}


def test_ids_of_the_model_config_come_after_those_by_name(tmp_path: Path) -> None:
    special = read(None, {"eos_token": {"content": "</s>"}}, tmp_path, bos=5, eos=6)

    assert list(special.ids.items()) == [("eos", 2), ("bos", 5)]


def test_names_without_a_tokenizer_json_have_no_ids(tmp_path: Path) -> None:
    names = {"bos_token": "</s>", "add_bos_token": True}

    special = read_special_tokens({}, names, hparams(bos=1), Directory(tmp_path))

    assert (special.ids, special.adds) == ({"bos": 1}, {"bos": True})


@pytest.mark.parametrize(
    "post",
    [
        "ByteLevel",
        [BYTE_LEVEL],
        {"processors": BYTE_LEVEL},
        {"processors": ["ByteLevel"]},
        {"type": "TemplateProcessing", "single": "<s>"},
        {"type": "TemplateProcessing", "single": [{"SpecialToken": "<s>"}, {}]},
        {"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": 1}}, {}]},
        {"type": "TemplateProcessing", "single": [], "pair": [1]},
    ],
    ids=repr,
)
def test_a_senseless_post_processor_is_refused(post: object, tmp_path: Path) -> None:
    with pytest.raises(Corrupt, match=r"tokenizer\.json"):
        read(post, {}, tmp_path)


def test_a_post_processor_of_another_family_is_named(tmp_path: Path) -> None:
    with pytest.raises(CannotConvert, match="RobertaProcessing"):
        read({"type": "RobertaProcessing"}, {}, tmp_path)


@pytest.mark.parametrize("added", [{}, ["<s>"], 7, "x"], ids=repr)
def test_senseless_added_tokens_are_refused(added: object, tmp_path: Path) -> None:
    with pytest.raises(Corrupt, match=r"tokenizer\.json"):
        read(None, {}, tmp_path, added=added)


def special_item(token: str) -> dict[str, object]:
    return {"SpecialToken": {"id": token, "type_id": 0}}
