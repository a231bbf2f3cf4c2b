"""A model for `bench` whose speed is known, on a clock that only it moves."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from wizard_edge.service.bench_plan import Budget, OutOfTime
from wizard_edge.service.bench_values import Opened, Reading, Resumed, Spoken

OPENED = Opened(
    load_s=1.0,
    context=2048,
    sequences=1,
    threads=2,
    prompt_threads=2,
    batch=512,
    step=512,
    flash_attention=False,
    kv_type="f16",
    llama_cpp="0.3 AVX2",
    devices=("CPU (small)",),
)


@dataclass
class Machine:
    """Takes 3 s to start, reads `reads` tokens/s and generates `speaks` of them.

    `limit_s` is when it is ended, as a process is. `errors` are raised by the
    measurement of that name.
    """

    reads: float = 100.0
    speaks: float = 10.0
    context: int = 2048
    limit_s: float = float("inf")
    now: float = 0.0
    errors: dict[str, Exception] = field(default_factory=dict)
    calls: list[tuple[object, ...]] = field(default_factory=list)
    open_now: int = 0

    def budget(self, seconds: float) -> Budget:
        return Budget(seconds, clock=lambda: self.now)

    def spend(self, seconds: float) -> None:
        self.now += seconds
        if self.now > self.limit_s:
            self.now = self.limit_s
            raise OutOfTime

    @contextmanager
    def open(self, conversations: int) -> Iterator[FixedSubject]:
        self.calls.append(("open", conversations))
        begun = self.now
        self.spend(3.0)
        self.open_now += 1
        try:
            yield FixedSubject(self, conversations, begun)
        finally:
            self.open_now -= 1


class FixedSubject:
    """A `Subject` of such a machine."""

    def __init__(self, machine: Machine, conversations: int, begun: float) -> None:
        self._machine = machine
        self._conversations = conversations
        self._begun = begun
        self._depth = 0
        context = machine.context
        self.opened = Opened(
            **{
                name: getattr(OPENED, name)
                for name in OPENED.__slots__
                if name not in ("context", "sequences")
            },
            context=context,
            sequences=conversations,
        )

    @property
    def age_s(self) -> float:
        return self._machine.now - self._begun

    def read(self, count: int) -> Reading:
        self._call("read", count)
        return self._reading(0, count)

    def generate(self, depth: int, tokens: int, seconds: float) -> Spoken:
        self._call("generate", depth, tokens)
        self._machine.spend((depth - self._depth) / self._machine.reads)
        self._depth = depth
        return self._speaking(tokens, seconds, 1)

    def follow(self, history: int, count: int) -> Reading:
        self._call("follow", history, count)
        return self._reading(history, count)

    def resume(self, history: int, count: int) -> Resumed:
        self._call("resume", history, count)
        self._machine.spend(0.5)
        reading = self._reading(history, count)
        return Resumed(history, 0.5, 0.5 + reading.first_token_s, 1000 * history)

    def together(self, tokens: int, seconds: float) -> Spoken:
        self._call("together", tokens)
        return self._speaking(tokens, seconds, self._conversations)

    def peak_memory(self) -> int | None:
        self._call("peak_memory")
        return 10**9

    def _call(self, name: str, *values: object) -> None:
        self._machine.calls.append((name, *values))
        if name in self._machine.errors:
            raise self._machine.errors[name]

    def _reading(self, cached: int, count: int) -> Reading:
        seconds = count / self._machine.reads
        self._machine.spend(seconds)
        # Of two threads, one and a half had a core.
        return Reading(cached, count, seconds, seconds, 1.5 * seconds)

    def _speaking(self, tokens: int, seconds: float, times: int) -> Spoken:
        spent = min(seconds, tokens / self._machine.speaks)
        self._machine.spend(spent)
        return Spoken(round(times * spent * self._machine.speaks), spent)
