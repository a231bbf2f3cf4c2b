"""The engine's logits beside llama.cpp's C API, call for call, bit for bit."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from random import Random

# Handles of the binding, which has no types.
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.benchmarks.engine_rows.results import Result
from tests.benchmarks.engine_rows.setting import Setting
from wizard_edge._llama.engine import LlamaEngine
from wizard_edge.engine import LoadOptions, Sampling

# More than one batch and no multiple of it.
PROMPT = 700
BATCH = 512
NEW_TOKENS = 64
CONTEXT = 1024


def logits(setting: Setting) -> list[Result]:
    """Compare those of a prompt, then the greedy tokens that follow it."""
    options = LoadOptions(
        context=CONTEXT,
        threads=setting.threads,
        flash_attention=setting.flash,
        lookup=False,
    )
    with LlamaEngine(setting.model, options) as engine:
        random = Random(3)
        size = engine.vocabulary.size
        ids = [1, *(random.randrange(3, size) for _ in range(PROMPT - 1))]
        mine = np.concatenate(list(engine.score(ids)))
        greedy = Sampling(max_tokens=NEW_TOKENS)
        # Nothing of it is cached.
        list(engine.generate([2], Sampling(max_tokens=1)))
        # A chunk without a token tells how far the reading has come.
        answer = engine.generate(ids, greedy)
        chosen = [chunk.token for chunk in answer if chunk.token is not None]
    with raw_context(setting) as (api, context):
        theirs = np.concatenate(
            [
                evaluate(api, context, ids[at : at + BATCH], size, every=True)
                for at in range(0, PROMPT, BATCH)
            ]
        )
        api.llama_memory_clear(api.llama_get_memory(context), True)
        expected = list(greedily(api, context, ids, size, len(chosen)))
    apart = float(np.abs(mine - theirs).max())
    same = sum(ours == raw for ours, raw in zip(chosen, expected, strict=True))
    text = (
        f"{PROMPT} rows of {size} logits differ by {apart:g} at the most, {same} of "
        f"{len(chosen)} greedy tokens are those of the C API"
    )
    ok = apart == 0 and same == len(chosen)
    figures = {"largest_difference": apart, "same": same, "tokens": len(chosen)}
    return [Result("logits", setting.name, text, ok, figures)]


@contextmanager
def raw_context(setting: Setting) -> Iterator[tuple[Any, Any]]:
    """Give the binding and a context made through nothing but the C API."""
    import llama_cpp

    model = llama_cpp.llama_model_load_from_file(
        str(setting.model).encode(), llama_cpp.llama_model_default_params()
    )
    params = llama_cpp.llama_context_default_params()
    params.n_ctx = CONTEXT
    params.n_batch = params.n_ubatch = BATCH
    params.n_threads = params.n_threads_batch = setting.threads
    params.flash_attn_type = int(setting.flash)
    context = llama_cpp.llama_init_from_model(model, params)
    try:
        yield llama_cpp, context
    finally:
        llama_cpp.llama_free(context)
        llama_cpp.llama_model_free(model)


def evaluate(
    api: Any, context: Any, ids: list[int], size: int, *, every: bool
) -> NDArray[np.float32]:
    """Evaluate what follows the context; return all rows of logits, or the last."""
    batch = api.llama_batch_init(len(ids), 0, 1)
    first = api.llama_memory_seq_pos_max(api.llama_get_memory(context), 0) + 1
    batch.n_tokens = len(ids)
    for index, token in enumerate(ids):
        batch.token[index] = token
        batch.pos[index] = first + index
        batch.n_seq_id[index] = 1
        batch.seq_id[index][0] = 0
        batch.logits[index] = every or index == len(ids) - 1
    status = api.llama_decode(context, batch)
    api.llama_batch_free(batch)
    if status != 0:
        raise RuntimeError(f"llama_decode gave {status}")
    rows = len(ids) if every else 1
    found = np.ctypeslib.as_array(api.llama_get_logits(context), shape=(rows, size))
    copied: NDArray[np.float32] = found.copy()
    return copied


def greedily(
    api: Any, context: Any, ids: list[int], size: int, count: int
) -> Iterator[int]:
    """Yield the likeliest tokens after `ids`, read in batches."""
    for at in range(0, len(ids), BATCH):
        [row] = evaluate(api, context, ids[at : at + BATCH], size, every=False)
    for _ in range(count):
        token = int(row.argmax())
        yield token
        [row] = evaluate(api, context, [token], size, every=False)
