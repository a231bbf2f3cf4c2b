"""What an answer may say: a GBNF grammar that llama.cpp follows along.

llama.cpp dies of a token that its grammar refuses, so every token is checked before
it is accepted.
"""

from __future__ import annotations

import ctypes
from types import ModuleType

# Pointers and structs of the binding, whose types are not annotated for checkers.
from typing import Any

from wizard_edge._llama.library import listen, overhear
from wizard_edge._llama.vocabulary import LlamaVocabulary
from wizard_edge.engine import Sampling
from wizard_edge.errors import UsageError


def grammar_of(sampling: Sampling) -> str | None:
    """Return the grammar of a request in GBNF, None where it has none.

    Raises: UsageError for a JSON schema that is not usable.
    """
    if sampling.json_schema is None:
        return sampling.grammar
    # Imported here: the first token of an answer without one need not wait for it.
    from wizard_edge.json_schema import schema_grammar

    return schema_grammar(sampling.json_schema)


class Grammar:
    """Follows an answer token by token; `close` frees it."""

    def __init__(
        self, library: ModuleType, vocabulary: LlamaVocabulary, text: str
    ) -> None:
        """Raises: UsageError for text that is not GBNF."""
        self._library = library
        with overhear() as complaints, listen() as log:
            self._handle: Any = library.llama_sampler_init_grammar(
                vocabulary.handle, text.encode(), b"root"
            )
        if not self._handle:
            told = [*complaints, *log, "it needs a rule called root"]
            raise UsageError(f"the grammar is not valid GBNF: {told[0].strip()}")

    def allows(self, token: int) -> bool:
        """Tell whether a token may come next."""
        single = (self._library.llama_token_data * 1)()
        single[0].id = token
        self._apply(self._library.llama_token_data_array(single, 1, -1, False))
        # -inf is how llama.cpp says no.
        return bool(single[0].logit == 0)

    def restrict(self, candidates: Any) -> None:
        """Set the logits of all tokens to -inf that may not come next.

        `candidates` is a `llama_token_data_array`.
        """
        self._apply(candidates)

    def accept(self, token: int) -> None:
        """Go on behind a token, which has to be allowed."""
        self._library.llama_sampler_accept(self._handle, token)

    def close(self) -> None:
        """Free it. A second call does nothing."""
        if self._handle:
            self._library.llama_sampler_free(self._handle)
            self._handle = None

    def _apply(self, candidates: Any) -> None:
        self._library.llama_sampler_apply(self._handle, ctypes.byref(candidates))
