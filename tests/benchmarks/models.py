"""Models of real shapes with random weights, for measurements only."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file

from tests.conftest import CHECKPOINT
from tests.converters.checkpoints import write_bin
from tests.converters.running import convert
from wizard_edge_converters.options import ConvertOptions


@dataclass(frozen=True)
class Shape:
    """A LLaMA shape; about 12 * layers * hidden^2 parameters."""

    layers: int
    hidden: int
    ffn: int
    heads: int
    kv_heads: int
    vocabulary: int = 32_000

    @property
    def parameters(self) -> int:
        kv = self.hidden // self.heads * self.kv_heads
        attention = 2 * self.hidden * (self.hidden + kv)
        layer = attention + 3 * self.hidden * self.ffn + 2 * self.hidden
        return self.layers * layer + 2 * self.vocabulary * self.hidden + self.hidden


# TinyLlama's proportions with heads of 128, as the WizardLM models have.
B0_9 = Shape(layers=16, hidden=2048, ffn=5632, heads=16, kv_heads=16)
B0_1 = Shape(layers=8, hidden=1024, ffn=2816, heads=8, kv_heads=8, vocabulary=8_000)


def make_checkpoint(
    folder: Path, shape: Shape, *, seed: int = 0, shards: int | None = None
) -> Path:
    """Write an fp16 checkpoint: safetensors, one file a layer, or pickles in shards."""
    folder.mkdir(parents=True, exist_ok=True)
    if shards is None:
        _write_safetensors(folder, shape, seed)
    else:
        _write_pickles(folder, shape, seed, shards)
    (folder / "config.json").write_text(json.dumps(_config(shape)))
    # The bundled tokenizer; the rows above its pieces become padding tokens.
    for name in ("tokenizer.model", "tokenizer_config.json"):
        shutil.copy(CHECKPOINT / name, folder / name)
    return folder


def _write_safetensors(folder: Path, shape: Shape, seed: int) -> None:
    random = np.random.default_rng(seed)
    weight_map: dict[str, str] = {}
    for number, shapes in enumerate(_groups(shape)):
        file = f"model-{number:03d}.safetensors"
        save_file(_draw(random, shapes), folder / file)
        weight_map.update(dict.fromkeys(shapes, file))
    index = {"metadata": {}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def _write_pickles(folder: Path, shape: Shape, seed: int, shards: int) -> None:
    random = np.random.default_rng(seed)
    groups = list(_groups(shape))
    per_shard = -(-len(groups) // shards)
    weight_map: dict[str, str] = {}
    for number in range(shards):
        file = f"pytorch_model-{number + 1:05d}-of-{shards:05d}.bin"
        part = groups[number * per_shard : (number + 1) * per_shard]
        shapes = {name: size for group in part for name, size in group.items()}
        write_bin(folder / file, dict(_draw(random, shapes)))
        weight_map.update(dict.fromkeys(shapes, file))
    index = {"metadata": {}, "weight_map": weight_map}
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps(index))


def _draw(
    random: np.random.Generator, shapes: Mapping[str, tuple[int, ...]]
) -> dict[str, NDArray[np.generic]]:
    return {
        name: (random.standard_normal(size, dtype=np.float32) * 0.02).astype("f2")
        for name, size in shapes.items()
    }


def _groups(shape: Shape) -> Iterator[dict[str, tuple[int, ...]]]:
    """Give the tensors that lie together: those of no layer, then each layer's."""
    kv = shape.hidden // shape.heads * shape.kv_heads
    embedding = (shape.vocabulary, shape.hidden)
    yield {
        "model.embed_tokens.weight": embedding,
        "lm_head.weight": embedding,
        "model.norm.weight": (shape.hidden,),
    }
    for layer in range(shape.layers):
        head = f"model.layers.{layer}"
        yield {
            f"{head}.self_attn.q_proj.weight": (shape.hidden, shape.hidden),
            f"{head}.self_attn.k_proj.weight": (kv, shape.hidden),
            f"{head}.self_attn.v_proj.weight": (kv, shape.hidden),
            f"{head}.self_attn.o_proj.weight": (shape.hidden, shape.hidden),
            f"{head}.mlp.gate_proj.weight": (shape.ffn, shape.hidden),
            f"{head}.mlp.up_proj.weight": (shape.ffn, shape.hidden),
            f"{head}.mlp.down_proj.weight": (shape.hidden, shape.ffn),
            f"{head}.input_layernorm.weight": (shape.hidden,),
            f"{head}.post_attention_layernorm.weight": (shape.hidden,),
        }


def make_model(folder: Path, shape: Shape, quant: str) -> Path:
    """Return a GGUF of that shape and quant, made once in `folder`."""
    path = folder / f"{shape.parameters // 10**6}M.{quant}.gguf"
    if not path.exists():
        checkpoint = folder / f"{shape.parameters // 10**6}M"
        if not checkpoint.exists():
            make_checkpoint(checkpoint, shape)
        convert(checkpoint, path, ConvertOptions(quants=(quant,), template="vicuna"))
    return path


def _config(shape: Shape) -> dict[str, object]:
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": shape.hidden,
        "intermediate_size": shape.ffn,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads,
        "vocab_size": shape.vocabulary,
        "max_position_embeddings": 4096,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "tie_word_embeddings": False,
        "torch_dtype": "float16",
    }
