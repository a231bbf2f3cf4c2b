"""Kills a command with SIGKILL at a chosen moment, and runs it again.

The moment is a time, or a number of lines in the journal of a conversion, so that
the kill falls into the work and not into the start of Python.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

_POLL_S = 0.001


@dataclass(frozen=True, slots=True)
class AfterSeconds:
    """So long after the start."""

    seconds: float


@dataclass(frozen=True, slots=True)
class AfterLines:
    """When a journal has that many lines, its head included, and a little later."""

    lines: int
    seconds: float = 0.0


Moment = AfterSeconds | AfterLines


@dataclass(frozen=True, slots=True)
class Ended:
    """How a run ended; `lines` are those of its journal then, 0 without one."""

    code: int
    was_killed: bool
    lines: int
    stdout: str
    stderr: str


def program(prelude: str, *words: str) -> list[str]:
    """Return the command that runs some Python, then wizard-edge with these words."""
    run = "import runpy; runpy.run_module('wizard_edge', run_name='__main__')"
    return [sys.executable, "-P", "-c", prelude + run, *words]


def run_until(
    command: Sequence[str],
    moment: Moment | None,
    *,
    folder: Path,
    environ: Mapping[str, str],
    cwd: Path | None = None,
) -> Ended:
    """Run a command and kill it at a moment, unless it ends before.

    `folder` is where its journal appears. Without a moment it runs to its end.
    """
    begun = time.monotonic()
    seen: float | None = None
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        with subprocess.Popen(
            command,
            cwd=cwd,
            env=dict(environ),
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
        ) as process:
            while moment is not None and process.poll() is None:
                now = time.monotonic()
                if isinstance(moment, AfterSeconds):
                    is_due = now - begun >= moment.seconds
                else:
                    if seen is None and journal_lines(folder) >= moment.lines:
                        seen = now
                    is_due = seen is not None and now - seen >= moment.seconds
                if is_due:
                    process.kill()
                    break
                time.sleep(_POLL_S)
            code = process.wait()
        out.seek(0)
        err.seek(0)
        return Ended(
            code=code,
            was_killed=code == -9,
            lines=journal_lines(folder),
            stdout=out.read().decode(),
            stderr=err.read().decode(errors="replace"),
        )


def kill_and_rerun(
    command: Sequence[str],
    moments: Sequence[Moment],
    *,
    folder: Path,
    environ: Mapping[str, str],
    cwd: Path | None = None,
) -> list[Ended]:
    """Run a command once for each moment, then to its end; return how all ended.

    A run that ends by itself before its moment is the last.
    """
    ends: list[Ended] = []
    for moment in (*moments, None):
        ended = run_until(command, moment, folder=folder, environ=environ, cwd=cwd)
        ends.append(ended)
        if not ended.was_killed:
            break
    return ends


def random_moments(
    random: Random, *, lines: int, seconds: float, most: int = 1
) -> list[Moment]:
    """Draw one to `most` moments of a run that takes `seconds` and makes `lines`."""
    moments: list[Moment] = []
    for _ in range(random.randint(1, most)):
        if random.random() < 0.3:
            moments.append(AfterSeconds(random.uniform(0.0, 1.1 * seconds)))
        else:
            pause = random.choice((0.0, random.uniform(0.0, 0.05)))
            moments.append(AfterLines(random.randint(1, lines), pause))
    return moments


def journal_lines(folder: Path) -> int:
    """Count the whole lines of the journals in a folder."""
    total = 0
    for path in folder.glob("*.journal"):
        try:
            total += path.read_bytes().count(b"\n")
        except FileNotFoundError:
            # It was finished and removed meanwhile.
            continue
    return total
