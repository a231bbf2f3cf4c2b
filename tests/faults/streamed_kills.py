"""Kills a conversion that streams from a hub, again and again: the last run ends it.

    python -m tests.faults.streamed_kills [--kills N] [--seed N]

One conversion is killed with SIGKILL at N random points and run again each time. A
violation is a last run that fails, other bytes than without a kill, a weight file
whose sha256 was not checked, a file left behind, or more bytes fetched than 1.1 times
the source and the largest tensor for each kill.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from tests.benchmarks.models import Shape, make_checkpoint
from tests.child import ROOT, environment
from tests.faults.killing import AfterLines, Moment, journal_lines, program, run_until
from wizard_edge_converters.directory import open_checkpoint

REPO = "somebody/Model-1B"
QUANT = "Q8_0"
FULL = Shape(16, hidden=1024, ffn=2816, heads=8, kv_heads=8, vocabulary=2_000)
QUICK = Shape(2, hidden=512, ffn=1408, heads=8, kv_heads=8, vocabulary=2_000)
SHARDS = 3
# Little is sent ahead of what was taken.
_SEND_BUFFER = 1 << 16
# Ways to break the converter on purpose, which have to show.
BREAKS = {
    "": "",
    "fetches anew": """
from wizard_edge_converters.journal import Journal
Journal._take = lambda *line: False
""",
    "forgets the hash": """
from wizard_edge_converters import remote
from wizard_edge.hashing import PlainSha256
remote.new_sha256 = PlainSha256
""",
}


@dataclass(slots=True)
class Tally:
    """What the kills came to; sizes in bytes."""

    source: int
    largest: int
    kills: int = 0
    fetched: int = 0
    violations: list[str] = field(default_factory=list)

    @property
    def allowed(self) -> int:
        return int(1.1 * self.source) + self.kills * self.largest

    def __str__(self) -> str:
        return (
            f"{self.kills} kills, {len(self.violations)} violations; fetched "
            f"{self.fetched:,} bytes of a source of {self.source:,}, "
            f"{self.allowed:,} allowed (tensors of up to {self.largest:,})"
        )


def run(
    kills: int,
    seed: int,
    folder: Path,
    *,
    shape: Shape = FULL,
    broken: str = "",
    lines: int = 0,
) -> Tally:
    """Kill one streamed conversion so many times below a folder, then let it end.

    No kill comes before the journal has `lines` lines.
    """
    source = make_checkpoint(folder / "hub" / REPO, shape, shards=SHARDS)
    with open_checkpoint(source) as checkpoint:
        largest = max(tensor.size for tensor in checkpoint.tensors.values())
        tally = Tally(checkpoint.size, largest)
    out = folder / "out"
    out.mkdir()
    log = folder / "requests.jsonl"
    with hub(folder / "hub", log) as endpoint:
        environ = reaching(endpoint, folder)
        command = convert(f"hf:{REPO}", out / "streamed.gguf", broken)
        random = Random(f"streamed {seed}")
        while tally.kills < kills:
            moment = next_moment(random, max(journal_lines(out), lines))
            ended = run_until(command, moment, folder=out, environ=environ)
            if not ended.was_killed:
                break
            tally.kills += 1
        else:
            ended = run_until(command, None, folder=out, environ=environ)
    if ended.code:
        tally.violations.append(f"the last run: {ended.stderr[-500:]}")
        return tally
    tally.fetched = sum(
        json.loads(line)["sent"] for line in log.read_text().splitlines()
    )
    judge(tally, folder, ended.stdout)
    return tally


def judge(tally: Tally, folder: Path, stdout: str) -> None:
    """Compare with an undisturbed conversion and note what is wrong."""
    out = folder / "out"
    left = sorted(path.name for path in out.iterdir())
    if left != ["streamed.gguf"]:
        tally.violations.append(f"left {left}")
    checks = {file["check"] for file in json.loads(stdout)["weights"]}
    if checks != {"sha256"}:
        tally.violations.append(f"weight files checked by {checks}")
    if tally.fetched > tally.allowed:
        tally.violations.append(f"fetched {tally.fetched - tally.allowed:,} too many")
    undisturbed = folder / "undisturbed.gguf"
    with hub(folder / "hub", folder / "undisturbed.jsonl") as endpoint:
        ended = run_until(
            convert(f"hf:{REPO}", undisturbed, ""),
            None,
            folder=folder,
            environ=reaching(endpoint, folder),
        )
    if ended.code or digest(undisturbed) != digest(out / "streamed.gguf"):
        tally.violations.append("other bytes than without a kill")


def next_moment(random: Random, lines: int) -> Moment:
    """Draw when to kill: at most a tensor on, or some milliseconds after that."""
    return AfterLines(lines + random.randint(0, 1), random.uniform(0.0, 0.03))


def convert(source: str, output: Path, broken: str) -> list[str]:
    words = ["convert", source, "-q", QUANT, "-o", str(output)]
    return program(BREAKS[broken], *words, "--threads", "2", "--json")


def reaching(endpoint: str, folder: Path) -> dict[str, str]:
    """Return the environment of a program that knows this hub only."""
    return environment(folder, HF_ENDPOINT=endpoint, NO_PROXY="127.0.0.1")


@contextmanager
def hub(folder: Path, log: Path) -> Iterator[str]:
    """Serve a folder from a process of its own; give its endpoint."""
    command = [sys.executable, "-m", "tests.hub", str(folder), "--log", str(log)]
    with subprocess.Popen(
        [*command, "--send-buffer", str(_SEND_BUFFER)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        yield process.stdout.readline().strip()
        process.communicate()


def digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults.streamed_kills")
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        tally = run(options.kills, options.seed, Path(folder))
    print(f"streamed kills, seed {options.seed}: {tally}")
    for violation in tally.violations:
        print(f"  {violation}")
    return 1 if tally.violations or tally.kills < options.kills else 0


if __name__ == "__main__":
    sys.exit(main())
