"""Settings chosen by measurement: what is measured, and what follows from it.

Pure: times come in, settings go out (docs/decisions/009). `_llama.measuring` takes the
times, `tuning_file` keeps what came of them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from wizard_edge.engine import LoadOptions
from wizard_edge.gguf import Header
from wizard_edge.hardware import Cores
from wizard_edge.memory import Dimensions, kv_cache
from wizard_edge.speed import read_by_tensors

# A short exchange and a long one. An empty context says nothing of either.
DEPTHS = (512, 1024)
# Rows of a batch whose cost is wanted by who drafts tokens.
ROWS = (2, 4, 8)
# Tokens of a prompt that are read at once to compare threads.
PROMPT_ROWS = 16
# What a measuring context holds beside the depth.
ROOM = 64
# The share of free memory that the measurement may take for a while.
_MEMORY_SHARE = 0.25
# Two samples of each, all of one slower than all of the other by this: decided.
_CLEAR = 1.1
MOST_SAMPLES = 4
# Settings as good as this are equal: then the one that costs others less is taken.
_EQUAL = 0.02
# Others who use so many cores make threads wait for each other.
_BUSY = 0.5
# Seconds of computing that a measurement may take in all.
BUDGET_S = 12.0


@dataclass(frozen=True, slots=True)
class Plan:
    """What to measure: depths in tokens, numbers of threads, rows of a batch.

    `flash` are the settings of flash attention to compare, `usual` the threads of
    whoever measures nothing. `quiet` says that others leave the machine to us; where
    they do not, `threads` are only as many as have a core now.
    """

    flash: tuple[bool, ...]
    depths: tuple[int, ...]
    usual: int
    threads: tuple[int, ...]
    quiet: bool = True
    rows: tuple[int, ...] = ROWS
    budget_s: float = BUDGET_S

    @property
    def cells(self) -> int:
        """The context that the measurement needs, in tokens."""
        return self.depths[-1] + ROOM


@dataclass(frozen=True, slots=True)
class Timings:
    """What was measured, in seconds; what the time did not suffice for is missing.

    `tokens` is a token by flash attention and depth, with the fastest threads;
    `threads` a token by threads, `prompts` a token of a prompt by threads, `rows` a
    batch by its rows, 1 among them. `quiet` is whether others left the machine to us.
    """

    tokens: Mapping[tuple[bool, int], float] = field(default_factory=dict)
    threads: Mapping[int, float] = field(default_factory=dict)
    prompts: Mapping[int, float] = field(default_factory=dict)
    rows: Mapping[int, float] = field(default_factory=dict)
    quiet: bool = True


@dataclass(frozen=True, slots=True)
class Tuned:
    """Settings for one model on one machine.

    `batch_cost` is the time of a batch by its rows, in units of a single token;
    `token_s` the seconds of a token by depth, with these settings. What was not
    measured on a `quiet` machine says nothing of threads and seconds.
    """

    flash_attention: bool
    threads: int
    prompt_threads: int
    batch_cost: Mapping[int, float]
    token_s: Mapping[int, float]
    quiet: bool = True

    def seconds_at(self, depth: int) -> float | None:
        """Return how long a token should take behind `depth` others."""
        known = sorted(self.token_s.items())
        if not known:
            return None
        (low, low_s), (high, high_s) = known[0], known[-1]
        slope = (high_s - low_s) / (high - low) if high > low else 0.0
        # Noise may turn the line over: a deeper token is not faster.
        return max(low_s / 2, low_s + max(0.0, slope) * (depth - low))


def plan_measurement(
    cores: Cores,
    options: LoadOptions,
    dimensions: Dimensions | None,
    *,
    free: int,
    busy: float | None = None,
) -> Plan | None:
    """Choose what to measure, None where there is no memory to measure in.

    `free` is the memory available, in bytes, `busy` how many cores others use. The
    threads of `options` do not count: what is measured serves also those who give none.
    """
    flash = _flash(options)
    depths: tuple[int, ...] = DEPTHS
    while depths:
        if _memory(options, dimensions, depths[-1]) <= _MEMORY_SHARE * free:
            quiet = is_quiet(busy)
            threads = _candidates(cores) if quiet else (_left(cores, busy or 0.0),)
            return Plan(flash, depths, cores.threads, threads, quiet)
        depths = depths[:-1]
    return None


def least_memory(options: LoadOptions, dimensions: Dimensions | None) -> int:
    """Return the bytes that must be free for anything to be measured."""
    return int(_memory(options, dimensions, DEPTHS[0]) / _MEMORY_SHARE)


def _flash(options: LoadOptions) -> tuple[bool, ...]:
    # A quantized cache exists with flash attention only.
    return (True,) if options.kv_type in ("q8_0", "q4_0") else (False, True)


def _memory(options: LoadOptions, dimensions: Dimensions | None, depth: int) -> int:
    """Return the bytes of the caches that are measured in."""
    if dimensions is None:
        return 0
    size = kv_cache(dimensions, context=depth + ROOM, kv_type=options.kv_type)
    return len(_flash(options)) * size


def _candidates(cores: Cores) -> tuple[int, ...]:
    """Return numbers of threads worth comparing, the usual one first."""
    usual = cores.threads
    most = cores.logical
    if cores.quota is not None:
        # Above the quota all threads are put to sleep for the rest of the period.
        most = min(most, max(1, int(cores.quota)))
    wanted = (usual, cores.physical, cores.logical, usual - 1, usual // 2)
    return tuple(dict.fromkeys(count for count in wanted if 1 <= count <= most))


def is_quiet(busy: float | None) -> bool:
    """Tell whether what others do, in cores, leaves the machine to be measured."""
    return busy is None or busy < _BUSY


def _left(cores: Cores, busy: float) -> int:
    """Return how many threads have a core to themselves beside others."""
    return max(1, min(cores.threads, int(cores.logical - busy + _BUSY)))


def is_clear(one: Sequence[float], other: Sequence[float]) -> bool:
    """Tell whether one of two settings is faster beyond doubt, by their samples."""
    if min(len(one), len(other)) >= MOST_SAMPLES:
        return True
    if min(len(one), len(other)) < 2:
        return False
    return min(one) > _CLEAR * max(other) or min(other) > _CLEAR * max(one)


def choose_flash(tokens: Mapping[tuple[bool, int], float]) -> bool:
    """Choose what is faster over all depths that were measured both ways.

    Equal ones are on: flash attention reads prompts faster and takes less memory.
    """
    both = [depth for flash, depth in tokens if flash and (False, depth) in tokens]
    if not both:
        return bool(tokens) and all(flash for flash, _ in tokens)
    on = sum(tokens[True, depth] for depth in both)
    off = sum(tokens[False, depth] for depth in both)
    return on <= off * (1 + _EQUAL / 2)


def choose_threads(times: Mapping[int, float], usual: int) -> int:
    """Choose the fastest number of threads, the fewest of those as good as it."""
    if not times:
        return usual
    best = min(times.values())
    return min(count for count, time in times.items() if time <= best * (1 + _EQUAL))


def choose(timings: Timings, plan: Plan) -> Tuned:
    """Turn times into settings; what was not measured is as it is without."""
    flash = choose_flash(timings.tokens)
    quiet = plan.quiet and timings.quiet
    single = timings.rows.get(1)
    costs = {
        rows: spent / single
        for rows, spent in timings.rows.items()
        if single is not None and rows > 1
    }
    return Tuned(
        flash_attention=flash,
        threads=choose_threads(timings.threads if quiet else {}, plan.usual),
        prompt_threads=choose_threads(timings.prompts if quiet else {}, plan.usual),
        batch_cost=costs,
        token_s={
            depth: spent
            for (on, depth), spent in timings.tokens.items()
            if quiet and on is flash
        },
        quiet=quiet,
    )


def apply(tuned: Tuned | None, options: LoadOptions, cores: Cores) -> LoadOptions:
    """Fill in what the options leave open; what somebody said stays.

    Deterministic answers depend on nothing that was measured.
    """
    if tuned is None or options.deterministic:
        return replace(options, threads=options.threads or cores.threads)
    prompt_threads = options.prompt_threads or options.threads or tuned.prompt_threads
    flash = options.flash_attention
    return replace(
        options,
        threads=options.threads or tuned.threads,
        prompt_threads=prompt_threads,
        flash_attention=tuned.flash_attention if flash is None else flash,
    )


def key_of(
    header: Header, options: LoadOptions, cores: Cores, processor: str, build: str
) -> str:
    """Name what a measurement holds for: a shape, a machine, a build of llama.cpp.

    Two models of one shape and the same types compute alike, whatever they are called.
    Raises: Corrupt where the header is none of a model.
    """
    facts = {
        "architecture": header.architecture,
        "shape": repr(Dimensions.read(header)),
        "types": {kind.name: size for kind, size in read_by_tensors(header).items()},
        "cores": repr(cores),
        "processor": processor,
        "build": build,
        "kv_type": options.kv_type,
        "repack": options.repack,
        "gpu_layers": options.gpu_layers,
    }
    text = json.dumps(facts, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]
