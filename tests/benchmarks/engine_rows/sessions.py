"""Named conversations that come back: what is evaluated again, and how fast.

    python -m tests.benchmarks.engine_rows.sessions MODEL.gguf HOME [--turns N]

is the child process that goes on with a conversation and writes, turn by turn, what
it evaluated as a line of JSON.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from itertools import count
from pathlib import Path
from random import Random

from tests.benchmarks.engine_rows.pairs import alternate
from tests.benchmarks.engine_rows.results import Result, Target, compare
from tests.benchmarks.engine_rows.setting import Setting
from tests.benchmarks.engine_rows.turns import (
    ANSWER_TOKENS,
    NOTHING,
    TURNS,
    Counted,
)
from wizard_edge._llama.engine import LlamaEngine
from wizard_edge.engine import LoadOptions, Sampling
from wizard_edge.names import SessionName
from wizard_edge.paths import Home
from wizard_edge.sessions import ModelFile, Session
from wizard_edge.templates import TEMPLATES

# The turn after which the child is killed, in the middle of the next one.
KILLED_AFTER = 10
LONG = 2_000
RESUMED = Target(0.05, "at most")
# The folder of a session that holds its KV cache.
STATE = "state"
QUESTION = "What comes next?"


def kill(setting: Setting) -> list[Result]:
    """Kill the child between words, go on in another one, and count both."""
    home = setting.folder / "home"
    command = [sys.executable, "-m", "tests.benchmarks.engine_rows.sessions"]
    command += [str(setting.model), str(home), "--threads", str(setting.threads)]
    with subprocess.Popen([*command], stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        lines = (Counted(**json.loads(line)) for line in child.stdout)
        [*_, first] = [next(lines) for _ in range(KILLED_AFTER)]
        # Its first words are said, and it answers on.
        child.stdout.readline()
        child.kill()
    rest = str(TURNS - KILLED_AFTER)
    done = subprocess.run(
        [*command, "--turns", rest], stdout=subprocess.PIPE, text=True, check=True
    )
    last = Counted(**json.loads(done.stdout.splitlines()[-1]))
    total = first.evaluated + last.evaluated
    apart = total - last.history
    text = (
        f"{total} tokens evaluated in {TURNS} turns with kill -9 in between, "
        f"{last.history} in the history, {apart:+d}; at most one a turn"
    )
    ok = abs(apart) <= TURNS
    figures = {"first": asdict(first), "last": asdict(last)}
    return [Result("kill", setting.name, text, ok, figures)]


def resume(setting: Setting) -> list[Result]:
    """From opening a session of 2,000 tokens to the first token of the answer."""
    home = setting.folder / "home"
    with loaded(setting) as engine, opened(setting.model, home) as session:
        chat = session.resume(engine, TEMPLATES["vicuna"])
        words = Random(5)
        while len(chat.ids) < LONG:
            text = " ".join(str(words.randrange(100)) for _ in range(200))
            for _ in chat.ask(text, Sampling(max_tokens=ANSWER_TOKENS)):
                pass
        length = len(chat.ids)
    bare = setting.folder / "bare"
    shutil.copytree(home, bare, ignore=shutil.ignore_patterns(STATE))
    measured = alternate(
        setting.plan,
        {
            "ours": partial(seconds_to_first, setting, home),
            "anew": partial(seconds_to_first, setting, bare),
        },
    )
    note = f"; {length} tokens"
    row = compare(
        "resume", setting.name, "s", measured, RESUMED, peer="anew", note=note
    )
    return [row]


def seconds_to_first(setting: Setting, home: Path) -> float:
    """Return how long the first token of a session takes, the model loaded before.

    The answer joins no history, so that every round finds the same.
    """
    with loaded(setting) as engine:
        begun = time.perf_counter()
        with opened(setting.model, home) as session:
            chat = session.resume(engine, TEMPLATES["vicuna"])
            chat.recorder = None
            for chunk in chat.ask(QUESTION, Sampling(max_tokens=1)):
                if chunk.token is not None:
                    return time.perf_counter() - begun
    raise AssertionError("an answer has a token")


@contextmanager
def loaded(setting: Setting) -> Iterator[LlamaEngine]:
    options = LoadOptions(threads=setting.threads, flash_attention=setting.flash)
    with LlamaEngine(setting.model, options) as engine:
        yield engine


def opened(model: Path, home: Path) -> Session:
    file = ModelFile(model.stem, model.name, model.stat().st_size)
    return Session(Home(home), SessionName("bench"), file)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("home", type=Path)
    parser.add_argument("--turns", type=int)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    options = LoadOptions(threads=arguments.threads)
    with (
        LlamaEngine(arguments.model, options) as engine,
        opened(arguments.model, arguments.home) as session,
    ):
        before = engine.evaluated
        before = 0 if before == NOTHING else before
        chat = session.resume(engine, TEMPLATES["vicuna"])
        numbers = count() if arguments.turns is None else range(arguments.turns)
        for number in numbers:
            sampling = Sampling(
                temperature=0.8, top_k=40, seed=number, max_tokens=ANSWER_TOKENS
            )
            for index, _ in enumerate(chat.ask(QUESTION, sampling)):
                if index == 0 and number == KILLED_AFTER:
                    print("in the middle", flush=True)
            counted = Counted(number + 1, engine.evaluated - before, len(chat.ids))
            print(json.dumps(asdict(counted)), flush=True)


if __name__ == "__main__":
    main()
