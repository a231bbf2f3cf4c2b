"""Guesses of a smaller model: it follows the text beside the model that answers.

Both have to be of one vocabulary, for a guess is a token. On the engine's thread only.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from wizard_edge._llama.backend import LlamaBackend, open_backend
from wizard_edge.backend import Backend, Span
from wizard_edge.engine import LoadOptions, Vocabulary
from wizard_edge.errors import BackendError, UsageError
from wizard_edge.gguf import read_header
from wizard_edge.lookup import Lookup
from wizard_edge.memory import Dimensions, memory_need
from wizard_edge.pace import Pace
from wizard_edge.progress import Progress, silent
from wizard_edge.slots import shared_prefix
from wizard_edge.speculation import MOST_ROWS, Drafter, Speculation
from wizard_edge.step_costs import StepCosts
from wizard_edge.units import format_bytes
from wizard_edge.verdicts import Judge, check

_logger = logging.getLogger(__name__)

# A token that the draft model itself holds less likely is not proposed: the other
# model would agree too seldom to pay for its row.
_LEAST_LIKELY = 0.6
# What guesses of a model promise that says when it does not know.
_GRADE = 5
# Tokens of a vocabulary that may be there in one model only, such as a padding token.
# Source: llama.cpp 0c1e57098, common/speculative.cpp, SPEC_VOCAB_MAX_SIZE_DIFFERENCE.
_EXTRA_TOKENS = 128
# More tokens than this that the draft model has not read yet are read in steps of
# their own, each as long as this, so that nobody waits for a long prompt twice.
_FEW = 32
_READING_S = 0.25


class DraftModel:
    """A loaded draft model with a sequence for each of those of the other model."""

    def __init__(
        self,
        path: Path,
        options: LoadOptions,
        target: LlamaBackend,
        *,
        judge: Judge = check,
        progress: Progress = silent,
    ) -> None:
        """Load `path` for the contexts of `target`, as `options` load that.

        Raises: what `LlamaBackend` raises; UsageError for another vocabulary.
        """
        options = replace(
            options,
            context=target.context,
            deterministic=False,
            flash_attention=None,
            draft=None,
            rpc=(),
        )
        self.backend = open_backend(path, options, judge=judge, progress=progress)
        try:
            check_vocabularies(path, self.backend.vocabulary, target.vocabulary)
        except BaseException:
            self.backend.close()
            raise
        _tell_memory(path, options, self.backend)
        self._cached: list[list[int]] = [[] for _ in range(self.backend.sequences)]
        self._pace = Pace()
        self._known = min(self.backend.vocabulary.size, target.vocabulary.size)

    def drafter(self, sequence: int) -> ModelDrafter:
        """Return what guesses an answer in that sequence."""
        return ModelDrafter(
            self.backend,
            sequence,
            self._cached[sequence],
            known=self._known,
            pace=self._pace,
        )

    def close(self) -> None:
        """Free the model. A second call does nothing."""
        self.backend.close()


class ModelDrafter:
    """Guesses one answer with a model, a token after the other, the likeliest each."""

    def __init__(
        self,
        backend: Backend,
        sequence: int,
        cached: list[int],
        *,
        known: int,
        pace: Pace,
    ) -> None:
        """`cached` is what the sequence of the backend holds, kept up to date.

        Tokens from `known` on are foreign to one of the models.
        """
        self._backend = backend
        self._sequence = sequence
        self._cached = cached
        self._known = known
        self._pace = pace
        self._ids: Sequence[int] = ()
        self._drawn = 0
        # How many tokens of the cache are known to be those of the text.
        self._same: int | None = None
        self._lame = False

    def look(self, ids: Sequence[int], drawn: int) -> int:
        """Follow the text; see `Drafter.look`. 0 while the model is still reading."""
        self._ids, self._drawn = ids, drawn
        if self._lame or len(ids) >= self._backend.context - 1:
            return 0
        try:
            return self._follow()
        except BackendError as err:
            self._give_up(err)
            return 0

    def propose(self, most: int) -> list[int]:
        """Guess as long as the model is sure; see `Drafter.propose`."""
        most = min(most, self._backend.context - len(self._ids) - 1)
        try:
            return self._guess(most)
        except BackendError as err:
            self._give_up(err)
            return []

    def observe(self, accepted: int) -> None:
        """Nothing is learnt from it: what was wrong is cut at the next `look`."""

    def _follow(self) -> int:
        """Cut what was guessed wrong, and read what of the text is missing, or part."""
        if self._same is None:
            self._same = shared_prefix(self._cached, self._ids)
        while self._same < min(len(self._cached), len(self._ids)):
            if self._cached[self._same] != self._ids[self._same]:
                break
            self._same += 1
        if self._same < len(self._cached):
            self._backend.cut(self._sequence, self._same)
            del self._cached[self._same :]
        missing = self._ids[self._same :]
        if any(token >= self._known for token in (*missing, self._drawn)):
            self._lame = True
            return 0
        if len(missing) <= _FEW:
            return _GRADE
        self._read(missing)
        return 0

    def _read(self, missing: Sequence[int]) -> None:
        count = self._pace.tokens_within(
            _READING_S, least=_FEW, most=self._backend.batch
        )
        begun = time.perf_counter()
        part = missing[:count]
        self._evaluate(part, logits_from=len(part))
        self._pace.observe(len(part), time.perf_counter() - begun)

    def _guess(self, most: int) -> list[int]:
        import numpy as np

        guesses: list[int] = []
        fresh = [*self._ids[len(self._cached) :], self._drawn]
        while len(guesses) < most:
            self._evaluate(fresh, logits_from=len(fresh) - 1)
            [logits] = self._backend.logits(len(fresh) - 1)
            token = int(logits.argmax())
            likely = 1 / float(np.exp(logits - logits[token]).sum())
            if likely < _LEAST_LIKELY or token >= self._known:
                break
            guesses.append(token)
            if self._backend.vocabulary.is_end(token):
                break
            fresh = [token]
        return guesses

    def _evaluate(self, ids: Sequence[int], *, logits_from: int) -> None:
        span = Span(self._sequence, len(self._cached), ids, logits_from)
        self._backend.decode([span])
        self._cached += ids

    def _give_up(self, error: BackendError) -> None:
        _logger.warning("the draft model guesses no more of this answer: %s", error)
        self._lame = True
        self._backend.cut(self._sequence, 0)
        self._cached.clear()


def open_speculation(
    target: LlamaBackend,
    options: LoadOptions,
    *,
    batch_cost: Mapping[int, float] | None = None,
    judge: Judge = check,
    progress: Progress = silent,
) -> Speculation | None:
    """Return what guesses beside a model, as `options` say; None for nothing.

    `batch_cost` is what steps of so many rows cost, in steps of one row, where that
    was measured. Loads the draft model, which the result closes.
    Raises: what `DraftModel` raises.
    """
    drafters: list[Callable[[int], Drafter]] = []
    if options.lookup is not False:
        drafters.append(lambda sequence: Lookup())
    draft = None
    if options.draft is not None:
        draft = DraftModel(
            options.draft, options, target, judge=judge, progress=progress
        )
        drafters.append(draft.drafter)
    if not drafters:
        return None
    if options.deterministic:
        # Every row is evaluated alone there.
        batch_cost = {MOST_ROWS: float(MOST_ROWS)}
    return Speculation(
        drafters,
        costs=StepCosts(batch_cost),
        weigh=options.lookup is not True,
        close=(lambda: None) if draft is None else draft.close,
    )


def check_vocabularies(path: Path, draft: Vocabulary, target: Vocabulary) -> None:
    """See that two models mean the same by a token.

    One may have some tokens more at the end.
    Raises: UsageError.
    """
    common = min(draft.size, target.size)
    reason = None
    if max(draft.size, target.size) - common > _EXTRA_TOKENS:
        reason = f"{draft.size} tokens, not {target.size}"
    elif (draft.bos, draft.eos) != (target.bos, target.eos):
        reason = (
            f"bos and eos are {draft.bos} and {draft.eos}, "
            f"not {target.bos} and {target.eos}"
        )
    else:
        for token in range(common):
            if draft.spell(token) != target.spell(token):
                mine, other = draft.spell(token), target.spell(token)
                reason = f"token {token} is {mine!r}, not {other!r}"
                break
    if reason is not None:
        raise UsageError(
            f"the draft model {path.name} has another vocabulary: {reason}",
            hint="take a smaller model of the same family, or leave out --draft",
        )


def _tell_memory(path: Path, options: LoadOptions, backend: LlamaBackend) -> None:
    dimensions = Dimensions.read(read_header(path))
    weights = int(backend.model.library.llama_model_size(backend.model.handle))
    if dimensions is None:
        _logger.info("the draft model takes %s", format_bytes(weights))
        return
    context = backend.context * backend.sequences
    need = memory_need(dimensions, weights, context=context, kv_type=options.kv_type)
    beside = need.total - need.program - need.weights
    _logger.info(
        "the draft model takes %s, and %s for its context",
        format_bytes(need.weights),
        format_bytes(beside),
    )
