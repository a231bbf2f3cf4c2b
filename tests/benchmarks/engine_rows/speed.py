"""Generation and prompt reading of one conversation, beside llama-bench."""

from __future__ import annotations

import os
import time
from functools import partial
from itertools import count
from random import Random
from statistics import median

from tests.benchmarks.engine_rows import peers
from tests.benchmarks.engine_rows.pairs import alternate
from tests.benchmarks.engine_rows.results import Result, Target, compare
from tests.benchmarks.engine_rows.setting import Setting
from wizard_edge._llama.engine import LlamaEngine
from wizard_edge.engine import LoadOptions, Sampling
from wizard_edge.service.installation import open_installation
from wizard_edge.service.targets import find_target
from wizard_edge.service.tuning import tune

NEW_TOKENS = 128
PROMPT = 512
DEEP_NEW_TOKENS = 64
# A question and the first token of an answer; cells come in blocks of 256 anyway.
_BESIDE = 8
GENERATION, READING, DEEP = Target(0.98), Target(0.97), Target(1.0)


def generation(setting: Setting) -> list[Result]:
    """Streamed and sampled tokens, from an empty context."""
    options = options_for(setting, NEW_TOKENS, flash=setting.flash)
    with LlamaEngine(setting.model, options) as engine:
        measured = alternate(
            setting.plan,
            {
                "ours": partial(generated_rate, engine, [1, 3], NEW_TOKENS),
                "llama.cpp": partial(_their_generation, setting, NEW_TOKENS),
            },
        )
    return [compare("generation", setting.name, "t/s", measured, GENERATION)]


def reading(setting: Setting) -> list[Result]:
    """A prompt that the engine has not seen before."""
    options = options_for(setting, PROMPT, flash=setting.flash)
    with LlamaEngine(setting.model, options) as engine:
        read_rate(engine, Random(0))
        measured = alternate(
            setting.plan,
            {
                "ours": partial(read_rate, engine, Random(1)),
                "llama.cpp": partial(
                    peers.bench,
                    setting.model,
                    threads=setting.threads,
                    flash=setting.flash,
                    prompt=PROMPT,
                ),
            },
        )
    return [compare("reading", setting.name, "t/s", measured, READING)]


def depth(setting: Setting, *, tokens: int) -> list[Result]:
    """Generation deep in a conversation; flash attention is what tuning chose."""
    home = setting.folder / "home"
    installation = open_installation(os.environ, home)
    target = find_target(installation, str(setting.model))
    tuned = tune(installation, target, LoadOptions(lookup=False))
    options = options_for(
        setting, tokens + DEEP_NEW_TOKENS, flash=tuned.flash_attention
    )
    random = Random(2)
    with LlamaEngine(setting.model, options) as engine:
        prompt = [1, *drawn(engine, random, tokens - 1)]
        generated_rate(engine, prompt, 2)
        measured = alternate(
            setting.plan,
            {
                "ours": partial(generated_rate, engine, prompt, DEEP_NEW_TOKENS),
                **{
                    f"llama.cpp flash {peers.flash_word(flash=flash)}": partial(
                        peers.bench,
                        setting.model,
                        threads=setting.threads,
                        flash=flash,
                        new=DEEP_NEW_TOKENS,
                        depth=tokens,
                    )
                    for flash in (False, True)
                },
            },
        )
    others = {name: median(v) for name, v in measured.sides.items() if name != "ours"}
    best, worse = sorted(others, key=lambda name: -others[name])
    chosen = peers.flash_word(flash=tuned.flash_attention)
    note = f"; tuning chose flash {chosen}; {worse} {others[worse]:.4g} t/s"
    row = f"depth-{tokens}"
    return [
        compare(row, setting.name, "t/s", measured, DEEP, peer=best, note=note),
    ]


def generated_rate(engine: LlamaEngine, prompt: list[int], new: int) -> float:
    """Return the tokens/s of one answer, from its first token to its last.

    The prompt's own step is no generation, and llama-bench leaves it out as well.
    """
    for seed in count():
        sampling = Sampling(
            temperature=0.8, top_k=40, top_p=0.95, seed=seed, max_tokens=new + 1
        )
        times = [
            time.perf_counter()
            for chunk in engine.generate(prompt, sampling)
            if chunk.token is not None
        ]
        # Random weights may happen to end an answer early; another seed does not.
        if len(times) == new + 1:
            return new / (times[-1] - times[0])
    raise AssertionError("there is always another seed")


def read_rate(engine: LlamaEngine, random: Random) -> float:
    """Return the tokens/s of reading a prompt, up to its answer's first token."""
    prompt = drawn(engine, random, PROMPT)
    begun = time.perf_counter()
    *_, last = engine.generate(prompt, Sampling(max_tokens=1))
    seconds = time.perf_counter() - begun
    return (PROMPT - last.stats.cached_tokens) / seconds


def drawn(engine: LlamaEngine, random: Random, length: int) -> list[int]:
    """Return random tokens, as llama-bench reads."""
    return [random.randrange(3, engine.vocabulary.size) for _ in range(length)]


def _their_generation(setting: Setting, new: int) -> float:
    return peers.bench(
        setting.model, threads=setting.threads, flash=setting.flash, new=new
    )


def options_for(setting: Setting, tokens: int, *, flash: bool) -> LoadOptions:
    """Return options with a context of that many tokens, as llama-bench has it.

    A larger one is slower without flash attention: a V that lies transposed is written
    across a page of memory for every row.
    """
    return LoadOptions(
        context=tokens + _BESIDE,
        threads=setting.threads,
        flash_attention=flash,
        lookup=False,
    )
