"""The `Engine` over llama.cpp: the step loop over a `LlamaBackend`.

What only embeddings or a measurement need is imported there: the first token of a
program waits for every import here.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Self

from wizard_edge._llama import library
from wizard_edge._llama.backend import ContextSettings, LlamaBackend, open_backend
from wizard_edge._llama.drafting import open_speculation
from wizard_edge._llama.vocabulary import LlamaVocabulary
from wizard_edge.answers import Answer
from wizard_edge.backend import Backend, Span
from wizard_edge.drift import Watch
from wizard_edge.engine import KvPart, LoadOptions, Sampling, never
from wizard_edge.errors import BackendError, UsageError
from wizard_edge.governor import Governor, nobody_knows
from wizard_edge.hardware import find_memory
from wizard_edge.pace import unobserved
from wizard_edge.parking import Parking
from wizard_edge.parking_disk import ParkingDisk
from wizard_edge.progress import Progress, ProgressEvent, silent
from wizard_edge.scheduler import Scheduler
from wizard_edge.slots import Slot
from wizard_edge.steering import Steering
from wizard_edge.tuning import Plan, Timings, Tuned
from wizard_edge.verdicts import Judge, check

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

# RAM for conversations that gave their place to others: a share of all there is, and
# never more than this; beyond it the disk, where there is a folder for it. In bytes.
_PARKING_SHARE = 8
_MOST_PARKING = 1 << 30
_PARKING_DISK = 4 << 30
# Whoever has not asked for anything for so long reads, or types.
RESTED_S = 1.0


class LlamaEngine:
    """One loaded model that answers callers from any thread."""

    def __init__(
        self,
        path: Path,
        options: LoadOptions | None = None,
        *,
        judge: Judge = check,
        draft_judge: Judge = check,
        governor: Governor | None = None,
        watch: Watch | None = None,
        batch_cost: Mapping[int, float] | None = None,
        on_close: Callable[[], None] = lambda: None,
        parking_folder: Path | None = None,
        progress: Progress = silent,
    ) -> None:
        """Load `path` and make a context of `options.context` tokens.

        `judge` is asked whether llama.cpp may see the file at all, `draft_judge`
        about the draft model's. A `governor` says how many of the threads compute,
        from step to step; `watch` hears of the steps that are done with all of them.
        `batch_cost` is what steps of several rows cost, where that was measured.
        `on_close` is called when all is freed. Idle conversations are parked in RAM,
        and inside `parking_folder` where that is not enough.

        Raises: what `Model` raises; BackendError when the context does not fit;
        UsageError for a draft model of another vocabulary.
        """
        options = options or LoadOptions()
        self._backend = open_backend(path, options, judge=judge, progress=progress)
        try:
            speculation = open_speculation(
                self._backend,
                options,
                batch_cost=batch_cost,
                judge=draft_judge,
                progress=progress,
            )
        except BaseException:
            self._backend.close()
            raise
        self._on_close: Callable[[], None] | None = on_close
        self._steering = _steer(self._backend, governor, watch)
        self._scheduler = Scheduler(
            self._backend,
            parking=_parking(parking_folder, self.state_kind),
            observe=self._steering.observe if self._steering else unobserved,
            speculation=speculation,
            load_s=self.load_s,
        )

    @property
    def vocabulary(self) -> LlamaVocabulary:
        return self._backend.vocabulary

    @property
    def context(self) -> int:
        """Tokens that fit, prompt and answer together."""
        return self._backend.context

    @property
    def load_s(self) -> float:
        """Seconds it took to load."""
        return self._backend.model.load_s

    @property
    def evaluated(self) -> int:
        """The tokens evaluated so far, by llama.cpp's own count."""
        return self._scheduler.run(lambda backend, stopped: self._backend.evaluated)

    @property
    def settings(self) -> ContextSettings:
        """What the context was made with, as llama.cpp has it."""
        return self._scheduler.run(lambda backend, stopped: self._backend.settings)

    @property
    def state_kind(self) -> str:
        """What tells apart states that do not fit each other; see `Stateful`."""
        backend = self._backend
        flash = "flash" if backend.flash_attention else "plain"
        return f"{library.identity()}/{backend.kv_type}/{flash}"

    def generate(
        self,
        prompt: Sequence[int],
        sampling: Sampling,
        *,
        owner: object | None = None,
        cancelled: Callable[[], bool] = never,
    ) -> Answer:
        """Continue `prompt`; see `Engine.generate`.

        Raises: UsageError when the prompt is empty or leaves no room in the context.
        """
        self._check_open()
        if len(prompt) >= self.context:
            raise UsageError(
                f"the prompt has {len(prompt)} tokens, the context only {self.context}",
                hint=self._room_hint(),
            )
        return self._scheduler.submit(
            prompt, sampling, owner=owner, cancelled=cancelled
        )

    def logits(self, ids: Sequence[int]) -> NDArray[np.float32]:
        """Return the logits of every position, shape (len(ids), vocabulary), f32.

        Evaluates from an empty cache.
        Raises: UsageError for more than 512 tokens.
        """
        most = self._backend.batch
        if not 0 < len(ids) <= most:
            raise UsageError(f"logits of 1 to {most} tokens, not of {len(ids)}")
        [block] = self.score(ids)
        return block

    def score(
        self, ids: Sequence[int], *, first: int = 0
    ) -> Iterator[NDArray[np.float32]]:
        """Yield logits in blocks of at most 512 positions; see `Scorer.score`.

        Ctrl-C is heard in the middle of a block.
        """
        self._check_length(ids, "score")
        size = self._backend.batch
        with self._scheduler.reserve() as slot:
            for start in range(0, len(ids), size):
                part = ids[start : start + size]
                skipped = min(max(first - start, 0), len(part))
                span = Span(slot.index, start, part, skipped)
                block = self._scheduler.run(_evaluation(self._scheduler, slot, span))
                if len(block):
                    yield block

    def embed(self, texts: Sequence[Sequence[int]]) -> NDArray[np.float32]:
        """Return a vector for each text; see `Embedder.embed`."""
        import numpy as np

        for ids in texts:
            self._check_length(ids, "embed")
        from wizard_edge._llama.embedding import embed_text

        vectors = [embed_text(self._scheduler, self._backend, ids) for ids in texts]
        empty = np.empty((0, self._backend.width), np.float32)
        return np.stack(vectors) if vectors else empty

    def save_state(self, ids: Sequence[int], *, first: int = 0) -> KvPart:
        """Copy a part of the KV cache; see `Stateful.save_state`."""
        if first and not self._backend.saves_parts:
            raise UsageError("an engine of several sequences saves whole ones only")

        def save(backend: Backend, stopped: Callable[[], bool]) -> KvPart:
            slot, count = self._scheduler.cache.find(ids)
            whole = count == len(slot.cached)
            if count <= first or not (whole or backend.saves_parts):
                return KvPart(first, 0, b"")
            data = backend.save(slot.index, first, None if whole else count)
            return KvPart(first, count - first, data)

        return self._scheduler.run(save)

    def restore_state(
        self,
        ids: Sequence[int],
        parts: Iterable[KvPart],
        *,
        owner: object | None = None,
    ) -> None:
        """Bring back what was saved; see `Stateful.restore_state`."""
        held = list(parts)
        count = sum(part.count for part in held)
        if len(held) > 1 and not self._backend.saves_parts:
            raise BackendError("an engine of several sequences takes whole states only")

        def restore(backend: Backend, stopped: Callable[[], bool]) -> None:
            cache = self._scheduler.cache
            cache.fill(ids[:count], [part.data for part in held], owner)

        self._scheduler.run(restore)

    @property
    def can_shift(self) -> bool:
        """Whether `shift_state` works here; see `Shifting`."""
        return self._backend.can_shift

    def shift_state(self, ids: Sequence[int], *, first: int, count: int) -> bool:
        """Drop tokens in the middle of what the KV cache holds of `ids`.

        Those behind move up and keep what was computed while the dropped ones were
        there. False where the cache does not hold all of them up to there.
        Raises: UsageError where `can_shift` is not.
        """
        if not self.can_shift:
            raise UsageError("this engine cannot shift its context")

        def shift(backend: Backend, stopped: Callable[[], bool]) -> bool:
            cache = self._scheduler.cache
            slot, held = cache.find(ids)
            if slot.busy or held < first + count:
                return False
            cache.cut(slot, held)
            cache.shift(slot, first, count)
            return True

        return self._scheduler.run(shift)

    def measure(
        self,
        plan: Plan,
        *,
        busy: Callable[[], float | None] = nobody_knows,
        progress: Progress = silent,
    ) -> Timings:
        """Measure now what the plan says; answers wait meanwhile.

        `busy` tells how many cores others use.
        Raises: BackendError.
        """
        from wizard_edge._llama.measuring import measure

        model, kv_type = self._backend.model, self._backend.kv_type
        steps = measure(model, plan, kv_type=kv_type, busy=busy)
        found: list[Timings] = []
        done = 0
        try:
            while not found:
                progress(ProgressEvent("tune", done, 0, "steps"))
                self._scheduler.run(lambda backend, stopped: _next(steps, found))
                done += 1
        finally:
            # On the thread of the model, before that is freed.
            self._scheduler.run(lambda backend, stopped: steps.close())
        return found[0]

    def measure_at_rest(
        self,
        plan: Callable[[], Plan | None],
        settle: Callable[[Plan, Timings], Tuned | None],
        *,
        busy: Callable[[], float | None] = nobody_knows,
        after_s: float = RESTED_S,
    ) -> None:
        """Measure as soon as nobody has asked for anything for `after_s`.

        `plan` is asked then what there is to measure, None for nothing. `settle` is
        given the times; the threads of what it returns are used from then on, where
        there is a governor. Both are called on the engine's thread.
        """

        def work(backend: Backend, wanted: Callable[[], bool]) -> Iterator[None]:
            from wizard_edge._llama.measuring import measure

            chosen = plan()
            if chosen is None:
                return
            timings = yield from measure(
                self._backend.model,
                chosen,
                kv_type=self._backend.kv_type,
                stopped=wanted,
                busy=busy,
            )
            tuned = settle(chosen, timings)
            if tuned is not None and self._steering is not None:
                self._steering.settle(tuned.threads, tuned.prompt_threads)

        self._scheduler.rest_with(work, after_s=after_s)

    def close(self) -> None:
        """Free the context and the model. A second call does nothing.

        An answer that is still being read ends with an error where it goes on.
        """
        self._scheduler.close()
        on_close, self._on_close = self._on_close, None
        if on_close is not None:
            on_close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _check_length(self, ids: Sequence[int], purpose: str) -> None:
        if not 0 < len(ids) <= self.context:
            raise UsageError(
                f"{len(ids)} tokens to {purpose}, the context takes 1 to {self.context}"
            )

    def _check_open(self) -> None:
        if self._scheduler.closed:
            raise UsageError("the engine is closed")

    def _room_hint(self) -> str:
        if self.context < self._backend.model.trained_context:
            return "give a larger --ctx-size, or start a new conversation"
        return (
            "the model knows no longer texts: shorten it, or start a new conversation"
        )


def _steer(
    backend: LlamaBackend, governor: Governor | None, watch: Watch | None
) -> Steering | None:
    if governor is None:
        return None
    made = backend.settings
    steering = Steering(
        governor,
        backend.set_threads,
        threads=made.threads,
        prompt_threads=made.prompt_threads,
        watch=watch,
    )
    # Others may be at work already.
    steering.look()
    return steering


def _next(steps: Generator[None, None, Timings], found: list[Timings]) -> None:
    """Do one step, and keep what all of them come to."""
    try:
        next(steps)
    except StopIteration as end:
        found.append(end.value)


def _evaluation(
    scheduler: Scheduler, slot: Slot, span: Span
) -> Callable[[Backend, Callable[[], bool]], NDArray[np.float32]]:
    """Return the work of evaluating a span and copying the logits it asks for."""

    def evaluate(backend: Backend, stopped: Callable[[], bool]) -> NDArray[np.float32]:
        import numpy as np

        if not backend.decode([span], stopped=stopped):
            # Whoever asked was interrupted, and takes no answer.
            scheduler.cache.cut(slot, span.start)
            rows = 0
        else:
            slot.cached += span.ids
            rows = len(span.ids) - span.logits_from
        if not rows:
            return np.empty((0, backend.vocabulary.size), np.float32)
        return backend.logits(span.logits_from, rows)

    return evaluate


def _parking(folder: Path | None, kind: str) -> Parking:
    """Return room for what is parked; `kind` is what the states have in common."""
    disk = None
    if folder is not None:
        disk = ParkingDisk(folder, _PARKING_DISK, kind=kind)
    return Parking(min(_MOST_PARKING, find_memory().total // _PARKING_SHARE), disk)
