"""How long a plan will take on this machine, from a measurement of two seconds.

Random rows are encoded as the plan's tensors will be, a little of every kind of step,
on as many threads as the conversion will have. The network and the disk are left
out: whichever is slower than the processor decides then.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from hashlib import sha256
from time import perf_counter

import numpy as np

from wizard_edge.gguf_types import GgmlType, row_size
from wizard_edge_converters.checkpoint import StoredTensor
from wizard_edge_converters.plan import BLOCK_ELEMENTS, Block, Plan, Step
from wizard_edge_converters.quantize import Weights, encode_block, encode_rows

BUDGET_S = 2.0
# Less than a block: a small machine takes 0.3 s for one of the slowest types.
_ELEMENTS = BLOCK_ELEMENTS // 2

Clock = Callable[[], float]
Kind = tuple[GgmlType, tuple[GgmlType, ...], bool]
"""How a step is stored, what it becomes, and whether heads are reordered."""


def expected_seconds(
    plan: Plan,
    *,
    threads: int,
    importance: Weights | None = None,
    budget_s: float = BUDGET_S,
    clock: Clock = perf_counter,
) -> float:
    """Return how many seconds the work of a plan takes here, roughly."""
    work: Counter[Kind] = Counter()
    samples: dict[Kind, Step] = {}
    for step in plan.steps:
        types = tuple(place.type for place in step.places)
        kind = step.source.type, types, step.head_rows is not None
        work[kind] += step.rows * step.columns
        if step.columns >= samples.get(kind, step).columns:
            samples[kind] = step
    if not work:
        return 0.0
    total = sum(work.values())
    seconds = 0.0
    for kind, elements in work.items():
        share_s = budget_s * max(elements / total, 1 / (4 * len(work)))
        rate = _rate(samples[kind], elements, threads, importance, share_s, clock)
        seconds += elements / rate
    # The check at the end reads everything and hashes it, on one thread.
    return seconds + plan.output_bytes / _hash_rate(clock)


def _rate(
    step: Step,
    elements: int,
    threads: int,
    importance: Weights | None,
    budget_s: float,
    clock: Clock,
) -> float:
    """Return elements a second of a step, on all threads together.

    Of a small model no more than its `elements` are measured.
    """
    unit = step.head_rows or 1
    rows = min(max(_ELEMENTS // (step.columns * unit), 1) * unit, step.rows)
    most = max(elements // (rows * step.columns * threads), 1)
    step = replace(step, rows=rows, block_rows=rows)
    data = _random(step.source, rows, step.columns)
    began = clock()

    def work() -> int:
        count = 0
        while count < most and (count == 0 or clock() - began < budget_s):
            encode_block(data, step, Block(0, 0, rows), importance)
            count += 1
        return count

    with ThreadPoolExecutor(threads) as pool:
        futures = [pool.submit(work) for _ in range(threads)]
        done = sum(future.result() for future in futures)
    return done * rows * step.columns / max(clock() - began, 1e-9)


def _random(source: StoredTensor, rows: int, columns: int) -> bytes:
    """Return rows of small random numbers as they would be stored."""
    numbers = np.random.default_rng(0).standard_normal((rows, columns), np.float32)
    # Some types of a GGUF source cannot be made without importance.
    equal = np.ones(columns, np.float32)
    data = encode_rows(numbers * np.float32(0.02), source.type, equal).tobytes()
    assert len(data) == rows * row_size(source.type, columns)
    return data


def _hash_rate(clock: Clock) -> float:
    piece = bytes(4 << 20)
    began = clock()
    sha256(piece).hexdigest()
    return len(piece) / max(clock() - began, 1e-9)
