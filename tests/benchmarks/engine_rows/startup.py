"""From the start of the process to its first token: `run` and llama-completion.

Both get the same tokens: the text of the prompt as `wizard-edge prompt` spells it.
Both do what they do by default, so llama.cpp warms up; what it takes without that
stands beside.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median

from tests.benchmarks.engine_rows import peers
from tests.benchmarks.engine_rows.pairs import alternate
from tests.benchmarks.engine_rows.results import Result, Target, compare
from tests.benchmarks.engine_rows.setting import Setting
from tests.benchmarks.processes import watch
from tests.child import environment
from wizard_edge.cli._huge_pages import VARIABLE as PAGES

QUESTION = "What is a peer?"
TIME = Target(0.75, "at most")
MEMORY_RATIO, MEMORY_MORE = 1.05, 60 * 10**6
# Memory hardly varies, so few rounds tell it.
MEMORY_ROUNDS = 3
PROGRAM = (sys.executable, "-m", "wizard_edge")


def startup(setting: Setting) -> list[Result]:
    """Loading and one token, in seconds and in resident bytes at the most."""
    environ = environment(
        setting.folder, WIZARD_EDGE_FLASH_ATTENTION=str(setting.flash).lower()
    )
    # The program asks for large pages itself, llama.cpp's has none.
    environ.pop(PAGES, None)
    os.environ.pop(PAGES, None)
    ours = [*PROGRAM, "run", str(setting.model), QUESTION]
    ours += ["-n", "1", "-t", str(setting.threads)]
    theirs = peers.completion(
        setting.model,
        prompt_text(setting.model, environ),
        threads=setting.threads,
        flash=setting.flash,
    )
    cold = [*theirs, "--no-warmup"]

    def timed(command: Sequence[str]) -> Callable[[], float]:
        return lambda: seconds(command, environ)

    # The first runs write byte code and fill the page cache.
    seconds(ours, environ)
    seconds(theirs, environ)
    measured = alternate(
        setting.plan,
        {"ours": timed(ours), "llama.cpp": timed(theirs), "cold": timed(cold)},
    )
    note = f"; without its warm-up {median(measured.sides['cold']):.3g} s"
    return [
        compare("startup", setting.name, "s", measured, TIME, note=note),
        memory(setting, ours, theirs, environ),
    ]


def memory(
    setting: Setting,
    ours: Sequence[str],
    theirs: Sequence[str],
    environ: dict[str, str],
) -> Result:
    """Compare the most memory each had resident, the mapped file included."""

    def peak(command: Sequence[str]) -> Callable[[], float]:
        return lambda: watch(command, setting.folder).memory / 1e6

    # Of this process: `watch` hands its own environment on.
    os.environ.update(environ)
    plan = replace(setting.plan, rounds=MEMORY_ROUNDS, calm=1.0)
    measured = alternate(plan, {"ours": peak(ours), "llama.cpp": peak(theirs)})
    mine, yours = (median(values) for values in measured.sides.values())
    most = MEMORY_RATIO * yours + MEMORY_MORE / 1e6
    text = (
        f"ours {mine:.0f} MB, llama.cpp {yours:.0f} MB resident at the most, at most "
        f"{MEMORY_RATIO:g} of it and {MEMORY_MORE / 1e6:.0f} MB, so {most:.0f} MB; "
        f"medians of {MEMORY_ROUNDS}"
    )
    figures = {"unit": "MB", "sides": measured.sides, "target": most}
    return Result("memory", setting.name, text, mine <= most, figures)


def prompt_text(model: Path, environ: dict[str, str]) -> str:
    """Return the exact text that `run` sends for the question."""
    messages = json.dumps([{"role": "user", "content": QUESTION}])
    done = subprocess.run(
        [*PROGRAM, "prompt", str(model), "--messages", "-", "--json"],
        env=environ,
        input=messages,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return str(json.loads(done.stdout)["text"])


def seconds(command: Sequence[str], environ: dict[str, str]) -> float:
    """Return how long a command takes from start to end."""
    begun = time.perf_counter()
    subprocess.run(
        command,
        env=environ,
        check=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    return time.perf_counter() - begun
