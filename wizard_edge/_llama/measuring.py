"""Time a loaded model with one setting and another, at the depth of a real chat.

In contexts of their own, so that no conversation notices. Their KV caches are filled
without reading: what a few tokens left there is put in over and over. Attention
compares with every cell, whatever lies in it.

Source: llama.cpp 0c1e57098, include/llama.h; src/llama-kv-cache.cpp, where a position
may occur several times in a sequence, and a cell counts from its position alone.
"""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from statistics import median
from typing import TYPE_CHECKING, Any, TypeVar

from wizard_edge._llama import library
from wizard_edge.engine import KvType, never
from wizard_edge.errors import BackendError
from wizard_edge.governor import nobody_knows
from wizard_edge.memory import KV_TYPES
from wizard_edge.tuning import (
    MOST_SAMPLES,
    PROMPT_ROWS,
    Plan,
    Timings,
    choose_flash,
    choose_threads,
    is_clear,
    is_quiet,
)

if TYPE_CHECKING:
    from wizard_edge._llama.model import Model

# Tokens that are read to have something to fill with, and how many cells are put in
# at once: few are many calls, many a large copy.
_SEED, _FILL = 16, 128
# A token that every vocabulary has.
_TOKEN = 0
# The sequence that is timed, and the one that what is put in comes through.
_SEQUENCE, _SCRATCH = 0, 1
# What llama_decode returns when its abort callback said yes.
_ABORTED = 2
# Samples of each size of a batch.
_ROUNDS = 2
# A batch of so few rows is not worth a question at every node.
_FEW_ROWS = 8

_Key = TypeVar("_Key")
_Result = TypeVar("_Result")
_Steps = Generator[None, None, _Result]


def measure(
    model: Model,
    plan: Plan,
    *,
    kv_type: KvType = "f16",
    stopped: Callable[[], bool] = never,
    busy: Callable[[], float | None] = nobody_knows,
    clock: Callable[[], float] = time.perf_counter,
) -> _Steps[Timings]:
    """Measure what the plan says, an evaluation at a step; return the times.

    Where `stopped` says yes, a long evaluation ends in its middle and is done again at
    the next step. What exceeds the budget of the plan is left out. `busy` tells how
    many cores others use meanwhile. For the thread of the model; close the generator
    before the model.
    Raises: BackendError.
    """
    purse = _Purse(plan.budget_s, busy)
    with ExitStack() as held:
        benches: dict[bool, Bench] = {}
        for flash in plan.flash:
            benches[flash] = Bench(
                model, plan, flash=flash, kv_type=kv_type, stopped=stopped, clock=clock
            )
            held.callback(benches[flash].close)
            yield
        for bench in benches.values():
            yield from bench.fill(plan.depths[0])
        # First, so that all the rest is measured with threads that have a core.
        threads: dict[int, float] = {}
        if len(plan.threads) > 1:
            threads = yield from _race(_by_threads(bench, plan.threads, 1), purse)
        fastest = choose_threads(threads, plan.threads[0])
        for bench in benches.values():
            bench.use(fastest)
        tokens = yield from _compare_flash(benches, plan, purse)
        bench = benches.pop(choose_flash(tokens))
        for other in benches.values():
            other.close()
        rows = yield from _sample_all(
            {count: partial(bench.time, count) for count in (1, *plan.rows)}, purse
        )
        prompts: dict[int, float] = {}
        if len(plan.threads) > 1:
            prompts = yield from _race(
                _by_threads(bench, plan.threads, PROMPT_ROWS), purse, warm=True
            )
    per_token = {count: spent / PROMPT_ROWS for count, spent in prompts.items()}
    return Timings(tokens, threads, per_token, rows, purse.quiet)


def _compare_flash(
    benches: Mapping[bool, Bench], plan: Plan, purse: _Purse
) -> _Steps[dict[tuple[bool, int], float]]:
    found: dict[tuple[bool, int], float] = {}
    for depth in plan.depths:
        for bench in benches.values():
            yield from bench.fill(depth)
        times = yield from _race(
            {flash: partial(bench.time, 1) for flash, bench in benches.items()}, purse
        )
        found |= {(flash, depth): spent for flash, spent in times.items()}
    return found


def _by_threads(
    bench: Bench, threads: Sequence[int], rows: int
) -> dict[int, Callable[[], float | None]]:
    def with_threads(count: int) -> float | None:
        bench.use(count)
        return bench.time(rows)

    return {count: partial(with_threads, count) for count in threads}


def _race(
    candidates: Mapping[_Key, Callable[[], float | None]],
    purse: _Purse,
    *,
    warm: bool = False,
) -> _Steps[dict[_Key, float]]:
    """Time candidates in turn; who is clearly slower than the best is out.

    Unless memory and threads are `warm`, the first sample of each does not count. What
    counts is the least of each: what else the machine does makes single samples
    longer, none shorter.
    """
    samples: dict[_Key, list[float]] = {key: [] for key in candidates}
    running = list(candidates)
    for key in () if warm else candidates:
        yield from _sample(candidates[key], purse)
    while not purse.empty:
        for key in running:
            samples[key].append((yield from _sample(candidates[key], purse)))
        best = min(running, key=lambda key: min(samples[key]))
        running = [
            key
            for key in running
            if key == best or not is_clear(samples[key], samples[best])
        ]
        if len(samples[best]) >= MOST_SAMPLES or running == [best] != list(candidates):
            break
    return {key: min(times) for key, times in samples.items() if times}


def _sample_all(
    candidates: Mapping[_Key, Callable[[], float | None]], purse: _Purse
) -> _Steps[dict[_Key, float]]:
    """Time candidates in turn, all of them as often."""
    samples: dict[_Key, list[float]] = {key: [] for key in candidates}
    for _ in range(_ROUNDS):
        for key, run in candidates.items():
            if not purse.empty:
                samples[key].append((yield from _sample(run, purse)))
    return {key: min(times) for key, times in samples.items() if times}


def _sample(run: Callable[[], float | None], purse: _Purse) -> _Steps[float]:
    """Time something, again where it was ended in its middle."""
    while True:
        spent = run()
        yield
        if spent is not None:
            purse.pay(spent)
            return spent


class _Purse:
    """Seconds of computing that may still be spent, and who else was computing."""

    def __init__(self, left_s: float, busy: Callable[[], float | None]) -> None:
        self._left_s = left_s
        self._busy = busy
        self._others: list[float] = []

    @property
    def empty(self) -> bool:
        return self._left_s <= 0

    @property
    def quiet(self) -> bool:
        """Whether others left the machine to us for most of the time."""
        return not self._others or is_quiet(median(self._others))

    def pay(self, seconds: float) -> None:
        self._left_s -= seconds
        others = self._busy()
        if others is not None:
            self._others.append(others)


class Bench:
    """Owns a context for one sequence, in which batches are timed."""

    def __init__(
        self,
        model: Model,
        plan: Plan,
        *,
        flash: bool,
        kv_type: KvType = "f16",
        stopped: Callable[[], bool] = never,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        """Raises: BackendError where there is no memory for it."""
        self._library = model.library
        self._clock = clock
        rows = max(_SEED, PROMPT_ROWS, *plan.rows)
        params = self._library.llama_context_default_params()
        params.n_ctx = plan.cells
        params.n_batch = params.n_ubatch = rows
        params.n_seq_max = 2
        params.kv_unified = True
        params.n_threads = params.n_threads_batch = plan.threads[0]
        # The numbers of GGUF's types are those of ggml, and flash attention is 0 or 1.
        params.type_k = params.type_v = int(KV_TYPES[kv_type])
        params.flash_attn_type = int(flash)
        library.forget()
        # Any: a pointer of the binding, whose types are not annotated for checkers.
        self._context: Any = self._library.llama_init_from_model(model.handle, params)
        if not self._context:
            raise BackendError(
                f"llama.cpp cannot make a context to measure in: {library.reason()}"
            )
        self._memory = self._library.llama_get_memory(self._context)
        self._batch = self._library.llama_batch_init(rows, 0, 1)
        self._asks = self._library.ggml_abort_callback(lambda user_data: stopped())
        self._nothing = self._library.ggml_abort_callback()
        self._held = 0
        self._pattern = b""
        self._pattern_cells = 0

    def use(self, threads: int) -> None:
        """Compute with so many threads from now on."""
        self._library.llama_set_n_threads(self._context, threads, threads)

    def fill(self, depth: int) -> _Steps[None]:
        """Bring the cache to at least `depth` cells, a part at a step."""
        while not self._held:
            if self._evaluate(_SEED):
                self._held = _SEED
            else:
                self._cut(0)
            yield
        while self._held < depth:
            if self._held <= _FILL:
                # All that is there: it doubles until it is large enough.
                self._pattern = self._save()
                self._pattern_cells = self._held
            self._put_in(self._pattern)
            self._held += self._pattern_cells
            yield

    @property
    def state_size(self) -> int:
        """Bytes of what the cells of the sequence hold."""
        return int(self._library.llama_state_seq_get_size(self._context, _SEQUENCE))

    def time(self, rows: int) -> float | None:
        """Evaluate a batch and take it back; return its seconds, None if ended."""
        begun = self._clock()
        whole = self._evaluate(rows)
        spent = self._clock() - begun
        self._cut(_SEED)
        return spent if whole else None

    def close(self) -> None:
        """Free the context. A second call does nothing."""
        if self._context is not None:
            self._library.llama_batch_free(self._batch)
            self._library.llama_free(self._context)
            self._context = None

    def _evaluate(self, rows: int) -> bool:
        """Evaluate tokens behind what is there; False when it was ended."""
        batch, first = self._batch, _SEED if self._held else 0
        for row in range(rows):
            batch.token[row] = _TOKEN
            # All that was put in has the positions of the first tokens.
            batch.pos[row] = first + row
            batch.n_seq_id[row] = 1
            batch.seq_id[row][0] = _SEQUENCE
            batch.logits[row] = row == rows - 1
        batch.n_tokens = rows
        library.forget()
        asks = self._asks if rows > _FEW_ROWS else self._nothing
        self._library.llama_set_abort_callback(self._context, asks, None)
        status = self._library.llama_decode(self._context, batch)
        self._library.llama_synchronize(self._context)
        library.raise_pending()
        if status not in (0, _ABORTED):
            raise BackendError(f"llama.cpp gave up measuring: {library.reason()}")
        return bool(status == 0)

    def _cut(self, position: int) -> None:
        self._library.llama_memory_seq_rm(self._memory, _SEQUENCE, position, -1)

    def _save(self) -> bytes:
        size = self.state_size
        data = (ctypes.c_uint8 * size)()
        written = self._library.llama_state_seq_get_data(
            self._context, data, size, _SEQUENCE
        )
        if written != size:
            raise BackendError("llama.cpp does not give the state of a sequence")
        return bytes(data)

    def _put_in(self, state: bytes) -> None:
        data = (ctypes.c_uint8 * len(state)).from_buffer_copy(state)
        read = self._library.llama_state_seq_set_data(
            self._context, data, len(state), _SCRATCH
        )
        if read != len(state):
            raise BackendError(f"llama.cpp refuses a state: {library.reason()}")
        self._library.llama_memory_seq_cp(self._memory, _SCRATCH, _SEQUENCE, -1, -1)
        self._library.llama_memory_seq_rm(self._memory, _SCRATCH, -1, -1)
