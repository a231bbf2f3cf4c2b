"""How well a model predicts a text, and how far it is from a reference.

Arithmetic over the `Scorer` seam. Chunks, positions and formulas are those of
llama.cpp's perplexity tool, so that figures can be compared with published ones.
One thing differs: the tool reads the reference's logits from a file that has 16 bits
for each and cuts off what lies 16 below the best one; here they are compared as they
are. Divergence and agreement are the same within their stated errors. The perplexity
of the reference, and so the ratio, are where the text surprises it by less than 16
nats a token; beyond that the tool's are too low.
Source: llama.cpp 0c1e57098, tools/perplexity/perplexity.cpp, `perplexity` and
`kl_divergence`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import exp, isfinite, sqrt

import numpy as np
from numpy.typing import NDArray

from wizard_edge.engine import Scorer, Vocabulary
from wizard_edge.errors import BackendError, UsageError
from wizard_edge.progress import Progress, ProgressEvent, silent

DEFAULT_CONTEXT = 512
# Chunks that a text must at least have, as the tool demands.
FEWEST_CHUNKS = 2

# Rows taken to float64 at a time: 16 MB each array at 32,000 tokens.
_ROWS = 64

# The figures of a `Comparison`, the telling ones first.
_COMPARED = (
    "kl_divergence",
    "top1_agreement",
    "perplexity_ratio",
    "reference_perplexity",
)

Logits = NDArray[np.float32]
Numbers = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Estimate:
    """A figure and its standard error, both in the same unit."""

    value: float
    error: float


@dataclass(frozen=True, slots=True)
class Comparison:
    """How far a model is from its reference, over the same tokens.

    `kl_divergence` is the mean over positions, in nats; `top1_agreement` the share
    of positions where both find the same token likeliest, from 0 to 1.
    `perplexity_ratio` is the model's perplexity over the reference's.
    """

    reference_perplexity: Estimate
    perplexity_ratio: Estimate
    kl_divergence: Estimate
    top1_agreement: Estimate


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What was measured: `chunks` of `context` tokens, of which `tokens` counted."""

    context: int
    chunks: int
    tokens: int
    perplexity: Estimate
    comparison: Comparison | None = None

    def figures(self) -> dict[str, float]:
        """Return every figure by its name, its error as `<name>_error`."""
        named = {"perplexity": self.perplexity}
        if self.comparison is not None:
            for name in _COMPARED:
                named[name] = getattr(self.comparison, name)
        return {
            key: number
            for name, figure in named.items()
            for key, number in zip(
                _keys(name), (figure.value, figure.error), strict=True
            )
        }


def figure_names() -> tuple[str, ...]:
    """Return every key that `Evaluation.figures` can have."""
    return tuple(key for name in ("perplexity", *_COMPARED) for key in _keys(name))


def _keys(name: str) -> tuple[str, str]:
    return name, f"{name}_error"


def evaluate(
    model: Scorer,
    text: str,
    *,
    context: int = DEFAULT_CONTEXT,
    chunks: int | None = None,
    reference: Scorer | None = None,
    progress: Progress = silent,
) -> Evaluation:
    """Measure how well `model` predicts `text`, and how far it is from `reference`.

    The text is cut into chunks of `context` tokens, each read from an empty cache
    and, where the model wants that, with BOS in place of its first token. Only the
    second half of a chunk counts, so that every counted token has a context.
    `chunks` takes that many from the beginning, None all that are whole.
    Raises: UsageError for a text of less than two chunks, for values out of range
    and for a reference with another vocabulary; BackendError where logits are not
    numbers.
    """
    ids = tokenize(text, model.vocabulary)
    if reference is not None:
        check_vocabularies(model.vocabulary, reference.vocabulary)
    parts = plan_chunks(ids, model.vocabulary.bos, context=context, chunks=chunks)
    run = _Run(model, reference, len(parts) * context, progress)
    found = [run.read(part) for part in parts]
    return _summarise(found, context)


def tokenize(text: str, vocabulary: Vocabulary) -> list[int]:
    """Return the ids of a text as a prompt has them: BOS first, no last line break.

    Source: llama.cpp 0c1e57098, common/arg.cpp, option `--file`.
    """
    begin = [] if vocabulary.bos is None else [vocabulary.bos]
    return begin + vocabulary.tokenize(text.removesuffix("\n"))


def plan_chunks(
    ids: Sequence[int], bos: int | None, *, context: int, chunks: int | None
) -> list[list[int]]:
    """Cut ids into whole chunks of `context` tokens; BOS replaces the first of each.

    Raises: UsageError for less than two chunks of text and values out of range.
    """
    if chunks is not None and chunks < 1:
        raise UsageError(f"chunks must be from 1, got {chunks}")
    if len(ids) < FEWEST_CHUNKS * context:
        raise UsageError(
            f"the text has {len(ids)} tokens, a context of {context} needs "
            f"at least {FEWEST_CHUNKS * context}",
            hint="take a longer text, or a smaller --ctx-size",
        )
    whole = len(ids) // context
    count = whole if chunks is None else min(chunks, whole)
    begin = [] if bos is None else [bos]
    return [
        begin + list(ids[start + len(begin) : start + context])
        for start in range(0, count * context, context)
    ]


def check_vocabularies(model: Vocabulary, reference: Vocabulary) -> None:
    """Refuse to compare models whose tokens do not mean the same.

    Raises: UsageError naming the first difference.
    """
    if model.size != reference.size:
        problem = f"{model.size} tokens and {reference.size}"
    elif model.bos != reference.bos:
        problem = f"texts begin with token {model.bos} and {reference.bos}"
    else:
        token = _first_difference(model, reference)
        if token is None:
            return
        ours, theirs = model.spell(token), reference.spell(token)
        problem = f"token {token} is {ours!r} and {theirs!r}"
    raise UsageError(
        f"model and reference have different vocabularies: {problem}",
        hint="compare with the same model in another quant",
    )


def _first_difference(model: Vocabulary, reference: Vocabulary) -> int | None:
    for token in range(model.size):
        if model.spell(token) != reference.spell(token):
            return token
    return None


@dataclass(frozen=True, slots=True)
class _Scored:
    """One number for each position that counts; the last three with a reference.

    `nll` and `reference_nll` are minus the log of the probability of the token that
    came, `divergence` is Kullback and Leibler's, all in nats.
    """

    nll: Numbers
    reference_nll: Numbers
    divergence: Numbers
    agrees: NDArray[np.bool_]


class _Run:
    """Reads chunks one after another and says how far it is, in tokens."""

    def __init__(
        self, model: Scorer, reference: Scorer | None, total: int, progress: Progress
    ) -> None:
        self._model = model
        self._reference = reference
        self._total = total * (1 if reference is None else 2)
        self._done = 0
        self._progress = progress
        self._tell(0)

    def read(self, ids: Sequence[int]) -> _Scored:
        """Score the second half of one chunk.

        Source: llama.cpp 0c1e57098, tools/perplexity/perplexity.cpp: `first` is
        half the context, and the last position has no token to predict.
        """
        first = len(ids) // 2
        coming = np.asarray(ids[first + 1 :])
        scored = list(self._parts(ids[:-1], first, coming))
        self._tell(len(ids) * (1 if self._reference is None else 2))
        joined = _join(scored)
        _check_finite(joined)
        return joined

    def _parts(
        self, ids: Sequence[int], first: int, coming: NDArray[np.int_]
    ) -> Iterator[_Scored]:
        ours = _slices(self._model.score(ids, first=first))
        if self._reference is None:
            at = 0
            for logits in ours:
                log_p = _log_softmax(logits)
                yield _without_reference(log_p, coming[at : at + len(logits)])
                at += len(logits)
            return
        theirs = _slices(self._reference.score(ids, first=first))
        at = 0
        for logits, other in zip(ours, theirs, strict=True):
            tokens = coming[at : at + len(logits)]
            yield _compare(_log_softmax(logits), _log_softmax(other), tokens)
            at += len(logits)

    def _tell(self, tokens: int) -> None:
        self._done += tokens
        self._progress(ProgressEvent("eval", self._done, self._total, "tokens"))


def _slices(blocks: Iterator[Logits]) -> Iterator[Logits]:
    for block in blocks:
        for start in range(0, len(block), _ROWS):
            yield block[start : start + _ROWS]


def _log_softmax(logits: Logits) -> Numbers:
    """Return the log of the probabilities, row by row, float64."""
    wide = logits.astype(np.float64)
    wide -= wide.max(axis=1, keepdims=True)
    wide -= np.log(np.exp(wide).sum(axis=1, keepdims=True))
    return wide


def _without_reference(log_p: Numbers, tokens: NDArray[np.int_]) -> _Scored:
    nothing = np.empty(0)
    return _Scored(_nll(log_p, tokens), nothing, nothing, nothing.astype(np.bool_))


def _compare(log_p: Numbers, log_q: Numbers, tokens: NDArray[np.int_]) -> _Scored:
    """Compare with the reference's `log_q`, whose divergence from `log_p` it is.

    Source: Kullback and Leibler, On Information and Sufficiency (1951), eq. 2.4;
    llama.cpp 0c1e57098, tools/perplexity/perplexity.cpp, `log_softmax`.
    """
    return _Scored(
        nll=_nll(log_p, tokens),
        reference_nll=_nll(log_q, tokens),
        divergence=(np.exp(log_q) * (log_q - log_p)).sum(axis=1),
        agrees=log_p.argmax(axis=1) == log_q.argmax(axis=1),
    )


def _nll(log_p: Numbers, tokens: NDArray[np.int_]) -> Numbers:
    picked: Numbers = -log_p[np.arange(len(tokens)), tokens]
    return picked


def _join(parts: Sequence[_Scored]) -> _Scored:
    return _Scored(
        nll=np.concatenate([part.nll for part in parts]),
        reference_nll=np.concatenate([part.reference_nll for part in parts]),
        divergence=np.concatenate([part.divergence for part in parts]),
        agrees=np.concatenate([part.agrees for part in parts]),
    )


def _check_finite(scored: _Scored) -> None:
    for numbers in (scored.nll, scored.reference_nll, scored.divergence):
        if not np.isfinite(numbers).all():
            raise BackendError(
                "the model's probabilities are not numbers",
                hint="the weights may be damaged: convert or fetch them again",
            )


def _summarise(found: Sequence[_Scored], context: int) -> Evaluation:
    scored = _join(found)
    return Evaluation(
        context=context,
        chunks=len(found),
        tokens=len(scored.nll),
        perplexity=_exponential(_mean(scored.nll)),
        comparison=_comparison(scored) if len(scored.agrees) else None,
    )


def _comparison(scored: _Scored) -> Comparison:
    # The tool takes variances and covariance apart; their sum is this variance.
    difference = scored.nll - scored.reference_nll
    return Comparison(
        reference_perplexity=_exponential(_mean(scored.reference_nll)),
        perplexity_ratio=_exponential(_mean(difference)),
        kl_divergence=_mean(scored.divergence),
        top1_agreement=_mean(scored.agrees.astype(np.float64)),
    )


def _mean(numbers: Numbers) -> Estimate:
    """Return the mean and its standard error, the root of var / (n - 1)."""
    return Estimate(
        float(numbers.mean()), sqrt(float(numbers.var()) / (len(numbers) - 1))
    )


def _exponential(log: Estimate) -> Estimate:
    """Return the exponential of an estimate, its error grown by the derivative."""
    try:
        value = exp(log.value)
    except OverflowError:
        value = float("inf")
    if not isfinite(value):
        raise BackendError(
            f"a perplexity of e^{log.value:.0f} is beyond all measure",
            hint="the weights may be damaged: convert or fetch them again",
        )
    return Estimate(value, value * log.error)
