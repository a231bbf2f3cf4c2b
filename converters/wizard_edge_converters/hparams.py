"""Turns a config.json into hyper-parameters: typed, bounded, named as GGUF means them.

Every value is checked here, once. What LLaMA-1 configs leave out gets the value that
transformers' `LlamaConfig` gives it.

Source: transformers 5.23, models/llama/configuration_llama.py (defaults);
llama.cpp 0c1e57098, conversion/base.py and conversion/llama.py (what counts).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite
from typing import NoReturn

from wizard_edge.errors import CannotConvert, Corrupt
from wizard_edge_converters.checkpoint import SideFiles
from wizard_edge_converters.source_files import parse_json, shown

CONFIG = "config.json"

# `architectures` of config.json -> `general.architecture` of GGUF. The second
# spelling is that of the first LLaMA conversions of 2023.
ARCHITECTURES: Mapping[str, str] = {
    "LlamaForCausalLM": "llama",
    "LLaMAForCausalLM": "llama",
}

# Our own bounds, far above any model of the family; llama.cpp has 512 layers at most.
# Source: llama.cpp 0c1e57098, src/llama-hparams.h, LLAMA_MAX_LAYERS.
MAX_LAYERS = 512
MAX_WIDTH = 1 << 20
MAX_VOCABULARY = 1 << 20
MAX_CONTEXT = 1 << 26
_DEFAULT_CONTEXT = 2048
_DEFAULT_EPSILON = 1e-6
_DEFAULT_THETA = 10000.0
_MAX_THETA = 1e12


@dataclass(frozen=True, slots=True)
class LlamaHparams:
    """The shape of a LLaMA model; `rope_factor` is linear scaling, None without.

    `tied` models use the embedding as output. `special_ids` are the ids that the
    config names: `bos`, `eos`, `unk`, `pad`, where it does.
    """

    vocabulary: int
    context: int
    width: int
    feed_forward: int
    layers: int
    heads: int
    kv_heads: int
    head_size: int
    epsilon: float
    rope_theta: float
    rope_factor: float | None
    tied: bool
    special_ids: Mapping[str, int]

    architecture = "llama"


def read_hparams(files: SideFiles) -> LlamaHparams:
    """Read config.json of a checkpoint.

    Raises: CannotConvert without a config or for another architecture; Corrupt
    naming the key whose value makes no sense.
    """
    label = files.label(CONFIG)
    data = files.small(CONFIG)
    if data is None:
        raise CannotConvert(
            f"no {CONFIG} beside the weights: {label}",
            hint="it comes with the checkpoint and states the model's shape",
        )
    config = _Config(label, parse_json(data, label))
    _check_architecture(config)
    return _read_llama(config)


def _check_architecture(config: _Config) -> None:
    names = config.values.get("architectures")
    kind = config.values.get("model_type")
    if names is None and kind == "llama":
        return
    if isinstance(names, list) and len(names) == 1 and isinstance(names[0], str):
        if names[0] in ARCHITECTURES:
            return
        kind = names[0]
    raise CannotConvert(
        f"{config.label} is of the architecture {shown(kind)}, which is not supported",
        hint=f"supported: {', '.join(ARCHITECTURES)}",
    )


def _read_llama(config: _Config) -> LlamaHparams:
    if config.values.get("hidden_act", "silu") != "silu":
        config.refuse("hidden_act", "LLaMA has silu")
    if config.values.get("quantization_config") is not None:
        config.refuse("quantization_config", "the weights are quantized already")
    width = config.integer("hidden_size", MAX_WIDTH)
    heads = config.integer("num_attention_heads", width)
    if width % heads:
        config.fail("num_attention_heads", f"{heads} heads do not divide {width}")
    head_size = config.integer("head_dim", MAX_WIDTH, default=width // heads)
    if head_size % 2:
        config.fail("head_dim", f"heads of odd size {head_size}")
    kv_heads = config.integer("num_key_value_heads", heads, default=heads)
    if heads % kv_heads:
        config.fail("num_key_value_heads", f"{kv_heads} do not divide {heads}")
    theta, factor = _read_rope(config)
    return LlamaHparams(
        vocabulary=config.integer("vocab_size", MAX_VOCABULARY),
        context=_read_context(config),
        width=width,
        feed_forward=config.integer("intermediate_size", MAX_WIDTH),
        layers=config.integer("num_hidden_layers", MAX_LAYERS),
        heads=heads,
        kv_heads=kv_heads,
        head_size=head_size,
        epsilon=config.number("rms_norm_eps", 1.0, default=_DEFAULT_EPSILON),
        rope_theta=theta,
        rope_factor=factor,
        tied=config.boolean("tie_word_embeddings", default=False),
        special_ids=_read_special_ids(config),
    )


def _read_context(config: _Config) -> int:
    # Early LLaMA-1 conversions called it max_sequence_length.
    for key in ("max_position_embeddings", "max_sequence_length"):
        if config.values.get(key) is not None:
            return config.integer(key, MAX_CONTEXT)
    return _DEFAULT_CONTEXT


def _read_rope(config: _Config) -> tuple[float, float | None]:
    """Return base frequency and linear factor; newer configs keep both together."""
    key = "rope_parameters" if "rope_parameters" in config.values else "rope_scaling"
    value = config.values.get(key)
    if value is None:
        value = {}
    if not isinstance(value, dict):
        config.fail(key, f"is {shown(value)}, should be an object")
    scaling = _Config(config.label, value, prefix=f"{key}.")
    theta = config.number("rope_theta", _MAX_THETA, default=_DEFAULT_THETA)
    theta = scaling.number("rope_theta", _MAX_THETA, default=theta)
    kind = scaling.values.get("rope_type", scaling.values.get("type")) or "default"
    if kind == "default":
        return theta, None
    if kind != "linear":
        config.refuse(key, "only linear scaling is supported")
    return theta, scaling.number("factor", 1e6)


def _read_special_ids(config: _Config) -> dict[str, int]:
    """Return the ids that are ids: LLaMA-1 writes -1 for what there is not."""
    ids = {}
    for kind in ("bos", "eos", "unk", "pad"):
        value = config.values.get(f"{kind}_token_id")
        if type(value) is int and 0 <= value < MAX_VOCABULARY:
            ids[kind] = value
    return ids


@dataclass(frozen=True, slots=True)
class _Config:
    """Typed access to a decoded config; `prefix` goes before keys in errors."""

    label: str
    values: Mapping[str, object]
    prefix: str = ""

    def integer(self, key: str, most: int, *, default: int | None = None) -> int:
        """Return a whole number from 1 to `most`."""
        value = self._value(key, default)
        if type(value) is not int:
            self.fail(key, f"is {shown(value)}, should be a whole number")
        if not 1 <= value <= most:
            self.fail(key, f"is {shown(value)}, can be 1 to {most}")
        return value

    def number(self, key: str, most: float, *, default: float | None = None) -> float:
        """Return a number above 0, up to `most`."""
        value = self._value(key, default)
        if type(value) not in (int, float):
            self.fail(key, f"is {shown(value)}, should be a number")
        number = _as_float(value)
        if not isfinite(number) or not 0 < number <= most:
            self.fail(key, f"is {shown(value)}, can be above 0 and up to {most:g}")
        return number

    def boolean(self, key: str, *, default: bool) -> bool:
        value = self._value(key, default)
        if not isinstance(value, bool):
            self.fail(key, f"is {shown(value)}, should be true or false")
        return value

    def fail(self, key: str, problem: str) -> NoReturn:
        raise Corrupt(self.label, problem, where=f"key {self.prefix}{key}")

    def refuse(self, key: str, reason: str) -> NoReturn:
        value = shown(self.values.get(key))
        raise CannotConvert(f"{self.label} has {key} = {value}: {reason}")

    def _value(self, key: str, default: object) -> object:
        value = self.values.get(key)
        if value is not None:
            return value
        if default is None:
            self.fail(key, "is missing")
        return default


def _as_float(value: object) -> float:
    try:
        return float(value)  # type: ignore[arg-type]
    except OverflowError:
        return float("inf")
