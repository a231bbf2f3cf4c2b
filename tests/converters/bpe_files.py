"""Writes the tokenizer files of small byte-level BPE vocabularies of our own."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

# Which files a vocabulary lies in: all of them as in 2023, one tokenizer.json,
# vocab.json and merges.txt, or DeepSeek-Coder's tokenizer.json.
Bpe = Literal["all", "json", "pair", "deepseek"]

FIM = ("<fim_prefix>", "<fim_middle>", "<fim_suffix>", "<fim_pad>")
END = "<|endoftext|>"
SENTENCE_BEGIN, SENTENCE_END = "<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>"
BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True}
STARCODER_CUT = {
    "type": "Sequence",
    "pretokenizers": [
        {"type": "Digits", "individual_digits": True},
        {
            "type": "ByteLevel",
            "add_prefix_space": False,
            "trim_offsets": True,
            "use_regex": True,
        },
    ],
}
DEEPSEEK_CUT = {
    "type": "Sequence",
    "pretokenizers": [
        *(
            {
                "type": "Split",
                "pattern": {"Regex": pattern},
                "behavior": "Isolated",
                "invert": False,
            }
            for pattern in (
                "[\r\n]",
                "\\s?\\p{L}+",
                "\\s?\\p{P}+",
                "[一-龥ࠀ-一가-퟿]+",
            )
        ),
        {"type": "Digits", "individual_digits": True},
        {
            "type": "ByteLevel",
            "add_prefix_space": False,
            "trim_offsets": True,
            "use_regex": False,
        },
    ],
}


def byte_letters() -> list[str]:
    """Return the letters that stand for bytes, those of printable bytes first."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    return [*map(chr, printable), *(chr(256 + n) for n in range(256 - len(printable)))]


def bpe_merges() -> list[str]:
    pairs = [f"{left} {right}" for left in "etaoin" for right in "rshdl"]
    return pairs + [f"\u0120 {letter}" for letter in "abcdefghi"]


def bpe_vocabulary(first: Sequence[str], *, without: str = "") -> dict[str, int]:
    """Number the tokens: `first`, the bytes but some, then what the merges make."""
    letters = [letter for letter in byte_letters() if letter not in without]
    joined = [merge.replace(" ", "") for merge in bpe_merges()]
    return {token: index for index, token in enumerate([*first, *letters, *joined])}


def write_bpe(directory: Path, kind: Bpe) -> None:
    """Write the files of a tokenizer of StarCoder's or of DeepSeek-Coder's kind."""
    if kind == "deepseek":
        write_json(directory, "tokenizer.json", deepseek_tokenizer())
        write_json(directory, "tokenizer_config.json", deepseek_settings())
        return
    vocabulary = bpe_vocabulary((END, *FIM))
    pad = len(vocabulary)
    special = [added_token(n, token) for n, token in enumerate((END, *FIM))]
    tokenizer = {
        "version": "1.0",
        "added_tokens": [*special, added_token(pad, "[PAD]")],
        "normalizer": None,
        "pre_tokenizer": STARCODER_CUT,
        "post_processor": BYTE_LEVEL,
        "decoder": BYTE_LEVEL,
        "model": bpe_model(vocabulary),
    }
    names = dict.fromkeys(("bos_token", "eos_token", "unk_token"), END)
    settings = {"tokenizer_class": "GPT2Tokenizer", "add_prefix_space": False, **names}
    write_json(directory, "tokenizer_config.json", settings)
    if kind != "pair":
        write_json(directory, "tokenizer.json", tokenizer)
    if kind != "json":
        write_json(directory, "vocab.json", vocabulary)
        merges = "\n".join(["#version: 0.2", *bpe_merges(), ""])
        (directory / "merges.txt").write_text(merges, encoding="utf-8")
        write_json(directory, "added_tokens.json", {"[PAD]": pad})
        extra = {"additional_special_tokens": [END, *FIM], "pad_token": "[PAD]"}
        write_json(directory, "special_tokens_map.json", names | extra)


def bpe_model(vocabulary: Mapping[str, int]) -> dict[str, object]:
    return {
        "type": "BPE",
        "dropout": None,
        "unk_token": None,
        "fuse_unk": False,
        "byte_fallback": False,
        "vocab": vocabulary,
        "merges": bpe_merges(),
    }


def deepseek_tokenizer() -> dict[str, object]:
    """Return a tokenizer.json whose last two byte letters were added as tokens."""
    missing = "\u00f5\u00f7"
    vocabulary = bpe_vocabulary((), without=missing)
    start = len(vocabulary)
    tokens = (SENTENCE_BEGIN, SENTENCE_END, "<｜fim▁hole｜>", "<pad>", "<|User|>", "▁x")
    letters = [
        added_token(start + n, letter, special=False, normalized=True)
        for n, letter in enumerate(missing)
    ]
    others = [
        added_token(start + 2 + n, token, special=n < 2, normalized=True)
        for n, token in enumerate(tokens)
    ]
    return {
        "version": "1.0",
        "added_tokens": letters + others,
        "normalizer": {"type": "Sequence", "normalizers": []},
        "pre_tokenizer": DEEPSEEK_CUT,
        "post_processor": template_processing(SENTENCE_BEGIN),
        "decoder": BYTE_LEVEL,
        "model": bpe_model(vocabulary),
    }


def deepseek_settings() -> dict[str, object]:
    token = {"__type": "AddedToken", "lstrip": False, "normalized": True}
    token |= {"rstrip": False, "single_word": False}
    return {
        "add_bos_token": True,
        "add_eos_token": False,
        "bos_token": token | {"content": SENTENCE_BEGIN},
        "eos_token": token | {"content": SENTENCE_END},
        "pad_token": token | {"content": SENTENCE_BEGIN},
        "tokenizer_class": "LlamaTokenizerFast",
        "unk_token": None,
    }


def write_json(directory: Path, name: str, content: object) -> None:
    (directory / name).write_text(json.dumps(content), encoding="utf-8")


def template_processing(bos: str) -> dict[str, object]:
    """Return the post-processor that puts a token before every text."""
    first = {"SpecialToken": {"id": bos, "type_id": 0}}
    a, b = ({"Sequence": {"id": name, "type_id": n}} for n, name in enumerate("AB"))
    second = {"SpecialToken": {"id": bos, "type_id": 1}}
    return {
        "type": "TemplateProcessing",
        "single": [first, a],
        "pair": [first, a, second, b],
        "special_tokens": {bos: {"id": bos, "ids": [1], "tokens": [bos]}},
    }


def added_token(index: int, content: str, **settings: bool) -> dict[str, object]:
    """Return an entry of `added_tokens` of a tokenizer.json."""
    shape = {"single_word": False, "lstrip": False, "rstrip": False}
    default = {"normalized": False, "special": True}
    return {"id": index, "content": content, **shape, **default, **settings}
