"""What `bench` measures in which order, within its time: the plan, without a model.

What a figure needs is cheap or dear by the speed of the machine, which the first
short prompt tells. Everything is measured once before anything is measured again.
What there is no time for is named.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

from wizard_edge.errors import WizardEdgeError
from wizard_edge.progress import Progress, ProgressEvent, silent
from wizard_edge.service.bench_values import LeftOut, Opened, Subject
from wizard_edge.units import format_seconds

_Result = TypeVar("_Result")

# Read first: what is slow only once happens there, and the pace is known.
_WARM_UP = 16
# Tokens that an answer is timed over, and seconds it may take at most.
ANSWER = 64
_ANSWER_S = 2.0
# No answer takes more than this share of all the time.
_ANSWER_SHARE = 1 / 40
# The question behind a history that is in the cache, or comes back into it.
QUESTION = 32
# What is kept for several conversations and for loading again.
_KEPT = 0.3

_NO_TIME = "the time was over"
_KEPT_TIME = "the time was kept for the rest"
_NO_HISTORY = "no prompt was read"
_GOING_ON = "first token, history there"
_HISTORIES = ("in the cache", "from a file")


class OutOfTime(Exception):
    """A model did not answer within the time; its process is gone."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What to measure: prompts, depths and histories in tokens.

    `conversations` are how many are answered at once, beside one.
    """

    prompts: tuple[int, ...] = (128, 512)
    depths: tuple[int, ...] = (0, 512, 1024)
    conversations: tuple[int, ...] = (2, 4)
    rounds: int = 3
    max_s: float = 60.0

    @property
    def steps(self) -> int:
        """The measurements there are, if there is time for all."""
        kinds = len(self.prompts) + len(self.depths) + len(self.conversations)
        # Loading, a warm start and a resumed one.
        return self.rounds * (kinds + 3)


@dataclass(slots=True)
class Samples:
    """What was measured, a value for each round: seconds, and tokens/s.

    `cores` are shares of the time of all threads that they had. The `history` of a
    warm start is, with the `question`, the longest prompt that was read, so that a
    cold start is the reading of that prompt. Both are in tokens.
    """

    opened: Opened
    ready_s: list[float] = field(default_factory=list)
    load_s: list[float] = field(default_factory=list)
    first_token_s: list[float] = field(default_factory=list)
    prompts: dict[int, list[float]] = field(default_factory=dict)
    cold_s: dict[int, list[float]] = field(default_factory=dict)
    depths: dict[int, list[float]] = field(default_factory=dict)
    warm_s: list[float] = field(default_factory=list)
    resumed_s: list[float] = field(default_factory=list)
    restore_s: list[float] = field(default_factory=list)
    together: dict[int, list[float]] = field(default_factory=dict)
    cores: list[float] = field(default_factory=list)
    history: int = 0
    question: int = 0
    saved_bytes: int = 0
    peak_bytes: int | None = None
    left_out: list[LeftOut] = field(default_factory=list)


class Budget:
    """The seconds there are, from now on."""

    def __init__(
        self, seconds: float, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        self._clock = clock
        self._begun = clock()
        self.seconds = seconds

    @property
    def left(self) -> float:
        return self.seconds - (self._clock() - self._begun)


# Opens the model for so many conversations at once.
Open = Callable[[int], AbstractContextManager[Subject]]


def run_plan(
    plan: Plan, open_subject: Open, budget: Budget, *, progress: Progress = silent
) -> Samples:
    """Measure all there is time for.

    Raises: OutOfTime when not even the loading ends in time; what `open_subject`
    raises, and the first error where nothing can be measured.
    """
    with open_subject(1) as subject:
        run = _Run(plan, budget, Samples(subject.opened), progress)
        run.measure(subject)
    if run.failed and not run.has_speeds:
        raise run.failed
    for count in plan.conversations:
        run.measure_together(count, open_subject)
    run.load_again(open_subject)
    return run.samples


class _Run:
    """One pass over a plan, with what is known so far."""

    def __init__(
        self, plan: Plan, budget: Budget, samples: Samples, progress: Progress
    ) -> None:
        self.samples = samples
        self._plan = plan
        self._budget = budget
        self._progress = progress
        self.failed: WizardEdgeError | None = None
        self._done = 0
        self._pace = 0.0
        # The tokens of the last prompt read, as long as they are there.
        self._in_cache = 0
        self._answer_s = min(_ANSWER_S, plan.max_s * _ANSWER_SHARE)

    @property
    def has_speeds(self) -> bool:
        """Whether there is anything to tell."""
        return bool(self.samples.prompts or self.samples.depths)

    def measure(self, subject: Subject) -> None:
        """Measure what one conversation shows, the cheap first."""
        plan = self._plan
        self._note_load(subject)
        prompts = [count for count in sorted(plan.prompts) if self._has_room(count)]
        if prompts:
            self._read(subject, prompts[0])
        self._generate(subject)
        for count in prompts[1:]:
            self._read(subject, count)
        with suppress(OutOfTime):
            self.samples.peak_bytes = subject.peak_memory()
        self._go_on(subject)
        self._read_again(subject)

    def measure_together(self, count: int, open_subject: Open) -> None:
        """Measure several conversations at once."""
        what = f"{count} conversations at once"

        def work() -> list[float]:
            with open_subject(count) as subject:
                return self._rounds(
                    what,
                    self._answer_s,
                    lambda: subject.together(ANSWER, self._answer_s).tokens_per_s,
                )

        expected = max(self.samples.ready_s) + self._answer_s
        if found := self._try(what, expected, work, steps=0):
            self.samples.together[count] = found

    def load_again(self, open_subject: Open) -> None:
        """Load anew for every further round."""

        def work() -> bool:
            with open_subject(1) as subject:
                self._note_load(subject)
            return True

        self._rounds("loading", max(self.samples.first_token_s), work, first=2)

    def _note_load(self, subject: Subject) -> None:
        samples = self.samples
        samples.ready_s.append(subject.age_s)
        samples.load_s.append(subject.opened.load_s)
        count = min(_WARM_UP, subject.opened.context - 1)
        subject.read(count)
        samples.first_token_s.append(subject.age_s)
        if not self._pace:
            # Once more: the first time brings weights and threads up.
            self._pace = subject.read(count).tokens_per_s
            self._tell(1)

    def _read(self, subject: Subject, count: int) -> None:
        found = self._try(
            f"prompt of {count} tokens",
            count / self._pace,
            lambda: subject.read(count),
        )
        if found is None:
            return
        samples = self.samples
        self._pace = found.tokens_per_s
        self._in_cache = count
        samples.prompts.setdefault(count, []).append(found.tokens_per_s)
        samples.cold_s.setdefault(count, []).append(found.first_token_s)
        threads = samples.opened.prompt_threads
        samples.cores.append(found.cpu_s / (found.first_token_s * threads))

    def _generate(self, subject: Subject) -> None:
        """Generate at every depth; what is behind one is behind the next as well."""
        before = self._in_cache = 0
        for depth in sorted(self._plan.depths):
            what = f"generation at depth {depth}"
            if not self._has_room(depth + ANSWER, what):
                continue
            found = self._rounds(
                what,
                self._answer_s,
                partial(self._answer, subject, depth),
                before_s=(depth - before) / self._pace,
            )
            if found:
                self.samples.depths[depth] = found
                before = depth

    def _answer(self, subject: Subject, depth: int) -> float:
        return subject.generate(depth, ANSWER, self._answer_s).tokens_per_s

    def _go_on(self, subject: Subject) -> None:
        """Start warm, then from a file, behind a part of the prompt read last."""
        samples = self.samples
        if not self._in_cache and samples.prompts:
            self._read(subject, max(samples.prompts))
        warm, resumed = (f"first token, history {where}" for where in _HISTORIES)
        if not self._in_cache:
            self._leave_out(warm, _NO_HISTORY)
            self._leave_out(resumed, _NO_HISTORY)
            return
        question = samples.question = min(QUESTION, self._in_cache // 2)
        history = samples.history = self._in_cache - question
        # A question, and as much again for what is done around it.
        each_s = 2 * question / self._pace
        for number in range(1, self._plan.rounds + 1):
            if number > 1 and not self._may_repeat(2 * each_s):
                self._leave_out(_from_round(number, _GOING_ON), _KEPT_TIME)
                return
            came = self._try(
                _from_round(number, warm),
                each_s,
                lambda: subject.follow(history, question),
            )
            if came is None:
                return
            samples.warm_s.append(came.first_token_s)
            back = self._try(
                _from_round(number, resumed),
                each_s,
                lambda: subject.resume(history, question),
            )
            if back is None:
                return
            samples.resumed_s.append(back.first_token_s)
            samples.restore_s.append(back.restore_s)
            samples.saved_bytes = back.state_bytes

    def _read_again(self, subject: Subject) -> None:
        """Read prompts for the further rounds, while there is enough time for all."""
        for number in range(2, self._plan.rounds + 1):
            for count in list(self.samples.prompts):
                if not self._may_repeat(count / self._pace):
                    self._leave_out(_from_round(number, "prompts"), _KEPT_TIME)
                    return
                self._read(subject, count)

    def _may_repeat(self, expected: float) -> bool:
        """Tell whether enough is left for what was not measured at all yet."""
        return self._budget.left - expected >= _KEPT * self._budget.seconds

    def _has_room(self, tokens: int, what: str | None = None) -> bool:
        context = self.samples.opened.context
        if tokens < context:
            return True
        self._leave_out(
            what or f"prompt of {tokens} tokens", f"the context has {context} tokens"
        )
        return False

    def _rounds(
        self,
        what: str,
        each_s: float,
        work: Callable[[], _Result],
        *,
        before_s: float = 0.0,
        first: int = 1,
    ) -> list[_Result]:
        """Measure something in every round there is time for."""
        found: list[_Result] = []
        for number in range(first, self._plan.rounds + 1):
            expected = each_s if found else before_s + each_s
            result = self._try(_from_round(number, what), expected, work)
            if result is None:
                break
            found.append(result)
        return found

    def _try(
        self,
        what: str,
        expected: float,
        work: Callable[[], _Result],
        *,
        steps: int = 1,
    ) -> _Result | None:
        """Measure something if there is time; None where it is left out."""
        left = self._budget.left
        if left <= 0 or expected > left:
            about = f"about {format_seconds(expected)}"
            left_s = f"{format_seconds(max(0.0, left))} were left"
            self._leave_out(what, f"{about}, {left_s}")
            return None
        try:
            result = work()
        except OutOfTime:
            self._leave_out(what, _NO_TIME)
            return None
        except WizardEdgeError as err:
            # A full disk, or no memory for this many: one figure less.
            self.failed = self.failed or err
            self._leave_out(what, err.message)
            return None
        self._tell(steps)
        return result

    def _leave_out(self, what: str, why: str) -> None:
        self.samples.left_out.append(LeftOut(what, why))

    def _tell(self, steps: int) -> None:
        self._done = min(self._done + steps, self._plan.steps)
        self._progress(ProgressEvent("measure", self._done, self._plan.steps, "steps"))


def _from_round(number: int, what: str) -> str:
    return what if number == 1 else f"{what}, from round {number} on"
