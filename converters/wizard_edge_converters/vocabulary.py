"""What a vocabulary is in GGUF, and how one is put together row by row.

Source: llama.cpp 0c1e57098, conversion/base.py (`does_token_look_special`); token
types: include/llama.h, enum llama_token_type.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Literal

from wizard_edge.errors import Corrupt
from wizard_edge_converters.checkpoint import SideFiles
from wizard_edge_converters.source_files import parse_json, shown

ADDED = "added_tokens.json"
CONFIG = "tokenizer_config.json"

PAD_SCORE = -10000.0
_LOOKS_SPECIAL = frozenset({"<pad>", "<mask>", "<2mass>", "[@BOS@]"})
_SPECIAL_FRAMES = (("<|", "|>"), ("<｜", "｜>"), ("<unused", ">"))
_MAX_TOKEN_SIZE = 1 << 12

_logger = logging.getLogger(__name__)


class TokenType(IntEnum):
    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER_DEFINED = 4
    UNUSED = 5
    BYTE = 6


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """A vocabulary as GGUF keeps it; the index of a token is its id.

    `model` is `llama` for SentencePiece, which has a score for each token, or `gpt2`
    for byte-level BPE, which has `merges` instead. `pre` names the pre-tokenizer.
    `special_ids` maps bos, eos, unk, pad and rarer kinds to ids, `adds` says for some
    kinds whether the runtime adds them to a text; both in the order of the file.
    `infill_end` is Code Llama's end of what it fills in. `add_space_prefix` is None
    where the checkpoint leaves it to the runtime. `notes` says in sentences what did
    not fit and was left out.
    """

    model: Literal["llama", "gpt2"]
    pre: str
    tokens: tuple[str, ...]
    scores: tuple[float, ...]
    types: tuple[TokenType, ...]
    merges: tuple[str, ...]
    special_ids: Mapping[str, int]
    adds: Mapping[str, bool]
    add_space_prefix: bool | None
    chat_template: str | None
    notes: tuple[str, ...]
    infill_end: int | None = None


@dataclass(slots=True)
class Rows:
    """The vocabulary while it is put together: rows nobody names are [PADn]."""

    tokens: list[str]
    scores: list[float]
    types: list[TokenType]
    notes: list[str] = field(default_factory=list)

    @classmethod
    def of_size(cls, size: int) -> Rows:
        return cls(
            [f"[PAD{index}]" for index in range(size)],
            [PAD_SCORE] * size,
            [TokenType.UNUSED] * size,
        )

    def put(self, index: int, token: str, score: float, kind: TokenType) -> None:
        self.tokens[index] = token
        self.scores[index] = score
        self.types[index] = kind

    def note(self, text: str) -> None:
        self.notes.append(text)
        _logger.warning("%s", text)

    def fits(self, index: int, token: str, label: str) -> bool:
        """Whether an added token has an embedding row; WizardLM-13B-V1.2's has none.

        Raises: Corrupt for what is no token at all.
        """
        check_token(token, label, f"id {index}")
        if index < len(self.tokens):
            return True
        self.note(
            f"added token {shown(token)} is left out: its id {index} has no row in "
            f"the embedding of {len(self.tokens)}"
        )
        return False

    def check_unique(self, label: str) -> None:
        """Refuse a token that is there twice. Raises: Corrupt."""
        # llama.cpp aborts the process on such a vocabulary.
        # Source: llama.cpp 0c1e57098, src/llama-vocab.cpp, GGML_ASSERT on token_to_id.
        first: dict[str, int] = {}
        for index, token in enumerate(self.tokens):
            if first.setdefault(token, index) != index:
                raise Corrupt(
                    label,
                    f"token {shown(token)} has the ids {first[token]} and {index}",
                )


def check_token(token: str, label: str, where: str) -> None:
    """Refuse an empty, endless or unprintable-by-any-encoder token. Raises: Corrupt."""
    if not 0 < len(token.encode("utf-8", "surrogatepass")) <= _MAX_TOKEN_SIZE:
        raise Corrupt(label, "an empty or endless token", where=where)
    if any("\ud800" <= character <= "\udfff" for character in token):
        raise Corrupt(label, "a token that is no Unicode text", where=where)
    if "\0" in token:
        # llama.cpp cuts a token there.
        raise Corrupt(label, "a token that holds a NUL", where=where)


def check_id(value: object, label: str, token: object) -> int:
    """Return an id. Raises: Corrupt for anything but a whole number from 0."""
    if type(value) is not int or not 0 <= value < 1 << 31:
        raise Corrupt(label, f"the id is {shown(value)}", where=shown(token))
    return value


def looks_special(token: str) -> bool:
    """Whether a token that nobody calls special is one all the same."""
    return token in _LOOKS_SPECIAL or any(
        token.startswith(start) and token.endswith(end)
        for start, end in _SPECIAL_FRAMES
    )


def plain(token: str) -> str:
    """Spell a user-defined token as it stands in a text: with real spaces."""
    return token.replace("\u2581", " ")


@dataclass(frozen=True, slots=True)
class AddedToken:
    """An entry of `added_tokens_decoder`, or of `added_tokens` of a tokenizer.json."""

    token: str
    special: bool
    normalized: bool


def read_decoder(config: Mapping[str, object], label: str) -> dict[int, AddedToken]:
    """Read `added_tokens_decoder` of a tokenizer_config.json. Raises: Corrupt."""
    decoder = config.get("added_tokens_decoder", {})
    if not isinstance(decoder, dict):
        raise Corrupt(label, "is no object", where="added_tokens_decoder")
    found = {}
    for key, entry in decoder.items():
        where = f"added_tokens_decoder {shown(key)}"
        if not (key.isascii() and key.isdecimal() and len(key) < 10):
            raise Corrupt(label, "makes no sense", where=where)
        found[int(key)] = read_added(entry, label, where)
    return found


def read_added(entry: object, label: str, where: str) -> AddedToken:
    """Read what is said of one added token. Raises: Corrupt."""
    if isinstance(entry, dict):
        token, special = entry.get("content"), entry.get("special") or False
        normalized = entry.get("normalized", not special)
        match token, special, normalized:
            case str(), bool(), bool():
                check_token(token, label, where)
                return AddedToken(token, special, normalized)
    raise Corrupt(label, "makes no sense", where=where)


def read_object(files: SideFiles, name: str) -> dict[str, object]:
    """Read a JSON object; an empty one where there is no such file."""
    data = files.small(name)
    return {} if data is None else parse_json(data, files.label(name))


def read_flag(config: Mapping[str, object], key: str, label: str) -> bool | None:
    """Return a setting that is true, false or not there. Raises: Corrupt."""
    value = config.get(key)
    if value is not None and not isinstance(value, bool):
        raise Corrupt(label, f"is {shown(value)}", where=f"key {key}")
    return value
