"""The seam between this program and whatever runs a model.

Values and Protocols only: what a request says, what an answer brings, what a
loaded model offers. Knows no llama.cpp, no file and no template.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, fields
from math import isfinite
from typing import TYPE_CHECKING, Literal, Protocol, get_args

from wizard_edge.errors import UsageError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Finish = Literal["stop", "length", "cancelled"]
KvType = Literal["f32", "f16", "q8_0", "q4_0"]
GpuLayers = Literal["auto", "all"] | int

# What a user is offered; "f32" is for comparisons with a reference.
KV_TYPES: tuple[KvType, ...] = ("f16", "q8_0", "q4_0")
# Tokens of context where nobody asks for another number, or what the model knows if
# that is less.
DEFAULT_CONTEXT = 4096
# One less than LLAMA_DEFAULT_SEED of llama.h, which means: draw one.
MAX_SEED = 2**32 - 2


@dataclass(frozen=True, slots=True)
class Sampling:
    """How the next token is chosen and when to end.

    The default is greedy: `temperature` 0 takes the likeliest token, whatever the
    other values say. `top_k` 0, `top_p` 1 and `min_p` 0 switch those filters off;
    `repeat_penalty` 1 changes nothing and looks back 64 tokens otherwise. `seed`
    None draws one. `max_tokens` None lets the answer fill the context.

    Raises: UsageError for a value out of its range.
    """

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repeat_penalty: float = 1.0
    seed: int | None = None
    max_tokens: int | None = None
    grammar: str | None = None
    json_schema: str | None = None

    def __post_init__(self) -> None:
        _in_range("temperature", self.temperature, 0, 100)
        _in_range("top-k", self.top_k, 0, 10**6)
        _in_range("top-p", self.top_p, 0, 1)
        _in_range("min-p", self.min_p, 0, 1)
        _in_range("repeat-penalty", self.repeat_penalty, 0.01, 100)
        if self.seed is not None:
            _in_range("seed", self.seed, 0, MAX_SEED)
        if self.max_tokens is not None:
            _in_range("max-tokens", self.max_tokens, 1, 2**31 - 1)
        if self.grammar is not None and self.json_schema is not None:
            raise UsageError("grammar and json-schema exclude each other")


@dataclass(frozen=True, slots=True)
class LoadOptions:
    """How a model is loaded. None everywhere means: what suits machine and model.

    `context` is in tokens. `threads` generate, `prompt_threads` read the prompt.
    `gpu_layers` counts layers moved to a GPU, where llama.cpp was built for one.
    `flash_attention` None keeps the measured default (docs/decisions/003).

    Raises: UsageError for a value out of its range.
    """

    context: int | None = None
    threads: int | None = None
    prompt_threads: int | None = None
    gpu_layers: GpuLayers = "auto"
    kv_type: KvType = "f16"
    flash_attention: bool | None = None
    mmap: bool = True
    mlock: bool = False

    def __post_init__(self) -> None:
        if self.context is not None:
            _in_range("ctx-size", self.context, 8, 2**24)
        if self.threads is not None:
            _in_range("threads", self.threads, 1, 1024)
        if self.prompt_threads is not None:
            _in_range("prompt-threads", self.prompt_threads, 1, 1024)
        if isinstance(self.gpu_layers, int):
            _in_range("gpu-layers", self.gpu_layers, 0, 10_000)
        elif self.gpu_layers not in ("auto", "all"):
            raise UsageError(f"gpu-layers is not auto, all or N: {self.gpu_layers!r}")
        if self.kv_type not in get_args(KvType):
            raise UsageError(f"unknown kv-type {self.kv_type!r}: {', '.join(KV_TYPES)}")


@dataclass(frozen=True, slots=True)
class Stats:
    """What an answer cost so far; tokens and seconds.

    `prompt_tokens` counts the whole prompt, `cached_tokens` those of it that were
    in the KV cache and not evaluated, `reread_tokens` those evaluated although an
    earlier turn of the conversation had evaluated them before. `generate_s` is the
    time spent on all new tokens but the first, which the prompt's last step gave.
    """

    prompt_tokens: int = 0
    cached_tokens: int = 0
    reread_tokens: int = 0
    new_tokens: int = 0
    load_s: float = 0.0
    prompt_s: float = 0.0
    generate_s: float = 0.0

    @property
    def prompt_rate(self) -> float:
        """Prompt tokens evaluated per second."""
        return _rate(self.prompt_tokens - self.cached_tokens, self.prompt_s)

    @property
    def generate_rate(self) -> float:
        """Tokens generated per second, from the second one on."""
        return _rate(self.new_tokens - 1, self.generate_s)

    def as_dict(self) -> dict[str, float]:
        """Return the fields by name, as `run --json` shows them."""
        return {item.name: getattr(self, item.name) for item in fields(self)}


@dataclass(frozen=True, slots=True)
class Chunk:
    """One step of an answer: the token, the text it completed, running counts.

    `text` is empty while a character is still incomplete and for the end token;
    `finish` is set on the last chunk only, whose `token` may be None.
    """

    token: int | None
    text: str
    finish: Finish | None = None
    stats: Stats = field(default_factory=Stats)


class Vocabulary(Protocol):
    """Text to token ids and back.

    `bos` is the token every prompt begins with, None where the model was trained
    without one.
    """

    @property
    def size(self) -> int: ...
    @property
    def bos(self) -> int | None: ...
    @property
    def eos(self) -> int: ...
    def tokenize(self, text: str) -> list[int]:
        """Tokenize plain text; no part of it becomes a special token."""
        ...

    def control(self, text: str) -> int:
        """Return the id of the control token spelled `text`.

        Raises: BackendError when the vocabulary has no such control token.
        """
        ...

    def piece(self, token: int) -> bytes:
        """Return the bytes a token adds to the text; control tokens add none."""
        ...

    def spell(self, token: int) -> str:
        """Return how a token is written in a prompt listing, control tokens too."""
        ...

    def is_end(self, token: int) -> bool:
        """Tell whether a token ends an answer."""
        ...


class Engine(Protocol):
    """One loaded model. Calls are serialised; `close` frees it."""

    @property
    def vocabulary(self) -> Vocabulary: ...
    @property
    def context(self) -> int:
        """Tokens that fit, prompt and answer together."""
        ...

    @property
    def load_s(self) -> float:
        """Seconds it took to load."""
        ...

    def generate(
        self,
        prompt: Sequence[int],
        sampling: Sampling,
        *,
        cancelled: Callable[[], bool] = ...,
    ) -> Iterator[Chunk]:
        """Continue `prompt` token by token; the last chunk says why it ended.

        Raises: UsageError when the prompt is empty or leaves no room in the context.
        """
        ...

    def close(self) -> None: ...


class Scorer(Protocol):
    """One loaded model that says what it expects at each place of a text."""

    @property
    def vocabulary(self) -> Vocabulary: ...
    def score(
        self, ids: Sequence[int], *, first: int = 0
    ) -> Iterator[NDArray[np.float32]]:
        """Yield the logits of every position from `first` on, in order, in blocks.

        A block has the shape (positions, vocabulary), f32, and belongs to the
        caller; row `i` of all of them says what follows `ids[first + i]`. The same
        `first` and count of ids give the same blocks. Evaluates from an empty cache.
        Raises: UsageError when there is no id, or more than the context takes.
        """
        ...

    def close(self) -> None: ...


def never() -> bool:
    """Return False: the `cancelled` of a request that nobody cancels."""
    return False


def _in_range(name: str, value: float, low: float, high: float) -> None:
    if not isfinite(value) or not low <= value <= high:
        raise UsageError(f"{name} must be from {low} to {high}, got {value}")


def _rate(count: int, seconds: float) -> float:
    return count / seconds if seconds > 0 else 0.0
