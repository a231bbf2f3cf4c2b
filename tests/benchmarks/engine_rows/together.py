"""Four conversations at once, beside llama-batched-bench at the same width."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from functools import partial
from itertools import count
from random import Random

from tests.benchmarks.engine_rows import peers
from tests.benchmarks.engine_rows.pairs import alternate
from tests.benchmarks.engine_rows.results import Result, Target, compare
from tests.benchmarks.engine_rows.setting import Setting
from tests.benchmarks.engine_rows.speed import drawn
from wizard_edge._llama.engine import LlamaEngine
from wizard_edge.engine import LoadOptions, Sampling

CONVERSATIONS = 4
PROMPT = 64
NEW_TOKENS = 64
# Of each conversation; of llama-batched-bench's sequences as well.
CONTEXT = 512
TARGET = Target(0.93)


def together(setting: Setting) -> list[Result]:
    """All tokens generated in a second, from when all four generate."""
    options = LoadOptions(
        context=CONTEXT,
        threads=setting.threads,
        flash_attention=setting.flash,
        parallel=CONVERSATIONS,
    )
    with LlamaEngine(setting.model, options) as engine:
        random, seeds = Random(4), count()
        ours = partial(aggregate_rate, engine, random, seeds)
        ours()
        measured = alternate(
            setting.plan,
            {
                "ours": ours,
                "llama.cpp": partial(
                    peers.batched_bench,
                    setting.model,
                    threads=setting.threads,
                    flash=setting.flash,
                    sequences=CONVERSATIONS,
                    prompt=PROMPT,
                    new=NEW_TOKENS,
                    context=CONTEXT,
                ),
            },
        )
    return [compare("together", setting.name, "t/s", measured, TARGET)]


def aggregate_rate(engine: LlamaEngine, random: Random, seeds: count[int]) -> float:
    """Return the tokens/s of four callers while all of them are being answered.

    Counted from the last one's first token to the first one's last, as
    llama-batched-bench times its steps of full width only.
    """
    while True:
        times = times_of_answers(engine, random, seeds)
        begun = max(each[0] for each in times)
        ended = min(each[-1] for each in times)
        told = sum(begun < at <= ended for each in times for at in each)
        # Random weights may end an answer early: too few steps tell nothing.
        if told >= CONVERSATIONS * NEW_TOKENS / 2:
            return told / (ended - begun)


def times_of_answers(
    engine: LlamaEngine, random: Random, seeds: count[int]
) -> Sequence[list[float]]:
    """Ask all questions at once and return when each one's tokens came."""
    times: list[list[float]] = [[] for _ in range(CONVERSATIONS)]
    prompts = [drawn(engine, random, PROMPT) for _ in times]

    def read(index: int, seed: int) -> None:
        sampling = Sampling(
            temperature=0.8, top_k=40, top_p=0.95, seed=seed, max_tokens=NEW_TOKENS
        )
        for chunk in engine.generate(prompts[index], sampling):
            if chunk.token is not None:
                times[index].append(time.perf_counter())

    readers = [
        threading.Thread(target=read, args=(index, next(seeds)))
        for index in range(CONVERSATIONS)
    ]
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join()
    return times
