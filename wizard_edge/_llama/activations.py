"""Sums up squared activations while llama.cpp reads a text: an importance matrix.

llama.cpp's evaluation callback shows every matrix multiplication. Its input, squared
and summed over the tokens, says how much each column of a weight matters. Everything
runs on the CPU; the text is evaluated in chunks that know nothing of each other.

Source: llama.cpp 0c1e57098, tools/imatrix/imatrix.cpp, `collect_imatrix` and
`compute_imatrix`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

# A pointer of the binding, whose types are not annotated for checkers.
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wizard_edge._llama import library
from wizard_edge._llama.batches import decode
from wizard_edge._llama.model import Model
from wizard_edge._llama.nodes import MUL_MAT, MUL_MAT_ID, Node, open_node, read_values
from wizard_edge.engine import LoadOptions
from wizard_edge.errors import BackendError, UsageError
from wizard_edge.gguf_types import GgmlType
from wizard_edge.progress import Progress, ProgressEvent, silent

_logger = logging.getLogger(__name__)

# llama.cpp does not look at smaller batches: generation, not reading.
# Source: llama.cpp 0c1e57098, tools/imatrix/imatrix.cpp, `collect_imatrix`.
MIN_ROWS = 16
DEFAULT_CHUNK_SIZE = 512
# Tokens evaluated at once, as many as llama.cpp takes by default.
# Source: llama.cpp 0c1e57098, src/llama-context.cpp, `llama_context_default_params`.
_BATCH = 512
_WEIGHTS = "blk."


@dataclass(frozen=True, slots=True)
class ActivationSums:
    """What went into one weight: sums of squares per column, and of how many tokens.

    `in_sum2` is (matrices, columns) float32, `counts` (matrices,) int64; a weight of
    experts has a matrix for each, any other has one.
    """

    in_sum2: NDArray[np.float32]
    counts: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Activations:
    """The sums of every weight by tensor name, over `chunks` of `chunk_size` tokens."""

    sums: Mapping[str, ActivationSums]
    chunks: int
    chunk_size: int

    @property
    def tokens(self) -> int:
        return self.chunks * self.chunk_size


def collect_activations(
    path: Path,
    text: str,
    *,
    chunk_size: int = DEFAULT_CHUNK_SIZE,
    chunks: int | None = None,
    threads: int | None = None,
    progress: Progress = silent,
) -> Activations:
    """Let a model read a text, in chunks of `chunk_size` tokens, `chunks` at most.

    The first token of each chunk becomes BOS where the model wants one; what does not
    fill a chunk is left out. Events: `load`, then `imatrix` in tokens, those from
    another thread. Ctrl-C ends it at the next multiplication.
    Raises: UsageError for a text shorter than a chunk, or a chunk that is too short
    or too long for the model; what `Model` raises; BackendError.
    """
    if chunk_size < MIN_ROWS:
        raise UsageError(f"a chunk has {MIN_ROWS} tokens or more, not {chunk_size}")
    if chunks is not None and chunks < 1:
        raise UsageError(f"chunks must be 1 or more, not {chunks}")
    if threads is not None and threads < 1:
        raise UsageError(f"threads must be 1 or more, not {threads}")
    model = Model(path, LoadOptions(gpu_layers=0), progress=progress)
    try:
        parts = _cut(model, text, chunk_size)[:chunks]
    except BaseException:
        model.close()
        raise
    collector = _Collector()

    def work() -> None:
        with closing(model):
            _read(model, parts, collector, threads, progress)

    _watch(collector, work)
    return Activations(_finish(collector), len(parts), chunk_size)


def _watch(collector: _Collector, work: Callable[[], None]) -> None:
    """Do the work in another thread, so that Ctrl-C finds this one in Python.

    A signal's exception inside a callback could come where nothing can catch it, and
    ctypes would drop it. The work frees what it uses even when nobody waits for it.
    """
    with ThreadPoolExecutor(1, thread_name_prefix="imatrix") as pool:
        future = pool.submit(work)
        try:
            future.result()
        except BaseException:
            collector.stop()
            raise


def _cut(model: Model, text: str, chunk_size: int) -> list[list[int]]:
    if chunk_size > model.trained_context:
        raise UsageError(
            f"a chunk of {chunk_size} tokens, but the model knows "
            f"{model.trained_context}",
            hint=f"--ctx-size {model.trained_context} or less",
        )
    vocabulary = model.vocabulary
    ids = vocabulary.tokenize(text)
    if vocabulary.bos is not None:
        ids.insert(0, vocabulary.bos)
    count = len(ids) // chunk_size
    if not count:
        raise UsageError(
            f"the text has {len(ids)} tokens, too few for a chunk of {chunk_size}",
            hint="a longer text, or a smaller --ctx-size",
        )
    parts = [ids[i * chunk_size : (i + 1) * chunk_size] for i in range(count)]
    if vocabulary.bos is not None:
        for part in parts:
            part[0] = vocabulary.bos
    return parts


def _finish(collector: _Collector) -> dict[str, ActivationSums]:
    if not collector.sums:
        raise BackendError("llama.cpp showed no multiplication by a weight")
    if unseen := collector.unseen_experts():
        _logger.warning(
            "%d experts never saw a token of this text: a longer one is better", unseen
        )
    return {
        name: ActivationSums(total.squares.astype(np.float32), total.counts)
        for name, total in sorted(collector.sums.items())
    }


class _Total:
    """Running sums of one weight, in float64: the order of adding does not matter."""

    def __init__(self, matrices: int, columns: int) -> None:
        self.squares = np.zeros((matrices, columns), dtype=np.float64)
        self.counts = np.zeros(matrices, dtype=np.int64)

    def add(self, matrix: int, rows: NDArray[np.float32]) -> None:
        """Add (rows, columns) activations that went into one matrix."""
        self.squares[matrix] += np.einsum("rc,rc->c", rows, rows, dtype=np.float64)
        self.counts[matrix] += len(rows)


class _Collector:
    """The evaluation callback: says what it wants to see, and adds it up."""

    def __init__(self) -> None:
        self.sums: dict[str, _Total] = {}
        self.stopped = False

    def stop(self) -> None:
        """Let the computation end at the next node, from any thread."""
        self.stopped = True

    def __call__(self, address: int, ask: bool, user_data: object) -> bool:
        """Answer llama.cpp; an exception ends the computation early.

        Wanting the next node and then returning False is what stops the graph.
        Source: llama.cpp 0c1e57098, ggml/src/ggml-backend.cpp,
        `ggml_backend_sched_compute_splits`.
        """
        if self.stopped:
            # Yes to the question, no to what follows it.
            return ask
        try:
            node = open_node(address)
            if ask:
                return _is_wanted(node)
            self._add(node)
        except BaseException as err:  # noqa: BLE001 - raised again by raise_pending
            library.keep(err)
            self.stop()
            return ask
        return True

    def unseen_experts(self) -> int:
        return sum(int((total.counts == 0).sum()) for total in self.sums.values())

    def _add(self, node: Node) -> None:
        name = _weight_name(node)
        if node.op == MUL_MAT_ID:
            self._add_experts(name, node)
        else:
            self._add_dense(name, node)
        # One pass over the sums: an infinity or a NaN stays in them for good.
        if not np.isfinite(self.sums[name].squares).all():
            raise BackendError(f"the activations of {name} are not finite numbers")

    def _add_dense(self, name: str, node: Node) -> None:
        rows = read_values(node.source(1), np.float32)
        columns = rows.shape[-1]
        self._total(name, 1, columns).add(0, rows.reshape(-1, columns))

    def _add_experts(self, name: str, node: Node) -> None:
        """Give every expert the rows of the tokens that were sent to it.

        The activations are (tokens, 1 or experts used, columns), the ids (tokens,
        experts used).
        """
        experts = node.source(0).sizes[2]
        rows = read_values(node.source(1), np.float32)[0]
        chosen = read_values(node.source(2), np.int32)[0, 0]
        total = self._total(name, experts, rows.shape[-1])
        for slot in range(chosen.shape[1]):
            given = rows[:, slot % rows.shape[1]]
            for expert in np.unique(chosen[:, slot]):
                if not 0 <= expert < experts:
                    raise BackendError(f"{name} has no expert {expert}")
                total.add(int(expert), given[chosen[:, slot] == expert])

    def _total(self, name: str, matrices: int, columns: int) -> _Total:
        total = self.sums.get(name)
        if total is None:
            total = self.sums[name] = _Total(matrices, columns)
        if total.squares.shape != (matrices, columns):
            raise BackendError(
                f"{name} was {total.squares.shape}, is {(matrices, columns)}"
            )
        return total


def _is_wanted(node: Node) -> bool:
    if node.op == MUL_MAT_ID:
        return True
    if node.op != MUL_MAT:
        return False
    given = node.source(1)
    return (
        given.sizes[1] >= MIN_ROWS
        and given.type == GgmlType.F32
        and _weight_name(node).startswith(_WEIGHTS)
    )


def _weight_name(node: Node) -> str:
    """Return the tensor's name without what a scheduler's copy puts around it.

    `CUDA0#blk.0.attn_k.weight#0` is `blk.0.attn_k.weight`.
    """
    name = node.source(0).name
    return name.split("#")[1] if "#" in name else name


def _read(
    model: Model,
    parts: Sequence[Sequence[int]],
    collector: _Collector,
    threads: int | None,
    progress: Progress,
) -> None:
    llama = model.library
    callback = llama.ggml_backend_sched_eval_callback(collector)
    params = _context_params(llama, len(parts[0]), threads)
    params.cb_eval = callback
    library.forget()
    context: Any = llama.llama_init_from_model(model.handle, params)
    if not context:
        raise BackendError(
            f"llama.cpp cannot make a context of {len(parts[0])} tokens: "
            f"{library.reason() or 'no reason'}",
            hint="try a smaller --ctx-size",
        )
    batch = llama.llama_batch_init(_BATCH, 0, 1)
    total = sum(map(len, parts))
    done = 0
    try:
        progress(ProgressEvent("imatrix", 0, total, "tokens"))
        for part in parts:
            if collector.stopped:
                return
            llama.llama_memory_clear(llama.llama_get_memory(context), True)
            for start in range(0, len(part), _BATCH):
                piece = part[start : start + _BATCH]
                # With all logits: the last layer leaves out what nobody wants.
                decode(llama, context, batch, piece, start=start)
                done += len(piece)
                progress(ProgressEvent("imatrix", done, total, "tokens"))
    finally:
        llama.llama_batch_free(batch)
        llama.llama_free(context)


def _context_params(llama: ModuleType, chunk_size: int, threads: int | None) -> Any:
    params = llama.llama_context_default_params()
    params.n_ctx = chunk_size
    params.n_batch = params.n_ubatch = _BATCH
    params.n_seq_max = 1
    # A large batch would go to a GPU although no layer lies there.
    params.offload_kqv = params.op_offload = False
    if threads is not None:
        params.n_threads = params.n_threads_batch = threads
    return params
