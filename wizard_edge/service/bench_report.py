"""What `bench` tells, and how it follows from what was measured: pure.

The fields are the keys of `--json`, with their units in the names.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from wizard_edge.engine import KvType
from wizard_edge.gguf_types import GgmlType
from wizard_edge.hardware import Cores
from wizard_edge.memory import CELLS, Dimensions, kv_cache
from wizard_edge.service.bench_plan import ANSWER, Samples
from wizard_edge.service.bench_values import Figure, LeftOut
from wizard_edge.speed import (
    Kernels,
    least_seconds,
    seconds_per_prompt_token,
    seconds_per_token,
)

# Less of the cores than this, and somebody else had the rest.
ALL_CORES = 0.85
# Slower than this at the end, and it was not the same machine any more.
SAME_SPEED = 0.85


@dataclass(frozen=True, slots=True)
class MachineFound:
    """The machine, and what may have made the figures smaller than they could be.

    `load_cores` is the cores' worth of work in the minute before. `cores_share` is
    how much of the threads' time they had while prompts were read. `speed_after` is
    the matrix speed at the end over that at the beginning.
    """

    devices: tuple[str, ...]
    cores: Cores
    memory_bytes: int
    load_cores: float | None
    cores_share: float | None
    speed_after: float | None


@dataclass(frozen=True, slots=True)
class SettingsUsed:
    """Under which settings it was measured; `step_tokens` are evaluated together."""

    threads: int
    prompt_threads: int
    context_tokens: int
    batch_tokens: int
    step_tokens: int
    flash_attention: bool
    kv_type: KvType
    gpu_layers: str | int
    mmap: bool
    mlock: bool
    repack: bool
    deterministic: bool
    llama_cpp: str
    tool: str
    rounds: int
    max_time_s: float
    cold: bool


@dataclass(frozen=True, slots=True)
class Limits:
    """What the machine does with nothing else to do, and what a token asks of it.

    By type of a matrix. `read_bytes_per_token` are weights alone.
    """

    memory_bytes_per_s: float
    weights_bytes_per_s: Mapping[str, float]
    matrix_flop_per_s: Mapping[str, float]
    read_bytes_per_token: int
    flop_per_prompt_token: int


@dataclass(frozen=True, slots=True)
class Loading:
    """From the start of the process: until the model is loaded, and the first token.

    `engine_s` is the loading alone. `cached_share` of the file was in the page cache.
    """

    ready_s: Figure | None
    engine_s: Figure | None
    first_token_s: Figure | None
    cached_share: float | None


@dataclass(frozen=True, slots=True)
class PromptSpeed:
    """Reading a prompt; `matrix_share` of the matrices' own speed."""

    tokens: int
    tokens_per_s: Figure
    limit_tokens_per_s: float | None
    matrix_share: float | None


@dataclass(frozen=True, slots=True)
class GenerationSpeed:
    """Generating behind `depth_tokens`; `memory_share` of the memory's bandwidth.

    `predicted_tokens_per_s` is what `fit` would say for the same depth.
    """

    depth_tokens: int
    tokens_per_s: Figure
    limit_tokens_per_s: float | None
    memory_share: float | None
    predicted_tokens_per_s: float | None


@dataclass(frozen=True, slots=True)
class FirstToken:
    """The wait for the first token behind `history_tokens` and `question_tokens`.

    With everything to read; with the history in the cache; with the history in a
    file, of which `restore_s` bring it back.
    """

    history_tokens: int
    question_tokens: int
    cold_s: Figure | None
    warm_s: Figure | None
    resumed_s: Figure | None
    restore_s: Figure | None


@dataclass(frozen=True, slots=True)
class TogetherSpeed:
    """Tokens/s of so many conversations, all together."""

    conversations: int
    tokens_per_s: Figure


@dataclass(frozen=True, slots=True)
class MemoryUsed:
    """The most a process had resident, and what `fit` would have said.

    `saved_bytes_per_token` is what a token takes in a file.
    """

    peak_bytes: int | None
    predicted_bytes: int | None
    kv_bytes_per_token: int | None
    saved_bytes_per_token: int | None


@dataclass(frozen=True, slots=True)
class Report:
    """What `bench` tells."""

    model: str
    quant: str | None
    sha256: str | None
    file_bytes: int
    measured: str
    machine: MachineFound
    settings: SettingsUsed
    limits: Limits | None
    loading: Loading
    prompts: tuple[PromptSpeed, ...]
    generation: tuple[GenerationSpeed, ...]
    first_token: FirstToken
    together: tuple[TogetherSpeed, ...]
    memory: MemoryUsed
    left_out: tuple[LeftOut, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Weights:
    """What the tensors of a model say: bytes that a token reads, by their type.

    `multiplied` counts the weights that a token of a prompt is multiplied by.
    """

    size: int
    quant: str | None
    dimensions: Dimensions | None
    read: Mapping[GgmlType, int]
    multiplied: Mapping[GgmlType, int]


@dataclass(frozen=True, slots=True)
class Speeds:
    """What was measured of the machine: bytes/s, and FLOP/s by type of a matrix."""

    bandwidth: float
    kernels: Kernels
    products: Mapping[GgmlType, float]


def limits(speeds: Speeds, weights: Weights) -> Limits:
    """Put together what bounds a model on a machine."""
    return Limits(
        memory_bytes_per_s=speeds.bandwidth,
        weights_bytes_per_s=_by_name(speeds.kernels.weights),
        matrix_flop_per_s=_by_name(speeds.products),
        read_bytes_per_token=sum(weights.read.values()),
        flop_per_prompt_token=2 * sum(weights.multiplied.values()),
    )


def loading(samples: Samples, cached: float | None) -> Loading:
    """Sum up the loads."""
    return Loading(
        ready_s=Figure.of(samples.ready_s),
        engine_s=Figure.of(samples.load_s),
        first_token_s=Figure.of(samples.first_token_s),
        cached_share=cached,
    )


def prompt_speeds(
    samples: Samples, speeds: Speeds | None, weights: Weights
) -> Iterator[PromptSpeed]:
    """Sum up the reading of prompts, beside the speed of the matrices."""
    limit = None
    if speeds is not None:
        limit = 1 / seconds_per_prompt_token(speeds.products, weights.multiplied)
    for tokens, rates in sorted(samples.prompts.items()):
        figure = Figure.of(rates)
        assert figure is not None
        share = figure.median / limit if limit else None
        yield PromptSpeed(tokens, figure, limit, share)


def generation_speeds(
    samples: Samples, speeds: Speeds | None, weights: Weights
) -> Iterator[GenerationSpeed]:
    """Sum up the answers, beside the bandwidth of the memory and the prediction.

    Both for the middle of an answer, which lies behind half of it.
    """
    dimensions = weights.dimensions
    for depth, rates in sorted(samples.depths.items()):
        figure = Figure.of(rates)
        assert figure is not None
        limit = predicted = None
        if speeds is not None and dimensions is not None:
            behind = depth + ANSWER // 2
            limit = 1 / least_seconds(
                speeds.bandwidth,
                dimensions,
                weights.read,
                depth=behind,
                kv_type=speeds.kernels.kv_type,
            )
            predicted = 1 / seconds_per_token(
                speeds.kernels, dimensions, weights.read, depth=behind
            )
        share = figure.median / limit if limit else None
        yield GenerationSpeed(depth, figure, limit, share, predicted)


def first_token(samples: Samples) -> FirstToken:
    """Sum up the three ways to a first token."""
    history, question = samples.history, samples.question
    return FirstToken(
        history_tokens=history,
        question_tokens=question,
        cold_s=Figure.of(samples.cold_s.get(history + question, [])),
        warm_s=Figure.of(samples.warm_s),
        resumed_s=Figure.of(samples.resumed_s),
        restore_s=Figure.of(samples.restore_s),
    )


def together_speeds(samples: Samples) -> Iterator[TogetherSpeed]:
    """Sum up the conversations at once; a single one is generation at depth 0."""
    rates = {1: samples.depths.get(0, []), **samples.together}
    for count, values in sorted(rates.items()):
        figure = Figure.of(values)
        if figure is not None:
            yield TogetherSpeed(count, figure)


def kv_bytes_per_token(weights: Weights, kv_type: KvType) -> int | None:
    """Return what a token takes of the KV cache; None where sizes are not known."""
    if weights.dimensions is None:
        return None
    return kv_cache(weights.dimensions, context=CELLS, kv_type=kv_type) // CELLS


def notes(machine: MachineFound, *, on_gpu: bool) -> Iterator[str]:
    """Say what makes the figures not those of the machine."""
    load = machine.load_cores or 0.0
    if load >= machine.cores.physical / 2:
        yield (
            f"other programs used {load:.1f} of {machine.cores.physical} cores in the "
            "minute before: without them it is faster"
        )
    if machine.cores_share is not None and machine.cores_share < ALL_CORES:
        yield (
            f"the threads had their cores for {machine.cores_share:.0%} of the time: "
            "something else used them"
        )
    if machine.speed_after is not None and machine.speed_after < SAME_SPEED:
        yield (
            f"at the end the machine did {machine.speed_after:.0%} of what it did at "
            "the beginning: it is hot, or busy"
        )
    if on_gpu:
        yield "a GPU may do the work: there are no limits of the processor to compare"


def _by_name(rates: Mapping[GgmlType, float]) -> dict[str, float]:
    return {kind.name: rate for kind, rate in rates.items()}
