"""Reads a SentencePiece vocabulary and everything Hugging Face lays over it.

Three layers, each over the one before: the pieces of tokenizer.model, then
added_tokens.json, then `added_tokens_decoder` of tokenizer_config.json. Rows of the
embedding that nothing names become unused [PADn] tokens.

Source: llama.cpp 0c1e57098, conversion/base.py (`_create_vocab_sentencepiece`,
`does_token_look_special`), conversion/llama.py (`set_vocab`), gguf-py/gguf/vocab.py
(`SpecialVocab`); token types: include/llama.h, enum llama_token_type.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import IntEnum

# The SentencePiece processor comes from a package without annotations.
from typing import Any

from wizard_edge.errors import CannotConvert, Corrupt
from wizard_edge_converters.checkpoint import SideFiles
from wizard_edge_converters.source_files import parse_json, shown

MODEL = "tokenizer.model"
ADDED = "added_tokens.json"
CONFIG = "tokenizer_config.json"

_PAD_SCORE = -10000.0
_ADDED_SCORE = -1000.0
_LOOKS_SPECIAL = frozenset({"<pad>", "<mask>", "<2mass>", "[@BOS@]"})
_SPECIAL_FRAMES = (("<|", "|>"), ("<｜", "｜>"), ("<unused", ">"))
_MAX_TOKEN_SIZE = 1 << 12
_MAX_TEMPLATE = 1 << 20

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

    `special_ids` maps bos, eos, unk and pad to ids, where there are such. `add_eos`
    and `add_space_prefix` are None where the checkpoint leaves them to the runtime.
    `notes` says in sentences what did not fit and was left out.
    """

    tokens: tuple[str, ...]
    scores: tuple[float, ...]
    types: tuple[TokenType, ...]
    special_ids: Mapping[str, int]
    add_bos: bool
    add_eos: bool | None
    add_space_prefix: bool | None
    chat_template: str | None
    notes: tuple[str, ...]


@dataclass(slots=True)
class _Rows:
    """The vocabulary while it is put together."""

    tokens: list[str]
    scores: list[float]
    types: list[TokenType]
    notes: list[str] = field(default_factory=list)

    def put(self, index: int, token: str, score: float, kind: TokenType) -> None:
        self.tokens[index] = token
        self.scores[index] = score
        self.types[index] = kind

    def note(self, text: str) -> None:
        self.notes.append(text)
        _logger.warning("%s", text)


def read_vocabulary(
    files: SideFiles, size: int, config_ids: Mapping[str, int]
) -> Vocabulary:
    """Read the vocabulary of a model with `size` embedding rows.

    `config_ids` are the special ids that the model's config names: they count where
    tokenizer.model has none of its own.
    Raises: CannotConvert without a tokenizer.model; Corrupt naming file and token.
    """
    rows = _Rows(
        [f"[PAD{index}]" for index in range(size)],
        [_PAD_SCORE] * size,
        [TokenType.UNUSED] * size,
    )
    special_ids = _put_pieces(rows, files)
    config = _read_object(files, CONFIG)
    _put_added(rows, _read_object(files, ADDED), files.label(ADDED))
    _put_decoder(rows, config.get("added_tokens_decoder", {}), files.label(CONFIG))
    _check_unique(rows.tokens, files.label(MODEL))
    for kind, token in config_ids.items():
        if token < size:
            known = special_ids.setdefault(kind, token)
            if known != token:
                rows.note(
                    f"config.json says {kind} is {token}, {MODEL} says {known}: "
                    f"{known} it is"
                )
    flags = _Flags(config, files.label(CONFIG))
    add_bos = flags.get("add_bos_token")
    return Vocabulary(
        tokens=tuple(rows.tokens),
        scores=tuple(rows.scores),
        types=tuple(rows.types),
        special_ids=special_ids,
        add_bos=True if add_bos is None else add_bos,
        add_eos=flags.get("add_eos_token"),
        add_space_prefix=flags.get("add_prefix_space"),
        chat_template=_read_template(config, files.label(CONFIG)),
        notes=tuple(rows.notes),
    )


def _put_pieces(rows: _Rows, files: SideFiles) -> dict[str, int]:
    """Put the pieces of tokenizer.model; return the special ids it states."""
    # Imported here: it is a compiled package that only a conversion needs.
    from sentencepiece import SentencePieceProcessor

    label = files.label(MODEL)
    data = files.small(MODEL)
    if data is None:
        raise CannotConvert(
            f"no {MODEL} beside the weights: {label}",
            hint="some repositories lack it: it is that of the base model",
        )
    model = SentencePieceProcessor()
    try:
        model.LoadFromSerializedProto(data)
        for index, piece in enumerate(_pieces(model)):
            if index >= len(rows.tokens):
                left_out = model.vocab_size() - index
                rows.note(f"{MODEL} has {left_out} pieces more than the embedding")
                break
            rows.put(index, *piece)
        ids = {
            "bos": model.bos_id(),
            "eos": model.eos_id(),
            "unk": model.unk_id(),
            "pad": model.pad_id(),
        }
    except (RuntimeError, UnicodeError, ValueError, IndexError) as err:
        raise Corrupt(label, f"is no SentencePiece model: {err}") from err
    return {kind: index for kind, index in ids.items() if 0 <= index < len(rows.tokens)}


def _pieces(model: Any) -> Iterator[tuple[str, float, TokenType]]:
    for index in range(model.vocab_size()):
        yield model.IdToPiece(index), model.GetScore(index), _piece_type(model, index)


def _piece_type(model: Any, index: int) -> TokenType:
    if model.IsUnknown(index):
        return TokenType.UNKNOWN
    if model.IsControl(index):
        return TokenType.CONTROL
    if model.IsUnused(index):
        return TokenType.UNUSED
    return TokenType.BYTE if model.IsByte(index) else TokenType.NORMAL


def _put_added(rows: _Rows, added: Mapping[str, object], label: str) -> None:
    for token, index in added.items():
        if type(index) is not int or index < 0:
            raise Corrupt(label, f"the id is {shown(index)}", where=shown(token))
        if _fits(rows, index, token, label):
            rows.put(index, token, _ADDED_SCORE, TokenType.USER_DEFINED)


def _put_decoder(rows: _Rows, decoder: object, label: str) -> None:
    if not isinstance(decoder, dict):
        raise Corrupt(label, "is no object", where="added_tokens_decoder")
    for key, entry in decoder.items():
        match entry:
            case {"content": str() as token} if key.isdecimal() and len(key) < 10:
                pass
            case _:
                raise Corrupt(
                    label, "makes no sense", where=f"added_tokens_decoder {shown(key)}"
                )
        index = int(key)
        if not _fits(rows, index, token, label):
            continue
        if entry.get("special") or _looks_special(token):
            rows.put(index, token, _ADDED_SCORE, TokenType.CONTROL)
        else:
            # SentencePiece's mark for a space stands for the space itself here.
            plain = token.replace("\u2581", " ")
            rows.put(index, plain, _ADDED_SCORE, TokenType.USER_DEFINED)


def _fits(rows: _Rows, index: int, token: str, label: str) -> bool:
    """Whether an added token has an embedding row; WizardLM-13B-V1.2's has none."""
    if not 0 < len(token.encode("utf-8", "surrogatepass")) <= _MAX_TOKEN_SIZE:
        raise Corrupt(label, "an empty or endless token", where=f"id {index}")
    if any("\ud800" <= character <= "\udfff" for character in token):
        raise Corrupt(label, "a token that is no Unicode text", where=f"id {index}")
    if index < len(rows.tokens):
        return True
    rows.note(
        f"added token {shown(token)} is left out: its id {index} has no row in the "
        f"embedding of {len(rows.tokens)}"
    )
    return False


def _looks_special(token: str) -> bool:
    return token in _LOOKS_SPECIAL or any(
        token.startswith(start) and token.endswith(end)
        for start, end in _SPECIAL_FRAMES
    )


def _check_unique(tokens: list[str], label: str) -> None:
    # llama.cpp aborts the process on a vocabulary with a token twice.
    # Source: llama.cpp 0c1e57098, src/llama-vocab.cpp, GGML_ASSERT on token_to_id.
    first: dict[str, int] = {}
    for index, token in enumerate(tokens):
        if first.setdefault(token, index) != index:
            raise Corrupt(
                label, f"token {shown(token)} has the ids {first[token]} and {index}"
            )


@dataclass(frozen=True, slots=True)
class _Flags:
    """Settings of tokenizer_config.json that are true, false or not there."""

    config: Mapping[str, object]
    label: str

    def get(self, key: str) -> bool | None:
        value = self.config.get(key)
        if value is not None and not isinstance(value, bool):
            raise Corrupt(self.label, f"is {shown(value)}", where=f"key {key}")
        return value


def _read_template(config: Mapping[str, object], label: str) -> str | None:
    """Return the Jinja text to carry along; nothing here ever compiles it."""
    value = config.get("chat_template")
    if not isinstance(value, str):
        return None
    if len(value) > _MAX_TEMPLATE:
        raise Corrupt(label, f"has {len(value)} letters", where="key chat_template")
    return value


def _read_object(files: SideFiles, name: str) -> dict[str, object]:
    data = files.small(name)
    return {} if data is None else parse_json(data, files.label(name))
