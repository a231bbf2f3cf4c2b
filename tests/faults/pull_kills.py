"""Kills a pull at random points, again and again: the next run goes on from there.

    python -m tests.faults.pull_kills [--kills N] [--seed N]

A model of 40 MiB comes from a hub that limits each connection. Each round is a fresh
store: some runs are killed with SIGKILL, while Python starts, at any byte, or while
the model is put in its place; then one runs to its end. A violation is a model that
is listed and not whole, a half file beside the models, a last run that fails, more
bytes fetched than 1.02 times the file and 1 MiB for each kill, or anything that is
left behind after `prune`.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from tests.faults.pulling import (
    Ended,
    Judge,
    command,
    digest,
    hosted,
    make_model,
    pull,
    told,
)
from tests.hub.server import LoopbackHub

FULL, QUICK = 40 << 20, 8 << 20
# Of each of the four connections: a run takes a second or so.
RATE = 10_000_000
SEND_BUFFER = 1 << 16
MOST_KILLS_A_ROUND = 6
# Ways to break the program on purpose, which have to show.
BREAKS: Mapping[str, str] = {
    "": "",
    "fetches anew": """
from wizard_edge.download._partial import Partial
Partial._read_journal = lambda self: ({}, 0)
""",
    "receipt first": """
import time
from wizard_edge.files import write_atomically
from wizard_edge.paths import place
from wizard_edge.store import Store
commit = Store.commit
def early(self, receipt, *arguments, **others):
    path = place(self.home.model(receipt.model), receipt.file_name)
    write_atomically(path, receipt.to_bytes())
    time.sleep(0.3)
    return commit(self, receipt, *arguments, **others)
Store.commit = early
""",
    "in its place": """
from wizard_edge.download._partial import Partial
init = Partial.__init__
def placed(self, folder, key, grid):
    init(self, folder, key, grid)
    self.path = folder.parent / "models" / "model" / "model.F32.gguf"
Partial.__init__ = placed
""",
}


@dataclass(slots=True)
class Tally:
    """What the kills came to; sizes in bytes. `worst` is what a round fetched, as a
    part of what it may."""

    size: int
    kills: int = 0
    rounds: int = 0
    fetched: int = 0
    worst: float = 0.0
    # How many kills came before the first byte, amid the bytes, and after the last.
    early: int = 0
    amid: int = 0
    late: int = 0
    violations: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        return (
            f"{self.kills} kills in {self.rounds} rounds ({self.early} before the "
            f"first byte, {self.late} after the last), {len(self.violations)} "
            f"violations; fetched {self.fetched / self.size / self.rounds:.3f} times "
            f"{self.size:,} bytes a round, {self.worst:.2f} of what is allowed at most"
        )


def run(
    kills: int,
    seed: int,
    folder: Path,
    *,
    size: int = FULL,
    broken: str = "",
    late: bool = False,
) -> Tally:
    """Kill so many runs below a folder; with `late` only when all bytes are there."""
    path = make_model(folder / "model.gguf", size)
    tally = Tally(path.stat().st_size)
    random = Random(f"pull {seed}")
    hub = LoopbackHub(hosted(path), rate=RATE, send_buffer=SEND_BUFFER)
    with hub:
        while tally.kills < kills:
            _round(hub, folder, digest(path), kills, random, tally, broken, late)
    return tally


def _round(
    hub: LoopbackHub,
    folder: Path,
    good: str,
    kills: int,
    random: Random,
    tally: Tally,
    broken: str,
    late: bool,
) -> None:
    hub.forget()
    judge, before, done = Judge.of(folder, good), tally.kills, 0
    wanted = min(random.randint(1, MOST_KILLS_A_ROUND), kills - tally.kills)
    prelude = BREAKS[broken]
    while tally.kills - before < wanted:
        ended = _killed(hub, folder, random, tally.size, done, prelude, late)
        judge.look(f"after kill {tally.kills + 1}")
        if not ended.was_killed:
            _expect(ended, judge, "a run that was not killed")
            break
        tally.kills += 1
        tally.early += not ended.done
        tally.late += ended.done >= tally.size
        done = max(done, ended.done)
    _expect(pull(hub.endpoint, folder, prelude=prelude).end(), judge, "the last run")
    judge.look("at the end", whole=True)
    killed = tally.kills - before
    fetched = hub.sent("cdn")
    allowed = int(1.02 * tally.size) + (killed << 20)
    tally.rounds += 1
    tally.fetched += fetched
    tally.worst = max(tally.worst, fetched / allowed)
    if fetched > allowed:
        judge.violations.append(f"{killed} kills: fetched {fetched - allowed:,} more")
    _prune(hub, folder, judge)
    tally.violations += judge.violations
    shutil.rmtree(folder / "home")


def _killed(
    hub: LoopbackHub,
    folder: Path,
    random: Random,
    size: int,
    done: int,
    prelude: str,
    late: bool,
) -> Ended:
    """Run once, killed at a random point; `done` bytes are there from before."""
    running = pull(hub.endpoint, folder, prelude=prelude)
    dice = 1.0 if late else random.random()
    if dice < 0.15:
        running.kill(random.uniform(0.0, 0.5))
    elif dice < 0.8:
        running.fetched(random.randint(done, size))
        running.kill(random.uniform(0.0, 0.1))
    else:
        running.fetched(size)
        running.kill(random.uniform(0.0, 0.2))
    return running.end()


def _expect(ended: Ended, judge: Judge, what: str) -> None:
    if ended.code:
        judge.violations.append(f"{what}: {ended.code}, {ended.stderr[-300:]}")


def _prune(hub: LoopbackHub, folder: Path, judge: Judge) -> None:
    pruned = command(hub.endpoint, folder, "prune", "--yes", "--json")
    _expect(pruned, judge, "prune")
    judge.look("after prune", whole=True)
    judge.nothing_left("after prune")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults.pull_kills")
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    begun = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        tally = run(options.kills, options.seed, Path(folder))
    print(
        f"pull kills, seed {options.seed}: {tally}, {time.monotonic() - begun:.0f} s\n"
        + told(tally.violations),
        end="",
    )
    return 1 if tally.violations or tally.kills < options.kills else 0


if __name__ == "__main__":
    sys.exit(main())
