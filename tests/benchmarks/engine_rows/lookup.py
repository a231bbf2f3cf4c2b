"""Prompt lookup beside plain generation, where answers repeat and where not."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial
from itertools import islice
from random import Random

from tests.benchmarks.engine_rows.pairs import alternate
from tests.benchmarks.engine_rows.results import Result, Target, compare
from tests.benchmarks.engine_rows.setting import Setting
from tools.apprentice.script import drills
from wizard_edge._llama.engine import LlamaEngine
from wizard_edge.engine import LoadOptions, Sampling
from wizard_edge.prompt import begin, encode
from wizard_edge.templates import TEMPLATES

REPEATING, OTHER = Target(1.3), Target(0.97)
TASKS = 20
# Words of a drill that make an answer long enough to be measured.
LEAST_WORDS = 7
NEW_TOKENS = 64


def lookup(setting: Setting) -> list[Result]:
    """Say again what was said, and text so hot that it repeats nothing.

    `ours` decides by itself whether to guess; plain may not.
    """
    ours = LoadOptions(threads=setting.threads, flash_attention=setting.flash)
    plain = LoadOptions(
        threads=setting.threads, flash_attention=setting.flash, lookup=False
    )
    with (
        LlamaEngine(setting.model, ours) as guessing,
        LlamaEngine(setting.model, plain) as unaided,
    ):
        tasks = repeating(guessing)
        cold = Sampling(max_tokens=NEW_TOKENS)
        hot = Sampling(temperature=3.0, seed=1, max_tokens=NEW_TOKENS)
        return [
            compare(
                row,
                setting.name,
                "t/s",
                alternate(
                    setting.plan,
                    {
                        "ours": partial(rate, guessing, tasks, sampling),
                        "plain": partial(rate, unaided, tasks, sampling),
                    },
                ),
                target,
                peer="plain",
            )
            for row, sampling, target in (
                ("lookup", cold, REPEATING),
                ("no-repeats", hot, OTHER),
            )
        ]


def repeating(engine: LlamaEngine) -> list[list[int]]:
    """Return prompts that ask the apprentice to say invented words again."""
    said = (drill.turns[0].user for drill in drills(Random(8)))
    asked = (text for text in said if len(text.split()) > LEAST_WORDS)
    vocabulary = engine.vocabulary
    template = TEMPLATES["vicuna"]
    return [
        begin(vocabulary) + encode(template.open(text, system=None), vocabulary)
        for text in islice(asked, TASKS)
    ]


def rate(
    engine: LlamaEngine, prompts: Sequence[list[int]], sampling: Sampling
) -> float:
    """Return the tokens/s of all answers, each from its first token on."""
    tokens, seconds = 0, 0.0
    for prompt in prompts:
        times = [
            time.perf_counter()
            for chunk in engine.generate(prompt, sampling)
            if chunk.token is not None
        ]
        tokens += len(times) - 1
        seconds += times[-1] - times[0]
    return tokens / seconds
