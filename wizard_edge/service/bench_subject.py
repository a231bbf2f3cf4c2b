"""The measurements of `bench` on an engine: clocks around what callers do.

Tokens are drawn at random: what a token costs does not depend on its meaning, and
nothing of a new prompt is in the cache.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import replace
from math import inf
from pathlib import Path

from wizard_edge._llama import library
from wizard_edge._llama.devices import list_devices
from wizard_edge._llama.engine import LlamaEngine
from wizard_edge.engine import KvPart, Sampling
from wizard_edge.errors import BackendError
from wizard_edge.hardware import find_peak_memory
from wizard_edge.page_cache import drop_cached
from wizard_edge.service.bench_values import Opened, Reading, Resumed, Spoken

# How people sample, and llama.cpp's defaults but for the seed.
_SAMPLING = Sampling(temperature=0.8, top_k=40, top_p=0.95)
# Fewer steps than these are no speed, however long they take.
_LEAST_STEPS = 4
# A model that ends its answers at once is asked again so often.
_TRIES = 8
_SEEDS = 1000
# Tokens of a prompt that only takes the place of another.
_CLEARING = 2


class EngineSubject:
    """An engine that is measured. Knows no process and no pipe."""

    def __init__(
        self,
        engine: LlamaEngine,
        *,
        sequences: int,
        folder: Path,
        cold: bool = False,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        """States are written below `folder`, and with `cold` read from the disk."""
        self._engine = engine
        self._sequences = sequences
        self._state = folder / "state"
        self._cold = cold
        self._clock = clock
        self._random = random.Random(0)
        self._text = self._draw(engine.context)
        self._said: list[int] = []

    @property
    def opened(self) -> Opened:
        settings = self._engine.settings
        return Opened(
            load_s=self._engine.load_s,
            context=settings.context,
            sequences=self._sequences,
            threads=settings.threads,
            prompt_threads=settings.prompt_threads,
            batch=settings.batch,
            step=settings.step,
            flash_attention=settings.flash_attention,
            kv_type=settings.kv_type,
            llama_cpp=library.identity(),
            devices=list_devices(),
        )

    def read(self, count: int) -> Reading:
        """Read a prompt that was never seen; see `Subject.read`."""
        self._said = self._draw(count)
        return self._first_token(self._said)

    def generate(self, depth: int, tokens: int, seconds: float) -> Spoken:
        """Generate behind `depth` tokens; see `Subject.generate`.

        Raises: BackendError for a model that does nothing but end its answers.
        """
        answers = self._answers(self._text[: max(1, depth)], 0, tokens, seconds)
        count = sum(len(times) - 1 for times in answers)
        return _spoken(count, sum(times[-1] - times[0] for times in answers))

    def follow(self, history: int, count: int) -> Reading:
        """Read a question behind the last prompt; see `Subject.follow`."""
        return self._first_token(self._said[:history] + self._draw(count, bos=False))

    def resume(self, history: int, count: int) -> Resumed:
        """Bring a history back from a file; see `Subject.resume`.

        Raises: BackendError, OSError where the state cannot be saved.
        """
        ids = self._said[:history]
        size = self._save(ids)
        # Another prompt takes its place.
        self._first_token(self._draw(_CLEARING))
        begun = self._clock()
        part = KvPart(0, history, self._state.read_bytes())
        self._engine.restore_state(ids, [part])
        restored = self._clock()
        reading = self._first_token(ids + self._draw(count, bos=False))
        return Resumed(
            cached_tokens=reading.cached_tokens,
            restore_s=restored - begun,
            first_token_s=self._clock() - begun,
            state_bytes=size,
        )

    def together(self, tokens: int, seconds: float) -> Spoken:
        """Generate in all sequences at once; see `Subject.together`.

        Raises: BackendError for a model that does nothing but end its answers.
        """
        came: list[list[float]] = [[] for _ in range(self._sequences)]
        prompts = [self._draw(_CLEARING) for _ in came]

        def call(index: int) -> None:
            answers = self._answers(prompts[index], index, tokens, seconds)
            came[index] = [moment for times in answers for moment in times]

        callers = [
            threading.Thread(target=call, args=[index]) for index in range(len(came))
        ]
        for caller in callers:
            caller.start()
        for caller in callers:
            caller.join()
        found = shared_window(came)
        return _spoken(found.tokens, found.seconds)

    def peak_memory(self) -> int | None:
        """Return the most bytes this process had resident."""
        return find_peak_memory()

    def _first_token(self, prompt: Sequence[int]) -> Reading:
        cpu, begun = time.process_time(), self._clock()
        [*_, last] = self._engine.generate(prompt, Sampling(max_tokens=1))
        seconds = self._clock() - begun
        return Reading(
            cached_tokens=last.stats.cached_tokens,
            read_tokens=last.stats.read_tokens,
            read_s=last.stats.prompt_s,
            first_token_s=seconds,
            cpu_s=time.process_time() - cpu,
        )

    def _answers(
        self, prompt: Sequence[int], seed: int, tokens: int, seconds: float
    ) -> list[list[float]]:
        """Answer until either is reached; return when the tokens of each answer came.

        Where the model ends an answer all the same, another one goes on.
        """
        answers: list[list[float]] = []
        for attempt in range(_TRIES):
            times = self._answer(prompt, seed + attempt * _SEEDS, tokens, seconds)
            if times:
                answers.append(times)
                tokens -= len(times) - 1
                seconds -= times[-1] - times[0]
            if tokens <= 0 or seconds <= 0:
                break
        return answers

    def _answer(
        self, prompt: Sequence[int], seed: int, tokens: int, seconds: float
    ) -> list[float]:
        """Return when each token of an answer was drawn, from the first on.

        By the engine's own clock: a thread that reads is late, and then gets many.
        """
        sampling = replace(
            _SAMPLING,
            seed=seed,
            max_tokens=tokens + 1,
            logit_bias=((self._engine.vocabulary.eos, -inf),),
        )
        times: list[float] = []
        begun = self._clock()
        with closing(self._engine.generate(prompt, sampling)) as chunks:
            for chunk in chunks:
                if chunk.token is None:
                    continue
                stats = chunk.stats
                spent = stats.wait_s + stats.prompt_s + stats.generate_s
                times.append(begun + spent)
                if times[-1] - times[0] >= seconds and len(times) > _LEAST_STEPS:
                    break
        return times

    def _save(self, ids: Sequence[int]) -> int:
        part = self._engine.save_state(ids)
        if part.count < len(ids):
            raise BackendError(
                f"of {len(ids)} tokens {part.count} were in the cache to be saved"
            )
        self._state.write_bytes(part.data)
        if self._cold:
            drop_cached(self._state)
        return len(part.data)

    def _draw(self, count: int, *, bos: bool = True) -> list[int]:
        """Draw tokens, behind the one that every prompt begins with."""
        vocabulary = self._engine.vocabulary
        first = [vocabulary.bos] if bos and vocabulary.bos is not None else []
        size = vocabulary.size
        drawn = [self._random.randrange(size) for _ in range(count - len(first))]
        return first + drawn


def shared_window(times: Sequence[Sequence[float]]) -> Spoken:
    """Count the tokens that came while every caller got some.

    From the last caller's first token to the first caller's last.
    """
    if not all(times):
        return Spoken(0, 0.0)
    begun = max(each[0] for each in times)
    ended = min(each[-1] for each in times)
    count = sum(begun < moment <= ended for each in times for moment in each)
    return Spoken(count, max(0.0, ended - begun))


def _spoken(tokens: int, seconds: float) -> Spoken:
    if not tokens or seconds <= 0:
        raise BackendError("the model ends its answers before they can be timed")
    return Spoken(tokens, seconds)
