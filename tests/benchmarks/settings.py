"""Which settings are faster on this machine: the ground of decision 003.

    python -m tests.benchmarks.settings [--rounds N] [--folder DIR] [--small]

Every pair is measured alternately in one process, and the medians are given as a
ratio. The model has random weights and the shape of a 0.9 B LLaMA at Q4_K_M.
"""

from __future__ import annotations

import argparse
import os
import platform
import tempfile
from pathlib import Path
from statistics import median

from tests.benchmarks.models import B0_1, B0_9, make_model
from wizard_edge._llama.engine import LlamaEngine
from wizard_edge.engine import Chunk, LoadOptions, Sampling
from wizard_edge.hardware import find_cores

NEW_TOKENS = 24
# A question, an exchange of some turns, a long chat.
DEPTHS = (32, 256, 1024)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--small", action="store_true", help="a 0.1 B model")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.folder or Path(temporary)
        shape = B0_1 if arguments.small else B0_9
        model = make_model(folder, shape, "Q4_K_M")
        cores = find_cores()
        print(f"{platform.machine()}, {cores}, {shape.parameters / 1e9:.2f} B Q4_K_M")
        threads = cores.threads
        base = LoadOptions(threads=threads, context=2048)
        half = LoadOptions(threads=max(1, (os.cpu_count() or 1) // 2), context=2048)
        twice = LoadOptions(threads=2 * threads, context=2048)
        flash = LoadOptions(threads=threads, context=2048, flash_attention=True)
        plain = LoadOptions(threads=threads, context=2048, flash_attention=False)
        rounds = arguments.rounds
        compare(model, f"threads {half.threads} / {threads}", half, base, rounds)
        compare(model, f"threads {twice.threads} / {threads}", twice, base, rounds)
        compare(model, "flash attention on / off", flash, plain, rounds)


def compare(
    model: Path, title: str, one: LoadOptions, two: LoadOptions, rounds: int
) -> None:
    """Print the speed of `one` in units of `two`, at every depth."""
    with LlamaEngine(model, one) as first, LlamaEngine(model, two) as second:
        for depth in DEPTHS:
            pairs = [
                (measure(first, depth), measure(second, depth)) for _ in range(rounds)
            ]
            prompt = median(a[0] for a, _ in pairs) / median(b[0] for _, b in pairs)
            generate = median(a[1] for a, _ in pairs) / median(b[1] for _, b in pairs)
            print(
                f"{title:28} depth {depth:5}: prompt {prompt:.2f}, "
                f"generation {generate:.2f} "
                f"({median(b[1] for _, b in pairs):.1f} tokens/s)",
                flush=True,
            )


def measure(engine: LlamaEngine, depth: int) -> tuple[float, float]:
    """Return prompt and generation speed in tokens/s, from an empty cache."""
    list(engine.generate([1, 3], Sampling(max_tokens=1)))
    prompt = [1] + [300 + index % 600 for index in range(depth - 1)]
    last: Chunk | None = None
    for chunk in engine.generate(prompt, Sampling(max_tokens=NEW_TOKENS)):
        last = chunk
    assert last is not None
    return last.stats.prompt_rate, last.stats.generate_rate


if __name__ == "__main__":
    main()
