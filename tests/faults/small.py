"""The smallest checkpoint that converts, for thousands of spoilt copies."""

from __future__ import annotations

from functools import cache

from tests.converters.checkpoints import (
    Shape,
    Weights,
    random_weights,
    state_dict_pickle,
)

SMALL = Shape(
    hidden=32, inner=64, layers=1, heads=2, kv_heads=1, vocabulary=323, pieces=322
)


@cache
def small_weights() -> Weights:
    """Return its weights; not to be changed."""
    return random_weights(SMALL)


@cache
def small_pickle() -> bytes:
    """Return the pickle of its weight file."""
    return state_dict_pickle(small_weights())
