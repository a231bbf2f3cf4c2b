"""A llama.cpp sampler chain for one answer.

The order is llama.cpp's own default order for what it shares with us: logit bias,
penalties, top-k, top-p, min-p, temperature, then the draw.
Source: llama.cpp 0c1e57098, common/sampling.cpp, `common_sampler_init`;
common/common.h, `common_params_sampling.samplers`.
"""

from __future__ import annotations

import ctypes
import secrets
from collections.abc import Sequence
from math import inf
from types import ModuleType

# Pointers and structs of the binding, whose types are not annotated for checkers.
from typing import Any

from wizard_edge._llama.grammar import Grammar, grammar_of
from wizard_edge._llama.vocabulary import LlamaVocabulary
from wizard_edge.engine import MAX_SEED, Sampling
from wizard_edge.errors import UsageError

# How far a repeat penalty looks back, in tokens; llama.cpp's own default.
_PENALTY_WINDOW = 64


class Sampler:
    """Owns the chain, and the grammar beside it; `close` frees them.

    A token is drawn first and shown to the grammar afterwards: a walk over a
    vocabulary of 32,000 tokens takes it 2 to 10 ms, a look at one token 0.02. Only
    where it refuses the token the others are restricted, and another is drawn.
    Source: llama.cpp 0c1e57098, common/sampling.cpp, `common_sampler_sample`.
    """

    def __init__(
        self,
        library: ModuleType,
        vocabulary: LlamaVocabulary,
        sampling: Sampling,
        prompt: Sequence[int],
    ) -> None:
        """Raises: UsageError for a grammar, schema or logit bias that is not usable."""
        self._library = library
        self._size = vocabulary.size
        self._chain: Any = None
        self._grammar: Grammar | None = None
        self._forbidden = _forbidden(sampling, vocabulary.size)
        text = grammar_of(sampling)
        if text is not None:
            self._grammar = Grammar(library, vocabulary, text)
        params = library.llama_sampler_chain_default_params()
        self._chain = library.llama_sampler_chain_init(params)
        for link in _links(library, vocabulary.size, sampling, prompt):
            library.llama_sampler_chain_add(self._chain, link)

    def sample(self, context: Any, index: int) -> int:
        """Draw the next token from output `index` of the last evaluation.

        Raises: UsageError where the grammar allows none that is not forbidden.
        """
        if self._grammar is None:
            return int(self._library.llama_sampler_sample(self._chain, context, index))
        token = self._draw(context, index, self._grammar)
        self._grammar.accept(token)
        self._library.llama_sampler_accept(self._chain, token)
        return token

    def close(self) -> None:
        """Free the chain and everything in it. A second call does nothing."""
        if self._grammar is not None:
            self._grammar.close()
        if self._chain is not None:
            self._library.llama_sampler_free(self._chain)
            self._chain = None

    def __del__(self) -> None:
        # An answer that nobody began to read has no other end.
        self.close()

    def _draw(self, context: Any, index: int, grammar: Grammar) -> int:
        import numpy as np

        # llama_token_data of llama.h.
        kind = np.dtype([("id", "<i4"), ("logit", "<f4"), ("p", "<f4")])
        table = np.zeros(self._size, kind)
        table["id"] = np.arange(self._size, dtype="<i4")
        pointer = self._library.llama_get_logits_ith(context, index)
        logits = np.ctypeslib.as_array(pointer, shape=(self._size,))
        table["logit"] = logits
        token = self._choose(table)
        if grammar.allows(token):
            return token
        # The chain has put them into another order.
        table["id"] = np.arange(self._size, dtype="<i4")
        table["logit"] = logits
        grammar.restrict(self._array(table))
        table["logit"][list(self._forbidden)] = -inf
        # llama.cpp would take one that is refused, and die of it.
        if not np.isfinite(table["logit"]).any():
            raise UsageError("logit-bias forbids all that the grammar allows")
        return self._choose(table)

    # Any: a structured array, which numpy's annotations do not tell from others.
    def _choose(self, table: Any) -> int:
        """Run the chain over candidates, whose order and values it changes."""
        array = self._array(table)
        self._library.llama_sampler_apply(self._chain, ctypes.byref(array))
        return int(array.data[array.selected].id)

    def _array(self, table: Any) -> Any:
        """Return a `llama_token_data_array` over a table that has to outlive it."""
        data = ctypes.POINTER(self._library.llama_token_data)
        return self._library.llama_token_data_array(
            table.ctypes.data_as(data), len(table), -1, False
        )


def _forbidden(sampling: Sampling, size: int) -> frozenset[int]:
    """Return the tokens that a logit bias forbids.

    Raises: UsageError for tokens that the vocabulary lacks, or if it forbids all.
    """
    for token, _ in sampling.logit_bias:
        if token >= size:
            raise UsageError(
                f"logit-bias for token {token}, but the vocabulary has {size}"
            )
    forbidden = frozenset(t for t, bias in sampling.logit_bias if bias == -inf)
    if len(forbidden) == size:
        raise UsageError("logit-bias forbids every token")
    return forbidden


def _links(
    library: ModuleType, size: int, sampling: Sampling, prompt: Sequence[int]
) -> list[Any]:
    links = []
    if sampling.logit_bias:
        biases = (library.llama_logit_bias * len(sampling.logit_bias))()
        for place, (token, bias) in zip(biases, sampling.logit_bias, strict=True):
            place.token, place.bias = token, bias
        links.append(library.llama_sampler_init_logit_bias(size, len(biases), biases))
    if sampling.repeat_penalty != 1:
        link = library.llama_sampler_init_penalties(
            size, _PENALTY_WINDOW, sampling.repeat_penalty, 0.0, 0.0
        )
        for token in prompt[-_PENALTY_WINDOW:]:
            library.llama_sampler_accept(link, token)
        links.append(link)
    if sampling.temperature == 0:
        return [*links, library.llama_sampler_init_greedy()]
    if sampling.top_k > 0:
        links.append(library.llama_sampler_init_top_k(sampling.top_k))
    if sampling.top_p < 1:
        links.append(library.llama_sampler_init_top_p(sampling.top_p, 1))
    if sampling.min_p > 0:
        links.append(library.llama_sampler_init_min_p(sampling.min_p, 1))
    seed = secrets.randbelow(MAX_SEED) if sampling.seed is None else sampling.seed
    links.append(library.llama_sampler_init_temp(sampling.temperature))
    links.append(library.llama_sampler_init_dist(seed))
    return links
