"""The StarCoder architecture (GPTBigCode): WizardCoder 15B, 3B and 1B.

One key and value head for all, learned positions, biases everywhere, and an output
that is the embedding, which a `.bin` file names twice all the same.

Source: transformers 5.24, models/gpt_bigcode/configuration_gpt_bigcode.py (defaults);
llama.cpp 0c1e57098, conversion/starcoder.py, gguf-py/gguf/tensor_mapping.py (names),
src/models/starcoder.cpp (what is optional).
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
from wizard_edge_converters.entries import Entry, f32, u32
from wizard_edge_converters.rules import TensorRule, weight_rules, with_bias

# llama.cpp computes the tanh form for all of them; they differ by less than F16 does.
_ACTIVATIONS = ("gelu", "gelu_pytorch_tanh", "gelu_new", "gelu_fast")


@dataclass(frozen=True, slots=True)
class StarcoderHparams:
    """The shape of a StarCoder model; `tied` and `special_ids` as in `LlamaHparams`."""

    vocabulary: int
    context: int
    width: int
    layers: int
    heads: int
    epsilon: float
    tied: bool
    special_ids: Mapping[str, int]

    architecture = "starcoder"
    experts = 0
    expert_parameters = 0

    @property
    def feed_forward(self) -> int:
        return 4 * self.width

    @property
    def head_size(self) -> int:
        return self.width // self.heads

    def rules(self) -> tuple[TensorRule, ...]:
        return starcoder_rules(self)

    def entries(self) -> Iterable[Entry]:
        return _entries(self)


def read_starcoder(config: Config) -> StarcoderHparams:
    """Read a GPTBigCode config.

    Raises: CannotConvert; Corrupt naming the key whose value makes no sense.
    """
    config.expect("activation_function", _ACTIVATIONS, "StarCoder has gelu")
    config.expect("multi_query", (True,), "only multi-query attention is supported")
    config.expect("num_key_value_heads", (1,), "StarCoder has one")
    config.expect("scale_attn_weights", (True,), "llama.cpp always scales")
    config.expect("add_cross_attention", (False,), "llama.cpp has none")
    if config.values.get("quantization_config") is not None:
        config.refuse("quantization_config", "the weights are quantized already")
    width = config.integer("n_embd", MAX_WIDTH)
    heads = config.integer("n_head", width)
    if width % heads:
        config.fail("n_head", f"{heads} heads do not divide {width}")
    config.expect("n_inner", (4 * width,), "StarCoder has four times n_embd")
    return StarcoderHparams(
        vocabulary=config.integer("vocab_size", MAX_VOCABULARY),
        context=config.integer("n_positions", MAX_CONTEXT),
        width=width,
        layers=config.integer("n_layer", MAX_LAYERS),
        heads=heads,
        epsilon=config.number("layer_norm_epsilon", 1.0, default=1e-5),
        tied=config.boolean("tie_word_embeddings", default=True),
        special_ids=config.special_ids(),
    )


def starcoder_rules(hparams: StarcoderHparams) -> tuple[TensorRule, ...]:
    """Return the tensors of a StarCoder model; a tied output may be missing."""
    width, vocabulary = hparams.width, hparams.vocabulary
    rules = [
        TensorRule("transformer.wte.weight", "token_embd.weight", (vocabulary, width)),
        TensorRule(
            "transformer.wpe.weight", "position_embd.weight", (hparams.context, width)
        ),
        *with_bias(
            TensorRule("transformer.ln_f.weight", "output_norm.weight", (width,)),
            required=True,
        ),
        # safetensors keeps shared memory once, torch under both names, and llama.cpp
        # writes what it finds.
        TensorRule(
            "lm_head.weight",
            "output.weight",
            (vocabulary, width),
            required=not hparams.tied,
        ),
    ]
    for layer in range(hparams.layers):
        rules += _layer_rules(hparams, layer)
    return tuple(rules)


def _layer_rules(hparams: StarcoderHparams, layer: int) -> list[TensorRule]:
    width, inner = hparams.width, hparams.feed_forward
    tensors: tuple[tuple[str, str, tuple[int, ...]], ...] = (
        ("ln_1", "attn_norm", (width,)),
        # All query heads, then one key and one value head.
        ("attn.c_attn", "attn_qkv", (width + 2 * hparams.head_size, width)),
        ("attn.c_proj", "attn_output", (width, width)),
        ("ln_2", "ffn_norm", (width,)),
        ("mlp.c_fc", "ffn_up", (inner, width)),
        ("mlp.c_proj", "ffn_down", (width, inner)),
    )
    source, name = f"transformer.h.{layer}", f"blk.{layer}"
    return weight_rules(source, name, tensors, biases_required=True)


def _entries(hparams: StarcoderHparams) -> Iterable[Entry]:
    yield u32("starcoder.context_length", hparams.context)
    yield u32("starcoder.embedding_length", hparams.width)
    yield u32("starcoder.feed_forward_length", hparams.feed_forward)
    yield u32("starcoder.block_count", hparams.layers)
    yield u32("starcoder.attention.head_count", hparams.heads)
    yield u32("starcoder.attention.head_count_kv", 1)
    yield f32("starcoder.attention.layer_norm_epsilon", hparams.epsilon)
