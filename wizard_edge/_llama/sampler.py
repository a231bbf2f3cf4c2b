"""A llama.cpp sampler chain for one answer.

The order is llama.cpp's own default order for the filters it shares with us:
penalties, top-k, top-p, min-p, temperature, then the draw.
Source: llama.cpp common/common.h, common_params_sampling.samplers.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from types import ModuleType

# A pointer of the binding, whose types are not annotated for checkers.
from typing import Any

from wizard_edge._llama.library import overhear
from wizard_edge._llama.vocabulary import LlamaVocabulary
from wizard_edge.engine import MAX_SEED, Sampling
from wizard_edge.errors import UsageError

# How far a repeat penalty looks back, in tokens; llama.cpp's own default.
_PENALTY_WINDOW = 64


class Sampler:
    """Owns the chain; `close` frees it."""

    def __init__(
        self,
        library: ModuleType,
        vocabulary: LlamaVocabulary,
        sampling: Sampling,
        prompt: Sequence[int],
    ) -> None:
        self._library = library
        self._chain: Any = None
        links = _links(library, vocabulary, sampling, prompt)
        params = library.llama_sampler_chain_default_params()
        self._chain = library.llama_sampler_chain_init(params)
        for link in links:
            library.llama_sampler_chain_add(self._chain, link)

    def sample(self, context: Any, index: int) -> int:
        """Draw the next token from output `index` of the last evaluation."""
        return int(self._library.llama_sampler_sample(self._chain, context, index))

    def close(self) -> None:
        """Free the chain and everything in it."""
        if self._chain is not None:
            self._library.llama_sampler_free(self._chain)
            self._chain = None

    def __del__(self) -> None:
        # An answer that nobody began to read has no other end.
        self.close()


def _links(
    library: ModuleType,
    vocabulary: LlamaVocabulary,
    sampling: Sampling,
    prompt: Sequence[int],
) -> list[Any]:
    links = []
    grammar = _grammar(sampling)
    if grammar is not None:
        links.append(_grammar_link(library, vocabulary, grammar))
    if sampling.repeat_penalty != 1:
        link = library.llama_sampler_init_penalties(
            vocabulary.size, _PENALTY_WINDOW, sampling.repeat_penalty, 0.0, 0.0
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


def _grammar_link(
    library: ModuleType, vocabulary: LlamaVocabulary, grammar: str
) -> Any:
    with overhear() as complaints:
        link = library.llama_sampler_init_grammar(
            vocabulary.handle, grammar.encode(), b"root"
        )
    if not link:
        reason = complaints[0] if complaints else "it needs a rule called root"
        raise UsageError(f"the grammar is not valid GBNF: {reason}")
    return link


def _grammar(sampling: Sampling) -> str | None:
    if sampling.json_schema is None:
        return sampling.grammar
    from llama_cpp.llama_grammar import json_schema_to_gbnf

    try:
        grammar: str = json_schema_to_gbnf(sampling.json_schema)
    # The binding's schema converter raises whatever it stumbles over.
    except (ValueError, KeyError, TypeError, AttributeError, AssertionError) as err:
        raise UsageError(f"the JSON schema is not usable: {err}") from err
    return grammar
