"""What `bench` asks of a model and is told: values that go over a pipe as JSON.

Seconds, tokens and bytes throughout.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Protocol, Self

from wizard_edge.engine import KvType


@dataclass(frozen=True, slots=True)
class Opened:
    """A model that is loaded, and under which settings llama.cpp has it.

    `load_s` is what the engine took, `sequences` answer at once.
    """

    load_s: float
    context: int
    sequences: int
    threads: int
    prompt_threads: int
    batch: int
    step: int
    flash_attention: bool
    kv_type: KvType
    llama_cpp: str
    devices: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Reading:
    """A prompt that was read, up to its first token.

    `read_s` is the reading alone, `first_token_s` all that a caller waits for.
    `cpu_s` is the time of all threads meanwhile.
    """

    cached_tokens: int
    read_tokens: int
    read_s: float
    first_token_s: float
    cpu_s: float

    @property
    def tokens_per_s(self) -> float:
        return self.read_tokens / self.read_s


@dataclass(frozen=True, slots=True)
class Spoken:
    """Tokens that were generated, all callers together, and the seconds they took."""

    tokens: int
    seconds: float

    @property
    def tokens_per_s(self) -> float:
        return self.tokens / self.seconds


@dataclass(frozen=True, slots=True)
class Resumed:
    """A history that came back from a file: until it was there, and the first token."""

    cached_tokens: int
    restore_s: float
    first_token_s: float
    state_bytes: int


class Subject(Protocol):
    """A model that is measured."""

    @property
    def opened(self) -> Opened: ...
    @property
    def age_s(self) -> float:
        """The seconds since its process was started."""
        ...

    def read(self, count: int) -> Reading:
        """Read a prompt that was never seen."""
        ...

    def generate(self, depth: int, tokens: int, seconds: float) -> Spoken:
        """Generate behind `depth` tokens, until either is reached.

        What was generated behind fewer tokens before is read on from there.
        """
        ...

    def follow(self, history: int, count: int) -> Reading:
        """Read `count` new tokens behind the beginning of the last prompt read."""
        ...

    def resume(self, history: int, count: int) -> Resumed:
        """Do the same after the history left for a file, and came back from it."""
        ...

    def together(self, tokens: int, seconds: float) -> Spoken:
        """Generate in all sequences at once."""
        ...

    def peak_memory(self) -> int | None:
        """The most bytes its process had resident, None where nobody counts."""
        ...


@dataclass(frozen=True, slots=True)
class Figure:
    """The median of some rounds, and the lowest and highest of them."""

    median: float
    low: float
    high: float
    rounds: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Self | None:
        """Sum up rounds; None where there was none."""
        if not values:
            return None
        return cls(median(values), min(values), max(values), len(values))


@dataclass(frozen=True, slots=True)
class LeftOut:
    """What was not measured, and why."""

    what: str
    why: str
