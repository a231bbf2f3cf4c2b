"""One batch of llama.cpp: the tokens of one sequence, filled in and decoded."""

from __future__ import annotations

from collections.abc import Sequence
from types import ModuleType

# Pointers and structs of the binding, whose types are not annotated for checkers.
from typing import Any

from wizard_edge._llama import library
from wizard_edge.errors import BackendError


def decode(
    llama: ModuleType,
    context: Any,
    batch: Any,
    ids: Sequence[int],
    *,
    start: int,
    logits_from: int = 0,
) -> None:
    """Evaluate tokens at the positions from `start`.

    Logits are computed for those from index `logits_from` on.
    Raises: BackendError; what a callback of ours kept for whoever decodes.
    """
    batch.n_tokens = len(ids)
    for index, token in enumerate(ids):
        batch.token[index] = token
        batch.pos[index] = start + index
        batch.n_seq_id[index] = 1
        batch.seq_id[index][0] = 0
        batch.logits[index] = index >= logits_from
    library.forget()
    status = llama.llama_decode(context, batch)
    library.raise_pending()
    if status != 0:
        raise BackendError(
            f"llama.cpp gave up with status {status}: {library.reason()}"
        )
