"""A pre-tokenizer is known by its description, or the checkpoint is refused."""

from __future__ import annotations

import pytest

from tests.converters.bpe_files import DEEPSEEK_CUT, STARCODER_CUT, bpe_merges
from wizard_edge.errors import CannotConvert, Corrupt
from wizard_edge_converters.pre_tokenizers import name_by_merges, name_pre_tokenizer

LABEL = "tokenizer.json"
DIGITS = {"type": "Digits", "individual_digits": True}
BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False}
GPT2_SPLIT = {"type": "Split", "pattern": {"Regex": "x"}, "behavior": "Isolated"}


def name(description: object, normalizer: object = None, *more_merges: str) -> str:
    merges = (*bpe_merges(), *more_merges)
    return name_pre_tokenizer(description, normalizer, merges, LABEL)


@pytest.mark.parametrize(
    ("description", "expected"),
    [
        (STARCODER_CUT, "refact"),
        ({"type": "Sequence", "pretokenizers": [DIGITS, BYTE_LEVEL]}, "refact"),
        (BYTE_LEVEL, "refact"),
        (DEEPSEEK_CUT, "deepseek-coder"),
    ],
    ids=["starcoder", "without defaults", "digits never joined", "deepseek"],
)
def test_known_ones_have_the_name_llama_cpp_has(
    description: object, expected: str
) -> None:
    assert name(description) == expected
    assert name(description, {"type": "Sequence", "normalizers": []}) == expected


@pytest.mark.parametrize(
    ("description", "spelled"),
    [
        (None, "none"),
        ({"type": "Metaspace"}, "Metaspace"),
        (DIGITS, "Digits"),
        ({"type": "ByteLevel"}, "ByteLevel"),
        (
            {"type": "Sequence", "pretokenizers": [BYTE_LEVEL, DIGITS]},
            "ByteLevel > Digits",
        ),
        (
            {"type": "Sequence", "pretokenizers": [GPT2_SPLIT, BYTE_LEVEL]},
            "Split > ByteLevel",
        ),
        (
            {"type": "Sequence", "pretokenizers": [{"type": "Digits"}, BYTE_LEVEL]},
            "Digits > ByteLevel",
        ),
        (
            {"type": "Sequence", "pretokenizers": [STARCODER_CUT]},
            "Sequence",
        ),
        ({"type": 7}, "7"),
        ({"type": "Digits", "individual_digits": []}, "Digits"),
    ],
    ids=repr,
)
def test_an_unknown_one_is_named(description: object, spelled: str) -> None:
    with pytest.raises(CannotConvert) as caught:
        name(description)

    expected = f"{LABEL} has a pre-tokenizer that is not known: {spelled}"
    assert caught.value.message == expected
    assert caught.value.hint == "known are deepseek-coder, refact"


@pytest.mark.parametrize(
    "description",
    [7, "ByteLevel", [BYTE_LEVEL], {"type": "Sequence", "pretokenizers": [7]}],
)
def test_a_senseless_description_is_refused(description: object) -> None:
    with pytest.raises(Corrupt, match="pre_tokenizer"):
        name(description)


def test_a_normalizer_is_refused() -> None:
    with pytest.raises(CannotConvert, match="NFC"):
        name(STARCODER_CUT, {"type": "NFC"})


def test_merges_of_digits_are_not_those_of_starcoder() -> None:
    with pytest.raises(CannotConvert, match="0 1"):
        name(BYTE_LEVEL, None, "0 1")
    with pytest.raises(CannotConvert, match="\u0120 7"):
        name_by_merges(["a b", "\u0120 7"], "merges.txt")


def test_letters_for_bytes_that_look_like_digits_are_none() -> None:
    assert name_by_merges(["\u00c3 \u00b3"], "merges.txt") == "refact"
