"""Perplexity, divergence and agreement are those of llama.cpp's perplexity tool.

    LLAMA_CPP_BIN=build/bin python -m pytest tests/reference/test_perplexity.py -rP

prints the figures of both.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from random import Random

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.reference.llama_cpp_tools import find_tool, run_tool
from tools.apprentice.script import conversations
from wizard_edge._llama.engine import LlamaEngine
from wizard_edge._llama.vocabulary import LlamaVocabulary
from wizard_edge.engine import LoadOptions
from wizard_edge.evaluate import Comparison, Estimate, evaluate
from wizard_edge.templates import VICUNA_SYSTEM

TOOL = "llama-perplexity"
# Of the tool's own standard error. Batches of four chunks there and of one here
# make the logits of K-quants differ.
SHARE_OF_ERROR = 0.5
# The tool keeps of a logit this far below the best, in steps of 16 bits.
# Source: llama.cpp 0c1e57098, tools/perplexity/perplexity.cpp, `log_softmax`.
SPAN, STEPS = 16, 65535

Apprentice = Callable[[str], Path]


class AsStored:
    """A reference as it comes back from the file that the tool keeps it in."""

    def __init__(self, engine: LlamaEngine) -> None:
        self._engine = engine

    @property
    def vocabulary(self) -> LlamaVocabulary:
        return self._engine.vocabulary

    def score(
        self, ids: Sequence[int], *, first: int = 0
    ) -> Iterator[NDArray[np.float32]]:
        for block in self._engine.score(ids, first=first):
            best = block.max(axis=1, keepdims=True)
            least = np.maximum(block.min(axis=1, keepdims=True), best - SPAN)
            step = (best - least) / STEPS
            yield least + step * np.rint((np.maximum(block, least) - least) / step)

    def close(self) -> None:
        self._engine.close()


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write 14,000 tokens of conversations, the same in every run."""
    find_tool(TOOL)
    lines = [
        " ".join(
            f"USER: {turn.user} ASSISTANT: {turn.assistant}" for turn in said.turns
        )
        for said in islice(conversations(Random(5), 0.3), 120)
    ]
    path = tmp_path_factory.mktemp("text") / "conversations.txt"
    path.write_text("".join(f"{VICUNA_SYSTEM} {line}\n" for line in lines))
    return path


@pytest.mark.parametrize(
    ("quant", "context", "chunks"),
    [
        ("F16", 512, None),
        ("Q4_K_M", 512, None),
        ("Q2_K", 512, None),
        ("Q8_0", 128, 20),
        ("Q8_0", 1024, 3),
    ],
)
def test_perplexity_is_that_of_the_tool(
    apprentice: Apprentice, text: Path, quant: str, context: int, chunks: int | None
) -> None:
    theirs = final_estimate(
        run_tool(
            TOOL,
            *("-m", apprentice(quant), "-f", text, "-c", str(context), "-t", "2"),
            *(("--chunks", str(chunks)) if chunks else ()),
        )
    )

    options = LoadOptions(context=context, threads=2)
    with LlamaEngine(apprentice(quant), options) as engine:
        ours = evaluate(
            engine, text.read_text(), context=context, chunks=chunks
        ).perplexity

    report(f"{quant} at {context}", ours, theirs)
    assert_equal(ours, theirs)


@pytest.mark.parametrize("quant", ["Q4_K_M", "Q2_K"])
def test_divergence_and_agreement_are_those_of_the_tool(
    apprentice: Apprentice, text: Path, tmp_path: Path, quant: str
) -> None:
    """So is its perplexity of the reference, once that is cut off as it is there."""
    stored = tmp_path / "logits"
    words = ("-c", "512", "-t", "2")
    run_tool(
        TOOL, "-m", apprentice("F16"), "-f", text, *words, "--save-all-logits", stored
    )
    said = run_tool(
        TOOL,
        *("-m", apprentice(quant), *words),
        *("--kl-divergence", "--kl-divergence-base", stored),
    )

    options = LoadOptions(context=512, threads=2)
    with (
        LlamaEngine(apprentice(quant), options) as model,
        LlamaEngine(apprentice("F16"), options) as reference,
    ):
        exact = compared(model, reference, text)
        cut_off = compared(model, AsStored(reference), text)

    for name, ours, theirs in (
        ("KL divergence", exact.kl_divergence, line(said, "Mean    KLD")),
        ("same top token", exact.top1_agreement, line(said, "Same top p", 0.01)),
        (
            "reference, cut off",
            cut_off.reference_perplexity,
            line(said, "Mean PPL(base)"),
        ),
        (
            "ratio, cut off",
            cut_off.perplexity_ratio,
            line(said, "Mean PPL(Q)/PPL(base)"),
        ),
    ):
        report(f"{quant} {name}", ours, theirs)
        assert_equal(ours, theirs)


def compared(
    model: LlamaEngine, reference: LlamaEngine | AsStored, text: Path
) -> Comparison:
    found = evaluate(
        model, text.read_text(), context=512, reference=reference
    ).comparison
    assert found is not None
    return found


def final_estimate(said: str) -> Estimate:
    match = re.search(r"Final estimate: PPL = ([\d.]+) \+/- ([\d.]+)", said)
    assert match is not None, said
    return Estimate(float(match[1]), float(match[2]))


def line(said: str, title: str, scale: float = 1) -> Estimate:
    """Find a figure and its error in the tool's statistics."""
    match = re.search(rf"^{re.escape(title)}\s*:\s+([\d.]+) ± +([\d.]+)", said, re.M)
    assert match is not None, said
    return Estimate(float(match[1]) * scale, float(match[2]) * scale)


def report(name: str, ours: Estimate, theirs: Estimate) -> None:
    print(
        f"{name}: {ours.value:.6f} +- {ours.error:.6f}, "
        f"the tool {theirs.value:.6f} +- {theirs.error:.6f}"
    )


def assert_equal(ours: Estimate, theirs: Estimate) -> None:
    assert abs(ours.value - theirs.value) <= SHARE_OF_ERROR * theirs.error
    assert ours.error == pytest.approx(theirs.error, rel=0.03)
