"""Pulls onto disks that are too small: exit 7 with the figures, and nothing lost.

    python -m tests.faults.pull_disk [--sizes N] [--mode tmpfs|limit]

N file systems in memory of 0 to 1.1 times what is needed, where this user may mount
them; else, or with `--mode limit`, the size that a file may have is limited. A small
model lies in the store before. A violation is an exit other than 7 where there is not
room enough, an error that does not name both figures, another model that is not as it
was, or anything left behind. The report says which mode ran.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from tests.faults.pulling import (
    REPO,
    Ended,
    Judge,
    command,
    digest,
    make_model,
    pull,
    told,
)
from tests.gguf_files import small_llama
from tests.hub.content import repository
from tests.hub.server import LoopbackHub

Mode = Literal["tmpfs", "limit"]

SIZE = 8 << 20
# Beside the bytes of the file: receipts, sums, and what the disk itself needs.
SPARE = 2 << 20
SMALL_REF = f"hf:{REPO}/small.F32.gguf"
REF = f"hf:{REPO}/model.F32.gguf"
_FIGURES = re.compile(r"[\d.,]+ k?[MG]?B needed, [\d.,]+ [kMG]?B free")
# A file of this user may have so many bytes, as `ulimit -f` has it.
LIMIT = """
import resource
resource.setrlimit(resource.RLIMIT_FSIZE, ({0}, {0}))
"""
BREAKS: Mapping[str, str] = {
    "": "",
    "leaves its part": """
from wizard_edge.download._partial import Partial
Partial.discard = lambda self: None
from wizard_edge import part_files
from wizard_edge.download import _partial
from wizard_edge.service import fetching
for module in (part_files, _partial, fetching):
    module.check_space = lambda *arguments, **others: None
""",
    "does not translate": """
from wizard_edge import part_files
part_files.FULL = frozenset()
from wizard_edge.download import _partial
from wizard_edge.service import fetching
for module in (part_files, _partial, fetching):
    module.check_space = lambda *arguments, **others: None
""",
}


@dataclass(slots=True)
class Tally:
    """What came of the disks; `full` of them were too small."""

    mode: Mode
    disks: int = 0
    full: int = 0
    violations: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        return (
            f"{self.disks} disks ({self.mode}), {self.full} too small with exit 7, "
            f"{len(self.violations)} violations"
        )


def possible() -> Mode:
    """Return the way in which this user can have small disks."""
    with (
        tempfile.TemporaryDirectory() as folder,
        contextlib.suppress(OSError),
        _mounted(Path(folder), 1 << 20),
    ):
        return "tmpfs"
    return "limit"


def run(
    folder: Path, sizes: int, *, mode: Mode | None = None, broken: str = ""
) -> Tally:
    """Pull onto so many disks below a folder."""
    path = make_model(folder / "hub" / "model.gguf", SIZE)
    small = small_llama().write(folder / "hub" / "small.gguf")
    tally = Tally(mode or possible())
    files = {"model.F32.gguf": path, "small.F32.gguf": small}
    good = frozenset({digest(path), digest(small)})
    need = path.stat().st_size
    with LoopbackHub(repository(REPO, files)) as hub:
        for number in range(sizes):
            room = int(1.1 * need * number / max(1, sizes - 1))
            with _disk(folder, room, tally.mode) as home:
                judge = Judge.of(folder, *good, home=home)
                _one(hub, folder, home, room, need, judge, tally, broken)
            shutil.rmtree(folder / home, ignore_errors=True)
            tally.violations += judge.violations
    return tally


def _one(
    hub: LoopbackHub,
    folder: Path,
    home: str,
    room: int,
    need: int,
    judge: Judge,
    tally: Tally,
    broken: str,
) -> None:
    title = f"{room:,} bytes for {need:,}"
    tally.disks += 1
    first = pull(hub.endpoint, folder, ref=SMALL_REF, home=home).end()
    before = judge.look(title)
    if first.code:
        _expect_full(first, title, judge)
    prelude = BREAKS[broken]
    if tally.mode == "limit":
        prelude += LIMIT.format(max(1, room))
    ended = pull(hub.endpoint, folder, ref=REF, home=home, prelude=prelude).end()
    tally.full += ended.code == 7
    if ended.code:
        _expect_full(ended, title, judge)
    if ended.code == 0 and room < need:
        judge.violations.append(f"{title}: it found room")
    if ended.code and tally.mode == "limit" and room > need:
        judge.violations.append(f"{title}: it found no room")
    # What was there before is there after, and the other one whole or not at all.
    if judge.look(title) != before + (ended.code == 0):
        judge.violations.append(f"{title}: a model got lost")
    if ended.code:
        # What fills the disk goes at once, and does not wait for somebody to prune.
        judge.nothing_left(title)
    pruned = command(hub.endpoint, folder, "prune", "--yes", home=home)
    if pruned.code:
        judge.violations.append(f"{title}: prune, exit {pruned.code}, {pruned.stderr}")
    judge.nothing_left(title)


def _expect_full(ended: Ended, title: str, judge: Judge) -> None:
    message = ended.error.get("message", "")
    if ended.code != 7 or not _FIGURES.search(message):
        text = message or ended.stderr[-300:]
        judge.violations.append(f"{title}: exit {ended.code}, {text}")


@contextlib.contextmanager
def _disk(folder: Path, room: int, mode: Mode) -> Iterator[str]:
    """Give the name of a home below a folder that has so much room."""
    place = folder / "disk"
    place.mkdir(exist_ok=True)
    if mode == "limit":
        yield "disk"
        return
    # One page at least: a size of 0 means no limit.
    with _mounted(place, max(4096, room + SPARE // 2)):
        yield "disk"


@contextlib.contextmanager
def _mounted(place: Path, size: int) -> Iterator[None]:
    """Mount a file system in memory. Raises: OSError where that is not allowed."""
    mount, unmount = shutil.which("mount"), shutil.which("umount")
    if mount is None or unmount is None or os.name == "nt":
        raise OSError("no mount program")
    options = ["-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(place)]
    done = subprocess.run([mount, *options], capture_output=True, check=False)
    if done.returncode:
        raise OSError(done.stderr.decode(errors="replace"))
    try:
        yield
    finally:
        subprocess.run([unmount, str(place)], check=True)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults.pull_disk")
    parser.add_argument("--sizes", type=int, default=20)
    parser.add_argument("--mode", choices=["tmpfs", "limit"])
    options = parser.parse_args()
    begun = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        tally = run(Path(folder), options.sizes, mode=options.mode)
    print(f"pull, disk full: {tally}, {time.monotonic() - begun:.0f} s")
    print(told(tally.violations), end="")
    return 1 if tally.violations else 0


if __name__ == "__main__":
    sys.exit(main())
