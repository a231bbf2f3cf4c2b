"""How fast a model is on this machine, beside what the machine could do at best."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

from wizard_edge.config import Settings
from wizard_edge.engine import LoadOptions
from wizard_edge.errors import UsageError
from wizard_edge.gguf import Header
from wizard_edge.gguf_parts import read_parts
from wizard_edge.gguf_types import WEIGHT_TYPES, GgmlType
from wizard_edge.hardware import find_cores, find_load, find_memory, measure_bandwidth
from wizard_edge.memory import KV_TYPES, Dimensions, copied_size, memory_need
from wizard_edge.page_cache import cached_share, drop_cached
from wizard_edge.progress import Progress, silent
from wizard_edge.service import bench_report
from wizard_edge.service.bench_plan import Budget, OutOfTime, Plan, Samples, run_plan
from wizard_edge.service.bench_process import BenchProcess, Request
from wizard_edge.service.bench_report import (
    MachineFound,
    MemoryUsed,
    Report,
    SettingsUsed,
    Speeds,
    Weights,
)
from wizard_edge.service.bench_values import Opened, Subject
from wizard_edge.service.chat import check_memory, load_options_from
from wizard_edge.service.consent import refuse_target
from wizard_edge.service.installation import TOOL, Installation
from wizard_edge.service.targets import find_target, note_use
from wizard_edge.speed import (
    SHARING,
    Kernels,
    multiplied_by_tensors,
    read_by_tensors,
)

__all__ = ["Plan", "Report", "bench"]

# A second and a half in all; slow machines take longer for the products.
_MEMORY_S, _WEIGHTS_S, _ATTENTION_S, _PRODUCTS_S = 0.2, 0.5, 0.25, 0.5
_AGAIN_S = 0.2
# A type of less than this share of what is read changes no figure.
_WORTH_MEASURING = 0.01
# The context of each of several conversations, which stay short.
_SHORT_CONTEXT = 512
# What may be asked for.
_MOST_TOKENS = 2**20
_MOST_CONVERSATIONS = 64
_MOST_ROUNDS = 100
_LEAST_S, _MOST_S = 1.0, 86_400.0


def bench(
    installation: Installation,
    ref: str,
    *,
    settings: Settings | None = None,
    plan: Plan | None = None,
    cold: bool = False,
    progress: Progress = silent,
) -> Report:
    """Measure an installed model, or a GGUF file, in processes of its own.

    `settings` are laid over those of the installation. With `cold` the file is taken
    out of the page cache before every load, where the system does that.
    Raises: UnknownModel, NotFound, UnknownQuant, MissingFile, Corrupt, BackendError,
    NotEnough; Refused for a model not free for commercial use where that is wanted;
    UsageError for a value out of range, or where loading takes all the time.
    """
    plan = plan or Plan()
    _check(plan)
    chosen = (settings or Settings()).over(installation.settings)
    target = find_target(installation, ref)
    said = settings.commercial if settings else None
    refuse_target(installation, target, commercial=said)
    headers = read_parts(target.path)
    weights = _weights(headers)
    # Random tokens are no text: what guesses hit says nothing of one.
    options = replace(load_options_from(chosen), lookup=False, draft=None)
    check_memory(weights.size, options, find_memory())
    load = find_load()
    budget = Budget(plan.max_s)
    speeds = _measure(weights, options)
    sha256 = target.installed.receipt.sha256 if target.installed else None
    with tempfile.TemporaryDirectory(prefix="wizard-edge-") as folder:
        request = Request(target.path, sha256, options, Path(folder), cold)
        opener = _Opener(request, [header.path for header in headers], budget, progress)
        try:
            samples = run_plan(plan, opener.open, budget, progress=progress)
        except OutOfTime as err:
            raise UsageError(
                f"{target.name} was not loaded within {plan.max_s:g} s",
                hint="give a longer --max-time",
            ) from err
    note_use(installation, target)
    on_gpu = _on_gpu(samples.opened, options)
    machine = MachineFound(
        devices=samples.opened.devices,
        cores=find_cores(),
        memory_bytes=find_memory().total,
        load_cores=load,
        cores_share=median(samples.cores) if samples.cores and not on_gpu else None,
        speed_after=_speed_after(weights, speeds, options),
    )
    compared = None if on_gpu else speeds
    return Report(
        model=target.name,
        quant=target.installed.receipt.quant if target.installed else weights.quant,
        sha256=sha256,
        file_bytes=weights.size,
        measured=installation.now(),
        machine=machine,
        settings=_settings(samples.opened, options, plan, cold=cold),
        limits=bench_report.limits(speeds, weights) if compared else None,
        loading=bench_report.loading(samples, opener.cached),
        prompts=tuple(bench_report.prompt_speeds(samples, compared, weights)),
        generation=tuple(bench_report.generation_speeds(samples, compared, weights)),
        first_token=bench_report.first_token(samples),
        together=tuple(bench_report.together_speeds(samples)),
        memory=_memory(samples, weights, headers, options),
        left_out=tuple(samples.left_out),
        notes=tuple(bench_report.notes(machine, on_gpu=on_gpu)),
    )


@dataclass(slots=True)
class _Opener:
    """Opens a model in processes, one after another.

    `cached` is which share of its files was in the page cache before the first.
    """

    request: Request
    paths: Sequence[Path]
    budget: Budget
    progress: Progress
    cached: float | None = None
    opened: bool = False

    @contextmanager
    def open(self, conversations: int) -> Iterator[Subject]:
        """Start a process for so many conversations, and end it."""
        options = replace(self.request.options, parallel=conversations)
        if conversations > 1:
            context = min(options.context or _SHORT_CONTEXT, _SHORT_CONTEXT)
            options = replace(options, context=context)
        if self.request.cold:
            for path in self.paths:
                drop_cached(path)
        # The first load is the one that somebody waits for.
        progress = silent if self.opened else self.progress
        if not self.opened:
            self.opened = True
            self.cached = _cached(self.paths)
        request = replace(self.request, options=options)
        with BenchProcess(request, self.budget, progress=progress) as process:
            yield process


def _check(plan: Plan) -> None:
    """Refuse values out of range. Raises: UsageError."""
    for name, values, low, high in (
        ("prompt", plan.prompts, 2, _MOST_TOKENS),
        ("depth", plan.depths, 0, _MOST_TOKENS),
        ("parallel", plan.conversations, 2, _MOST_CONVERSATIONS),
        ("rounds", (plan.rounds,), 1, _MOST_ROUNDS),
        ("max-time", (plan.max_s,), _LEAST_S, _MOST_S),
    ):
        for value in values:
            if not low <= value <= high:
                raise UsageError(f"{name} must be from {low} to {high}, got {value}")
    if not plan.prompts or not plan.depths:
        raise UsageError("there is no prompt or no depth to measure")


def _weights(headers: Sequence[Header]) -> Weights:
    read: Counter[GgmlType] = Counter()
    multiplied: Counter[GgmlType] = Counter()
    for header in headers:
        read.update(read_by_tensors(header))
        multiplied.update(multiplied_by_tensors(header))
    return Weights(
        size=sum(header.file_size for header in headers),
        quant=headers[0].quant,
        dimensions=Dimensions.read(headers[0]),
        read=dict(read),
        multiplied=dict(multiplied),
    )


def _measure(weights: Weights, options: LoadOptions) -> Speeds:
    """Measure this machine for what the model does on it. Raises: BackendError."""
    from wizard_edge._llama import kernels

    threads = options.threads or find_cores().threads
    kinds = _kinds(weights)
    return Speeds(
        bandwidth=measure_bandwidth(_MEMORY_S, threads=threads),
        kernels=Kernels(
            kernels.measure_weights(kinds, threads=threads, seconds=_WEIGHTS_S),
            kernels.measure_attention(
                SHARING,
                KV_TYPES[options.kv_type],
                threads=threads,
                seconds=_ATTENTION_S,
            ),
            options.kv_type,
        ),
        products=kernels.measure_products(
            kinds, threads=options.prompt_threads or threads, seconds=_PRODUCTS_S
        ),
    )


def _speed_after(
    weights: Weights, speeds: Speeds, options: LoadOptions
) -> float | None:
    """Measure the main type's matrices again: a hot machine has become slower."""
    from wizard_edge._llama import kernels

    threads = options.prompt_threads or options.threads or find_cores().threads
    kind = max(_kinds(weights), key=lambda kind: weights.read[kind])
    again = kernels.measure_products([kind], threads=threads, seconds=_AGAIN_S)
    return again[kind] / speeds.products[kind]


def _kinds(weights: Weights) -> list[GgmlType]:
    """Return the types whose speed matters."""
    least = sum(weights.read.values()) * _WORTH_MEASURING
    kinds = {kind for kind, size in weights.read.items() if size >= least}
    return sorted(kinds & WEIGHT_TYPES)


def _on_gpu(opened: Opened, options: LoadOptions) -> bool:
    """Tell whether layers may have gone to something that is no processor."""
    others = [name for name in opened.devices if not name.startswith(("CPU", "BLAS"))]
    return bool(others) and options.gpu_layers != 0


def _cached(paths: Sequence[Path]) -> float | None:
    shares = [(cached_share(path), path.stat().st_size) for path in paths]
    total = sum(size for _, size in shares)
    if not total or any(share is None for share, _ in shares):
        return None
    return sum((share or 0.0) * size for share, size in shares) / total


def _settings(
    opened: Opened, options: LoadOptions, plan: Plan, *, cold: bool
) -> SettingsUsed:
    return SettingsUsed(
        threads=opened.threads,
        prompt_threads=opened.prompt_threads,
        context_tokens=opened.context,
        batch_tokens=opened.batch,
        step_tokens=opened.step,
        flash_attention=opened.flash_attention,
        kv_type=opened.kv_type,
        gpu_layers=options.gpu_layers,
        mmap=options.mmap,
        mlock=options.mlock,
        repack=options.repack,
        deterministic=options.deterministic,
        llama_cpp=opened.llama_cpp,
        tool=TOOL,
        rounds=plan.rounds,
        max_time_s=plan.max_s,
        cold=cold,
    )


def _memory(
    samples: Samples,
    weights: Weights,
    headers: Sequence[Header],
    options: LoadOptions,
) -> MemoryUsed:
    from wizard_edge._llama.kernels import find_repacked

    predicted = None
    if weights.dimensions is not None:
        need = memory_need(
            weights.dimensions,
            weights.size,
            context=samples.opened.context,
            kv_type=samples.opened.kv_type,
        )
        predicted = need.total
        if options.repack:
            predicted += copied_size(headers, find_repacked())
    saved = samples.saved_bytes // max(1, samples.history)
    return MemoryUsed(
        peak_bytes=samples.peak_bytes,
        predicted_bytes=predicted,
        kv_bytes_per_token=bench_report.kv_bytes_per_token(
            weights, samples.opened.kv_type
        ),
        saved_bytes_per_token=saved or None,
    )
