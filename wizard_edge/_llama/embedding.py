"""A text as one vector: the mean of what a model has in its last layer for it.

llama.cpp hands out these hidden states where the context is told so; it then builds
its graph anew by itself, and computes all rows.
Source: llama.cpp 0c1e57098, src/llama-context.cpp, `set_embeddings`, `decode`;
src/llama-graph.h, `llm_graph_params::allow_reuse`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from wizard_edge._llama.backend import LlamaBackend
from wizard_edge.backend import Backend, Span
from wizard_edge.scheduler import Scheduler
from wizard_edge.slots import Slot

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def embed_text(
    scheduler: Scheduler, backend: LlamaBackend, ids: Sequence[int]
) -> NDArray[np.float32]:
    """Return the mean of the hidden states of all tokens, scaled to the length 1.

    `backend` is that of the scheduler. Shape (width,), f32.
    """
    import numpy as np

    total = np.zeros(backend.width, np.float64)
    with scheduler.reserve() as slot:
        for start in range(0, len(ids), backend.batch):
            span = Span(slot.index, start, ids[start : start + backend.batch], 0)
            total += scheduler.run(_reading(scheduler, backend, slot, span))
    length = float(np.linalg.norm(total))
    return (total / length if length else total).astype(np.float32)


def _reading(
    scheduler: Scheduler, backend: LlamaBackend, slot: Slot, span: Span
) -> Callable[[Backend, Callable[[], bool]], NDArray[np.float64]]:
    """Return the work of evaluating a span and adding up its hidden states."""

    def read(same: Backend, stopped: Callable[[], bool]) -> NDArray[np.float64]:
        import numpy as np

        states = backend.read_states(span, stopped=stopped)
        if states is None:
            # Whoever asked was interrupted, and takes no answer.
            scheduler.cache.cut(slot, span.start)
            return np.zeros(backend.width, np.float64)
        slot.cached += span.ids
        total: NDArray[np.float64] = states.sum(axis=0, dtype=np.float64)
        return total

    return read
