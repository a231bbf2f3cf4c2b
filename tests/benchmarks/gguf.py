"""How long reading and judging a header takes: two real vocabularies.

    python -m tests.benchmarks.gguf

Paired with the `gguf` package's reader in one run, alternated, medians of 9. Then how
long a model of 32,000 tokens takes to be let pass: judged, and with its verdict kept.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median

from gguf import GGUFReader

from tests.gguf_damage import with_tokens
from tests.gguf_files import spm_tokens
from tests.vocabularies import find_vocabulary
from wizard_edge.gguf_rules import read_valid
from wizard_edge.names import Sha256
from wizard_edge.verdicts import check, check_once

ROUNDS = 9
TOKENS = 32_000


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
    with tempfile.TemporaryDirectory() as folder:
        verdicts(Path(folder))


def verdicts(folder: Path) -> None:
    """Compare judging with reading the verdict."""
    tokens = [*spm_tokens(), *(f"{number:08}" for number in range(TOKENS))][:TOKENS]
    path = with_tokens(tokens).write(folder / "m.gguf")
    sha256 = Sha256("0" * 64)
    check_once(path, sha256)
    judged, kept = [], []
    for _ in range(ROUNDS):
        judged.append(seconds(partial(check, path)))
        kept.append(seconds(partial(check_once, path, sha256)))
    print(f"let pass       {1000 * median(judged):5.1f} ms when judged,")
    print(f"{'':14} {1000 * median(kept):5.2f} ms with a verdict kept")


def seconds(work: Callable[[], object]) -> float:
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


if __name__ == "__main__":
    main()
