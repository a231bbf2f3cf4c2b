"""Many processes pull the same model at once; one of them may be killed.

    python -m tests.faults.pull_together [--processes N] [--kills N]

16 processes: one fetches, the others wait, and each ends with 0; no byte of the file
is asked for twice. Then the one that fetches is killed at half, again and again with
fresh stores: another goes on, and at most 1.1 times the file is fetched in all.
"""

from __future__ import annotations

import argparse
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.faults.pulling import Ended, Judge, Pull, digest, hosted, make_model, pull
from tests.faults.pulling import told as told_violations
from tests.hub.server import LoopbackHub

FULL, QUICK = 40 << 20, 16 << 20
# Of each connection: the others come while one is at it.
RATE = 5_000_000
SEND_BUFFER = 1 << 16
MOST_FETCHED = 1.1
_POLL_S = 0.002
_RANGE = re.compile(r"bytes=(\d+)-(\d+)")
BREAKS: Mapping[str, str] = {
    "": "",
    "no lock": """
import contextlib
from wizard_edge.service import fetching
fetching.exclusive = lambda path, waiting=None: contextlib.nullcontext()
""",
    "starts over": """
from wizard_edge.download._partial import Partial
Partial._read_journal = lambda self: ({}, 0)
""",
}


@dataclass(slots=True)
class Tally:
    """What came of it; `worst` is how often each byte was fetched, at most."""

    processes: int = 0
    kills: int = 0
    worst: float = 0.0
    violations: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        return (
            f"{self.processes} processes, {self.kills} times the first was killed, "
            f"{len(self.violations)} violations, each byte fetched {self.worst:.3f} "
            "times at most"
        )


def run(
    folder: Path, processes: int, kills: int, *, size: int = FULL, broken: str = ""
) -> Tally:
    """Pull with so many processes undisturbed, then with so many killed leaders."""
    path = make_model(folder / "model.gguf", size)
    tally = Tally(processes)
    with LoopbackHub(hosted(path), rate=RATE, send_buffer=SEND_BUFFER) as hub:
        _once(hub, folder, path, processes, tally, broken, kill=False)
        for _ in range(kills):
            _once(hub, folder, path, processes, tally, broken, kill=True)
    return tally


def _once(
    hub: LoopbackHub,
    folder: Path,
    path: Path,
    processes: int,
    tally: Tally,
    broken: str,
    *,
    kill: bool,
) -> None:
    hub.forget()
    judge = Judge.of(folder, digest(path))
    size = path.stat().st_size
    when = "the first was killed" if kill else "undisturbed"
    started = [
        pull(hub.endpoint, folder, prelude=BREAKS[broken]) for _ in range(processes)
    ]
    if kill:
        leader = _leader(started, size // 2)
        leader.kill()
        started.remove(leader)
        leader.end()
        tally.kills += 1
        judge.look(when)
    for ended in [one.end() for one in started]:
        _expect(ended, when, judge)
    judge.look(when, whole=True)
    judge.nothing_left(when)
    times = hub.sent("cdn") / size
    tally.worst = max(tally.worst, times)
    if times > (MOST_FETCHED if kill else 1.0):
        judge.violations.append(f"{when}: each byte was fetched {times:.3f} times")
    if not kill:
        judge.violations += _repeated(hub, size)
    tally.violations += judge.violations
    shutil.rmtree(folder / "home")


def _leader(started: Sequence[Pull], done: int) -> Pull:
    """Wait until a process has so many bytes; return it."""
    while True:
        for one in started:
            if one.done >= done:
                return one
        time.sleep(_POLL_S)


def _expect(ended: Ended, when: str, judge: Judge) -> None:
    if ended.code:
        judge.violations.append(f"{when}: exit {ended.code}, {ended.stderr[-300:]}")


def _repeated(hub: LoopbackHub, size: int) -> list[str]:
    """Say which ranges were asked for twice, or left out."""
    asked = []
    for entry in hub.requests():
        if entry.port != "cdn":
            continue
        match = _RANGE.fullmatch(entry.byte_range or "")
        asked.append((int(match[1]), int(match[2]) + 1) if match else (0, size))
    found, end = [], 0
    for first, last in sorted(asked):
        if first != end:
            found.append(f"bytes {first} to {last} asked for, {end} was next")
        end = max(end, last)
    return found


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults.pull_together")
    parser.add_argument("--processes", type=int, default=16)
    parser.add_argument("--kills", type=int, default=20)
    options = parser.parse_args()
    begun = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        tally = run(Path(folder), options.processes, options.kills)
    print(f"pull together: {tally}, {time.monotonic() - begun:.0f} s")
    print(told_violations(tally.violations), end="")
    return 1 if tally.violations else 0


if __name__ == "__main__":
    sys.exit(main())
