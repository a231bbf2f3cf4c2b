"""The `Engine` over llama.cpp: one model, one context, one sequence.

Keeps the ids that lie in the KV cache and evaluates only what a prompt adds to
them. Calls are serialised: another thread waits its turn.
"""

from __future__ import annotations

import codecs
import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from wizard_edge._llama import library
from wizard_edge._llama.batches import decode
from wizard_edge._llama.interruptible import interruptible
from wizard_edge._llama.model import Model
from wizard_edge._llama.sampler import Sampler
from wizard_edge._llama.vocabulary import LlamaVocabulary
from wizard_edge.engine import (
    DEFAULT_CONTEXT,
    Chunk,
    Finish,
    KvType,
    LoadOptions,
    Sampling,
    Stats,
    never,
)
from wizard_edge.errors import BackendError, UsageError
from wizard_edge.progress import Progress, silent
from wizard_edge.verdicts import Judge, check

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_logger = logging.getLogger(__name__)

# Tokens read in one go: the pace at which a long prompt looks at `cancelled`.
_BATCH = 512
# ggml_type of ggml.h.
_KV_TYPES: dict[KvType, int] = {"f32": 0, "f16": 1, "q8_0": 8, "q4_0": 2}
# llama_flash_attn_type of llama.h.
_FLASH_OFF, _FLASH_ON = 0, 1


class LlamaEngine:
    """One loaded model with the tokens of one conversation in its KV cache."""

    def __init__(
        self,
        path: Path,
        options: LoadOptions | None = None,
        *,
        judge: Judge = check,
        progress: Progress = silent,
    ) -> None:
        """Load `path` and make a context of `options.context` tokens.

        `judge` is asked whether llama.cpp may see the file at all.

        Raises: what `Model` raises; BackendError when the context does not fit.
        """
        options = options or LoadOptions()
        self._model = Model(path, options, judge=judge, progress=progress)
        self._library = self._model.library
        self.context = options.context or min(
            self._model.trained_context, DEFAULT_CONTEXT
        )
        if self.context > self._model.trained_context:
            _logger.warning(
                "a context of %d tokens, but the model knows %d: expect nonsense "
                "beyond them",
                self.context,
                self._model.trained_context,
            )
        library.forget()
        params = _context_params(self._library, options, self.context)
        self._ctx: Any = self._library.llama_init_from_model(self._model.handle, params)
        if not self._ctx:
            self._model.close()
            raise BackendError(
                f"llama.cpp cannot make a context of {self.context} tokens: "
                f"{library.reason() or 'no reason'}",
                hint="try a smaller --ctx-size",
            )
        self._memory = self._library.llama_get_memory(self._ctx)
        self._batch = self._library.llama_batch_init(_BATCH, 0, 1)
        self._cached: list[int] = []
        self._closed = False
        self._lock = threading.Lock()
        self._busy: int | None = None

    @property
    def vocabulary(self) -> LlamaVocabulary:
        return self._model.vocabulary

    @property
    def load_s(self) -> float:
        return self._model.load_s

    def generate(
        self,
        prompt: Sequence[int],
        sampling: Sampling,
        *,
        cancelled: Callable[[], bool] = never,
    ) -> Iterator[Chunk]:
        """Continue `prompt`; see `Engine.generate`.

        Raises: UsageError when the prompt is empty, leaves no room in the context,
        or this thread has not finished reading another answer of this engine.
        """
        self._check_open()
        if not prompt:
            raise UsageError("the prompt is empty")
        if len(prompt) >= self.context:
            raise UsageError(
                f"the prompt has {len(prompt)} tokens, the context only {self.context}",
                hint=self._room_hint(),
            )
        # Built here, so that a bad grammar is an answer to this call.
        sampler = Sampler(self._library, self.vocabulary, sampling, prompt)
        return self._answer(list(prompt), sampler, sampling.max_tokens, cancelled)

    def _room_hint(self) -> str:
        if self.context < self._model.trained_context:
            return "give a larger --ctx-size, or start a new conversation"
        return (
            "the model knows no longer texts: shorten it, or start a new conversation"
        )

    def logits(self, ids: Sequence[int]) -> NDArray[np.float32]:
        """Return the logits of every position, shape (len(ids), vocabulary), f32.

        Evaluates from an empty cache.
        Raises: UsageError for more than 512 tokens.
        """
        if not 0 < len(ids) <= _BATCH:
            raise UsageError(f"logits of 1 to {_BATCH} tokens, not of {len(ids)}")
        [block] = self.score(ids)
        return block

    def score(
        self, ids: Sequence[int], *, first: int = 0
    ) -> Iterator[NDArray[np.float32]]:
        """Yield logits in blocks of at most 512 positions; see `Scorer.score`.

        Ctrl-C is heard in the middle of a block.
        """
        if not 0 < len(ids) <= self.context:
            raise UsageError(
                f"{len(ids)} tokens to score, the context takes 1 to {self.context}"
            )
        with self._turn(), interruptible(self._library, self._ctx) as run:
            self._forget_after(0)
            for start in range(0, len(ids), _BATCH):
                part = list(ids[start : start + _BATCH])
                skipped = min(max(first - start, 0), len(part))
                run(partial(self._evaluate, part, logits_from=skipped))
                if skipped < len(part):
                    yield self._copy_logits(len(part) - skipped)

    def close(self) -> None:
        """Free the context and the model. A second call does nothing.

        An answer that is still being read ends with an error where it goes on; the
        memory is freed then.
        """
        self._closed = True
        if self._lock.acquire(blocking=False):
            self._release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _answer(
        self,
        prompt: list[int],
        sampler: Sampler,
        max_tokens: int | None,
        cancelled: Callable[[], bool],
    ) -> Iterator[Chunk]:
        try:
            with self._turn():
                cached = self._reuse(prompt)
                counts = Stats(len(prompt), cached, load_s=self.load_s)
                begun = time.perf_counter()
                whole = self._read(prompt, cancelled)
                prompt_s = time.perf_counter() - begun
                if not whole:
                    yield Chunk(None, "", "cancelled", _stats(counts, 0, prompt_s, 0))
                    return
                yield from self._generate(
                    sampler, max_tokens, cancelled, counts, prompt_s
                )
        finally:
            sampler.close()

    def _generate(
        self,
        sampler: Sampler,
        max_tokens: int | None,
        cancelled: Callable[[], bool],
        counts: Stats,
        prompt_s: float,
    ) -> Iterator[Chunk]:
        room = self.context - len(self._cached)
        limit = room if max_tokens is None else min(max_tokens, room)
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        token = sampler.sample(self._ctx, -1)
        generate_s = 0.0
        for count in range(1, limit + 1):
            finish: Finish | None = None
            if self.vocabulary.is_end(token):
                finish = "stop"
            elif cancelled():
                finish = "cancelled"
            elif count == limit:
                finish = "length"
            text = decoder.decode(self.vocabulary.piece(token), finish is not None)
            stats = _stats(counts, count, prompt_s, generate_s)
            yield Chunk(token, text, finish, stats)
            if finish is not None:
                return
            begun = time.perf_counter()
            self._evaluate([token])
            token = sampler.sample(self._ctx, -1)
            generate_s += time.perf_counter() - begun

    def _reuse(self, prompt: list[int]) -> int:
        """Keep the cached tokens that begin `prompt`; return how many.

        The last token is always evaluated again: its logits are needed.
        """
        shared = 0
        for known, wanted in zip(self._cached, prompt[:-1], strict=False):
            if known != wanted:
                break
            shared += 1
        self._forget_after(shared)
        return shared

    def _read(self, prompt: list[int], cancelled: Callable[[], bool]) -> bool:
        """Evaluate what is not cached; return False when cancelled half way."""
        for start in range(len(self._cached), len(prompt), _BATCH):
            if cancelled():
                return False
            self._evaluate(prompt[start : start + _BATCH])
        return True

    def _evaluate(self, ids: list[int], *, logits_from: int | None = None) -> None:
        """Evaluate what follows the cache, with the logits of the last token.

        `logits_from` asks for those of every token from that index on instead.
        """
        # Closed while the answer was suspended: batch and context are gone.
        self._check_open()
        wanted = len(ids) - 1 if logits_from is None else logits_from
        start = len(self._cached)
        try:
            decode(
                self._library,
                self._ctx,
                self._batch,
                ids,
                start=start,
                logits_from=wanted,
            )
        except BackendError:
            self._forget_after(0)
            raise
        self._cached += ids

    def _copy_logits(self, count: int) -> NDArray[np.float32]:
        """Return the logits that the last decode was asked for, one row each."""
        import numpy as np

        rows = np.ctypeslib.as_array(
            self._library.llama_get_logits(self._ctx),
            shape=(count, self.vocabulary.size),
        )
        return rows.copy()

    def _forget_after(self, length: int) -> None:
        self._library.llama_memory_seq_rm(self._memory, 0, length, -1)
        del self._cached[length:]

    def _check_open(self) -> None:
        if self._closed:
            raise UsageError("the engine is closed")

    @contextmanager
    def _turn(self) -> Iterator[None]:
        """Hold the engine for one caller; the same thread cannot take it twice."""
        if self._busy == threading.get_ident():
            raise UsageError("another answer of this engine is still being read")
        self._lock.acquire()
        try:
            self._check_open()
            self._busy = threading.get_ident()
            yield
        finally:
            self._busy = None
            self._release()

    def _release(self) -> None:
        """Let go of the lock, which is held, after freeing a closed engine."""
        if self._closed and self._ctx is not None:
            self._library.llama_batch_free(self._batch)
            self._library.llama_free(self._ctx)
            self._ctx = None
            self._model.close()
        self._lock.release()


def _context_params(library: Any, options: LoadOptions, context: int) -> Any:
    params = library.llama_context_default_params()
    params.n_ctx = context
    params.n_batch = _BATCH
    params.n_ubatch = _BATCH
    params.n_seq_max = 1
    if options.threads is not None:
        params.n_threads = options.threads
    prompt_threads = options.prompt_threads or options.threads
    if prompt_threads is not None:
        params.n_threads_batch = prompt_threads
    params.type_k = params.type_v = _KV_TYPES[options.kv_type]
    # A quantized value cache exists with flash attention only.
    quantized = options.kv_type not in ("f32", "f16")
    wanted = options.flash_attention
    flash = quantized if wanted is None else wanted
    params.flash_attn_type = _FLASH_ON if flash else _FLASH_OFF
    return params


def _stats(counts: Stats, new: int, prompt_s: float, generate_s: float) -> Stats:
    return Stats(
        prompt_tokens=counts.prompt_tokens,
        cached_tokens=counts.cached_tokens,
        new_tokens=new,
        load_s=counts.load_s,
        prompt_s=prompt_s,
        generate_s=generate_s,
    )
