"""How fast this machine computes with ggml, measured on the operations themselves.

One step of a model is matrices times one vector, which llama.cpp does at another
pace for every tensor type and processor, and the comparison with every cell of the
KV cache. Both are run here on memory too large for a cache, laid out as llama.cpp
lays them out. Reading a prompt is matrices times matrices. Knows no model.

Source: llama.cpp 0c1e57098, ggml/include/ggml.h, ggml-backend.h and ggml-cpu.h.
"""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import cache
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from wizard_edge._llama import ggml, nodes
from wizard_edge.errors import BackendError
from wizard_edge.gguf_types import GgmlType, row_size

# Larger than the last cache of what this program runs on, small enough to fill soon.
_FOOTPRINT = 96 << 20
_COLUMNS, _ROWS = 4096, 4096
# Rows that are quantized, then repeated.
_PATTERN = 8
# The attention of the models we know: heads of 128, here 16 of them, and a KV cache
# for 4096 tokens that is filled to a quarter. A V that lies transposed is read with
# gaps, which costs more than its bytes.
_HEAD, _HEADS = 128, 16
_CACHE, _CELLS = 4096, 1024
# What reading a prompt is timed on: tokens of a step, and rows enough for all threads.
_TOKENS, _PRODUCT_ROWS = 512, 1024
_ARENA = 1 << 20
_LONGEST_GRAPH = 512

_Address: TypeAlias = int
_POINTER = ctypes.c_void_p
_SIZE = ctypes.c_size_t
_FUNCTIONS: ggml.Functions = {
    "ggml_init": (_POINTER, [nodes.InitParameters]),
    "ggml_free": (None, [_POINTER]),
    "ggml_new_tensor_2d": (_POINTER, [_POINTER, ctypes.c_int, *[ctypes.c_int64] * 2]),
    "ggml_view_3d": (
        _POINTER,
        [_POINTER, _POINTER, *[ctypes.c_int64] * 3, *[_SIZE] * 3],
    ),
    "ggml_mul_mat": (_POINTER, [_POINTER] * 3),
    "ggml_soft_max": (_POINTER, [_POINTER] * 2),
    "ggml_flash_attn_ext": (_POINTER, [*[_POINTER] * 5, *[ctypes.c_float] * 3]),
    "ggml_new_graph": (_POINTER, [_POINTER]),
    "ggml_build_forward_expand": (None, [_POINTER] * 2),
    "ggml_backend_cpu_init": (_POINTER, []),
    "ggml_backend_cpu_set_n_threads": (None, [_POINTER, ctypes.c_int]),
    "ggml_backend_cpu_buffer_type": (_POINTER, []),
    "ggml_backend_cpu_reg": (_POINTER, []),
    "ggml_backend_reg_get_proc_address": (_POINTER, [_POINTER, ctypes.c_char_p]),
    "ggml_backend_reg_dev_get": (_POINTER, [_POINTER, _SIZE]),
    "ggml_backend_dev_supports_op": (ctypes.c_bool, [_POINTER] * 2),
    "ggml_backend_buft_alloc_buffer": (_POINTER, [_POINTER, _SIZE]),
    "ggml_backend_alloc_ctx_tensors_from_buft": (_POINTER, [_POINTER] * 2),
    "ggml_backend_buffer_clear": (None, [_POINTER, ctypes.c_uint8]),
    "ggml_backend_buffer_free": (None, [_POINTER]),
    "ggml_backend_tensor_set": (None, [_POINTER, _POINTER, _SIZE, _SIZE]),
    "ggml_backend_graph_compute": (ctypes.c_int, [_POINTER] * 2),
    "ggml_backend_free": (None, [_POINTER]),
}
_EXTRA_BUFFERS = b"ggml_backend_dev_get_extra_bufts"


def measure_weights(
    kinds: Collection[GgmlType], *, threads: int, seconds: float
) -> dict[GgmlType, float]:
    """Return how many bytes/s of a matrix of each type are multiplied by a vector.

    All of it takes `seconds`, and as long again to fill the memory.
    Raises: BackendError.
    """
    share = seconds / max(1, len(kinds))
    with _Bench(threads) as bench:
        return {kind: bench.weights(kind, share) for kind in kinds}


def measure_attention(
    sharing: Collection[int], kind: GgmlType, *, threads: int, seconds: float
) -> dict[int, float]:
    """Return the bytes/s of K and V that attention reads, counted once for a head.

    Each number of `sharing` is how many heads, at most 16, share a K and V.
    Raises: BackendError.
    """
    share = seconds / max(1, len(sharing))
    with _Bench(threads) as bench:
        return {heads: bench.attention(heads, kind, share) for heads in sharing}


def measure_products(
    kinds: Collection[GgmlType], *, threads: int, seconds: float
) -> dict[GgmlType, float]:
    """Return the FLOP/s of a matrix of each type times 512 tokens.

    A multiplication and an addition count as two. Takes two products of a type at
    least, which may be longer than `seconds`.
    Raises: BackendError.
    """
    share = seconds / max(1, len(kinds))
    with _Bench(threads) as bench:
        return {kind: bench.products(kind, share) for kind in kinds}


@cache
def find_repacked() -> frozenset[GgmlType]:
    """Return the types whose matrices llama.cpp keeps a second time, rearranged.

    Raises: BackendError.
    """
    with _Bench(1) as bench:
        return frozenset(kind for kind in GgmlType if bench.repacking(kind))


class _Bench:
    """Owns a backend and whatever is made on it, until the block ends."""

    def __init__(self, threads: int) -> None:
        nodes.check_layout()
        self._library = ggml.open_library(_FUNCTIONS)
        self._threads = threads
        self._owned = ExitStack()

    def __enter__(self) -> _Bench:
        library = self._library
        self._backend = library.ggml_backend_cpu_init()
        self._owned.callback(library.ggml_backend_free, self._backend)
        library.ggml_backend_cpu_set_n_threads(self._backend, self._threads)
        self._plain: _Address = library.ggml_backend_cpu_buffer_type()
        return self

    def __exit__(self, *error: object) -> None:
        self._owned.close()

    def weights(self, kind: GgmlType, seconds: float) -> float:
        """Time enough matrices to fill the footprint, each times the same vector."""
        size = row_size(kind, _COLUMNS) * _ROWS
        count = -(-_FOOTPRINT // size)
        library, data = self._library, _matrix(kind, _ROWS)
        with self._context() as held, self._context() as work:
            matrices = [self._tensor(held, kind, _COLUMNS, _ROWS) for _ in range(count)]
            with self._placed(held, self.repacking(kind) or self._plain):
                for matrix in matrices:
                    library.ggml_backend_tensor_set(
                        matrix, data.ctypes.data, 0, data.nbytes
                    )
                vector = self._tensor(work, GgmlType.F32, _COLUMNS, 1)
                results = [library.ggml_mul_mat(work, m, vector) for m in matrices]
                return count * size / self._time(work, results, seconds)

    def products(self, kind: GgmlType, seconds: float) -> float:
        """Time one matrix, times the vectors of a step that reads a prompt."""
        library, data = self._library, _matrix(kind, _PRODUCT_ROWS)
        with self._context() as held, self._context() as work:
            matrix = self._tensor(held, kind, _COLUMNS, _PRODUCT_ROWS)
            with self._placed(held, self.repacking(kind) or self._plain):
                library.ggml_backend_tensor_set(
                    matrix, data.ctypes.data, 0, data.nbytes
                )
                tokens = self._tensor(work, GgmlType.F32, _COLUMNS, _TOKENS)
                product = library.ggml_mul_mat(work, matrix, tokens)
                spent = self._time(work, [product], seconds)
        return 2 * _COLUMNS * _PRODUCT_ROWS * _TOKENS / spent

    def attention(self, sharing: int, kind: GgmlType, seconds: float) -> float:
        """Time the attention of enough layers to fill half the footprint."""
        heads = max(1, _HEADS // sharing)
        width = heads * _HEAD
        layer = 2 * row_size(kind, width) * _CELLS
        count = min(-(-_FOOTPRINT // (2 * layer)), _LONGEST_GRAPH)
        with self._context() as held, self._context() as work:
            pairs = [
                (
                    self._tensor(held, kind, width, _CELLS),
                    self._tensor(held, kind, _CACHE, width)
                    if kind is GgmlType.F16
                    else self._tensor(held, kind, width, _CELLS),
                )
                for _ in range(count)
            ]
            with self._placed(held, self._plain) as buffer:
                # Memory that nobody wrote is one page of zeros, always in the cache.
                self._library.ggml_backend_buffer_clear(buffer, 0)
                attend = self._plain_step if kind is GgmlType.F16 else self._flash_step
                results = attend(work, pairs, heads, kind)
                spent = self._time(work, results, seconds)
        read = 2 * row_size(kind, _HEAD) * _CELLS * _HEADS
        return count * read / spent

    def repacking(self, kind: GgmlType) -> _Address | None:
        """Return the buffer type that keeps matrices of this type rearranged."""
        library = self._library
        if kind.type_size == 0 or _COLUMNS % kind.block_size:
            return None
        registry = library.ggml_backend_cpu_reg()
        device = library.ggml_backend_reg_dev_get(registry, 0)
        for buffer_type in self._extra_buffer_types(registry, device):
            with self._context() as work:
                matrix = self._tensor(work, kind, _COLUMNS, _ROWS)
                vector = self._tensor(work, GgmlType.F32, _COLUMNS, 1)
                product = library.ggml_mul_mat(work, matrix, vector)
                empty = library.ggml_backend_buft_alloc_buffer(buffer_type, 0)
                nodes.place(matrix, empty)
                supported = library.ggml_backend_dev_supports_op(device, product)
                library.ggml_backend_buffer_free(empty)
                if supported:
                    return buffer_type
        return None

    def _extra_buffer_types(
        self, registry: _Address, device: _Address
    ) -> Iterator[_Address]:
        address = self._library.ggml_backend_reg_get_proc_address(
            registry, _EXTRA_BUFFERS
        )
        if not address:
            return
        find = ctypes.CFUNCTYPE(ctypes.POINTER(_POINTER), _POINTER)(address)
        found = find(device)
        index = 0
        while found and found[index]:
            yield found[index]
            index += 1

    def _plain_step(
        self,
        work: _Address,
        pairs: Sequence[tuple[_Address, _Address]],
        heads: int,
        kind: GgmlType,
    ) -> list[_Address]:
        """Build attention as llama.cpp does without flash: V lies transposed."""
        library = self._library
        query = self._query(work)
        results = []
        for keys, values in pairs:
            compared = library.ggml_mul_mat(
                work, self._rows(work, keys, heads, kind), query
            )
            weighed = library.ggml_soft_max(work, compared)
            column = _CACHE * kind.type_size
            mixed = library.ggml_view_3d(
                *(work, values, _CELLS, _HEAD, heads, column, column * _HEAD, 0)
            )
            results.append(library.ggml_mul_mat(work, mixed, weighed))
        return results

    def _flash_step(
        self,
        work: _Address,
        pairs: Sequence[tuple[_Address, _Address]],
        heads: int,
        kind: GgmlType,
    ) -> list[_Address]:
        library = self._library
        query = self._query(work)
        mask = self._tensor(work, GgmlType.F16, _CELLS, 1)
        return [
            library.ggml_flash_attn_ext(
                work,
                query,
                self._rows(work, keys, heads, kind),
                self._rows(work, values, heads, kind),
                mask,
                *(_HEAD**-0.5, 0.0, 0.0),
            )
            for keys, values in pairs
        ]

    def _query(self, work: _Address) -> _Address:
        """Make the queries of one token: (head size, 1, heads)."""
        flat = self._tensor(work, GgmlType.F32, _HEAD, _HEADS)
        row = 4 * _HEAD
        view: _Address = self._library.ggml_view_3d(
            work, flat, _HEAD, 1, _HEADS, row, row, 0
        )
        return view

    def _rows(
        self, work: _Address, cells: _Address, heads: int, kind: GgmlType
    ) -> _Address:
        """View a K or V of (width, cells) as (head size, cells, heads)."""
        head = row_size(kind, _HEAD)
        view: _Address = self._library.ggml_view_3d(
            work, cells, _HEAD, _CELLS, heads, head * heads, head, 0
        )
        return view

    def _time(
        self, work: _Address, results: Sequence[_Address], seconds: float
    ) -> float:
        """Return the seconds that computing all results takes."""
        library = self._library
        graph = library.ggml_new_graph(work)
        for result in results:
            library.ggml_build_forward_expand(graph, result)
        with self._placed(work, self._plain) as buffer:
            library.ggml_backend_buffer_clear(buffer, 0)
            return _usual(
                lambda: library.ggml_backend_graph_compute(self._backend, graph),
                seconds,
            )

    def _tensor(
        self, context: _Address, kind: GgmlType, columns: int, rows: int
    ) -> _Address:
        tensor: _Address = self._library.ggml_new_tensor_2d(
            context, kind, columns, rows
        )
        return tensor

    @contextmanager
    def _context(self) -> Iterator[_Address]:
        context = self._library.ggml_init(nodes.InitParameters(_ARENA, None, True))
        if not context:
            raise BackendError("ggml gives no memory for a measurement")
        try:
            yield context
        finally:
            self._library.ggml_free(context)

    @contextmanager
    def _placed(self, context: _Address, buffer_type: _Address) -> Iterator[_Address]:
        """Give all tensors of a context their memory."""
        buffer = self._library.ggml_backend_alloc_ctx_tensors_from_buft(
            context, buffer_type
        )
        if not buffer:
            raise BackendError("there is no memory for a measurement")
        try:
            yield buffer
        finally:
            self._library.ggml_backend_buffer_free(buffer)


def _usual(run: Callable[[], int], seconds: float) -> float:
    """Return the time that a quarter of the runs within `seconds` keep under.

    What else the machine does makes single runs many times as long, none shorter.
    """
    spent: list[float] = []
    end = None
    while end is None or not spent or time.perf_counter() < end:
        begun = time.perf_counter()
        if run() != 0:
            raise BackendError("ggml cannot compute a measurement")
        now = time.perf_counter()
        if end is None:
            # The first run warms up and does not count.
            end = now + seconds
        else:
            spent.append(now - begun)
    return sorted(spent)[len(spent) // 4]


def _matrix(kind: GgmlType, count: int) -> NDArray[np.uint8]:
    """Return the bytes of a whole matrix: a few random rows, repeated."""
    random = np.random.default_rng(0)
    rows = random.standard_normal((_PATTERN, _COLUMNS), dtype=np.float32)
    plain: Mapping[GgmlType, str] = {GgmlType.F32: "<f4", GgmlType.F16: "<f2"}
    if kind in plain:
        pattern = np.ascontiguousarray(rows.astype(plain[kind])).view(np.uint8)
    elif kind is GgmlType.BF16:
        pattern = (rows.view(np.uint32) >> 16).astype("<u2").view(np.uint8)
    else:
        importance = np.ones(_COLUMNS, dtype=np.float32)
        pattern = ggml.quantize_rows(rows, kind, importance)
    return np.tile(pattern, (count // _PATTERN, 1))
