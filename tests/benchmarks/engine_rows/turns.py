"""Counts the tokens a conversation evaluates, by llama.cpp's own counters.

    python -m tests.benchmarks.engine_rows.turns MODEL.gguf [--turns N] [--threads N]

is the child process that holds the conversation and writes what it counted as JSON.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

from tests.benchmarks.engine_rows.results import Result
from tests.benchmarks.engine_rows.setting import Setting
from wizard_edge._llama.engine import LlamaEngine
from wizard_edge.conversation import Conversation
from wizard_edge.engine import LoadOptions, Sampling
from wizard_edge.templates import TEMPLATES

TURNS = 20
ANSWER_TOKENS = 24
# Each of llama.cpp's two counters says 1 where it has counted nothing.
# Source: llama.cpp 0c1e57098, src/llama-context.cpp, `perf_get_data`.
NOTHING = 2


@dataclass(frozen=True, slots=True)
class Counted:
    """Tokens that llama.cpp evaluated, and those of the history at the end."""

    turns: int
    evaluated: int
    history: int


def turns(setting: Setting) -> list[Result]:
    """Hold a conversation in a child: every token is evaluated once."""
    counted = count_in_child(setting.model, threads=setting.threads)
    apart = counted.evaluated - counted.history
    text = (
        f"{counted.evaluated} tokens evaluated in {counted.turns} turns (n_p_eval + "
        f"n_eval), {counted.history} in the history, {apart:+d}; at most one a turn"
    )
    ok = abs(apart) <= counted.turns
    return [Result("turns", setting.name, text, ok, asdict(counted))]


def count_in_child(model: Path, *, threads: int) -> Counted:
    module = "tests.benchmarks.engine_rows.turns"
    done = subprocess.run(
        [sys.executable, "-m", module, model, "--threads", str(threads)],
        stdout=subprocess.PIPE,
        check=True,
    )
    return Counted(**json.loads(done.stdout))


def converse(model: Path, *, threads: int, count: int) -> Counted:
    """Ask `count` questions and compare what was evaluated with what was said."""
    with LlamaEngine(model, LoadOptions(threads=threads)) as engine:
        before = engine.evaluated
        before = 0 if before == NOTHING else before
        chat = Conversation(engine, TEMPLATES["vicuna"])
        for number in range(count):
            sampling = Sampling(
                temperature=0.8, top_k=40, seed=number, max_tokens=ANSWER_TOKENS
            )
            for _ in chat.ask(f"Question {number}: what comes next?", sampling):
                pass
        return Counted(count, engine.evaluated - before, len(chat.ids))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("--turns", type=int, default=TURNS)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    counted = converse(
        arguments.model, threads=arguments.threads, count=arguments.turns
    )
    print(json.dumps(asdict(counted)))


if __name__ == "__main__":
    main()
