"""What tuning and backing off are worth: the ground of decision 009.

    python -m tests.benchmarks.tuning [--rounds N] [--folder DIR] [--small] [PART...]

`depth` compares generation with the settings that were measured to each of llama.cpp's
two settings of flash attention, at depth 512 and 1,024. `beside` compares an engine
that backs off to one of fixed threads, alone and beside a program that never rests.
All take turns within seconds, and medians are given with the middle half of all.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import median, quantiles
from typing import TypeAlias

from tests.benchmarks.models import B0_1, B0_9, make_model
from wizard_edge._llama.engine import LlamaEngine
from wizard_edge.engine import LoadOptions, Sampling
from wizard_edge.hardware import find_cores
from wizard_edge.service.installation import Installation, open_installation
from wizard_edge.service.targets import find_target
from wizard_edge.service.tuning import load_engine, tune

Maker: TypeAlias = Callable[[], LlamaEngine]

DEPTHS = (512, 1024)
# A question, to compare threads behind.
SHALLOW = 64
NEW_TOKENS = 8
# Long enough to back off and to come back.
BESIDE_TOKENS = 32
PARTS = ("depth", "beside")
CONTEXT = LoadOptions(context=2048, lookup=False)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], default=[])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--small", action="store_true", help="a 0.1 B model")
    parser.add_argument(
        "--threads", type=int, help="for all, where the machine is not ours alone"
    )
    arguments = parser.parse_args()
    parts = arguments.parts or PARTS
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.folder or Path(temporary)
        model = make_model(folder, B0_1 if arguments.small else B0_9, "Q4_K_M")
        installation = open_installation(os.environ, Path(temporary) / "home")
        print(f"{model.name}, {find_cores()}")
        if "depth" in parts:
            compare_depths(installation, model, arguments.rounds, arguments.threads)
        if "beside" in parts:
            compare_beside(installation, model, arguments.rounds)


def compare_depths(
    installation: Installation, model: Path, rounds: int, threads: int | None
) -> None:
    """Print the speed of what was chosen in units of each setting."""
    target = find_target(installation, str(model))
    begun = time.perf_counter()
    tuned = tune(installation, target, CONTEXT)
    print(
        f"measured in {time.perf_counter() - begun:.1f} s, the load included: {tuned}"
    )
    fixed = replace(CONTEXT, threads=threads or find_cores().threads)
    makers: dict[str, Maker] = {
        "chosen": partial(
            load_engine, installation, target, replace(CONTEXT, threads=threads)
        ),
        "off": partial(LlamaEngine, model, replace(fixed, flash_attention=False)),
        "on": partial(LlamaEngine, model, replace(fixed, flash_attention=True)),
    }
    found: dict[tuple[str, int], list[float]] = {}
    for engines in in_both_orders(makers):
        for depth in DEPTHS:
            for _ in range(rounds):
                for name, engine in engines.items():
                    speed = rate(engine, depth, NEW_TOKENS)
                    found.setdefault((name, depth), []).append(speed)
    for depth in DEPTHS:
        for name in ("off", "on"):
            report(
                f"depth {depth}, chosen against {name}",
                found["chosen", depth],
                found[name, depth],
            )


def compare_beside(installation: Installation, model: Path, rounds: int) -> None:
    """Print the speed of an engine that backs off in units of one that does not."""
    target = find_target(installation, str(model))
    most = find_cores().threads
    makers: dict[str, Maker] = {
        "ours": partial(load_engine, installation, target, CONTEXT, rested_s=1e9),
        **{
            f"{count} fixed": partial(
                LlamaEngine, model, replace(CONTEXT, threads=count)
            )
            for count in sorted({most, 1})
        },
    }
    found: dict[tuple[str, str], list[float]] = {}
    for engines in in_both_orders(makers):
        for title, busy in (("alone", 0), ("beside one", 1), ("alone again", 0)):
            with programs(busy):
                for _ in range(rounds):
                    for name, engine in engines.items():
                        speed = rate(engine, SHALLOW, BESIDE_TOKENS)
                        found.setdefault((title, name), []).append(speed)
    for title in dict.fromkeys(title for title, _ in found):
        for name in makers:
            if name != "ours":
                report(
                    f"{title}, against {name}", found[title, "ours"], found[title, name]
                )


def in_both_orders(makers: Mapping[str, Maker]) -> Iterator[dict[str, LlamaEngine]]:
    """Make all engines, then all again the other way round.

    Of equal engines the one that was loaded first is slower by 4%, wherever that
    comes from.
    """
    names = list(makers)
    for order in (names, names[::-1]):
        with ExitStack() as held:
            made = {name: held.enter_context(makers[name]()) for name in order}
            yield {name: made[name] for name in names}


@contextmanager
def programs(count: int) -> Iterator[None]:
    """Keep some cores busy."""
    started = [
        subprocess.Popen([sys.executable, "-c", "while True: pass"])
        for _ in range(count)
    ]
    try:
        yield
    finally:
        for process in started:
            process.kill()
            process.wait()


def rate(engine: LlamaEngine, depth: int, count: int) -> float:
    """Return tokens/s of generation behind `depth` others, which are read once."""
    prompt = [1] + [300 + index % 600 for index in range(depth - 1)]
    # The first token comes with the prompt.
    sampling = Sampling(max_tokens=count + 1)
    *_, last = engine.generate(prompt, sampling)
    return last.stats.generate_rate


def report(title: str, ours: Sequence[float], theirs: Sequence[float]) -> None:
    ratios = [one / other for one, other in zip(ours, theirs, strict=True)]
    low, _, high = quantiles(ratios, n=4)
    print(
        f"{title:34} {median(ratios):.2f} ({low:.2f} to {high:.2f}), "
        f"{median(ours):.1f} against {median(theirs):.1f} tokens/s",
        flush=True,
    )


if __name__ == "__main__":
    main()
