"""How long reading and judging a header takes: two real vocabularies.

    python -m tests.benchmarks.gguf

Paired with the `gguf` package's reader in one run, alternated, medians of 9.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from statistics import median

from gguf import GGUFReader

from tests.vocabularies import find_vocabulary
from wizard_edge.gguf_rules import read_valid

ROUNDS = 9


def main() -> None:
    for name in ("llama-spm", "starcoder-bpe"):
        path = find_vocabulary(name)
        ours, theirs = [], []
        for _ in range(ROUNDS):
            ours.append(seconds(partial(read_valid, path, vocabulary_only=True)))
            theirs.append(seconds(partial(GGUFReader, path)))
        ratio = median(ours) / median(theirs)
        print(f"{name:14} {1000 * median(ours):5.1f} ms, {ratio:.3f} of gguf's reader,")
        print(f"{'':14} which judges nothing")


def seconds(work: Callable[[], object]) -> float:
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


if __name__ == "__main__":
    main()
