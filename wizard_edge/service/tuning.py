"""Load a model with settings that were measured for it here, and have them measured.

A first load takes the defaults, and is measured when nobody has asked for a second:
while the user reads an answer or types, never before a first one. What came of it is
kept in the home (docs/decisions/009).
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from wizard_edge._llama.engine import RESTED_S, LlamaEngine
from wizard_edge._llama.library import identity
from wizard_edge.drift import Watch, has_drifted, is_off
from wizard_edge.engine import LoadOptions
from wizard_edge.errors import NotEnough, WizardEdgeError
from wizard_edge.gguf import Header, read_header
from wizard_edge.governor import Governor
from wizard_edge.hardware import Cores, find_cores, find_memory, find_processor
from wizard_edge.memory import Dimensions
from wizard_edge.neighbours import Neighbours
from wizard_edge.progress import Progress, silent
from wizard_edge.service.installation import Installation
from wizard_edge.service.targets import Target
from wizard_edge.tuning import (
    Plan,
    Timings,
    Tuned,
    apply,
    choose,
    is_quiet,
    key_of,
    least_memory,
    plan_measurement,
)
from wizard_edge.tuning_file import FILE, Entry, TuningFile
from wizard_edge.verdicts import check

# Tokens of context of an engine that is there to be measured only.
_CONTEXT = 256


def load_engine(
    installation: Installation,
    target: Target,
    options: LoadOptions,
    *,
    draft: Target | None = None,
    rested_s: float = RESTED_S,
    progress: Progress = silent,
) -> LlamaEngine:
    """Load a model; what `options` leave open is as it was measured.

    Threads that nobody fixed become fewer while other programs need the cores. What
    is deterministic, or computed by others, depends on nothing that is measured here.
    A measurement that is wanted begins when nobody has asked for `rested_s`. `draft`
    is the target of the draft model, where `options` name one.
    Raises: what `LlamaEngine` raises.
    """
    neighbours = Neighbours()
    cores = find_cores()
    tuning = None
    if not (options.deterministic or options.rpc):
        # What cannot be read, the load has words for.
        with suppress(WizardEdgeError):
            tuning = _lookup(installation, target.path, options, cores)
    entry = tuning.entry if tuning else None
    tuned = entry.tuned if entry else None
    loaded = apply(tuned, options, cores)
    governor = watch = None
    if options.threads is None and not options.deterministic:
        governor = Governor(1, processors=cores.logical, busy=lambda: neighbours.busy)
        if tuned is not None and loaded.flash_attention is tuned.flash_attention:
            watch = Watch(tuned.seconds_at)
    engine = LlamaEngine(
        target.path,
        loaded,
        judge=target.judge,
        draft_judge=draft.judge if draft else check,
        governor=governor,
        watch=watch,
        batch_cost=tuned.batch_cost if tuned else None,
        on_close=lambda: _note_session(tuning, watch),
        parking_folder=installation.home.run,
        progress=progress,
    )
    if tuning is not None and tuning.is_wanted:
        tuning.begin(engine, neighbours, rested_s, options.prompt_threads)
    return engine


def tune(
    installation: Installation,
    target: Target,
    options: LoadOptions,
    *,
    progress: Progress = silent,
) -> Tuned:
    """Load a model, measure now what suits it on this machine, and keep that.

    Of `options` those count that are not measured, such as the type of the KV cache.
    Raises: what `LlamaEngine` raises; NotEnough where there is no memory to measure in.
    """
    neighbours = Neighbours()
    cores = find_cores()
    # A small context: the measurement makes its own.
    loaded = replace(options, context=_CONTEXT, threads=cores.threads)
    with LlamaEngine(
        target.path, loaded, judge=target.judge, progress=progress
    ) as engine:
        tuning = _lookup(installation, target.path, options, cores)
        plan = tuning.plan(neighbours)
        if plan is None:
            needed = least_memory(options, Dimensions.read(tuning.header))
            raise NotEnough("memory", needed=needed, free=find_memory().available)
        timings = engine.measure(plan, busy=lambda: neighbours.busy, progress=progress)
        return tuning.settle(plan, timings)


@dataclass(frozen=True, slots=True)
class _Tuning:
    """What is known of a model on this machine, and where that is kept."""

    file: TuningFile
    key: str
    entry: Entry | None
    header: Header
    options: LoadOptions
    cores: Cores

    @property
    def is_wanted(self) -> bool:
        """Whether there is anything to measure."""
        if self.entry is None or not self.entry.tuned.quiet:
            return True
        return has_drifted(self.entry.off)

    def begin(
        self,
        engine: LlamaEngine,
        neighbours: Neighbours,
        rested_s: float,
        prompt_threads: int | None,
    ) -> None:
        """Have the engine measured once it has rested; `prompt_threads` stay."""

        def done(plan: Plan, timings: Timings) -> Tuned:
            tuned = self.settle(plan, timings)
            return replace(tuned, prompt_threads=prompt_threads or tuned.prompt_threads)

        engine.measure_at_rest(
            lambda: self._plan_at_rest(neighbours),
            done,
            busy=lambda: neighbours.busy,
            after_s=rested_s,
        )

    def plan(self, neighbours: Neighbours) -> Plan | None:
        """Return what to measure now."""
        return plan_measurement(
            self.cores,
            self.options,
            Dimensions.read(self.header),
            free=find_memory().available,
            busy=neighbours.busy,
        )

    def settle(self, plan: Plan, timings: Timings) -> Tuned:
        """Choose by the times, and keep what was chosen."""
        tuned = choose(timings, plan)
        self.file.keep(self.key, Entry(tuned))
        return tuned

    def _plan_at_rest(self, neighbours: Neighbours) -> Plan | None:
        # What a busy machine has to say is known already.
        if self.entry is not None and not is_quiet(neighbours.busy):
            return None
        return self.plan(neighbours)


def _lookup(
    installation: Installation, path: Path, options: LoadOptions, cores: Cores
) -> _Tuning:
    """Look up what was measured. Raises: what `read_header` and `identity` raise."""
    header = read_header(path)
    key = key_of(header, options, cores, find_processor(), identity())
    file = TuningFile(installation.home.root / FILE)
    return _Tuning(file, key, file.find(key), header, options, cores)


def _note_session(tuning: _Tuning | None, watch: Watch | None) -> None:
    """Keep that a session was off, or that the sessions before it were exceptions."""
    ratio = watch.ratio if watch else None
    if tuning is None or tuning.entry is None or ratio is None:
        return
    # Read again: what was measured meanwhile is another measurement.
    entry = tuning.file.find(tuning.key)
    if entry is None or entry.tuned != tuning.entry.tuned:
        return
    off = (*entry.off, ratio) if is_off(ratio) else ()
    if off != entry.off:
        tuning.file.keep(tuning.key, Entry(entry.tuned, off))
