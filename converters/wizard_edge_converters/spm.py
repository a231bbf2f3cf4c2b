"""Reads a SentencePiece vocabulary and everything Hugging Face lays over it.

Three layers, each over the one before: the pieces of tokenizer.model, then
added_tokens.json, then `added_tokens_decoder` of tokenizer_config.json. Rows of the
embedding that nothing names become unused [PADn] tokens.

Source: llama.cpp 0c1e57098, conversion/base.py (`_create_vocab_sentencepiece`),
conversion/llama.py (`set_vocab`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from math import isfinite

# The SentencePiece processor comes from a package without annotations.
from typing import Any

from wizard_edge.errors import Corrupt
from wizard_edge_converters.checkpoint import SideFiles
from wizard_edge_converters.hparams import Hparams
from wizard_edge_converters.special_tokens import (
    TOKENIZER,
    read_special_tokens,
    read_template,
)
from wizard_edge_converters.vocabulary import (
    ADDED,
    CONFIG,
    Rows,
    TokenType,
    Vocabulary,
    check_id,
    looks_special,
    plain,
    read_decoder,
    read_flag,
    read_object,
)

MODEL = "tokenizer.model"

_ADDED_SCORE = -1000.0


def read_sentencepiece(files: SideFiles, data: bytes, hparams: Hparams) -> Vocabulary:
    """Read the vocabulary whose tokenizer.model is `data`.

    Raises: Corrupt naming file and token.
    """
    rows = Rows.of_size(hparams.vocabulary)
    own_ids = _put_pieces(rows, data, files.label(MODEL))
    config = read_object(files, CONFIG)
    _put_added(rows, read_object(files, ADDED), files.label(ADDED))
    _put_decoder(rows, config, files.label(CONFIG))
    rows.check_unique(files.label(MODEL))
    special = read_special_tokens(read_object(files, TOKENIZER), config, hparams, files)
    for note in special.notes:
        rows.note(note)
    _settle_ids(special.ids, own_ids, rows)
    special.adds.setdefault("bos", True)
    return Vocabulary(
        model="llama",
        pre="default",
        tokens=tuple(rows.tokens),
        scores=tuple(rows.scores),
        types=tuple(rows.types),
        merges=(),
        special_ids=special.ids,
        adds=special.adds,
        add_space_prefix=read_flag(config, "add_prefix_space", files.label(CONFIG)),
        chat_template=read_template(config, files),
        notes=tuple(rows.notes),
    )


def _put_pieces(rows: Rows, data: bytes, label: str) -> dict[str, int]:
    """Put the pieces of tokenizer.model; return the special ids it states."""
    # Imported here: it is a compiled package that only a conversion needs.
    from sentencepiece import SentencePieceProcessor

    model = SentencePieceProcessor()
    try:
        model.LoadFromSerializedProto(data)
        for index, piece in enumerate(_pieces(model)):
            if index >= len(rows.tokens):
                left_out = model.vocab_size() - index
                rows.note(f"{MODEL} has {left_out} pieces more than the embedding")
                break
            if not isfinite(piece[1]):
                raise Corrupt(label, f"the score of piece {index} is {piece[1]}")
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


def _put_added(rows: Rows, added: Mapping[str, object], label: str) -> None:
    for token, value in added.items():
        index = check_id(value, label, token)
        if rows.fits(index, token, label):
            rows.put(index, token, _ADDED_SCORE, TokenType.USER_DEFINED)


def _put_decoder(rows: Rows, config: Mapping[str, object], label: str) -> None:
    for index, added in read_decoder(config, label).items():
        if not rows.fits(index, added.token, label):
            continue
        if added.special or looks_special(added.token):
            rows.put(index, added.token, _ADDED_SCORE, TokenType.CONTROL)
        else:
            rows.put(index, plain(added.token), _ADDED_SCORE, TokenType.USER_DEFINED)


def _settle_ids(ids: dict[str, int], own: Mapping[str, int], rows: Rows) -> None:
    """Lay the ids of tokenizer.model over those of the configs.

    They count where no config names any; for bos they always count: the models of
    the family were trained with `<s>`, whatever some of their configs call it.
    """
    for kind, index in own.items():
        known = ids.setdefault(kind, index)
        if known != index and kind == "bos":
            ids[kind] = index
            rows.note(f"a config says bos is {known}, {MODEL} says {index}: it counts")
