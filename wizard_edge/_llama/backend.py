"""The `Backend` over llama.cpp: one model and one context of several sequences.

With one sequence its cells lie in a unified cache beside those of a second sequence
id, through which *parts* of a conversation go out and come back: cells change hands
there without a byte being moved. With several sequences each has a stream of its
own, which computes faster but is copied and saved as a whole.
"""

from __future__ import annotations

import ctypes
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wizard_edge._llama import library
from wizard_edge._llama.model import Model
from wizard_edge._llama.offloading import load_with_fewer
from wizard_edge._llama.sampler import Sampler
from wizard_edge._llama.vocabulary import LlamaVocabulary
from wizard_edge.backend import Span
from wizard_edge.engine import MAX_BATCH, Blob, KvType, LoadOptions, Sampling
from wizard_edge.errors import BackendError
from wizard_edge.progress import Progress, silent
from wizard_edge.verdicts import Judge, check

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_logger = logging.getLogger(__name__)

# ggml_type of ggml.h.
_KV_TYPES: dict[KvType, int] = {"f32": 0, "f16": 1, "q8_0": 8, "q4_0": 2}
# llama_flash_attn_type of llama.h.
_FLASH_OFF, _FLASH_ON = 0, 1
# What llama_decode returns when its abort callback said yes.
_ABORTED = 2
# Cells of a sequence that nobody has filled yet, and what grows at all: growing holds
# both caches for a moment, the small one is at most half of the other.
_FIRST_CELLS = 512
_LEAST_GROWING = 1024
# The second sequence id of a unified cache.
_SCRATCH = 1


@dataclass(frozen=True, slots=True)
class ContextSettings:
    """What a context was made with, as llama.cpp has it.

    `batch` tokens are handed over at once, of which `step` are evaluated together.
    """

    context: int
    threads: int
    prompt_threads: int
    batch: int
    step: int
    flash_attention: bool
    kv_type: KvType


class LlamaBackend:
    """Owns a model and a context. After the construction for one thread alone."""

    def __init__(
        self,
        path: Path,
        options: LoadOptions | None = None,
        *,
        judge: Judge = check,
        progress: Progress = silent,
    ) -> None:
        """Load `path` and make a context of `options.context` tokens a sequence.

        `judge` is asked whether llama.cpp may see the file at all.

        Raises: what `Model` raises; BackendError when the context does not fit.
        """
        options = options or LoadOptions()
        self.model = Model(path, options, judge=judge, progress=progress)
        self._library = self.model.library
        self.sequences = options.parallel
        self.saves_parts = options.parallel == 1
        # llama.cpp puts two sequences into a step even where one token is the most.
        # Source: llama.cpp 0c1e57098, src/llama-batch.cpp, split_equal.
        self.mixes = not options.deterministic
        self.batch = MAX_BATCH
        self.context = options.context_for(self.model.trained_context)
        if self.context > self.model.trained_context:
            _logger.warning(
                "a context of %d tokens, but the model knows %d: expect nonsense "
                "beyond them",
                self.context,
                self.model.trained_context,
            )
        self._options = options
        self.kv_type = options.kv_type
        self.flash_attention = _wants_flash(options)
        self._threads: tuple[int, int] | None = None
        self._evaluated = 0
        self._cells = self.context if self.context <= _LEAST_GROWING else _FIRST_CELLS
        try:
            self.handle = self._new_context(self._cells)
        except BackendError:
            self.model.close()
            raise
        self._memory = self._library.llama_get_memory(self.handle)
        # What is moved was computed in sight of what is gone: not what a cold
        # evaluation gives.
        self.can_shift = not options.deterministic and bool(
            self._library.llama_memory_can_shift(self._memory)
        )
        self._batch = self._library.llama_batch_init(MAX_BATCH, 0, 1)

    @property
    def vocabulary(self) -> LlamaVocabulary:
        return self.model.vocabulary

    @property
    def evaluated(self) -> int:
        """The tokens evaluated so far, by llama.cpp's own count.

        It counts those of batches and single ones apart, and never says 0 of either.
        Source: llama.cpp 0c1e57098, src/llama-context.cpp, perf_get_data.
        """
        counts = self._library.llama_perf_context(self.handle)
        return self._evaluated + int(counts.n_p_eval + counts.n_eval)

    @property
    def settings(self) -> ContextSettings:
        """What the context was made with."""
        llama = self._library
        return ContextSettings(
            context=self.context,
            threads=llama.llama_n_threads(self.handle),
            prompt_threads=llama.llama_n_threads_batch(self.handle),
            batch=llama.llama_n_batch(self.handle),
            step=llama.llama_n_ubatch(self.handle),
            flash_attention=self.flash_attention,
            kv_type=self.kv_type,
        )

    def decode(
        self, spans: Sequence[Span], *, stopped: Callable[[], bool] | None = None
    ) -> bool:
        """Evaluate a batch; see `Backend.decode`."""
        self.reserve(max(span.start + len(span.ids) for span in spans))
        self._fill(spans)
        library.forget()
        with self._asking(stopped):
            status = self._library.llama_decode(self.handle, self._batch)
        library.raise_pending()
        if status == _ABORTED:
            return False
        if status != 0:
            raise BackendError(
                f"llama.cpp gave up with status {status}: {library.reason()}"
            )
        return True

    def chooser(self, sampling: Sampling, prompt: Sequence[int]) -> LlamaChooser:
        """Return what draws the tokens of one answer; see `Backend.chooser`."""
        sampler = Sampler(self._library, self.vocabulary, sampling, prompt)
        return LlamaChooser(self, sampler)

    def logits(self, row: int, count: int = 1) -> NDArray[np.float32]:
        """Return a copy of the logits of rows; see `Backend.logits`."""
        import numpy as np

        # Brings the rows into the order of the batch.
        self._library.llama_get_logits(self.handle)
        values = self._library.llama_get_logits_ith(self.handle, row)
        shape = (count, self.vocabulary.size)
        return np.ctypeslib.as_array(values, shape=shape).copy()

    @property
    def width(self) -> int:
        """The numbers of a hidden state."""
        return int(self._library.llama_model_n_embd_out(self.model.handle))

    def read_states(
        self, span: Span, *, stopped: Callable[[], bool] | None = None
    ) -> NDArray[np.float32] | None:
        """Evaluate a batch and return its hidden states, (tokens, width), f32.

        Those of the last layer behind its norm, from which logits are computed. None
        when `stopped` ended it before its end; see `decode`.
        """
        import numpy as np

        every = replace(span, logits_from=0)
        self.reserve(span.start + len(span.ids))
        self._library.llama_set_embeddings(self.handle, True)
        try:
            if not self.decode([every], stopped=stopped):
                return None
            values = self._library.llama_get_embeddings(self.handle)
            shape = (len(span.ids), self.width)
            return np.ctypeslib.as_array(values, shape=shape).copy()
        finally:
            self._library.llama_set_embeddings(self.handle, False)

    def cut(self, sequence: int, length: int) -> None:
        """Forget the tokens of a sequence from position `length` on."""
        self._library.llama_memory_seq_rm(self._memory, sequence, length, -1)

    def copy(self, source: int, target: int, length: int) -> None:
        """Make a sequence the first `length` tokens of another; see `Backend.copy`."""
        # Not seq_cp, which moves a whole stream, and that with the next batch only.
        self._restore_whole(target, self._save_whole(source))
        self.cut(target, length)

    def shift(self, sequence: int, first: int, count: int) -> None:
        """Drop tokens in the middle of a sequence; see `Backend.shift`."""
        end = first + count
        # Before, since what is moved and not computed yet cannot be saved.
        self.reserve(self.context)
        self._library.llama_memory_seq_rm(self._memory, sequence, first, end)
        self._library.llama_memory_seq_add(self._memory, sequence, end, -1, -count)

    def save(self, sequence: int, first: int = 0, end: int | None = None) -> bytearray:
        """Return what is kept of a part of a sequence; see `Backend.save`.

        Raises: BackendError where llama.cpp does not give it.
        """
        if first == 0 and end is None:
            return self._save_whole(sequence)
        last = -1 if end is None else end
        self._library.llama_memory_seq_cp(self._memory, sequence, _SCRATCH, first, last)
        try:
            return self._save_whole(_SCRATCH)
        finally:
            self.cut(_SCRATCH, 0)

    def restore(self, sequence: int, parts: Sequence[Blob]) -> None:
        """Fill a sequence with what was saved; see `Backend.restore`."""
        self.reserve(self.context)
        self.cut(sequence, 0)
        try:
            for index, part in enumerate(parts):
                if index == 0:
                    self._restore_whole(sequence, part)
                    continue
                self._restore_whole(_SCRATCH, part)
                self._library.llama_memory_seq_cp(
                    self._memory, _SCRATCH, sequence, -1, -1
                )
                self.cut(_SCRATCH, 0)
        except BackendError:
            self.cut(sequence, 0)
            raise

    def set_threads(self, generate: int, prompt: int) -> None:
        """Compute the next batches with so many threads: single tokens, and more."""
        self._threads = generate, prompt
        self._library.llama_set_n_threads(self.handle, generate, prompt)

    def close(self) -> None:
        """Free the context and the model. A second call does nothing."""
        if self.handle is not None:
            self._library.llama_batch_free(self._batch)
            self._library.llama_free(self.handle)
            self.handle = None
            self.model.close()

    # Any: a pointer of the binding, whose types are not annotated for checkers.
    def _new_context(self, cells: int) -> Any:
        library.forget()
        params = _context_params(self._library, self._options, cells)
        handle = self._library.llama_init_from_model(self.model.handle, params)
        if not handle:
            raise BackendError(
                f"llama.cpp cannot make a context of {cells} tokens: "
                f"{library.reason() or 'no reason'}",
                hint="try a smaller --ctx-size",
            )
        return handle

    def reserve(self, length: int) -> None:
        """Have room for that many tokens in every sequence.

        A short conversation has a small cache, which is sooner made and, without flash
        attention, faster: what is next to each other for the arithmetic then lies less
        far apart. It grows once, to the whole context.
        Raises: BackendError where there is no memory for it: nothing changes.
        """
        if length <= self._cells:
            return
        grown = self._new_context(self.context)
        states = {
            sequence: self._save_whole(sequence)
            for sequence in range(self.sequences)
            if self._library.llama_memory_seq_pos_max(self._memory, sequence) >= 0
        }
        self._evaluated = self.evaluated
        self._library.llama_free(self.handle)
        self.handle, self._cells = grown, self.context
        self._memory = self._library.llama_get_memory(grown)
        if self._threads is not None:
            self._library.llama_set_n_threads(grown, *self._threads)
        for sequence, state in states.items():
            self._restore_whole(sequence, state)

    def _fill(self, spans: Sequence[Span]) -> None:
        batch = self._batch
        row = 0
        for span in spans:
            for index, token in enumerate(span.ids):
                batch.token[row] = token
                batch.pos[row] = span.start + index
                batch.n_seq_id[row] = 1
                batch.seq_id[row][0] = span.sequence
                batch.logits[row] = index >= span.logits_from
                row += 1
        batch.n_tokens = row

    @contextmanager
    def _asking(self, stopped: Callable[[], bool] | None) -> Iterator[None]:
        """Let llama.cpp ask at every node of its graph whether to go on."""
        if stopped is None:
            yield
            return
        callback = self._library.ggml_abort_callback(lambda user_data: stopped())
        self._library.llama_set_abort_callback(self.handle, callback, None)
        try:
            yield
        finally:
            nothing = self._library.ggml_abort_callback()
            self._library.llama_set_abort_callback(self.handle, nothing, None)

    def _save_whole(self, sequence: int) -> bytearray:
        size = self._library.llama_state_seq_get_size(self.handle, sequence)
        data = bytearray(size)
        pointer = (ctypes.c_uint8 * size).from_buffer(data)
        written = self._library.llama_state_seq_get_data(
            self.handle, pointer, size, sequence
        )
        if written != size:
            raise BackendError("llama.cpp does not give the state of a sequence")
        return data

    def _restore_whole(self, sequence: int, data: Blob) -> None:
        import numpy as np

        library.forget()
        # numpy points into what may be read only, such as a mapped file.
        pointer = np.frombuffer(data, dtype=np.uint8).ctypes.data_as(
            ctypes.POINTER(ctypes.c_uint8)
        )
        size = len(data)
        read = self._library.llama_state_seq_set_data(
            self.handle, pointer, size, sequence
        )
        if read != size:
            self.cut(sequence, 0)
            raise BackendError(
                f"llama.cpp refuses a saved state: {library.reason() or 'no reason'}"
            )


def open_backend(
    path: Path,
    options: LoadOptions,
    *,
    judge: Judge = check,
    progress: Progress = silent,
) -> LlamaBackend:
    """Load a model with as many layers on a GPU as it takes; see `load_with_fewer`.

    Workers of `options.rpc` get what the options say. Raises: as `LlamaBackend`.
    """

    def load(fewer: LoadOptions) -> LlamaBackend:
        return LlamaBackend(path, fewer, judge=judge, progress=progress)

    return load(options) if options.rpc else load_with_fewer(path, options, load)


class LlamaChooser:
    """Draws the tokens of one answer from the logits of a backend."""

    def __init__(self, backend: LlamaBackend, sampler: Sampler) -> None:
        self._backend = backend
        self._sampler = sampler

    def sample(self, row: int) -> int:
        """Draw the next token from a row of the last batch."""
        return self._sampler.sample(self._backend.handle, row)

    def close(self) -> None:
        """Free the sampler. A second call does nothing."""
        self._sampler.close()


def _context_params(library: Any, options: LoadOptions, context: int) -> Any:
    params = library.llama_context_default_params()
    unified = options.parallel == 1
    params.kv_unified = unified
    params.n_seq_max = 2 if unified else options.parallel
    params.n_ctx = context * options.parallel
    params.n_batch = MAX_BATCH
    # Alone, whatever else is in the batch: the same arithmetic for every token.
    params.n_ubatch = 1 if options.deterministic else options.batch or MAX_BATCH
    params.no_perf = False
    if options.threads is not None:
        params.n_threads = options.threads
    prompt_threads = options.prompt_threads or options.threads
    if prompt_threads is not None:
        params.n_threads_batch = prompt_threads
    params.type_k = params.type_v = _KV_TYPES[options.kv_type]
    params.flash_attn_type = _FLASH_ON if _wants_flash(options) else _FLASH_OFF
    return params


def _wants_flash(options: LoadOptions) -> bool:
    # A quantized value cache exists with flash attention only.
    quantized = options.kv_type not in ("f32", "f16")
    wanted = options.flash_attention
    return quantized if wanted is None else wanted
