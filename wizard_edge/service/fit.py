"""What fits this machine and how fast it will be, measured and told in full."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from wizard_edge.engine import KvType, LoadOptions
from wizard_edge.errors import BackendError, Corrupt, MissingFile, UnknownQuant
from wizard_edge.fitting import Candidate, Fit, Machine, choose, fit_all
from wizard_edge.gguf import Header
from wizard_edge.gguf_parts import read_parts
from wizard_edge.gguf_types import WEIGHT_TYPES, GgmlType
from wizard_edge.hardware import Cores, Memory, find_cores, find_load, measure_bandwidth
from wizard_edge.memory import KV_TYPES, Dimensions, copied_size, main_type
from wizard_edge.models import ModelSpec
from wizard_edge.names import ModelName
from wizard_edge.progress import Progress, ProgressEvent, silent
from wizard_edge.refs import FileRef, HubRef, ModelRef, RegistryRef
from wizard_edge.service.choosing import (
    all_candidates,
    choose_quant,
    default_context,
    default_kv_type,
    default_options,
    find_machine,
)
from wizard_edge.service.installation import Installation
from wizard_edge.service.models import readable_variants, resolve
from wizard_edge.service.targets import find_target
from wizard_edge.speed import SHARING, Kernels, read_by_tensors

__all__ = [
    "MachineFacts",
    "ModelFit",
    "Report",
    "VariantFit",
    "choose_quant",
    "fit",
    "measure",
]

State = Literal["installed", "ready", "converted", "file"]

# One second in all: plain memory, matrices of every type, attention.
_MEMORY_S, _WEIGHTS_S, _ATTENTION_S = 0.15, 0.6, 0.25
_STAGE = "measure"
# A type of less than this share of what is read changes no prediction.
_WORTH_MEASURING = 0.01


@dataclass(frozen=True, slots=True)
class MachineFacts:
    """What was found and measured; sizes in bytes, rates in bytes/s.

    `room` is the RAM that a model may use. `weights` is what llama.cpp works through
    by type of a matrix, None where it is not installed. `threads` computed. `load` is
    the cores' worth of work there was in the minute before, None where nobody counts.
    """

    cores: Cores
    threads: int
    memory: Memory
    room: int
    free_disk: int
    backends: tuple[str, ...]
    bandwidth: float
    weights: Mapping[str, float] | None
    load: float | None

    @property
    def is_busy(self) -> bool:
        """Whether other programs made what was measured slower than it could be."""
        return (self.load or 0.0) >= self.cores.physical / 2


@dataclass(frozen=True, slots=True)
class VariantFit:
    """A quant of a model on this machine; as `Fit`, and where it would come from.

    `weights` of a `converted` one is an estimate.
    """

    quant: str
    weights: int
    kv_cache: int
    scratch: int
    program: int
    total: int
    copied: int | None
    fits: bool
    lacks: str | None
    tokens_per_s: float | None
    why: str
    state: State


@dataclass(frozen=True, slots=True)
class ModelFit:
    """A model on this machine: its variants, the best quality first.

    `chosen` is the quant that `pull` would take, None where none fits or there is
    nothing to take; `why` one sentence. `context` is in tokens.
    """

    name: str
    context: int
    kv_type: KvType
    chosen: str | None
    why: str
    variants: tuple[VariantFit, ...]

    @property
    def best(self) -> VariantFit | None:
        """The variant that was chosen, else the one that takes least."""
        for variant in self.variants:
            if variant.quant == self.chosen:
                return variant
        return min(self.variants, key=lambda item: item.total, default=None)


@dataclass(frozen=True, slots=True)
class Report:
    """What `fit` tells."""

    machine: MachineFacts
    models: tuple[ModelFit, ...]


@dataclass(frozen=True, slots=True)
class _Question:
    """A model to judge: its candidates, and where each of them comes from."""

    name: str
    spec: ModelSpec | None
    dimensions: Dimensions | None
    candidates: tuple[Candidate, ...]
    states: Mapping[str, State]
    trained: int | None


def fit(
    installation: Installation,
    ref: str | None = None,
    *,
    context: int | None = None,
    kv_type: KvType | None = None,
    progress: Progress = silent,
) -> Report:
    """Measure this machine for a second and judge a model, or every one there is.

    `context` is in tokens, None for what `run` would take.
    Raises: UnknownModel, UnknownQuant, MissingFile, Corrupt, NotFound for what lies on
    the hub; UsageError for a context out of range; ConfigError.
    """
    # The checks of the engine's own options are those of this command's.
    LoadOptions(context=context)
    questions = _questions(installation, ref)
    cache = kv_type or default_kv_type(installation)
    kinds = {kind for item in questions for kind in _kinds(item)}
    load = find_load()
    machine = measure(installation, kinds, kv_type=cache, progress=progress)
    models = tuple(
        _judge(item, machine, _context(installation, item, context), cache)
        for item in questions
    )
    return Report(_facts(installation, machine, load), models)


def predict(
    installation: Installation,
    spec: ModelSpec | None,
    header: Header | None,
    *,
    quant: str,
    size: int,
    progress: Progress = silent,
) -> Fit:
    """Measure this machine and say how a file that is not here yet will do on it.

    `header` is the beginning of a model of one file, `size` that of all in bytes.
    Raises: ConfigError.
    """
    dimensions = Dimensions.of(spec.shape) if spec and spec.shape else None
    candidate = Candidate(quant, size)
    if header is not None and header.split is None:
        dimensions = Dimensions.read(header)
        read, copied = _read([header]), _find_copied([header])
        candidate = replace(candidate, read=read, copied=copied)
    trained = header.context_length if header else None
    question = _Question(
        quant, spec, dimensions, (candidate,), {quant: "ready"}, trained
    )
    kv_type = default_kv_type(installation)
    machine = measure(
        installation, _kinds(question), kv_type=kv_type, progress=progress
    )
    [fit] = fit_all(
        dimensions,
        [candidate],
        machine,
        context=_context(installation, question, None),
        kv_type=kv_type,
    )
    return fit


def measure(
    installation: Installation,
    kinds: Collection[GgmlType],
    *,
    kv_type: KvType = "f16",
    progress: Progress = silent,
) -> Machine:
    """Look at this machine and measure it for a second.

    Without llama.cpp only its memory is measured.
    """
    threads = _threads(installation)
    machine = find_machine(installation)
    progress(ProgressEvent(_STAGE, 0, 3, "steps"))
    bandwidth = measure_bandwidth(_MEMORY_S, threads=threads)
    progress(ProgressEvent(_STAGE, 1, 3, "steps"))
    machine = replace(machine, bandwidth=bandwidth)
    try:
        from wizard_edge._llama.devices import list_devices
        from wizard_edge._llama.kernels import measure_attention, measure_weights

        backends = list_devices()
        weights = measure_weights(sorted(kinds), threads=threads, seconds=_WEIGHTS_S)
        progress(ProgressEvent(_STAGE, 2, 3, "steps"))
        attention = measure_attention(
            SHARING, KV_TYPES[kv_type], threads=threads, seconds=_ATTENTION_S
        )
    except BackendError:
        progress(ProgressEvent(_STAGE, 3, 3, "steps"))
        return machine
    progress(ProgressEvent(_STAGE, 3, 3, "steps"))
    kernels = Kernels(weights, attention, kv_type) if weights else None
    return replace(machine, backends=backends, kernels=kernels)


def _questions(installation: Installation, ref: str | None) -> list[_Question]:
    if ref is None:
        return [_of_spec(installation, spec, None) for spec in installation.registry]
    parsed = ModelRef.parse(ref)
    if isinstance(parsed, (FileRef, HubRef)):
        return [_of_file(find_target(installation, ref).path)]
    assert isinstance(parsed, RegistryRef)
    name, spec = resolve(installation, parsed)
    if spec is None:
        return [_of_installed(installation, name, parsed.quant)]
    return [_of_spec(installation, spec, parsed.quant)]


def _of_spec(
    installation: Installation, spec: ModelSpec, quant: str | None
) -> _Question:
    """Collect what is known of a model: stored files first, for they can be read."""
    ready = {variant.quant for variant in spec.variants}
    candidates = {item.quant: item for item in all_candidates(spec)}
    states: dict[str, State] = {
        name: "ready" if name in ready else "converted" for name in candidates
    }
    for item in readable_variants(installation, spec.name):
        receipt = item.receipt
        candidates[receipt.quant] = _stored(receipt.quant, receipt.size, item.path)
        states[receipt.quant] = "installed"
    if quant is not None:
        if quant not in candidates:
            raise UnknownQuant(quant, known=list(candidates), of=spec.name)
        candidates = {quant: candidates[quant]}
    shape = Dimensions.of(spec.shape) if spec.shape else None
    return _Question(
        spec.name, spec, shape, tuple(candidates.values()), states, spec.context
    )


def _of_installed(
    installation: Installation, name: ModelName, quant: str | None
) -> _Question:
    """Collect the variants of a model that only the store knows, by their receipts.

    Raises: NotFound for a quant that is not installed; Corrupt, MissingFile where no
    file can be read.
    """
    last = installation.store.find(name, quant)
    found = readable_variants(installation, name) if quant is None else [last]
    # Of two of one quant, the last installed counts.
    by_quant = {item.receipt.quant: item for item in reversed(found)}
    candidates = tuple(
        _stored(each, item.receipt.size, item.path) for each, item in by_quant.items()
    )
    # What could be read says what it reads; the file to open first goes before.
    whole = {item.quant for item in candidates if item.read is not None}
    path = next((i.path for i in found if i.receipt.quant in whole), last.path)
    header = read_parts(path)[0]
    return _Question(
        name=name,
        spec=None,
        dimensions=Dimensions.read(header),
        candidates=candidates,
        states=dict.fromkeys(by_quant, "installed"),
        trained=header.context_length,
    )


def _of_file(path: Path) -> _Question:
    headers = read_parts(path)
    read = _read(headers)
    # A file that names no quant goes by the type it has most of.
    quant = headers[0].quant or max(read, key=lambda kind: read[kind]).name
    size = sum(header.file_size for header in headers)
    return _Question(
        name=path.name,
        spec=None,
        dimensions=Dimensions.read(headers[0]),
        candidates=(
            Candidate(
                quant, size, stored=True, read=read, copied=_find_copied(headers)
            ),
        ),
        states={quant: "file"},
        trained=headers[0].context_length,
    )


def _stored(quant: str, size: int, path: Path) -> Candidate:
    """Describe a file of the store, by its size alone where it is damaged."""
    try:
        headers = read_parts(path)
    except (Corrupt, MissingFile):
        return Candidate(quant, size, stored=True)
    return Candidate(
        quant,
        size,
        stored=True,
        read=_read(headers),
        copied=_find_copied(headers),
    )


def _read(headers: Sequence[Header]) -> dict[GgmlType, int]:
    """Count what a token reads of a model, of all its parts."""
    total: Counter[GgmlType] = Counter()
    for header in headers:
        total.update(read_by_tensors(header))
    return dict(total)


def _find_copied(headers: Sequence[Header]) -> int | None:
    """Count what llama.cpp keeps twice, None where it is not installed."""
    try:
        from wizard_edge._llama.kernels import find_repacked

        return copied_size(headers, find_repacked())
    except BackendError:
        return None


def _kinds(question: _Question) -> set[GgmlType]:
    """Return the types whose speed is needed to judge a model, not its norms'."""
    kinds: set[GgmlType] = set()
    for item in question.candidates:
        read = item.read or {main_type(item.quant): 1}
        least = sum(read.values()) * _WORTH_MEASURING
        kinds |= {kind for kind, size in read.items() if size >= least}
    return kinds & WEIGHT_TYPES


def _context(
    installation: Installation, question: _Question, context: int | None
) -> int:
    if context is not None:
        return context
    if question.spec is not None or question.trained is None:
        return default_context(installation, question.spec)
    return default_options(installation).context_for(question.trained)


def _judge(
    question: _Question, machine: Machine, context: int, kv_type: KvType
) -> ModelFit:
    choice = choose(
        question.dimensions,
        question.candidates,
        machine,
        context=context,
        kv_type=kv_type,
    )
    return ModelFit(
        name=question.name,
        context=context,
        kv_type=kv_type,
        chosen=choice.chosen.quant if choice.chosen else None,
        why=choice.why,
        variants=tuple(
            _variant(item, question.states[item.quant]) for item in choice.fits
        ),
    )


def _variant(item: Fit, state: State) -> VariantFit:
    return VariantFit(
        quant=item.quant,
        weights=item.weights,
        kv_cache=item.kv_cache,
        scratch=item.scratch,
        program=item.program,
        total=item.total,
        copied=item.copied,
        fits=item.fits,
        lacks=item.lacks,
        tokens_per_s=item.tokens_per_s,
        why=item.why,
        state=state,
    )


def _facts(
    installation: Installation, machine: Machine, load: float | None
) -> MachineFacts:
    kernels = machine.kernels
    return MachineFacts(
        cores=machine.cores,
        threads=_threads(installation),
        memory=machine.memory,
        room=machine.room,
        free_disk=machine.free_disk,
        backends=machine.backends,
        bandwidth=machine.bandwidth or 0.0,
        weights={kind.name: rate for kind, rate in kernels.weights.items()}
        if kernels
        else None,
        load=load,
    )


def _threads(installation: Installation) -> int:
    return installation.settings.threads or find_cores().threads
