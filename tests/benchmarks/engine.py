"""The engine beside llama.cpp's own programs, row by row.

    python -m tests.benchmarks.engine [ROW ...] [--model NAME] [--rounds N]
        [--threads N] [--flash on|off] [--calm SHARE] [--folder DIR] [--json]

Every figure is paired with llama.cpp's program in the same run: same threads, same
flash attention, in turn; the ratio is the median of the pairs' ratios. `make peers`
builds the programs. Pairs that other programs disturbed are measured again while
there is time: a row ends within MINUTES, with fewer or busier pairs if need be, and
its line says how many pairs counted and how busy the machine was.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from tests.benchmarks.engine_rows import (
    crowd,
    logits,
    lookup,
    sessions,
    speed,
    startup,
    together,
    turns,
)
from tests.benchmarks.engine_rows.pairs import Plan
from tests.benchmarks.engine_rows.peers import find_program
from tests.benchmarks.engine_rows.results import Result
from tests.benchmarks.engine_rows.setting import Setting
from tests.benchmarks.models import B0_1, B0_9, Shape, make_model
from tests.conftest import CHECKPOINT
from tests.converters.running import convert
from tools.peers import installed_system_info, system_info
from wizard_edge.cli._huge_pages import start_again
from wizard_edge.hardware import find_cores
from wizard_edge_converters.options import ConvertOptions

Row = Callable[[Setting], list[Result]]
ROWS: dict[str, Row] = {
    "generation": speed.generation,
    "reading": speed.reading,
    "depth-512": partial(speed.depth, tokens=512),
    "depth-1024": partial(speed.depth, tokens=1024),
    "together": together.together,
    "turns": turns.turns,
    "kill": sessions.kill,
    "resume": sessions.resume,
    "startup": startup.startup,
    "logits": logits.logits,
    "lookup": lookup.lookup,
    "crowd": crowd.crowd,
}
MODELS: dict[str, Shape] = {"0.9B": B0_9, "0.1B": B0_1}
# Rows that need answers with an end, and words: they have the bundled model.
BUNDLED = ("lookup", "crowd")
QUANT = "Q4_K_M"
# What one row may take with all its models: a run of ten minutes must hold it.
MINUTES = 8.5
# Of the machine, that other programs may take in a pair which counts.
CALM = 0.05


def main() -> int:
    # What our commands begin with as well; llama.cpp's programs run without.
    start_again(command="run")
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("rows", nargs="*", metavar="ROW", help=", ".join(ROWS))
    parser.add_argument("--model", choices=MODELS, help="one of both (default: both)")
    parser.add_argument("--rounds", type=int, default=9, help="pairs (default: 9)")
    parser.add_argument("--threads", type=int, default=find_cores().threads)
    parser.add_argument("--flash", choices=("on", "off"), default="off")
    parser.add_argument("--calm", type=float, default=CALM, metavar="SHARE")
    parser.add_argument("--minutes", type=float, default=MINUTES, help="for a row")
    parser.add_argument("--folder", type=Path, help="keeps the models (default: /tmp)")
    parser.add_argument("--json", action="store_true", help="figures on stdout")
    arguments = parser.parse_args()
    unknown = [name for name in arguments.rows if name not in ROWS]
    if unknown:
        parser.error(f"no row {unknown[0]!r}: {', '.join(ROWS)}")
    say(machine(arguments.threads, arguments.flash))
    with tempfile.TemporaryDirectory() as scratch:
        folder = arguments.folder or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        results = []
        for result in measure(arguments, folder, Path(scratch)):
            say(f"{result.row:12} {result.model:5} {result.verdict:6} {result.text}")
            results.append(result)
    if arguments.json:
        shown = [
            {"row": r.row, "model": r.model, "ok": r.ok, "figures": dict(r.figures)}
            for r in results
        ]
        json.dump(shown, sys.stdout, indent=1)
        print()
    return 1 if any(result.ok is False for result in results) else 0


def measure(
    arguments: argparse.Namespace, folder: Path, scratch: Path
) -> Iterator[Result]:
    """Measure the rows asked for, one model after the other, and yield each line."""
    names = [arguments.model] if arguments.model else list(MODELS)
    # Made before the clock of a row runs.
    rows = arguments.rows or list(ROWS)
    bundled, made = {}, {}
    if any(row in BUNDLED for row in rows):
        bundled["apprentice"] = make_apprentice(folder)
    if any(row not in BUNDLED for row in rows):
        made = {name: make_model(folder, MODELS[name], QUANT) for name in names}
    for row in rows:
        models = bundled if row in BUNDLED else made
        budget_s = 60 * arguments.minutes / len(models)
        plan = Plan(arguments.rounds, arguments.calm, budget_s)
        for name, model in models.items():
            place = scratch / f"{row}-{name}"
            place.mkdir()
            setting = Setting(
                model=model,
                name=name,
                folder=place,
                threads=arguments.threads,
                flash=arguments.flash == "on",
                plan=plan,
            )
            yield from ROWS[row](setting)


def make_apprentice(folder: Path) -> Path:
    """Return the bundled model as a GGUF, made once in `folder`."""
    path = folder / f"apprentice.{QUANT}.gguf"
    if not path.exists():
        options = ConvertOptions(
            quants=(QUANT,), template="vicuna", licenses=("apache-2.0",)
        )
        convert(CHECKPOINT, path, options)
    return path


def machine(threads: int, flash: str) -> str:
    """Return what the figures belong to, and whether the kernels are the same."""
    theirs = system_info(find_program("llama-bench").parent)
    same = "the same" if theirs == installed_system_info() else "OTHER"
    return (
        f"{platform.machine()}, {os.cpu_count()} cores, {threads} threads, flash "
        f"attention {flash}, load {os.getloadavg()[0]:.1f}; both have {same} kernels"
    )


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
