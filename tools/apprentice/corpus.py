"""Conversations the apprentice learns from, and the ones it is examined on.

Everything is made here from the tables in `phrases`, so there is no licence
question. A conversation is held out when the sha256 of its canonical text says so,
hence a whole conversation is either trained on or examined, never both. Knows
nothing of tokens or models; standard library only.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from random import Random

from tools.apprentice import script
from tools.apprentice.conversation import Conversation


def training(seed: int, count: int, *, invented: float = 0.0) -> Iterator[Conversation]:
    """Yield `count` conversations to train on, the same ones for the same arguments.

    `invented` is the share of told names and towns that are made up of syllables,
    so that a model learns to copy instead of to choose from the closed lists.
    """
    stream = script.conversations(Random(f"training {seed}"), invented)
    return islice((c for c in stream if not c.is_held_out), count)


def held_out(seed: int, count: int) -> Iterator[Conversation]:
    """Yield `count` conversations that `training` never yields."""
    stream = script.conversations(Random(f"held out {seed}"), 0.0)
    return islice((c for c in stream if c.is_held_out), count)


def drills(seed: int, count: int) -> Iterator[Conversation]:
    """Yield `count` one-turn exercises in copying: the answer is what was said."""
    stream = script.drills(Random(f"drills {seed}"))
    return islice((c for c in stream if not c.is_held_out), count)
