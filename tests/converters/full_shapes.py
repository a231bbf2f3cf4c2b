"""Checkpoints of full size that are nothing but a config: for plans, never read.

    python -m tests.converters.full_shapes

prints what is planned for every file that the registry knows a size of.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NoReturn

from tests.converters.bpe_files import write_bpe
from tests.converters.checkpoints import sentencepiece_model
from wizard_edge.gguf_types import GgmlType
from wizard_edge.models import ModelSpec, Shape
from wizard_edge.receipts import CheckedFile
from wizard_edge.registry import Registry
from wizard_edge_converters.checkpoint import StoredTensor
from wizard_edge_converters.hparams import read_hparams
from wizard_edge_converters.options import ConvertOptions
from wizard_edge_converters.pipeline import plan_checkpoint
from wizard_edge_converters.tensors import tensor_rules

_TYPES = {
    "float32": GgmlType.F32,
    "float16": GgmlType.F16,
    "bfloat16": GgmlType.BF16,
    None: GgmlType.F16,
}
MODELS: dict[str, ModelSpec] = {
    spec.name: spec for spec in Registry.load() if spec.shape is not None
}


class ConfiguredCheckpoint:
    """A checkpoint made from what the registry says of a model's shape."""

    is_remote = False
    identity = "none"

    def __init__(self, spec: ModelSpec) -> None:
        assert spec.shape is not None
        self.name = spec.name
        self._files = _side_files(spec, spec.shape)
        kind = _TYPES[spec.source.dtype if spec.source else None]
        rules = tensor_rules(read_hparams(self))
        self.tensors: Mapping[str, StoredTensor] = {
            rule.source: StoredTensor(
                rule.source, kind, rule.shape, "weights", 0, rule.source
            )
            for rule in rules
            if rule.required or rule.source == "lm_head.weight"
        }

    @property
    def size(self) -> int:
        return sum(tensor.size for tensor in self.tensors.values())

    def label(self, name: str) -> str:
        return f"{self.name}/{name}"

    def small(self, name: str) -> bytes | None:
        return self._files.get(name)

    def read(self, tensor: StoredTensor, start: int, count: int) -> NoReturn:
        raise AssertionError("a plan reads no weights")

    def mark(self, file: str) -> NoReturn:
        raise AssertionError("a plan reads no weights")

    def resume(self, file: str, mark: str) -> NoReturn:
        raise AssertionError("a plan reads no weights")

    def finish(self, file: str) -> NoReturn:
        raise AssertionError("a plan reads no weights")

    def others(self) -> Sequence[CheckedFile]:
        return ()

    def close(self) -> None:
        """Nothing is open."""


def _side_files(spec: ModelSpec, shape: Shape) -> dict[str, bytes]:
    files = {"config.json": json.dumps(_config(spec, shape)).encode()}
    # A small vocabulary: the rows that it leaves over become [PADn], about as long as
    # real tokens. What the merges take is less than 0.02% of a file.
    if spec.tokenizer is None or spec.tokenizer.kind == "sentencepiece":
        return files | {"tokenizer.model": sentencepiece_model(320)}
    with TemporaryDirectory() as folder:
        write_bpe(
            Path(folder), "all" if spec.architecture == "starcoder" else "deepseek"
        )
        return files | {path.name: path.read_bytes() for path in Path(folder).iterdir()}


def _config(spec: ModelSpec, shape: Shape) -> dict[str, object]:
    config: dict[str, object] = {"architectures": [spec.hf_class]}
    if spec.architecture == "starcoder":
        return config | {
            "n_positions": spec.context,
            "n_embd": shape.hidden,
            "n_inner": shape.ffn,
            "n_layer": shape.layers,
            "n_head": shape.heads,
            "layer_norm_epsilon": shape.norm_eps or 1e-5,
            "vocab_size": shape.vocabulary,
            "multi_query": True,
        }
    config |= {
        "hidden_size": shape.hidden,
        "intermediate_size": shape.ffn,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads,
        "vocab_size": shape.vocabulary,
        "max_position_embeddings": spec.context,
        "rms_norm_eps": shape.norm_eps,
        "rope_theta": shape.rope_theta,
    }
    if shape.rope_scaling is not None:
        config["rope_scaling"] = {"type": "linear", "factor": shape.rope_scaling.factor}
    if shape.experts is not None:
        config |= {
            "num_local_experts": shape.experts,
            "num_experts_per_tok": shape.experts_used,
        }
    return config


def planned_size(spec: ModelSpec, quant: str) -> int:
    """Return the bytes that a model of the registry would have in a quant."""
    options = ConvertOptions(quants=(quant,))
    return plan_checkpoint(ConfiguredCheckpoint(spec), spec.title, options).output_bytes


def main() -> None:
    for spec in MODELS.values():
        for variant in spec.variants:
            if variant.size is None or variant.quant.startswith(("IQ1", "IQ2", "IQ3")):
                continue
            planned = planned_size(spec, variant.quant)
            print(
                f"{spec.name:28}{variant.quant:7}{planned:16,} "
                f"{100 * (planned / variant.size - 1):+8.3f}% of {variant.size:,}"
                f"{'' if variant.size_exact else ', an estimate'}"
            )


if __name__ == "__main__":
    main()
