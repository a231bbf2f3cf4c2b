"""Pieces of text to token ids, and back to something a person can read.

The one place where a prompt becomes tokens: exactly one BOS where the vocabulary
wants one, control pieces as single tokens, plain text as plain text. Knows no
llama.cpp; a `Vocabulary` does the tokenizing.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from wizard_edge.engine import Vocabulary
from wizard_edge.templates import EOS, Message, Piece, PromptTemplate, join_plain


def encode_messages(
    template: PromptTemplate, messages: Sequence[Message], vocabulary: Vocabulary
) -> list[int]:
    """Return the token ids of a whole conversation, BOS first where one is wanted."""
    return begin(vocabulary) + encode(template.render(messages), vocabulary)


def begin(vocabulary: Vocabulary) -> list[int]:
    """Return what every prompt begins with: one BOS, or nothing."""
    return [] if vocabulary.bos is None else [vocabulary.bos]


def encode(pieces: Iterable[Piece], vocabulary: Vocabulary) -> list[int]:
    """Tokenize pieces one by one, neighbouring plain pieces joined first."""
    ids: list[int] = []
    for piece in join_plain(pieces):
        if piece == EOS:
            ids.append(vocabulary.eos)
        elif piece.control:
            ids.append(vocabulary.control(piece.text))
        else:
            ids += vocabulary.tokenize(piece.text)
    return ids


def spell(pieces: Iterable[Piece], vocabulary: Vocabulary) -> str:
    """Write pieces as text, the end token as this vocabulary spells it."""
    return "".join(
        vocabulary.spell(vocabulary.eos) if piece == EOS else piece.text
        for piece in pieces
    )
