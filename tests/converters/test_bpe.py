"""Byte-level BPE vocabularies, from each form they come in, strictly read."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.converters.bpe_files import (
    END,
    FIM,
    SENTENCE_BEGIN,
    Bpe,
    added_token,
    bpe_merges,
    write_bpe,
)
from tests.converters.checkpoints import SHAPES, starcoder_config
from wizard_edge.errors import CannotConvert, Corrupt, WizardEdgeError
from wizard_edge_converters.bpe import read_bpe
from wizard_edge_converters.config import Config
from wizard_edge_converters.directory import Directory
from wizard_edge_converters.hparams import Hparams
from wizard_edge_converters.starcoder import read_starcoder
from wizard_edge_converters.vocabulary import TokenType, Vocabulary

# 5 special tokens, 256 bytes, 39 joins, [PAD].
TOKENS = 301
Change = Callable[[dict[str, Any]], object]


def hparams(rows: int = TOKENS) -> Hparams:
    values = starcoder_config(SHAPES["starcoder"]) | {"vocab_size": rows}
    return read_starcoder(Config("config.json", values))


def read(
    folder: Path,
    kind: Bpe = "json",
    *,
    rows: int = TOKENS,
    file: str = "tokenizer.json",
    change: Change | None = None,
) -> Vocabulary:
    """Write a vocabulary, change one of its files, and read it."""
    write_bpe(folder, kind)
    if change is not None:
        path = folder / file
        content = json.loads(path.read_text(encoding="utf-8"))
        change(content)
        path.write_text(json.dumps(content), encoding="utf-8")
    return read_bpe(Directory(folder), hparams(rows))


def test_tokens_keep_their_ids_and_have_no_scores(tmp_path: Path) -> None:
    vocabulary = read(tmp_path)

    assert (vocabulary.model, vocabulary.pre) == ("gpt2", "refact")
    assert vocabulary.tokens[:6] == (END, *FIM, "!")
    assert vocabulary.tokens[261:263] == ("er", "es")
    assert vocabulary.tokens[300] == "[PAD]"
    assert vocabulary.types[4:6] == (TokenType.CONTROL, TokenType.NORMAL)
    assert vocabulary.types[300] is TokenType.CONTROL
    assert vocabulary.scores == ()
    assert vocabulary.merges == tuple(bpe_merges())
    assert vocabulary.notes == ()


def test_starcoder_has_no_bos_to_add(tmp_path: Path) -> None:
    vocabulary = read(tmp_path)

    assert vocabulary.special_ids == {"bos": 0, "eos": 0, "unk": 0}
    assert vocabulary.adds == {"bos": False, "eos": False}


@pytest.mark.parametrize("kind", ["all", "pair"])
def test_all_forms_say_the_same(kind: Bpe, tmp_path: Path) -> None:
    folder = tmp_path / kind
    folder.mkdir()

    ours, other = read(tmp_path), read(folder, kind)

    assert (other.tokens, other.types) == (ours.tokens, ours.types)
    assert (other.merges, other.pre) == (ours.merges, ours.pre)
    assert other.adds["bos"] is False


def test_rows_beyond_the_tokens_are_padding(tmp_path: Path) -> None:
    vocabulary = read(tmp_path, rows=303)

    assert vocabulary.tokens[300:] == ("[PAD]", "[PAD301]", "[PAD302]")
    assert vocabulary.types[301:] == (TokenType.UNUSED, TokenType.UNUSED)


def test_an_added_token_without_a_row_is_left_out(tmp_path: Path) -> None:
    vocabulary = read(tmp_path, rows=300)

    assert len(vocabulary.tokens) == 300
    assert "'[PAD]' is left out: its id 300" in vocabulary.notes[0]


def test_a_trained_token_without_a_row_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Corrupt, match="embedding has 299 rows"):
        read(tmp_path, rows=299)


def test_deepseek_has_letters_among_its_added_tokens(tmp_path: Path) -> None:
    vocabulary = read(tmp_path, "deepseek", rows=310)

    assert vocabulary.pre == "deepseek-coder"
    types = dict(zip(vocabulary.tokens, vocabulary.types, strict=True))
    assert types["\u00f5"] is TokenType.USER_DEFINED
    assert types[SENTENCE_BEGIN] is TokenType.CONTROL
    # Not called special, but they look it.
    assert types["<｜fim▁hole｜>"] is types["<pad>"] is TokenType.CONTROL
    assert types[" x"] is TokenType.USER_DEFINED
    assert list(vocabulary.adds.items()) == [
        ("bos", True),
        ("sep", False),
        ("eos", False),
    ]
    assert vocabulary.special_ids["bos"] == 295


def test_merges_may_be_pairs(tmp_path: Path) -> None:
    def split(tokenizer: dict[str, Any]) -> None:
        model = tokenizer["model"]
        model["merges"] = [merge.split(" ") for merge in model["merges"]]

    assert read(tmp_path, change=split).merges == tuple(bpe_merges())


def test_merges_may_lie_in_a_file_beside(tmp_path: Path) -> None:
    vocabulary = read(tmp_path, "all", change=lambda t: t["model"].pop("merges"))

    assert vocabulary.merges == tuple(bpe_merges())


def test_merges_txt_may_lack_its_version(tmp_path: Path) -> None:
    write_bpe(tmp_path, "pair")
    merges = "\r\n".join([*bpe_merges(), "", ""])
    (tmp_path / "merges.txt").write_text(merges, encoding="utf-8", newline="")

    vocabulary = read_bpe(Directory(tmp_path), hparams())

    assert vocabulary.merges == tuple(bpe_merges())


def test_an_added_token_that_spells_bytes_is_spelled_out(tmp_path: Path) -> None:
    """Such a token is matched in the text itself, so that is what it must be."""
    vocabulary = read(
        tmp_path,
        rows=303,
        change=lambda t: t["added_tokens"].extend(
            [added_token(301, "a\u0120b"), added_token(302, "c d\u0120")]
        ),
    )

    assert vocabulary.tokens[301:] == ("a b", "c d\u0120")


def test_a_special_token_nobody_gave_an_id_gets_the_next(tmp_path: Path) -> None:
    vocabulary = read(
        tmp_path,
        rows=302,
        file="tokenizer_config.json",
        change=lambda config: config.update(pad_token="<new>"),
    )

    assert vocabulary.tokens[301] == "<new>"
    assert vocabulary.types[301] is TokenType.CONTROL


def test_special_tokens_nobody_gave_an_id_follow_each_other(tmp_path: Path) -> None:
    vocabulary = read(
        tmp_path,
        rows=303,
        file="tokenizer_config.json",
        change=lambda config: config.update(additional_special_tokens=["<1>", "<2>"]),
    )

    assert vocabulary.tokens[300:] == ("[PAD]", "<1>", "<2>")


def test_many_added_and_special_tokens_are_read_in_a_moment(tmp_path: Path) -> None:
    """Looking each up in a list of the others would take minutes."""
    write_bpe(tmp_path, "pair")
    names = [f"<{n}>" for n in range(30_000)]
    added = {name: 301 + n for n, name in enumerate(names)}
    (tmp_path / "added_tokens.json").write_text(json.dumps(added))
    special = {"additional_special_tokens": [*reversed(names), "<one more>"]}
    (tmp_path / "special_tokens_map.json").write_text(json.dumps(special))

    vocabulary = read_bpe(Directory(tmp_path), hparams(30_302))

    assert vocabulary.tokens[30_300:] == ("<29999>", "<one more>")
    assert set(vocabulary.types[301:]) == {TokenType.CONTROL}


@pytest.mark.parametrize("name", ["vocab.json", "merges.txt"])
def test_a_missing_file_is_named(name: str, tmp_path: Path) -> None:
    write_bpe(tmp_path, "pair")
    (tmp_path / name).unlink()

    with pytest.raises(CannotConvert, match=name) as caught:
        read_bpe(Directory(tmp_path), hparams())

    assert caught.value.hint is not None


def set_in(*path: str, value: object) -> Change:
    def change(tokenizer: dict[str, Any]) -> None:
        for key in path[:-1]:
            tokenizer = tokenizer[key]
        tokenizer[path[-1]] = value

    return change


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (set_in("model", value=[]), "key model"),
        (set_in("model", "vocab", value=[]), "no vocabulary"),
        (set_in("model", "vocab", value={}), "no vocabulary"),
        (set_in("model", "vocab", "zz", value=-1), "the id is -1"),
        (set_in("model", "vocab", "zz", value=True), "the id is True"),
        (set_in("model", "vocab", "zz", value="9"), "the id is '9'"),
        (set_in("model", "vocab", "zz", value=1e300), "the id is 1e"),
        (set_in("model", "vocab", "zz", value=1 << 60), "the id is 11529"),
        (set_in("model", "vocab", "zz", value=7), "both have the id 7"),
        (set_in("model", "vocab", "", value=300), "empty or endless"),
        (set_in("model", "vocab", "x" * 5000, value=300), "empty or endless"),
        (set_in("model", "vocab", "\ud800", value=300), "no Unicode text"),
        (set_in("model", "vocab", "a\0", value=300), "a NUL"),
        (set_in("model", "merges", value={"a": "b"}), "no list of merges"),
        (set_in("model", "merges", value=["a b c"]), "does not join two tokens"),
        (set_in("model", "merges", value=["ab"]), "does not join two tokens"),
        (set_in("model", "merges", value=["Q Q"]), "does not join two tokens"),
        (set_in("model", "merges", value=[["a"]]), "merge 0"),
        (set_in("model", "merges", value=[7]), "merge 0"),
        (set_in("added_tokens", value={}), "no list"),
        (set_in("added_tokens", value=[7]), "added_tokens 0"),
        (set_in("added_tokens", value=[{"id": 0}]), "added_tokens 0"),
        (set_in("added_tokens", value=[{"content": "x"}]), "the id is None"),
        (set_in("added_tokens", value=[{"id": -1, "content": "x"}]), "the id is -1"),
        (set_in("added_tokens", value=[{"id": 9, "content": "x"}]), "was added as it"),
        (
            set_in("added_tokens", value=[{"id": 300, "content": "!"}]),
            "has the ids 5 and 300",
        ),
        (
            set_in(
                "added_tokens",
                value=[{"id": 300, "content": "x y", "special": "yes"}],
            ),
            "makes no sense",
        ),
        (
            set_in(
                "added_tokens", value=[added_token(300, "a"), added_token(300, "b")]
            ),
            "elsewhere 'a'",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_senseless_tokenizer_is_refused(
    change: Change, problem: str, tmp_path: Path
) -> None:
    with pytest.raises(Corrupt) as caught:
        read(tmp_path, change=change)

    assert problem in str(caught.value)
    assert "tokenizer.json" in str(caught.value)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (set_in("model", "type", value="Unigram"), "Unigram"),
        (set_in("model", "byte_fallback", value=True), "lacks its scores"),
        (set_in("model", "ignore_merges", value=True), "LLaMA 3"),
        (set_in("pre_tokenizer", value={"type": "Whitespace"}), "Whitespace"),
        (set_in("normalizer", value={"type": "NFC"}), "NFC"),
    ],
)
def test_another_kind_of_tokenizer_is_named(
    change: Change, problem: str, tmp_path: Path
) -> None:
    with pytest.raises(CannotConvert, match=problem):
        read(tmp_path, change=change)


def test_files_that_disagree_are_refused(tmp_path: Path) -> None:
    decoder = {"300": {"content": "<other>", "special": True}}

    with pytest.raises(Corrupt, match="elsewhere") as caught:
        read(
            tmp_path,
            file="tokenizer_config.json",
            change=set_in("added_tokens_decoder", value=decoder),
        )

    assert caught.value.where == "id 300"


@pytest.mark.parametrize("text", [b"{", b"[]", b'{"a":NaN}', b"\xff", b'{"a":1,"a":2}'])
@pytest.mark.parametrize("name", ["vocab.json", "added_tokens.json"])
def test_bad_json_names_the_file(text: bytes, name: str, tmp_path: Path) -> None:
    write_bpe(tmp_path, "pair")
    (tmp_path / name).write_bytes(text)

    with pytest.raises(Corrupt, match=name):
        read_bpe(Directory(tmp_path), hparams())


def test_merges_that_are_no_text_name_the_place(tmp_path: Path) -> None:
    write_bpe(tmp_path, "pair")
    (tmp_path / "merges.txt").write_bytes(b"e r\n\xff")

    with pytest.raises(Corrupt, match=r"merges\.txt") as caught:
        read_bpe(Directory(tmp_path), hparams())

    assert caught.value.where == "offset 4"


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    folder = tmp_path_factory.mktemp("good")
    write_bpe(folder, "deepseek")
    return (folder / "tokenizer.json").read_bytes()


@given(data=st.data())
@settings(max_examples=60, deadline=None, suppress_health_check=[*HealthCheck])
def test_only_our_errors_escape_from_damaged_files(
    data: st.DataObject, good: bytes, tmp_path: Path
) -> None:
    end = data.draw(st.sampled_from([len(good), len(good) // 2]))
    damaged = bytearray(good[:end])
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(damaged) - 1))
        damaged[at] = data.draw(st.integers(0, 255))
    (tmp_path / "tokenizer.json").write_bytes(damaged)

    with contextlib.suppress(WizardEdgeError):
        read_bpe(Directory(tmp_path), hparams(310))
