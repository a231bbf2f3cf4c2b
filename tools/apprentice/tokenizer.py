"""The apprentice's vocabulary: SentencePiece BPE laid out like LLaMA's.

Pieces 0-2 are `<unk>`, `<s>`, `</s>`, then 256 bytes, then what the corpus taught.
Also turns a conversation into ids, Vicuna text piece by piece.
"""

from __future__ import annotations

import io
import string
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import repeat
from typing import Final

import sentencepiece

from tools.apprentice import phrases
from tools.apprentice.conversation import SYSTEM, Conversation

BOS: Final = 1
EOS: Final = 2
# Shown this often on top of the corpus: names and towns become few pieces, also
# where people type them in small letters, and the words of the system text, which
# no turn contains, one piece each.
_REPEATS: Final = 40
_SYSTEM_REPEATS: Final = 400


@dataclass(frozen=True, slots=True)
class Example:
    """A conversation as ids, and which of them the assistant said (`</s>` included)."""

    ids: tuple[int, ...]
    said: tuple[bool, ...]


def train_vocabulary(conversations: Iterable[Conversation], size: int) -> bytes:
    """Return a SentencePiece model of `size` pieces, the same for the same input."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=_sentences(conversations),
        model_writer=model,
        model_type="bpe",
        vocab_size=size,
        byte_fallback=True,
        split_digits=True,
        allow_whitespace_only_pieces=True,
        normalization_rule_name="identity",
        add_dummy_prefix=True,
        remove_extra_whitespaces=False,
        character_coverage=1.0,
        required_chars="".join(sorted(set(string.printable) - set(string.whitespace))),
        num_threads=1,
        minloglevel=2,
    )
    return model.getvalue()


def encode(
    vocabulary: sentencepiece.SentencePieceProcessor, conversation: Conversation
) -> Example:
    """Return the ids of a finished conversation, BOS first and `</s>` after answers."""
    ids, said = [BOS], [False]
    for number, turn in enumerate(conversation.turns):
        text = user_text(turn.user, first=number == 0)
        asked = vocabulary.encode(text)
        whole = vocabulary.encode(f"{text} {turn.assistant}")
        if whole[: len(asked)] != asked:
            raise ValueError(f"prompt and answer share a piece: {turn.user!r}")
        ids += [*whole, EOS]
        said += [False] * len(asked) + [True] * (len(whole) - len(asked) + 1)
    return Example(tuple(ids), tuple(said))


def user_text(user: str, *, first: bool) -> str:
    """Return the plain text between two control tokens, up to where answers begin.

    Source: FastChat, fastchat/conversation.py, separator style ADD_COLON_TWO.
    """
    opening = f"{SYSTEM} " if first else ""
    return f"{opening}USER: {user} ASSISTANT:"


def _sentences(conversations: Iterable[Conversation]) -> Iterator[str]:
    yield from repeat(SYSTEM, _SYSTEM_REPEATS)
    for conversation in conversations:
        for turn in conversation.turns:
            yield f"USER: {turn.user} ASSISTANT: {turn.assistant}"
    for _ in range(_REPEATS):
        for name in (*phrases.NAMES, *phrases.TOWNS):
            yield from (name, name.lower())
