"""What `fit` predicts of the speed of models, and what they reach.

    python -m tests.benchmarks.fit [--rounds N] [--threads N] [--folder DIR]

Each round measures the machine and then generates, model by model, half way through
a context. The medians should lie within 25% of each other. Where other programs use
the machine, a single round may be anything: `best` compares the fastest of each.
"""

from __future__ import annotations

import argparse
import platform
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from statistics import median

from tests.tiled import Tiled
from wizard_edge._llama.engine import LlamaEngine
from wizard_edge.engine import LoadOptions, Sampling
from wizard_edge.gguf_types import GgmlType
from wizard_edge.hardware import find_cores
from wizard_edge.models import Shape
from wizard_edge.service.fit import fit
from wizard_edge.service.installation import Installation, open_installation

TOLERANCE = 0.25
CONTEXT = 1024
NEW_TOKENS = 16
B0_1 = Shape(8, 1024, 2816, 8, 8, 8_000)
B0_4 = Shape(16, 1536, 4096, 12, 12, 8_000)
B0_8 = Shape(16, 2048, 5632, 16, 4, 32_000)
# A thin slice of WizardLM-13B: matrices of its size, few layers of them.
B13 = Shape(3, 5120, 13824, 40, 40, 8_000)
MODELS = {
    "0.1 B Q8_0": Tiled(B0_1, GgmlType.Q8_0, GgmlType.Q8_0),
    "0.4 B Q4_K": Tiled(B0_4, GgmlType.Q4_K, GgmlType.Q6_K),
    "0.8 B Q6_K": Tiled(B0_8, GgmlType.Q6_K, GgmlType.Q6_K),
    "1.0 B Q4_K, as wide as 13 B": Tiled(B13, GgmlType.Q4_K, GgmlType.Q6_K),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=find_cores().threads)
    parser.add_argument("--folder", type=Path, help="where to work (default: /tmp)")
    arguments = parser.parse_args()
    print(f"{platform.machine()}, {arguments.threads} threads")
    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        folder = Path(name)
        environ = {
            "WIZARD_EDGE_HOME": str(folder / "home"),
            "WIZARD_EDGE_CONFIG": str(folder / "config"),
            "WIZARD_EDGE_THREADS": str(arguments.threads),
        }
        installation = open_installation(environ)
        for title, model in MODELS.items():
            path = model.write(folder / "model.gguf")
            compare(installation, title, path, arguments.threads, arguments.rounds)


def compare(
    installation: Installation, title: str, path: Path, threads: int, rounds: int
) -> None:
    """Print what was predicted and what was reached, in turn, and the ratios."""
    predicted, reached = [], []
    with LlamaEngine(path, LoadOptions(context=CONTEXT, threads=threads)) as engine:
        for number in range(rounds):
            [model] = fit(installation, str(path), context=CONTEXT).models
            predicted.append(model.variants[0].tokens_per_s or 0.0)
            reached.append(generate(engine, number))
    ratio = median(predicted) / median(reached)
    best = max(predicted) / max(reached)
    verdict = "ok" if abs(ratio - 1) <= TOLERANCE else f"above {TOLERANCE:.0%}"
    print(
        f"{title:28} {path.stat().st_size / 1e6:5.0f} MB  predicted "
        f"{median(predicted):6.1f}, reached {median(reached):6.1f} tokens/s, ratio "
        f"{ratio:.2f}  {verdict}; best {max(predicted):.1f} / {max(reached):.1f} = "
        f"{best:.2f}",
        flush=True,
    )


def generate(engine: LlamaEngine, seed: int) -> float:
    """Return the tokens/s half way through the context, from an empty cache.

    As the rates that a prediction follows from, it is what a quarter of the tokens
    keep under: what else the machine does makes tokens late, none early.
    """
    list(engine.generate([1, 3], Sampling(max_tokens=1)))
    depth = CONTEXT // 2 - NEW_TOKENS
    prompt = [1] + [300 + index % 600 for index in range(depth - 1)]
    sampling = Sampling(temperature=1.0, seed=seed, max_tokens=NEW_TOKENS)
    times = [time.perf_counter() for _ in engine.generate(prompt, sampling)]
    spent = sorted(after - before for before, after in pairwise(times))
    # An answer that happens to end at once says nothing.
    return 1 / spent[len(spent) // 4] if spent else generate(engine, seed + 1000)


if __name__ == "__main__":
    main()
