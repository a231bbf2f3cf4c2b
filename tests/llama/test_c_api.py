"""Our engine computes what plain calls of llama.cpp's C API compute, bit for bit."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

# Pointers of the binding, whose types are not annotated for checkers.
from typing import Any

import llama_cpp
import numpy as np
import pytest
from numpy.typing import NDArray

from wizard_edge._llama import library
from wizard_edge._llama.backend import LlamaBackend
from wizard_edge.backend import Span
from wizard_edge.engine import LoadOptions

PROMPT = [1] + [token % 900 + 10 for token in range(7, 67)]
STEPS = 24
CONTEXT = 256


def by_the_c_api(path: Path, *, flash: bool) -> Iterator[NDArray[np.float32]]:
    """Yield the logits behind the prompt and behind every greedy token."""
    library.load()
    model = llama_cpp.llama_model_load_from_file(
        str(path).encode(), llama_cpp.llama_model_default_params()
    )
    params = llama_cpp.llama_context_default_params()
    params.n_ctx = CONTEXT
    params.n_threads = params.n_threads_batch = 1
    params.flash_attn_type = int(flash)
    ctx: Any = llama_cpp.llama_init_from_model(model, params)
    size = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(model))
    ids = PROMPT
    for _ in range(STEPS):
        array = (llama_cpp.llama_token * len(ids))(*ids)
        assert (
            llama_cpp.llama_decode(ctx, llama_cpp.llama_batch_get_one(array, len(ids)))
            == 0
        )
        values = llama_cpp.llama_get_logits_ith(ctx, -1)
        row = np.ctypeslib.as_array(values, shape=(size,)).copy()
        yield row
        ids = [int(row.argmax())]
    llama_cpp.llama_free(ctx)
    llama_cpp.llama_model_free(model)


def by_our_backend(path: Path, *, flash: bool) -> Iterator[NDArray[np.float32]]:
    options = LoadOptions(threads=1, context=CONTEXT, flash_attention=flash)
    backend = LlamaBackend(path, options)
    ids, start = PROMPT, 0
    for _ in range(STEPS):
        assert backend.decode([Span(0, start, ids, len(ids) - 1)])
        row = backend.logits(len(ids) - 1).reshape(-1)
        yield row
        start += len(ids)
        ids = [int(row.argmax())]
    backend.close()


@pytest.mark.parametrize("flash", [False, True], ids=["plain", "flash"])
@pytest.mark.parametrize("quant", ["F16", "Q8_0", "Q4_K_M"])
def test_logits_are_those_of_plain_calls(
    apprentice: Callable[[str], Path], quant: str, flash: bool
) -> None:
    path = apprentice(quant)

    ours = np.stack(list(by_our_backend(path, flash=flash)))
    theirs = np.stack(list(by_the_c_api(path, flash=flash)))

    assert (ours == theirs).all()
    # Not the same row again and again.
    assert len({row.tobytes() for row in ours}) == STEPS
