"""Runs a program and watches what it takes: seconds, memory, disk."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

_LOOK_EVERY_S = 0.02


@dataclass(frozen=True)
class Usage:
    """What a process took; sizes in bytes. `disk` is the most a folder grew by."""

    seconds: float
    memory: int
    disk: int


def watch(command: Sequence[str | Path], folder: Path) -> Usage:
    """Run a command to its end; Linux only, for memory is read from /proc.

    Raises: RuntimeError when it fails, with the end of what it said.
    """
    before = allocated(folder)
    memory = disk = 0
    log = folder.with_suffix(".log")
    begun = time.perf_counter()
    with (
        log.open("wb") as said,
        subprocess.Popen(command, stdout=said, stderr=subprocess.STDOUT) as process,
    ):
        while process.poll() is None:
            memory = max(memory, peak_memory(process.pid))
            disk = max(disk, allocated(folder) - before)
            time.sleep(_LOOK_EVERY_S)
    seconds = time.perf_counter() - begun
    disk = max(disk, allocated(folder) - before)
    if process.returncode:
        raise RuntimeError(log.read_text(errors="replace")[-2000:])
    return Usage(seconds, memory, disk)


def peak_memory(pid: int) -> int:
    """Return the most memory a process has had resident so far, 0 once it is gone."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    _, found, rest = status.partition("VmHWM:")
    return int(rest.split()[0]) * 1024 if found else 0


def allocated(folder: Path) -> int:
    """Return the bytes on the disk that the files of a folder take."""
    total = 0
    for path in folder.iterdir():
        try:
            total += path.lstat().st_blocks * 512
        except FileNotFoundError:
            continue
    return total
