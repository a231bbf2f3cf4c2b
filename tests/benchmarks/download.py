"""How fast `pull` is: beside curl, and with a server that limits each connection.

    python -m tests.benchmarks.download [--size MIB] [--rounds N] [--dir DIR]

First one connection each, on loopback, the same file to the same disk, alternated;
medians. `pull` hashes all bytes, sets the room aside, and has the file on the disk
when it ends; curl is counted as it is, and with the `fsync` that it leaves to others.
What is written is deleted and the disk settled before each run. Then the server sends
20 MB/s over each connection: eight of them against one.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random
from statistics import median

from tests.child import ROOT
from tests.faults.killing import program
from tests.faults.pulling import FILE, REF, REPO, reaching
from tests.gguf_files import small_llama
from wizard_edge.gguf import align

LIMIT = 20_000_000
LIMITED_SIZE = 640 << 20
LEAST_OF_CURL = 0.9
LEAST_TIMES = 6.0
# Blocks of a model whose tensors have 4 to 8 MiB.
_WIDTH, _BLOCK = 1024, 37_756_928
_PIECE = 8 << 20


@dataclass(frozen=True, slots=True)
class Round:
    """Seconds of one round; `synced` is curl's with the disk."""

    pull: float
    curl: float
    synced: float


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.download")
    parser.add_argument("--size", type=int, default=2048, metavar="MIB")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--dir", type=Path, help="default: a temporary one")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.dir) as name:
        folder = Path(name)
        good = beside_curl(folder / "curl", options.size << 20, options.rounds)
        good = limited(folder / "limited") and good
    return 0 if good else 1


def beside_curl(folder: Path, size: int, rounds: int) -> bool:
    """Print what `pull` takes and what curl takes; tell whether it is enough."""
    curl = shutil.which("curl")
    if curl is None:
        print("no curl to compare with", file=sys.stderr)
        return False
    path = make_large_model(folder / "hub" / REPO / FILE, size)
    size = path.stat().st_size
    found = []
    with hub(folder / "hub") as endpoint:
        address = f"{endpoint}/{REPO}/resolve/main/{FILE}"
        # What is read first comes from the disk; for nobody, please.
        _curl(curl, address, folder)
        for number in range(rounds):
            if number % 2:
                synced = _curl(curl, address, folder)
                ours = _pull(endpoint, folder, 1)
            else:
                ours = _pull(endpoint, folder, 1)
                synced = _curl(curl, address, folder)
            found.append(Round(ours, *synced))
            print(f"  round {number + 1}: {_shown(found[-1], size)}", flush=True)
    medians = Round(
        *(median(getattr(r, name) for r in found) for name in Round.__slots__)
    )
    ratio, synced_ratio = medians.curl / medians.pull, medians.synced / medians.pull
    print(f"{size / (1 << 20):,.0f} MiB, medians of {rounds}: {_shown(medians, size)}")
    print(f"pull has {ratio:.2f} of curl's speed, {synced_ratio:.2f} with its fsync")
    return ratio >= LEAST_OF_CURL


def limited(folder: Path) -> bool:
    """Print what eight connections are good for; tell whether it is enough."""
    path = make_large_model(folder / "hub" / REPO / FILE, LIMITED_SIZE)
    size = path.stat().st_size
    with hub(folder / "hub", "--rate", str(LIMIT)) as endpoint:
        one, eight = (_pull(endpoint, folder, count) for count in (1, 8))
    print(
        f"{size / (1 << 20):,.0f} MiB at {LIMIT / 1e6:.0f} MB/s a connection: "
        f"one {_speed(size, one)}, eight {_speed(size, eight)}, {one / eight:.2f} times"
    )
    return one / eight >= LEAST_TIMES


def make_large_model(path: Path, size: int) -> Path:
    """Write a valid model of about so many bytes, a piece at a time."""
    file = small_llama(width=_WIDTH, blocks=min(512, round(size / _BLOCK) or 1))
    header, _ = file.header()
    left = sum(align(tensor.size, file.alignment) for tensor in file.tensors)
    weights = Random(1).randbytes(_PIECE)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as out:
        out.write(header + bytes(align(len(header), file.alignment) - len(header)))
        while left:
            left -= out.write(weights[:left])
    return path


@contextmanager
def hub(folder: Path, *words: str) -> Iterator[str]:
    """Serve a folder from a process of its own; give its endpoint."""
    command = [sys.executable, "-m", "tests.hub", "--root", str(folder), *words]
    with subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        endpoint = process.stdout.readline().strip()
        # Has it hash its files now, and not within a measurement.
        subprocess.run(
            ["curl", "-sS", f"{endpoint}/api/models/{REPO}?blobs=true"],
            stdout=subprocess.DEVNULL,
            check=True,
        )
        yield endpoint
        process.communicate()


def _pull(endpoint: str, folder: Path, connections: int) -> float:
    """Return the seconds of a pull into a fresh store."""
    words = ("pull", REF, "--json", "--connections", str(connections))
    return _timed(program("", *words), folder, reaching(endpoint, folder))[0]


def _curl(curl: str, address: str, folder: Path) -> tuple[float, float]:
    """Return the seconds that curl takes, alone and with the disk."""
    command = [curl, "-sSL", "-o", str(folder / "curl.gguf"), address]
    return _timed(command, folder, dict(os.environ))


def _timed(
    command: Sequence[str], folder: Path, environ: dict[str, str]
) -> tuple[float, float]:
    """Run a command; return its seconds, and those until its bytes are on the disk."""
    os.sync()
    begun = time.perf_counter()
    subprocess.run(
        command,
        env=environ,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        check=True,
    )
    seconds = time.perf_counter() - begun
    written = folder / "curl.gguf"
    if written.exists():
        with written.open("rb+") as file:
            os.fsync(file.fileno())
    synced = time.perf_counter() - begun
    written.unlink(missing_ok=True)
    shutil.rmtree(folder / "home", ignore_errors=True)
    return seconds, synced


def _shown(found: Round, size: int) -> str:
    return (
        f"pull {_speed(size, found.pull)}, curl {_speed(size, found.curl)}, "
        f"with fsync {_speed(size, found.synced)}"
    )


def _speed(size: int, seconds: float) -> str:
    return f"{seconds:.2f} s ({size / seconds / 1e6:,.0f} MB/s)"


if __name__ == "__main__":
    sys.exit(main())
