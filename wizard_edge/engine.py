"""The seam between this program and whatever runs a model.

Values and Protocols only: what a request says, what an answer brings, what a
loaded model offers. Knows no llama.cpp, no file and no template.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, fields
from math import inf, isfinite
from pathlib import Path
from typing import (
    TYPE_CHECKING,
    Literal,
    Protocol,
    TypeAlias,
    get_args,
    runtime_checkable,
)

from wizard_edge.endpoints import Endpoint
from wizard_edge.errors import UsageError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Finish = Literal["stop", "length", "cancelled"]
KvType = Literal["f32", "f16", "q8_0", "q4_0"]
# What happens when a conversation outgrows the context.
Overflow = Literal["drop-oldest-turns", "shift", "error"]
GpuLayers = Literal["auto", "all"] | int
# What can be read byte by byte without a copy.
Blob: TypeAlias = bytes | bytearray | memoryview

# What a user is offered; "f32" is for comparisons with a reference.
KV_TYPES: tuple[KvType, ...] = ("f16", "q8_0", "q4_0")
# Tokens of context where nobody asks for another number, or what the model knows if
# that is less.
DEFAULT_CONTEXT = 4096
# LLAMA_MAX_SEQ of llama.cpp 0c1e57098, src/llama-cparams.h.
MOST_PARALLEL = 256
# What OpenAI's API allows as `top_logprobs`.
MOST_LOGPROBS = 20
# More than the logits of any model differ; f32 could not add much more to one.
MOST_BIAS = 10_000.0
# Tokens that one step reads at most: what every buffer is reserved for.
MAX_BATCH = 512
# One less than LLAMA_DEFAULT_SEED of llama.h, which means: draw one.
MAX_SEED = 2**32 - 2


@dataclass(frozen=True, slots=True)
class Sampling:
    """How the next token is chosen and when to end.

    The default is greedy: `temperature` 0 takes the likeliest token, whatever the
    other values say. `top_k` 0, `top_p` 1 and `min_p` 0 switch those filters off;
    `repeat_penalty` 1 changes nothing and looks back 64 tokens otherwise. `seed`
    None draws one. `max_tokens` None lets the answer fill the context.

    The answer ends before the text of `stop` that is complete first, of which no part
    is shown; its tokens, to the one that completed the text, stay in the history.
    `logit_bias` adds to the logits of single tokens; -inf forbids one. `logprobs`
    asks for the logarithm of each token's probability, in the model's own
    distribution before any filter, with that many of the likeliest beside it.

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
    stop: tuple[str, ...] = ()
    logit_bias: tuple[tuple[int, float], ...] = ()
    logprobs: int | None = None

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
        if self.logprobs is not None:
            _in_range("logprobs", self.logprobs, 0, MOST_LOGPROBS)
        if "" in self.stop:
            raise UsageError("a stop text is empty")
        for token, bias in self.logit_bias:
            fits = bias == -inf or abs(bias) <= MOST_BIAS
            if not fits or token < 0:
                raise UsageError(f"logit-bias cannot be {bias} for token {token}")


@dataclass(frozen=True, slots=True)
class LoadOptions:
    """How a model is loaded. None everywhere means: what suits machine and model.

    `context` is in tokens, at most `default_context` where it is None. `threads`
    generate, `prompt_threads` read the prompt. `batch` tokens go through the model
    in one step; buffers grow with it. `repack` lets llama.cpp keep matrices a second
    time, rearranged for the processor.
    `gpu_layers` counts layers moved to a GPU, where llama.cpp was built for one.
    `flash_attention` None keeps the measured default (docs/decisions/003). `rpc` are
    the workers that compute the layers `gpu_layers` counts, beside a GPU of our own.
    `parallel` conversations are answered at once, each with a context of its own.
    `deterministic` evaluates every token alone, so that neither what is cached nor
    what is answered beside it changes a single bit of an answer: slower prompts.

    Answers come faster where what follows is guessed, by a smaller model of the same
    vocabulary, `draft`, and by `lookup` of what was said before: None guesses where
    that measures faster, True wherever something is found. An answer is the same.

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
    parallel: int = 1
    deterministic: bool = False
    default_context: int = DEFAULT_CONTEXT
    batch: int | None = None
    repack: bool = True
    draft: Path | None = None
    lookup: bool | None = None
    rpc: tuple[Endpoint, ...] = ()

    def __post_init__(self) -> None:
        if self.context is not None:
            _in_range("ctx-size", self.context, 8, 2**24)
        _in_range("default context", self.default_context, 8, 2**24)
        if self.batch is not None:
            _in_range("batch", self.batch, 1, MAX_BATCH)
        if self.threads is not None:
            _in_range("threads", self.threads, 1, 1024)
        if self.prompt_threads is not None:
            _in_range("prompt-threads", self.prompt_threads, 1, 1024)
        _in_range("parallel", self.parallel, 1, MOST_PARALLEL)
        if isinstance(self.gpu_layers, int):
            _in_range("gpu-layers", self.gpu_layers, 0, 10_000)
        elif self.gpu_layers not in ("auto", "all"):
            raise UsageError(f"gpu-layers is not auto, all or N: {self.gpu_layers!r}")
        if self.kv_type not in get_args(KvType):
            raise UsageError(f"unknown kv-type {self.kv_type!r}: {', '.join(KV_TYPES)}")

    def context_for(self, trained: int) -> int:
        """Return the tokens of context for a model that knows `trained` of them."""
        return self.context or min(trained, self.default_context)


@dataclass(frozen=True, slots=True)
class Stats:
    """What an answer cost so far; tokens and seconds.

    `prompt_tokens` counts the whole prompt, `cached_tokens` those of it that were
    in the KV cache and not evaluated, `read_tokens` those evaluated so far,
    `reread_tokens` those evaluated although an earlier turn of the conversation had
    evaluated them before. Of `drafted_tokens` guesses `accepted_tokens` were right.
    `dropped_turns` and `dropped_tokens` were left out of the prompt because the
    conversation had outgrown the context. `wait_s` passed before the first token
    was looked at, `prompt_s` with reading; `generate_s` is the time spent on all new
    tokens but the first, which the prompt's last step gave.
    """

    prompt_tokens: int = 0
    cached_tokens: int = 0
    read_tokens: int = 0
    reread_tokens: int = 0
    new_tokens: int = 0
    drafted_tokens: int = 0
    accepted_tokens: int = 0
    dropped_turns: int = 0
    dropped_tokens: int = 0
    load_s: float = 0.0
    wait_s: float = 0.0
    prompt_s: float = 0.0
    generate_s: float = 0.0

    @property
    def prompt_rate(self) -> float:
        """Prompt tokens evaluated per second."""
        return _rate(self.read_tokens, self.prompt_s)

    @property
    def generate_rate(self) -> float:
        """Tokens generated per second, from the second one on."""
        return _rate(self.new_tokens - 1, self.generate_s)

    def as_dict(self) -> dict[str, float]:
        """Return the fields by name, as `run --json` shows them."""
        return {item.name: getattr(self, item.name) for item in fields(self)}


@dataclass(frozen=True, slots=True)
class Logprobs:
    """How likely a token was, as natural logarithms, and what was likeliest instead.

    `top` holds pairs of token and logarithm, the likeliest first.
    """

    logprob: float
    top: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True, slots=True)
class Chunk:
    """One step of an answer: the token, the text it completed, running counts.

    `text` is empty while a character, or what may become a stop text, is still
    incomplete, and for the end token; `finish` is set on the last chunk only. The
    `token` may be None there, and where nothing but the reading of a long prompt is
    reported.
    """

    token: int | None
    text: str
    finish: Finish | None = None
    stats: Stats = field(default_factory=Stats)
    logprobs: Logprobs | None = None


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
    """One loaded model that answers several callers; `close` frees it.

    Any thread may call. As many answers as it has sequences come at once, the
    others wait their turn.
    """

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
        owner: object | None = None,
        cancelled: Callable[[], bool] = ...,
    ) -> Iterator[Chunk]:
        """Continue `prompt` token by token; the last chunk says why it ended.

        `owner` is the conversation that the prompt belongs to: what lies in the KV
        cache for it is kept for its next prompt, and given up where it goes another
        way. Tokens of a prompt without an owner are kept while nobody needs the
        room.
        Raises: UsageError when the prompt is empty or leaves no room in the context.
        """
        ...

    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class KvPart:
    """What the KV cache holds for the tokens at `first` and behind, `count` of them.

    `data` is in llama.cpp's own form: of use only to the same model under the same
    `Stateful.state_kind`.
    """

    first: int
    count: int
    data: Blob


@runtime_checkable
class Stateful(Protocol):
    """An engine whose KV cache can leave the process and come back."""

    @property
    def state_kind(self) -> str:
        """What tells apart states of the same model that do not fit each other."""
        ...

    def save_state(self, ids: Sequence[int], *, first: int = 0) -> KvPart:
        """Copy what is in the KV cache of the beginning of `ids`, from `first` on.

        The count is 0 where there is nothing of it.
        Raises: UsageError where parts cannot be saved and `first` is not 0.
        """
        ...

    def restore_state(
        self,
        ids: Sequence[int],
        parts: Iterable[KvPart],
        *,
        owner: object | None = None,
    ) -> None:
        """Put parts that follow each other, the first at 0, back into the KV cache.

        Raises: BackendError when llama.cpp refuses one: nothing of them is kept.
        """
        ...


@runtime_checkable
class Shifting(Protocol):
    """An engine that can drop tokens in the middle of what it has read."""

    @property
    def can_shift(self) -> bool:
        """Whether the model allows it, and nobody asked for exact results."""
        ...

    def shift_state(self, ids: Sequence[int], *, first: int, count: int) -> bool:
        """Drop `count` tokens of `ids` from `first` on; those behind move up.

        What was computed for those behind, in sight of the dropped ones, stays as it
        is. False where the KV cache does not hold them: nothing happens.
        """
        ...


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


class ScoringEngine(Engine, Scorer, Protocol):
    """One loaded model that answers, and says what it expects."""


class Embedder(Protocol):
    """One loaded model that turns texts into vectors."""

    @property
    def vocabulary(self) -> Vocabulary: ...
    def embed(self, texts: Sequence[Sequence[int]]) -> NDArray[np.float32]:
        """Return a vector for each text, shape (texts, width), f32, each of length 1.

        Each is the mean of what the model has in its last layer for the tokens of
        the text. These models were not trained for that: what lies near each other
        is alike in wording more than in meaning.
        Raises: UsageError for a text without a token, or of more than the context
        takes.
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
