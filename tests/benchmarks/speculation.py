"""What guesses gain and what they cost: docs/speculation.md.

    python -m tests.benchmarks.speculation [--rounds N] [--folder DIR] [--small]
        [--task NAME]...

The model has random weights and the shape of a 0.9 B LLaMA at Q4_K_M, so it never
says anything: the answers are given. Every step is really computed and every token
really sampled, then the answer's own token is taken instead. So the speed is real,
and the text is a text: an edit of a source file, the longest lines of a page as its
summary, and another page that has nothing to do with the prompt; "random" is what the
model says itself. One engine answers with and without guesses alternately; the median
of the ratios of tokens/s is given.
"""

from __future__ import annotations

import argparse
import platform
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median

from tests.benchmarks.models import B0_1, B0_9, make_model
from tests.conftest import ROOT
from wizard_edge._llama.backend import LlamaBackend, LlamaChooser
from wizard_edge.backend import Chooser, Span
from wizard_edge.engine import LoadOptions, Sampling
from wizard_edge.hardware import find_cores
from wizard_edge.lookup import Lookup
from wizard_edge.scheduler import Scheduler
from wizard_edge.speculation import Guesses, Speculation

PROMPT_TOKENS = 600
NEW_TOKENS = 150
SOURCE = ROOT / "wizard_edge" / "pace.py"
PAGE = ROOT / "docs" / "store.md"
OTHER_PAGE = ROOT / "docs" / "licences.md"
# About one word in ten becomes another.
EDITS = {"rows": "lines", "step": "round", "tokens": "words", "seconds": "duration"}
WIDTHS = range(1, 17)


class ToldBackend(LlamaBackend):
    """Says what it is told: None lets the model speak."""

    answer: Sequence[int] | None = None

    def chooser(self, sampling: Sampling, prompt: Sequence[int]) -> Chooser:  # type: ignore[override]
        chooser = super().chooser(sampling, prompt)
        return chooser if self.answer is None else Told(chooser, self.answer)


class Told:
    """Draws with a real sampler, and gives the next token of a text instead."""

    def __init__(self, chooser: LlamaChooser, answer: Sequence[int]) -> None:
        self._chooser = chooser
        self._rest = iter(answer)

    def sample(self, row: int) -> int:
        self._chooser.sample(row)
        return next(self._rest)

    def close(self) -> None:
        self._chooser.close()


class Switched(Speculation):
    """Guesses while it is on."""

    on = False

    def begin(self, sequence: int) -> Guesses:
        if self.on:
            return super().begin(sequence)
        return Guesses([], self.costs, weigh=True, clock=time.perf_counter)


class Bench:
    """One engine for both sides: two lie differently in memory, which is measurable."""

    def __init__(self, model: Path, threads: int) -> None:
        options = LoadOptions(threads=threads, context=2048)
        self.backend = ToldBackend(model, options)
        self._speculation = Switched([lambda sequence: Lookup()])
        self._scheduler = Scheduler(self.backend, speculation=self._speculation)

    def measure(
        self, prompt: Sequence[int], answer: Sequence[int] | None, *, guess: bool
    ) -> tuple[float, float]:
        """Return tokens/s, and the share of guesses that were right."""
        self._speculation.on = guess
        self.backend.answer = answer
        sampling = Sampling(temperature=0.9, seed=1, max_tokens=NEW_TOKENS)
        *_, last = self._scheduler.submit(prompt, sampling)
        stats = last.stats
        right = stats.accepted_tokens / max(1, stats.drafted_tokens)
        return stats.generate_rate, right

    def close(self) -> None:
        self._scheduler.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--small", action="store_true", help="a 0.1 B model")
    parser.add_argument("--task", action="append", help="only this, repeatable")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.folder or Path(temporary)
        shape = B0_1 if arguments.small else B0_9
        model = make_model(folder, shape, "Q4_K_M")
        cores = find_cores()
        print(f"{platform.machine()}, {cores}, {shape.parameters / 1e9:.2f} B Q4_K_M")
        bench = Bench(model, cores.threads)
        try:
            report_costs(bench.backend, arguments.rounds)
            for task, (prompt, answer) in tasks(bench.backend).items():
                if arguments.task and task not in arguments.task:
                    continue
                compare(task, bench, prompt, answer, arguments.rounds)
        finally:
            bench.close()


def report_costs(backend: LlamaBackend, rounds: int) -> None:
    """Print what a step of several rows takes, in steps of one."""
    ids = [1] + [300 + index % 600 for index in range(255)]
    backend.decode([Span(0, 0, ids, len(ids) - 1)])
    seconds: dict[int, list[float]] = {rows: [] for rows in WIDTHS}
    for _ in range(rounds):
        for rows in WIDTHS:
            begun = time.perf_counter()
            backend.decode([Span(0, len(ids), ids[:rows], 0)])
            backend.logits(0)
            seconds[rows].append(time.perf_counter() - begun)
            backend.cut(0, len(ids))
    backend.cut(0, 0)
    one = median(seconds[1])
    costs = ", ".join(f"{rows}: {median(seconds[rows]) / one:.2f}" for rows in WIDTHS)
    print(
        f"a step of N rows, in steps of one ({one * 1000:.1f} ms): {costs}", flush=True
    )


def tasks(
    backend: LlamaBackend,
) -> dict[str, tuple[list[int], list[int] | None]]:
    """Return prompts and what is answered to them."""

    def ids(text: str) -> list[int]:
        return backend.vocabulary.tokenize(text)

    source = SOURCE.read_text(encoding="utf-8").partition('"""\n\n')[2]
    edited = source
    for word, other in EDITS.items():
        edited = edited.replace(word, other)
    page = PAGE.read_text(encoding="utf-8")
    whole = page[: len(page) // 4]
    lines = sorted(whole.splitlines(), key=len)[-len(whole.splitlines()) // 4 :]
    summary = "\n".join(f"- {line}" for line in whole.splitlines() if line in lines)
    other = OTHER_PAGE.read_text(encoding="utf-8")
    found: dict[str, tuple[list[int], list[int] | None]] = {
        "edit": (ids(source), ids(edited)),
        "summary": (ids(whole), ids(summary)),
        "another text": (ids(whole), ids(other)),
        "random": (ids(whole), None),
    }
    return {
        task: ([1, *prompt[:PROMPT_TOKENS]], answer and answer[: NEW_TOKENS + 1])
        for task, (prompt, answer) in found.items()
    }


def compare(
    task: str,
    bench: Bench,
    prompt: Sequence[int],
    answer: Sequence[int] | None,
    rounds: int,
) -> None:
    """Print how much faster answers come with guesses."""
    # The prompt is read, and what a step costs learnt, before it counts.
    for guess in (False, True):
        bench.measure(prompt, answer, guess=guess)
    pairs = []
    for number in range(rounds):
        order = (False, True) if number % 2 else (True, False)
        found = {guess: bench.measure(prompt, answer, guess=guess) for guess in order}
        pairs.append((found[False], found[True]))
    ratios = sorted(two[0] / one[0] for one, two in pairs)
    print(
        f"{task:13} plain {median(one[0] for one, _ in pairs):6.2f} tokens/s, "
        f"guessing {median(two[0] for _, two in pairs):6.2f}, "
        f"ratio {median(ratios):.3f} ({ratios[0]:.3f} to {ratios[-1]:.3f}), "
        f"{median(two[1] for _, two in pairs):.0%} of guesses right",
        flush=True,
    )


if __name__ == "__main__":
    main()
