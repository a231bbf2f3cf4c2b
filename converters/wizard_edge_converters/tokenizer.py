"""Reads the vocabulary of a checkpoint, of whichever of the two kinds it is.

A StarCoder has byte-level BPE. A LLaMA has SentencePiece, or BPE where there is no
tokenizer.model: DeepSeek-Coder.

Source: llama.cpp 0c1e57098, conversion/llama.py (`set_vocab`).
"""

from __future__ import annotations

from dataclasses import replace

from wizard_edge.errors import CannotConvert
from wizard_edge_converters.bpe import read_bpe
from wizard_edge_converters.checkpoint import SideFiles
from wizard_edge_converters.hparams import Hparams
from wizard_edge_converters.special_tokens import TOKENIZER
from wizard_edge_converters.spm import MODEL, read_sentencepiece
from wizard_edge_converters.vocabulary import (
    CONFIG,
    Vocabulary,
    read_flag,
    read_object,
)

# A Code Llama of this many rows was trained to fill in; llama.cpp knows it by that.
# Of its four tokens the converter finds no key for three.
_INFILL_ROWS = 32016
_INFILL_END = 32010
# A LLaMA of as many rows as StarCoder has is a Granite, which has no BOS.
_GRANITE_ROWS = 49152


def read_vocabulary(files: SideFiles, hparams: Hparams) -> Vocabulary:
    """Read the vocabulary that belongs to a model.

    Raises: CannotConvert where a file is missing or of a kind that llama.cpp would
    not run right; Corrupt naming file and token.
    """
    if hparams.architecture == "starcoder":
        return read_bpe(files, hparams)
    data = files.small(MODEL)
    if data is not None:
        vocabulary = read_sentencepiece(files, data, hparams)
    elif files.small(TOKENIZER) is None:
        raise CannotConvert(
            f"no {MODEL} beside the weights: {files.label(MODEL)}",
            hint="some repositories lack it: it is that of the base model",
        )
    else:
        vocabulary = _with_space_prefix(read_bpe(files, hparams), files)
    if hparams.vocabulary == _INFILL_ROWS:
        vocabulary = replace(vocabulary, infill_end=_INFILL_END)
    if hparams.vocabulary == _GRANITE_ROWS:
        vocabulary = replace(vocabulary, adds={**vocabulary.adds, "bos": False})
    return vocabulary


def _with_space_prefix(vocabulary: Vocabulary, files: SideFiles) -> Vocabulary:
    wanted = read_flag(
        read_object(files, CONFIG), "add_prefix_space", files.label(CONFIG)
    )
    return replace(vocabulary, add_space_prefix=wanted)
