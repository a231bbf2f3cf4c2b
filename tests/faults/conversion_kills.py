"""Kills a local conversion at random moments; the next run has to go on: figure C3.

    python -m tests.faults.conversion_kills [--points N] [--seed N]

A violation is a last run that fails, other bytes than without a kill, a file left
behind, an old output that a killed run harmed, or work done again from the start.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from tests.benchmarks.models import Shape, make_checkpoint
from tests.child import environment
from tests.faults.killing import (
    AfterLines,
    Ended,
    Moment,
    kill_and_rerun,
    program,
    random_moments,
    run_until,
)

SHAPE = Shape(2, hidden=256, ffn=768, heads=2, kv_heads=2, vocabulary=1_000)
# Steps of the plan, the head of the journal and a line for each of its files.
LINES = 20
OLD = b"an older output"
_PAUSE_AT = 9
# Waits at a line, so that the kill comes before the end even on a busy machine.
_PAUSE = f"""
import os, time
from wizard_edge_converters import pipeline
from wizard_edge_converters.journal import Journal
from wizard_edge.part_files import PartFile
add_step = Journal.add_step
def add_and_wait(journal, done):
    add_step(journal, done)
    time.sleep(1.5 if done.step == {_PAUSE_AT} - 2 else 0)
Journal.add_step = add_and_wait
"""
# Ways to break the converter on purpose, which have to show.
BREAKS = {
    "": "",
    "forgets": f"{_PAUSE}\nJournal._take = lambda *line: False\n",
    "trusts": f"""{_PAUSE}
def reserve(part):
    part.path.write_bytes(b"")
    os.truncate(part.path, part.size)
PartFile.reserve = reserve
pipeline.count_sound = lambda plan, steps, paths, **_: len(steps)
""",
}


@dataclass(slots=True)
class Tally:
    """What the kills came to."""

    points: int = 0
    kills: int = 0
    amid: int = 0
    went_on: int = 0
    violations: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Scene:
    """A checkpoint, what becomes of it, and how long that takes undisturbed."""

    source: Path
    digest: str
    seconds: float
    environ: Mapping[str, str]
    broken: str = ""

    def command(self, output: Path) -> list[str]:
        words = ["convert", str(self.source), "-q", "Q4_K_M", "-o", str(output)]
        return program(BREAKS[self.broken], *words, "--overwrite", "--json")


def set_scene(folder: Path, broken: str = "") -> Scene:
    """Write a checkpoint and convert it once without a kill."""
    environ = environment(folder)
    source = make_checkpoint(folder / "source", SHAPE)
    scene = Scene(source, "", 0.0, environ)
    output = folder / "model.gguf"
    begun = time.monotonic()
    ended = run_until(scene.command(output), None, folder=folder, environ=environ)
    if ended.code:
        raise RuntimeError(ended.stderr)
    digest = hashlib.sha256(output.read_bytes()).hexdigest()
    return Scene(source, digest, time.monotonic() - begun, environ, broken)


def kill_at(
    scene: Scene, folder: Path, moments: Sequence[Moment], old: bytes, tally: Tally
) -> None:
    """Kill a conversion at each moment, run it to its end and judge the result."""
    tally.points += 1
    folder.mkdir()
    output = folder / "model.gguf"
    if old:
        output.write_bytes(old)
    ends = kill_and_rerun(
        scene.command(output), moments, folder=folder, environ=scene.environ
    )
    point = f"point {tally.points} ({', '.join(map(str, moments))})"
    tally.kills += sum(ended.was_killed for ended in ends)
    if ends[-1].code:
        tally.violations.append(f"{point}: {ends[-1].stderr[-300:]}")
        return
    left = sorted(path.name for path in folder.iterdir())
    if left != [output.name]:
        tally.violations.append(f"{point}: left {left}")
    if hashlib.sha256(output.read_bytes()).hexdigest() != scene.digest:
        tally.violations.append(f"{point}: other bytes")
    if len(ends) > 1 and ends[-2].lines > 2:
        tally.amid += 1
        if first_part(ends[-1]) > 0.15:
            tally.went_on += 1
        else:
            tally.violations.append(f"{point}: began anew after {ends[-2].lines} lines")


def first_part(ended: Ended) -> float:
    """Return how much was done, as a part of 1, when a run first reported."""
    for line in ended.stderr.splitlines():
        event = json.loads(line)
        if event.get("stage") == "convert":
            return float(event["done"] / event["total"])
    # All was done before, only the check was left.
    return 1.0


def run(points: int, seed: int, folder: Path, *, most: int = 2) -> Tally:
    """Kill at so many random points, up to `most` times each, below a folder."""
    scene, tally = set_scene(folder), Tally()
    for point in range(points):
        random = Random(f"kill {seed} {point}")
        old = random.choice((b"", OLD))
        moments = random_moments(random, lines=LINES, seconds=scene.seconds, most=most)
        kill_at(scene, folder / f"{point}", moments, old, tally)
    return tally


def run_broken(broken: str, folder: Path) -> Tally:
    """Kill a broken converter once, amid its work."""
    scene, tally = set_scene(folder, broken), Tally()
    kill_at(scene, folder / "broken", [AfterLines(_PAUSE_AT)], b"", tally)
    return tally


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults.conversion_kills")
    parser.add_argument("--points", type=int, default=50)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    begun = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        tally = run(arguments.points, arguments.seed, Path(folder))
    print(
        f"C3 conversion: {tally.points} points, {tally.kills} kills, {tally.amid} of "
        f"them last and amid the work, {tally.went_on} went on, "
        f"{len(tally.violations)} violations, seed {arguments.seed}, "
        f"{time.monotonic() - begun:.0f} s"
    )
    for text in tally.violations[:5]:
        print(f"  {text}")
    return 1 if tally.violations else 0


if __name__ == "__main__":
    sys.exit(main())
