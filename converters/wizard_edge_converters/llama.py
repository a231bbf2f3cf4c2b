"""The LLaMA architecture: LLaMA 1 and 2, Code Llama, DeepSeek-Coder, Mistral, Mixtral.

What a config leaves out gets the value that transformers gives it, which differs
between the three config classes.

Source: transformers 5.24, models/{llama,mistral,mixtral}/configuration_*.py
(defaults); llama.cpp 0c1e57098, conversion/llama.py and conversion/base.py (what
counts and in which order), gguf-py/gguf/tensor_mapping.py (names).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from wizard_edge_converters.config import (
    MAX_CONTEXT,
    MAX_LAYERS,
    MAX_VOCABULARY,
    MAX_WIDTH,
    Config,
)
from wizard_edge_converters.entries import Entry, f32, text, u32
from wizard_edge_converters.rules import TensorRule, weight_rules, with_bias

# Source: llama.cpp 0c1e57098, src/llama-hparams.h, LLAMA_MAX_EXPERTS.
MAX_EXPERTS = 1024
_MAX_THETA = 1e12


@dataclass(frozen=True, slots=True)
class _Defaults:
    """What a config class fills in; `kv_heads` None means one per head.

    `states_head_size` is whether llama.cpp's converter finds a head size that the
    config does not state, and writes it.
    """

    context: int
    epsilon: float
    theta: float
    kv_heads: int | None
    states_head_size: bool = True


_DEFAULTS: Mapping[str, _Defaults] = {
    "llama": _Defaults(2048, 1e-6, 1e4, None),
    "mistral": _Defaults(131072, 1e-6, 1e4, 8),
    "mixtral": _Defaults(131072, 1e-5, 1e6, 8, states_head_size=False),
}


@dataclass(frozen=True, slots=True)
class LlamaHparams:
    """The shape of a LLaMA model; `rope_factor` is linear scaling, None without.

    `tied` models use the embedding as output. `special_ids` are the ids that the
    config names: `bos`, `eos`, `unk`, `pad` and rarer ones, where it does. Of
    `experts` (0: one plain feed-forward network) each token uses `experts_used`.
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
    experts: int = 0
    experts_used: int = 0
    states_head_size: bool = True

    architecture = "llama"

    @property
    def expert_parameters(self) -> int:
        return self.layers * 3 * self.width * self.feed_forward

    def rules(self) -> tuple[TensorRule, ...]:
        return llama_rules(self)

    def entries(self) -> Iterable[Entry]:
        return _entries(self)


def read_llama(config: Config, kind: str) -> LlamaHparams:
    """Read a config of the class `kind`: llama, mistral or mixtral.

    Raises: CannotConvert; Corrupt naming the key whose value makes no sense.
    """
    defaults = _DEFAULTS[kind]
    config.expect("hidden_act", ("silu",), "LLaMA has silu")
    if config.values.get("quantization_config") is not None:
        config.refuse("quantization_config", "the weights are quantized already")
    width = config.integer("hidden_size", MAX_WIDTH)
    heads = config.integer("num_attention_heads", width)
    if width % heads:
        config.fail("num_attention_heads", f"{heads} heads do not divide {width}")
    head_size = config.integer("head_dim", MAX_WIDTH, default=width // heads)
    if head_size % 2:
        config.fail("head_dim", f"heads of odd size {head_size}")
    kv_heads = config.integer(
        "num_key_value_heads", heads, default=defaults.kv_heads or heads
    )
    if heads % kv_heads:
        config.fail("num_key_value_heads", f"{kv_heads} do not divide {heads}")
    theta, factor = _read_rope(config, defaults.theta)
    experts, used = _read_experts(config) if kind == "mixtral" else (0, 0)
    return LlamaHparams(
        vocabulary=config.integer("vocab_size", MAX_VOCABULARY),
        context=_read_context(config, defaults.context),
        width=width,
        feed_forward=config.integer("intermediate_size", MAX_WIDTH),
        layers=config.integer("num_hidden_layers", MAX_LAYERS),
        heads=heads,
        kv_heads=kv_heads,
        head_size=head_size,
        epsilon=config.number("rms_norm_eps", 1.0, default=defaults.epsilon),
        rope_theta=theta,
        rope_factor=factor,
        tied=config.boolean("tie_word_embeddings", default=False),
        special_ids=config.special_ids(),
        experts=experts,
        experts_used=used,
        states_head_size=defaults.states_head_size
        or config.values.get("head_dim") is not None,
    )


def _read_context(config: Config, default: int) -> int:
    # Early LLaMA-1 conversions called it max_sequence_length.
    for key in ("max_position_embeddings", "max_sequence_length"):
        if config.values.get(key) is not None:
            return config.integer(key, MAX_CONTEXT)
    return default


def _read_rope(config: Config, default: float) -> tuple[float, float | None]:
    """Return base frequency and linear factor; newer configs keep both together."""
    key = "rope_parameters" if "rope_parameters" in config.values else "rope_scaling"
    scaling = config.section(key)
    theta = config.number("rope_theta", _MAX_THETA, default=default)
    theta = scaling.number("rope_theta", _MAX_THETA, default=theta)
    kind = scaling.values.get("rope_type", scaling.values.get("type")) or "default"
    if kind == "default":
        return theta, None
    if kind != "linear":
        config.refuse(key, "only linear scaling is supported")
    return theta, scaling.number("factor", 1e6)


def _read_experts(config: Config) -> tuple[int, int]:
    experts = config.integer("num_local_experts", MAX_EXPERTS, least=2, default=8)
    return experts, config.integer("num_experts_per_tok", experts, default=2)


def llama_rules(hparams: LlamaHparams) -> tuple[TensorRule, ...]:
    """Return the tensors of a LLaMA model; biases and a tied output may be missing."""
    width, vocabulary = hparams.width, hparams.vocabulary
    rules = [
        TensorRule(
            "model.embed_tokens.weight", "token_embd.weight", (vocabulary, width)
        ),
        TensorRule("model.norm.weight", "output_norm.weight", (width,)),
        TensorRule(
            "lm_head.weight",
            "output.weight",
            (vocabulary, width),
            required=not hparams.tied,
        ),
    ]
    for layer in range(hparams.layers):
        rules += _attention_rules(hparams, layer)
        rules += _expert_rules(hparams, layer) or _feed_forward_rules(hparams, layer)
    return tuple(rules)


def _attention_rules(hparams: LlamaHparams, layer: int) -> list[TensorRule]:
    width = hparams.width
    query = hparams.heads * hparams.head_size
    shared = hparams.kv_heads * hparams.head_size
    matrices = (
        ("self_attn.q_proj", "attn_q", (query, width), hparams.heads),
        ("self_attn.k_proj", "attn_k", (shared, width), hparams.kv_heads),
        ("self_attn.v_proj", "attn_v", (shared, width), None),
        ("self_attn.o_proj", "attn_output", (width, query), None),
    )
    norms = (
        ("input_layernorm", "attn_norm"),
        ("post_attention_layernorm", "ffn_norm"),
    )
    source, name = f"model.layers.{layer}", f"blk.{layer}"
    rules = [
        TensorRule(f"{source}.{old}.weight", f"{name}.{new}.weight", (width,))
        for old, new in norms
    ]
    for old, new, shape, heads in matrices:
        rule = TensorRule(
            f"{source}.{old}.weight", f"{name}.{new}.weight", shape, heads
        )
        rules += with_bias(rule, required=False)
    return rules


def _feed_forward_rules(hparams: LlamaHparams, layer: int) -> list[TensorRule]:
    width, inner = hparams.width, hparams.feed_forward
    matrices = (
        ("gate_proj", "ffn_gate", (inner, width)),
        ("up_proj", "ffn_up", (inner, width)),
        ("down_proj", "ffn_down", (width, inner)),
    )
    source, name = f"model.layers.{layer}.mlp", f"blk.{layer}"
    return weight_rules(source, name, matrices, biases_required=False)


def _expert_rules(hparams: LlamaHparams, layer: int) -> list[TensorRule]:
    """Return router and experts of a layer of Mixtral, nothing for other models."""
    if not hparams.experts:
        return []
    width, inner = hparams.width, hparams.feed_forward
    matrices = (
        ("w1", "ffn_gate_exps", (inner, width)),
        ("w2", "ffn_down_exps", (width, inner)),
        ("w3", "ffn_up_exps", (inner, width)),
    )
    source, name = f"model.layers.{layer}.block_sparse_moe", f"blk.{layer}"
    router = TensorRule(
        f"{source}.gate.weight", f"{name}.ffn_gate_inp.weight", (hparams.experts, width)
    )
    experts = [
        TensorRule(
            f"{source}.experts.{expert}.{old}.weight",
            f"{name}.{new}.weight",
            shape,
            part=expert,
            parts=hparams.experts,
        )
        for expert in range(hparams.experts)
        for old, new, shape in matrices
    ]
    return [router, *experts]


def _entries(hparams: LlamaHparams) -> Iterable[Entry]:
    yield u32("llama.block_count", hparams.layers)
    yield u32("llama.context_length", hparams.context)
    yield u32("llama.embedding_length", hparams.width)
    yield u32("llama.feed_forward_length", hparams.feed_forward)
    yield u32("llama.attention.head_count", hparams.heads)
    yield u32("llama.attention.head_count_kv", hparams.kv_heads)
    if hparams.rope_factor is not None:
        yield text("llama.rope.scaling.type", "linear")
        yield f32("llama.rope.scaling.factor", hparams.rope_factor)
    yield f32("llama.rope.freq_base", hparams.rope_theta)
    yield f32("llama.attention.layer_norm_rms_epsilon", hparams.epsilon)
    if hparams.experts:
        yield u32("llama.expert_count", hparams.experts)
        yield u32("llama.expert_used_count", hparams.experts_used)
    if hparams.states_head_size:
        yield u32("llama.attention.key_length", hparams.head_size)
        yield u32("llama.attention.value_length", hparams.head_size)
    yield u32("llama.vocab_size", hparams.vocabulary)
    yield u32("llama.rope.dimension_count", hparams.head_size)
