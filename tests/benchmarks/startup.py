"""How long the program takes to start, in units of `import click`.

    python -m tests.benchmarks.startup [--rounds N] [--program FILE]

Each round runs every command once, in turn; the medians are compared. `--program` is
a console script such as .venv/bin/wizard-edge; `python -m wizard_edge` without it.
"""

from __future__ import annotations

import argparse
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from tests.child import environment

TARGET = 3.0


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=21)
    parser.add_argument("--program", type=Path)
    arguments = parser.parse_args()
    program = [sys.executable, "-m", "wizard_edge"]
    if arguments.program:
        program = [str(arguments.program)]
    commands = {
        "import click": [sys.executable, "-c", "import click"],
        "wizard-edge --help": [*program, "--help"],
        "wizard-edge list": [*program, "list"],
    }
    times: dict[str, list[float]] = {name: [] for name in commands}
    with tempfile.TemporaryDirectory() as folder:
        environ = environment(Path(folder))
        # The first round writes byte code and warms the file cache.
        for number in range(arguments.rounds + 1):
            for name, command in commands.items():
                seconds = measure(command, environ)
                if number:
                    times[name].append(seconds)
    report({name: median(values) for name, values in times.items()})


def measure(command: list[str], environ: dict[str, str]) -> float:
    """Return the seconds a command takes from start to end."""
    begun = time.perf_counter()
    subprocess.run(command, env=environ, check=True, capture_output=True)
    return time.perf_counter() - begun


def report(medians: dict[str, float]) -> None:
    """Print the medians, their ratios to the first one, and whether they will do."""
    unit = next(iter(medians.values()))
    print(f"{platform.machine()}, Python {platform.python_version()}")
    for name, seconds in medians.items():
        ratio = seconds / unit
        verdict = "ok" if ratio <= TARGET else f"above {TARGET:g}"
        print(f"{name:20} {1000 * seconds:6.1f} ms  {ratio:4.2f}  {verdict}")


if __name__ == "__main__":
    main()
