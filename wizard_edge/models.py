"""What the registry says about models and licences, as values.

Values only: how they are written in `models.toml` is `registry`'s business.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from wizard_edge.errors import UnknownQuant
from wizard_edge.names import CommitId, ModelName, RelPath, RepoId, Sha256

Joined = Literal["whole", "bytes", "gguf-split"]
State = Literal["present", "unknown", "gone"]
Weights = Literal["full", "delta"]
Format = Literal["pytorch", "safetensors"]
Dtype = Literal["float32", "float16", "bfloat16"]
Positions = Literal["rope", "learned"]
TokenizerKind = Literal["sentencepiece", "bpe"]


@dataclass(frozen=True, slots=True)
class License:
    """A licence in short; `commercial` None means nobody could say: take it as no.

    `restrictions` are uses that it rules out, in the order of its own letters (a),
    (b) and so on. `notice` has the lines that must travel with the model.
    """

    id: str
    name: str
    expression: str
    commercial: bool | None
    url: str = ""
    use_policy: str = ""
    obligations: tuple[str, ...] = ()
    restrictions: tuple[str, ...] = ()
    notice: str = ""
    unverified: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """One file of a repository; what is None here, the hub has to say.

    `size` is in bytes and an estimate unless `size_exact`. `repo` is None for files
    that come with this package.
    """

    repo: RepoId | None
    revision: CommitId | None
    path: RelPath
    size: int | None = None
    size_exact: bool = False
    sha256: Sha256 | None = None


@dataclass(frozen=True, slots=True)
class Variant:
    """A ready GGUF in one quant; `size` is the sum of its files in bytes.

    `joined` says how several files make one model: `bytes` are put end to end in
    order, `gguf-split` stay apart and llama.cpp is given the first.
    """

    quant: str
    files: tuple[RemoteFile, ...]
    joined: Joined = "whole"
    size: int | None = None
    size_exact: bool = False


@dataclass(frozen=True, slots=True)
class Base:
    """The model that another one was trained from."""

    name: str
    repo: RepoId | None = None
    license: str | None = None


@dataclass(frozen=True, slots=True)
class Mirror:
    """Another repository of the model; `kind` None where it holds no checkpoint."""

    repo: RepoId
    kind: Weights | None = None
    note: str = ""


@dataclass(frozen=True, slots=True)
class Source:
    """Where the original weights lie: a repository, or a directory of this package.

    `delta_of` is the base that must be added, None for full weights. `files` lists
    only those of which something is known; `size` is that of all shards, in bytes.
    """

    repo: RepoId | None = None
    package: RelPath | None = None
    revision: CommitId | None = None
    former: tuple[RepoId, ...] = ()
    state: State = "unknown"
    delta_of: Base | None = None
    format: Format | None = None
    dtype: Dtype | None = None
    shards: int | None = None
    size: int | None = None
    size_exact: bool = False
    license: str | None = None
    files: tuple[RemoteFile, ...] = ()
    mirrors: tuple[Mirror, ...] = ()

    @property
    def kind(self) -> Weights:
        """Whether the weights run as they are or need their base."""
        return "delta" if self.delta_of else "full"


@dataclass(frozen=True, slots=True)
class RopeScaling:
    """How rotary positions are stretched."""

    type: Literal["linear"]
    factor: float


@dataclass(frozen=True, slots=True)
class Shape:
    """The sizes of the tensors. `vocabulary` counts the rows of the embedding."""

    layers: int
    hidden: int
    ffn: int
    heads: int
    kv_heads: int
    vocabulary: int
    norm_eps: float | None = None
    positions: Positions = "rope"
    rope_theta: float | None = None
    rope_scaling: RopeScaling | None = None
    sliding_window: int | None = None
    experts: int | None = None
    experts_used: int | None = None


@dataclass(frozen=True, slots=True)
class Tokenizer:
    """Which tokenizer, its special ids, and tokens added after training it."""

    kind: TokenizerKind
    bos: int | None = None
    eos: int | None = None
    pad: int | None = None
    added: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class SamplingDefaults:
    """What the authors sample with."""

    temperature: float
    top_p: float = 1.0


@dataclass(frozen=True, slots=True)
class Scores:
    """Published scores as printed by `source`; MT-Bench is out of 10, the rest %."""

    source: str
    humaneval: float | None = None
    humaneval_plus: float | None = None
    mbpp: float | None = None
    mbpp_plus: float | None = None
    gsm8k: float | None = None
    math: float | None = None
    mt_bench: float | None = None
    alpaca_eval: float | None = None


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """One model. `context` and `training_length` are in tokens."""

    name: ModelName
    title: str
    architecture: str
    template: str
    licenses: tuple[str, ...]
    family: str = ""
    aliases: tuple[ModelName, ...] = ()
    hf_class: str = ""
    parameters: int | None = None
    shape: Shape | None = None
    tokenizer: Tokenizer | None = None
    context: int | None = None
    training_length: int | None = None
    alternative_templates: tuple[str, ...] = ()
    sampling: SamplingDefaults | None = None
    license_conflict: str = ""
    base: Base | None = None
    scores: Scores | None = None
    traps: tuple[str, ...] = ()
    unverified: tuple[str, ...] = ()
    inferred: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()
    source: Source | None = None
    variants: tuple[Variant, ...] = ()

    def variant(self, quant: str) -> Variant:
        """Return the ready GGUF of that quant. Raises: UnknownQuant."""
        for variant in self.variants:
            if variant.quant == quant:
                return variant
        known = [variant.quant for variant in self.variants]
        raise UnknownQuant(quant, known=known or ["none"], of=self.name)

    def is_unverified(self, key: str) -> bool:
        """Tell whether `key`, such as `source.revision`, carries the mark."""
        return any(_covers(mark, key) for mark in self.unverified)


def _covers(mark: str, key: str) -> bool:
    marks, keys = mark.split("."), key.split(".")
    return len(marks) <= len(keys) and all(
        part in ("*", name) for part, name in zip(marks, keys, strict=False)
    )
