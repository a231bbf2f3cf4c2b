"""The arithmetic with models whose probabilities are known, then with a real one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from math import exp, log, sqrt
from pathlib import Path
from typing import cast

import numpy as np
import pytest
from numpy.typing import NDArray

from wizard_edge._llama.engine import LlamaEngine
from wizard_edge.engine import LoadOptions
from wizard_edge.errors import BackendError, UsageError
from wizard_edge.evaluate import (
    Comparison,
    Estimate,
    Evaluation,
    check_vocabularies,
    evaluate,
    figure_names,
    plan_chunks,
    tokenize,
)
from wizard_edge.progress import ProgressEvent

BOS = 0
Logits = NDArray[np.float32]
TEXT = "abcdefgabcdefgabcdefgabcdefg"
# About 300 tokens of the bundled model.
PROSE = (
    "USER: What is 7 plus 5? ASSISTANT: 7 plus 5 is 12. "
    "USER: Hi, my name is Ada. ASSISTANT: Nice to meet you, Ada. "
) * 6


class Letters:
    """A vocabulary of BOS and the letters from a on."""

    eos = 1

    def __init__(self, size: int = 8, *, bos: int | None = BOS, first: str = "a"):
        self.size = size
        self.bos = bos
        self._first = ord(first) - 1

    def tokenize(self, text: str) -> list[int]:
        return [ord(letter) - self._first for letter in text]

    def control(self, text: str) -> int:
        raise NotImplementedError

    def piece(self, token: int) -> bytes:
        return self.spell(token).encode()

    def spell(self, token: int) -> str:
        return "<s>" if token == BOS else chr(token + self._first)

    def is_end(self, token: int) -> bool:
        return False


class TableScorer:
    """Expects after each token what a table says; remembers what it was asked."""

    def __init__(
        self, table: NDArray[np.floating], *, bos: int | None = BOS, block: int = 512
    ) -> None:
        self.table = table.astype(np.float32)
        self.vocabulary = Letters(len(table), bos=bos)
        self.calls: list[tuple[list[int], int]] = []
        self._block = block

    def score(self, ids: Sequence[int], *, first: int = 0) -> Iterator[Logits]:
        self.calls.append((list(ids), first))
        rows = self.table[list(ids)][first:]
        for start in range(0, len(rows), self._block):
            yield rows[start : start + self._block]

    def close(self) -> None:
        pass


def always(*probabilities: float) -> TableScorer:
    """Return a model that expects the same after every token."""
    return TableScorer(np.tile(np.log(probabilities), (len(probabilities), 1)))


def about(value: float) -> float:
    """Return what equals a figure that was computed."""
    return cast(float, pytest.approx(value, abs=1e-6))


def random_table(seed: int) -> Logits:
    drawn = np.random.default_rng(seed).normal(scale=3, size=(8, 8))
    return drawn.astype(np.float32)


def test_a_model_that_knows_nothing_has_the_perplexity_of_its_vocabulary() -> None:
    found = evaluate(TableScorer(np.zeros((8, 8))), TEXT, context=8)

    assert found == Evaluation(
        context=8,
        chunks=3,
        tokens=9,
        perplexity=Estimate(about(8), about(0)),
    )


def test_the_error_is_that_of_the_mean_grown_by_the_exponential() -> None:
    """Of nine counted tokens three are c, which the model expects less."""
    model = always(0.0625, 0.25, 0.25, 0.0625, 0.375)
    text = "x" + "babcabc" + "xbabcabc" + "xbabcabc"

    found = evaluate(model, text.replace("x", "a"), context=8)

    counted = [log(4)] * 6 + [log(16)] * 3
    mean = sum(counted) / 9
    variance = sum(item**2 for item in counted) / 9 - mean**2
    assert found.perplexity.value == pytest.approx(exp(mean))
    assert found.perplexity.error == pytest.approx(exp(mean) * sqrt(variance / 8))


def test_each_chunk_begins_with_bos_and_its_second_half_counts() -> None:
    model = TableScorer(np.zeros((8, 8)))

    evaluate(model, "abcdefg" + "abcdefg", context=6, chunks=2)

    # BOS stands before the text, and in place of the first token of each chunk.
    assert model.calls == [([0, 1, 2, 3, 4], 3), ([0, 7, 1, 2, 3], 3)]


def test_without_bos_every_token_stays() -> None:
    model = TableScorer(np.zeros((8, 8)), bos=None)

    evaluate(model, "abcdefgabcdef", context=6)

    assert model.calls == [([1, 2, 3, 4, 5], 3), ([7, 1, 2, 3, 4], 3)]


def test_the_last_line_break_is_not_text() -> None:
    vocabulary = Letters(first=chr(1))

    assert tokenize("ab\n\n", vocabulary) == [0, 97, 98, 10]


def test_the_divergence_of_known_probabilities() -> None:
    model, reference = always(0.5, 0.25, 0.25), always(0.25, 0.25, 0.5)

    found = evaluate(model, "a" * 8, context=4, reference=reference).comparison

    assert found == Comparison(
        reference_perplexity=Estimate(about(4), about(0)),
        perplexity_ratio=Estimate(about(1), about(0)),
        kl_divergence=Estimate(about(0.25 * log(2)), about(0)),
        top1_agreement=Estimate(0, 0),
    )


def test_a_model_does_not_differ_from_itself() -> None:
    table = random_table(1)

    found = evaluate(TableScorer(table), TEXT, context=8, reference=TableScorer(table))

    assert found.comparison == Comparison(
        reference_perplexity=found.perplexity,
        perplexity_ratio=Estimate(1, 0),
        kl_divergence=Estimate(0, 0),
        top1_agreement=Estimate(1, 0),
    )


def test_figures_are_those_of_the_tool_s_formulas() -> None:
    """Token by token in plain Python, with the tool's sums, products and names."""
    ours, theirs = random_table(1), random_table(2)

    found = evaluate(TableScorer(ours), TEXT, context=8, reference=TableScorer(theirs))

    ids = [BOS, *Letters().tokenize(TEXT)]
    nll, base, kld, same = [], [], [], 0
    for chunk in range(len(ids) // 8):
        for place in range(chunk * 8 + 4, chunk * 8 + 7):
            log_p, log_q = (
                [value - log(sum(map(exp, row))) for value in row]
                for row in (ours[ids[place]].tolist(), theirs[ids[place]].tolist())
            )
            nll.append(-log_p[ids[place + 1]])
            base.append(-log_q[ids[place + 1]])
            kld.append(sum(exp(q) * (q - p) for p, q in zip(log_p, log_q, strict=True)))
            same += log_p.index(max(log_p)) == log_q.index(max(log_q))
    count = len(nll)
    (log_ppl, e), (log_base, e_base), (mean_kld, e_kld) = (
        mean_and_uncertainty(values) for values in (nll, base, kld)
    )
    product = sum(a * b for a, b in zip(nll, base, strict=True)) / count
    covariance = (product - log_ppl * log_base) / (count - 1)
    ratio = exp(log_ppl - log_base)
    share = same / count
    assert found.figures() == pytest.approx(
        {
            "perplexity": exp(log_ppl),
            "perplexity_error": exp(log_ppl) * e,
            "kl_divergence": mean_kld,
            "kl_divergence_error": e_kld,
            "top1_agreement": share,
            "top1_agreement_error": sqrt(share * (1 - share) / (count - 1)),
            "perplexity_ratio": ratio,
            "perplexity_ratio_error": ratio * sqrt(e**2 + e_base**2 - 2 * covariance),
            "reference_perplexity": exp(log_base),
            "reference_perplexity_error": exp(log_base) * e_base,
        },
        rel=1e-6,
    )
    assert 0 < share < 1


def mean_and_uncertainty(values: list[float]) -> tuple[float, float]:
    mean = sum(values) / len(values)
    square = sum(value**2 for value in values) / len(values)
    return mean, sqrt((square - mean**2) / (len(values) - 1))


def test_how_blocks_are_cut_changes_nothing() -> None:
    def measured(block: int) -> Evaluation:
        model, other = (TableScorer(random_table(seed), block=block) for seed in (1, 2))
        return evaluate(model, TEXT * 40, context=400, reference=other)

    assert measured(7) == measured(512)


def test_every_figure_is_in_the_list_of_names() -> None:
    scorer = TableScorer(random_table(1))

    alone = evaluate(scorer, TEXT, context=8).figures()
    compared = evaluate(scorer, TEXT, context=8, reference=scorer).figures()

    assert tuple(compared) == figure_names()
    assert tuple(alone) == ("perplexity", "perplexity_error")


def test_chunks_are_whole_and_as_many_as_asked_for() -> None:
    ids = list(range(100, 123))

    assert len(plan_chunks(ids, None, context=5, chunks=None)) == 4
    assert len(plan_chunks(ids, None, context=5, chunks=9)) == 4
    assert plan_chunks(ids, 1, context=5, chunks=2) == [
        [1, 101, 102, 103, 104],
        [1, 106, 107, 108, 109],
    ]


def test_a_text_of_less_than_two_chunks_is_refused() -> None:
    scorer = TableScorer(np.zeros((8, 8)))

    assert evaluate(scorer, "a" * 15, context=8).chunks == 2
    with pytest.raises(UsageError) as caught:
        evaluate(scorer, "a" * 14, context=8)

    assert caught.value.message == (
        "the text has 15 tokens, a context of 8 needs at least 16"
    )
    assert caught.value.hint == "take a longer text, or a smaller --ctx-size"


def test_no_chunk_is_no_measurement() -> None:
    with pytest.raises(UsageError, match="chunks must be from 1, got 0"):
        evaluate(TableScorer(np.zeros((8, 8))), TEXT, context=8, chunks=0)


@pytest.mark.parametrize(
    ("other", "problem"),
    [
        (Letters(9), "8 tokens and 9"),
        (Letters(bos=None), "texts begin with token 0 and None"),
        (Letters(first="A"), "token 1 is 'a' and 'A'"),
    ],
    ids=["size", "bos", "spelling"],
)
def test_another_vocabulary_is_refused(other: Letters, problem: str) -> None:
    with pytest.raises(UsageError) as caught:
        check_vocabularies(Letters(), other)

    assert caught.value.message == (
        f"model and reference have different vocabularies: {problem}"
    )


@pytest.mark.parametrize("bad", ["model", "reference"])
def test_logits_that_are_no_numbers_are_no_figures(bad: str) -> None:
    table = np.full((8, 8), np.nan)
    good = TableScorer(np.zeros((8, 8)))
    model, reference = (
        TableScorer(table) if bad == name else good for name in ("model", "reference")
    )

    with pytest.raises(BackendError, match="are not numbers"):
        evaluate(model, TEXT, context=8, reference=reference)


def test_a_perplexity_beyond_all_measure_is_no_figure() -> None:
    table = np.zeros((8, 8))
    table[:, BOS] = 1e5

    with pytest.raises(BackendError, match=r"e\^100000 is beyond all measure"):
        evaluate(TableScorer(table), TEXT, context=8)


def test_progress_counts_the_tokens_of_both_models() -> None:
    scorer = TableScorer(np.zeros((8, 8)))
    events: list[ProgressEvent] = []

    evaluate(
        scorer, TEXT, context=8, chunks=2, reference=scorer, progress=events.append
    )

    assert events == [ProgressEvent("eval", n, 32, "tokens") for n in (0, 16, 32)]


def test_the_real_engine_gives_what_its_logits_say(
    apprentice: Callable[[str], Path],
) -> None:
    options = LoadOptions(context=64, threads=1)
    with LlamaEngine(apprentice("F16"), options) as engine:
        found = evaluate(engine, PROSE, context=64, chunks=2)

        ids = tokenize(PROSE, engine.vocabulary)
        nll = []
        for start in (0, 64):
            chunk = [ids[0], *ids[start + 1 : start + 64]]
            logits = engine.logits(chunk).astype(np.float64)
            for place in range(32, 63):
                row = logits[place]
                nll.append(np.log(np.exp(row).sum()) - row[chunk[place + 1]])

    assert found.tokens == len(nll) == 62
    assert found.perplexity.value == pytest.approx(exp(np.mean(nll)), rel=1e-4)


def test_fewer_bits_diverge_more(apprentice: Callable[[str], Path]) -> None:
    options = LoadOptions(context=64, threads=1)

    def divergence(quant: str) -> float:
        with (
            LlamaEngine(apprentice(quant), options) as model,
            LlamaEngine(apprentice("F16"), options) as reference,
        ):
            found = evaluate(model, PROSE, context=64, reference=reference)
        assert found.comparison is not None
        return found.comparison.kl_divergence.value

    assert divergence("F16") == 0
    assert 0 < divergence("Q8_0") < divergence("Q2_K")
