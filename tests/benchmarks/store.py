"""How much longer `list` of 20 models takes than `list` of none.

    python -m tests.benchmarks.store [--rounds N] [--program FILE]

The models have headers of real vocabularies, sums and the time of their last use
beside them. Both run in the real program, in turn; the medians are compared.
`--program` is a console script; `python -m wizard_edge` without it.
"""

from __future__ import annotations

import argparse
import platform
import sys
import tempfile
from pathlib import Path
from statistics import median

from tests.benchmarks.startup import measure
from tests.child import environment
from tests.stores import install, receipt_of
from tests.vocabularies import find_vocabulary
from wizard_edge.paths import Home
from wizard_edge.store import Store

MODELS = 20
# What 20 models may take in all. Source: the project's own promise.
TARGET_MS = 50.0


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=21)
    parser.add_argument("--program", type=Path)
    arguments = parser.parse_args()
    program = [sys.executable, "-m", "wizard_edge"]
    if arguments.program:
        program = [str(arguments.program)]
    with tempfile.TemporaryDirectory() as name:
        folders = {"none": Path(name, "none"), "models": Path(name, "models")}
        fill(Store(Home(folders["models"] / "home")))
        times: dict[str, list[float]] = {kind: [] for kind in folders}
        # The first round writes byte code and warms the file cache.
        for number in range(arguments.rounds + 1):
            for kind, folder in folders.items():
                seconds = measure([*program, "list"], environment(folder))
                if number:
                    times[kind].append(seconds)
    report(*(1000 * median(times[kind]) for kind in ("none", "models")))


def fill(store: Store) -> None:
    """Install the models, each in a folder of its own."""
    content = find_vocabulary("llama-spm").read_bytes()
    for number in range(MODELS):
        item = install(
            store, receipt_of(content, name=f"model-{number}", quant="Q4_K_M"), content
        )
        store.mark_used(item, 1.7e9)


def report(empty: float, full: float) -> None:
    """Print both medians in ms, and whether the difference will do."""
    extra = full - empty
    verdict = "ok" if extra <= TARGET_MS else f"above {TARGET_MS:g}"
    print(f"{platform.machine()}, Python {platform.python_version()}")
    print(f"list of none       {empty:6.1f} ms")
    print(f"list of {MODELS} models  {full:6.1f} ms  {extra:+5.1f} ms  {verdict}")


if __name__ == "__main__":
    main()
