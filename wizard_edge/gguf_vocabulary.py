"""Judges the tokenizer inside a GGUF header, as `gguf_rules` does the rest.

Source for what aborts where: llama.cpp 0c1e57098, src/llama-vocab.cpp:1939
(`llama_vocab::impl::load`).
"""

from __future__ import annotations

import os
from collections.abc import Set
from math import isfinite
from typing import NoReturn

from wizard_edge.errors import BackendError, Corrupt
from wizard_edge.gguf import Header, read_numbers, read_strings
from wizard_edge.gguf_cursor import shown
from wizard_edge.gguf_types import ArrayValue, ValueType

# `llama` is SentencePiece, `gpt2` byte-level BPE.
TOKENIZERS = frozenset({"llama", "gpt2"})

# Our own bounds, twice those of Llama 3: 128,256 tokens of 8 bytes with their lengths.
MAX_TOKENS = 1 << 18
MAX_TOKENS_SIZE = 4 << 20

_TOKENS = "tokenizer.ggml.tokens"
_TOKENIZER = "tokenizer.ggml.model"
_MERGES = "tokenizer.ggml.merges"
_SCORES = "tokenizer.ggml.scores"
_TOKEN_TYPES = "tokenizer.ggml.token_type"
_ADD_BOS = "tokenizer.ggml.add_bos_token"
_ADD_EOS = "tokenizer.ggml.add_eos_token"
_BOS = "tokenizer.ggml.bos_token_id"
_EOS = "tokenizer.ggml.eos_token_id"
_UNKNOWN = "tokenizer.ggml.unknown_token_id"
# Ids that llama.cpp takes where the file names none.
# Source: llama.cpp 0c1e57098, src/llama-vocab.cpp:1971 (llama), :2031 (gpt2).
_DEFAULT_IDS = {
    "llama": {_BOS: 1, _EOS: 2},
    "gpt2": {_BOS: 11, _EOS: 11},
}
# Source: llama.cpp 0c1e57098, include/llama.h, LLAMA_TOKEN_TYPE_BYTE.
_LAST_TYPE = 6
# How llama.cpp looks for the token of a byte: as <0x41>, else as the byte itself,
# which is text up to 0x7F. Finding neither ends the process while it tokenizes.
# Source: llama.cpp 0c1e57098, src/llama-vocab.cpp:4001 (`byte_to_token`).
_BYTES = tuple(
    (f"<0x{byte:02X}>", chr(byte) if 0 < byte < 0x80 else None) for byte in range(256)
)


class UnsupportedTokenizer(BackendError):
    """A readable file with a kind of tokenizer that this program does not run."""

    def __init__(
        self, path: str | os.PathLike[str], tokenizer: str, *, known: Set[str]
    ) -> None:
        super().__init__(
            f"{os.fspath(path)} has a tokenizer of the kind {shown(tokenizer)}, "
            "which wizard-edge does not run",
            hint=f"it runs: {', '.join(sorted(known))}",
        )
        self.path = os.fspath(path)
        self.tokenizer = tokenizer
        self.known = frozenset(known)


def check_vocabulary(header: Header) -> int:
    """Check the tokenizer; give the number of tokens."""
    kind = header.tokenizer
    if kind is None:
        missing(header, _TOKENIZER)
    if kind not in TOKENIZERS:
        raise UnsupportedTokenizer(header.path, kind, known=TOKENIZERS)
    if _TOKENS not in header.metadata:
        missing(header, _TOKENS)
    _check_size(header)
    tokens = read_strings(header, _TOKENS)
    if not tokens:
        header.fail(_TOKENS, "is empty")
    _check_arrays(header, kind, len(tokens))
    _check_special(header, kind, len(tokens))
    _check_tokens(header, kind, tokens)
    return len(tokens)


def _check_size(header: Header) -> None:
    """Refuse a vocabulary that would take much memory before it is read."""
    value = header.metadata[_TOKENS]
    if not isinstance(value, ArrayValue):
        return
    if value.length > MAX_TOKENS:
        header.fail(_TOKENS, f"{value.length} tokens, at most {MAX_TOKENS} are allowed")
    if value.size > MAX_TOKENS_SIZE:
        header.fail(_TOKENS, f"tokens of {value.size} bytes, more than can be")


def _check_arrays(header: Header, kind: str, count: int) -> None:
    """Scores and types go with the tokens one by one; BPE has merges."""
    for key, types in (
        (_SCORES, (ValueType.FLOAT32, ValueType.INT32)),
        (_TOKEN_TYPES, (ValueType.INT32,)),
    ):
        if key not in header.metadata:
            continue
        value = header.metadata[key]
        if not isinstance(value, ArrayValue) or value.type not in types:
            header.fail(key, f"is {header.kind(key)}")
        if value.length != count:
            header.fail(key, f"has {value.length} elements for {count} tokens")
        numbers = read_numbers(header, key)
        # Finite float32 values cannot sum up to more than a float64 holds.
        if key == _SCORES and not isfinite(sum(numbers)):
            header.fail(key, "holds a score that is no finite number")
        if key == _TOKEN_TYPES and not 0 <= min(numbers) <= max(numbers) <= _LAST_TYPE:
            header.fail(key, f"holds a type that is none of 0 to {_LAST_TYPE}")
    if kind == "gpt2":
        if _MERGES not in header.metadata:
            missing(header, _MERGES)
        if header.kind(_MERGES) != "array of string":
            header.fail(_MERGES, f"is {header.kind(_MERGES)}, should be strings")


def _check_special(header: Header, kind: str, count: int) -> None:
    for key in (_BOS, _EOS, _UNKNOWN):
        if key in header.metadata and integer(header, key) >= count:
            header.fail(key, f"is {header.metadata[key]}; there are {count} tokens")
    # llama.cpp asserts that a token it shall add exists.
    for switch, key in ((_ADD_BOS, _BOS), (_ADD_EOS, _EOS)):
        wanted = header.metadata.get(switch, key == _BOS)
        if not isinstance(wanted, bool):
            header.fail(switch, f"is {header.kind(switch)}, should be bool")
        if wanted and key not in header.metadata and _DEFAULT_IDS[kind][key] >= count:
            missing(header, key)


def _check_tokens(header: Header, kind: str, tokens: list[str]) -> None:
    """No two tokens are the same text to llama.cpp, which asserts it."""
    if "\0" in "".join(tokens):
        index = next(index for index, token in enumerate(tokens) if "\0" in token)
        header.fail(_TOKENS, f"token {index} holds a NUL, where llama.cpp cuts it")
    known = set(tokens)
    if "" in known:
        tokens = [token or f"[EMPTY_{index}]" for index, token in enumerate(tokens)]
        known = set(tokens)
    if len(known) != len(tokens):
        first, second = _repeated(tokens)
        text = shown(tokens[first])
        header.fail(_TOKENS, f"tokens {first} and {second} are the same: {text}")
    if kind == "llama":
        for byte, (spelled, plain) in enumerate(_BYTES):
            if spelled not in known and plain not in known:
                header.fail(_TOKENS, f"no token for the byte {byte:#04x}")


def integer(header: Header, key: str, value_type: ValueType = ValueType.UINT32) -> int:
    """Give an integer of exactly this type, as llama.cpp demands."""
    value = header.metadata.get(key)
    if value is None:
        missing(header, key)
    if not isinstance(value, int) or header.fields[key].type is not value_type:
        header.fail(key, f"is {header.kind(key)}, should be {value_type.name.lower()}")
    return value


def missing(header: Header, key: str) -> NoReturn:
    raise Corrupt(header.path, "is missing", where=f"key {key!r}")


def _repeated(tokens: list[str]) -> tuple[int, int]:
    seen: dict[str, int] = {}
    for index, token in enumerate(tokens):
        if token in seen:
            return seen[token], index
        seen[token] = index
    raise AssertionError("no token is repeated")
