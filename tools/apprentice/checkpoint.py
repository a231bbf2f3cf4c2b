"""The apprentice on disk, as a Hugging Face LLaMA checkpoint: written, read back.

The JSON files are spelled as LLaMA checkpoints of 2023 spell them, which is what
the WizardLM family looks like, and not as the installed transformers would.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import sentencepiece
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from tools.apprentice import tokenizer

CHECKPOINT: Final = Path("wizard_edge", "apprentice")
SHARDS: Final = 2
INDEX: Final = "pytorch_model.bin.index.json"
CONTEXT: Final = 1024  # tokens; conversations of the corpus stay below 500


@dataclass(frozen=True, slots=True)
class Shape:
    """Sizes of the model; rows are multiples of 256 so that K-quants apply."""

    vocabulary: int
    hidden: int = 256
    feed_forward: int = 768
    layers: int = 4
    heads: int = 4
    kv_heads: int = 2

    def config(self) -> dict[str, Any]:
        """Return config.json; the values are whatever JSON allows, hence Any."""
        return {
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "vocab_size": self.vocabulary,
            "hidden_size": self.hidden,
            "intermediate_size": self.feed_forward,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
            "num_key_value_heads": self.kv_heads,
            "hidden_act": "silu",
            "max_position_embeddings": CONTEXT,
            "rms_norm_eps": 1e-5,
            "rope_theta": 10000.0,
            "attention_bias": False,
            "initializer_range": 0.02,
            "tie_word_embeddings": False,
            "bos_token_id": tokenizer.BOS,
            "eos_token_id": tokenizer.EOS,
            "torch_dtype": "float16",
            "use_cache": True,
        }


TOKENIZER_CONFIG: Final = {
    "tokenizer_class": "LlamaTokenizer",
    "add_bos_token": True,
    "add_eos_token": False,
    "bos_token": "<s>",
    "eos_token": "</s>",
    "unk_token": "<unk>",
    "pad_token": None,
    "legacy": True,
    "clean_up_tokenization_spaces": False,
    "model_max_length": CONTEXT,
}
SPECIAL_TOKENS: Final = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
GENERATION: Final = {
    "bos_token_id": tokenizer.BOS,
    "eos_token_id": tokenizer.EOS,
    "do_sample": False,
}


def build(shape: Shape) -> LlamaForCausalLM:
    """Return an untrained model; torch's seed decides its weights."""
    return LlamaForCausalLM(LlamaConfig(**shape.config()))


def save(
    directory: Path, model: LlamaForCausalLM, shape: Shape, vocabulary: bytes
) -> None:
    """Write the whole checkpoint, weights as fp16 in `SHARDS` torch zip files."""
    directory.mkdir(parents=True, exist_ok=True)
    _replace(directory / "tokenizer.model", vocabulary)
    write_json(directory / "config.json", shape.config())
    write_json(directory / "tokenizer_config.json", TOKENIZER_CONFIG)
    write_json(directory / "special_tokens_map.json", SPECIAL_TOKENS)
    write_json(directory / "generation_config.json", GENERATION)
    tensors = {
        name: tensor.detach().to(torch.float16).contiguous()
        for name, tensor in model.state_dict().items()
    }
    write_json(directory / INDEX, _save_shards(directory, tensors))


def _save_shards(directory: Path, tensors: dict[str, torch.Tensor]) -> dict[str, Any]:
    """Write the weights in order, about equal parts; return the index."""
    total = sum(tensor.nbytes for tensor in tensors.values())
    shards: list[dict[str, torch.Tensor]] = [{} for _ in range(SHARDS)]
    done = 0
    for name, tensor in tensors.items():
        shards[min(SHARDS - 1, done * SHARDS // total)][name] = tensor
        done += tensor.nbytes
    places = {}
    for number, shard in enumerate(shards, start=1):
        file = f"pytorch_model-{number:05}-of-{SHARDS:05}.bin"
        temporary = directory / f"{file}.tmp"
        torch.save(shard, temporary)
        temporary.replace(directory / file)
        places.update(dict.fromkeys(shard, file))
    return {"metadata": {"total_size": total}, "weight_map": places}


def load(
    directory: Path,
) -> tuple[LlamaForCausalLM, sentencepiece.SentencePieceProcessor]:
    """Read model (fp32, for evaluation) and vocabulary back."""
    config = LlamaConfig(**json.loads((directory / "config.json").read_text()))
    model = LlamaForCausalLM(config)
    tensors: dict[str, torch.Tensor] = {}
    index = json.loads((directory / INDEX).read_text())
    for file in sorted(set(index["weight_map"].values())):
        tensors |= torch.load(directory / file, weights_only=True)
    model.load_state_dict({name: tensor.float() for name, tensor in tensors.items()})
    model.float().eval()
    path = str(directory / "tokenizer.model")
    return model, sentencepiece.SentencePieceProcessor(model_file=path)


def write_json(path: Path, content: object) -> None:
    """Write JSON in one step, a newline at the end."""
    _replace(path, (json.dumps(content, indent=2) + "\n").encode())


def _replace(path: Path, content: bytes) -> None:
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_bytes(content)
    temporary.replace(path)
