"""Builds small random checkpoints in Hugging Face form, without torch.

Weights come from numpy's legacy generator, whose stream is frozen for good: digests
of what is built here are stored in `digests.json`. The `.bin` writer emits the
opcodes that `torch.save` emits; `torch.load` was seen to read its files.
"""

from __future__ import annotations

import json
import struct
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from tests.converters.bpe_files import (
    Bpe,
    added_token,
    template_processing,
    write_bpe,
)

Dtype = Literal["F32", "F16", "BF16"]
Format = Literal["bin", "safetensors"]
Family = Literal["llama", "mistral", "mixtral", "starcoder"]
Weights = dict[str, NDArray[np.generic]]

STORAGES = {"F32": "FloatStorage", "F16": "HalfStorage", "BF16": "BFloat16Storage"}
TORCH_NAMES = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}
# How many learned positions a test model of StarCoder's kind has.
POSITIONS = 96
_BYTE, _CONTROL, _UNKNOWN, _NORMAL = 6, 3, 2, 1


@dataclass(frozen=True, slots=True)
class Shape:
    """The shape of a test model and the age of its config.

    `vocabulary` counts embedding rows, `pieces` those of tokenizer.model, `added` is
    what lies in added_tokens.json: by default [PAD], where there is a row for it.
    `form` and `shards` are how its weights are written unless a test says otherwise.
    """

    hidden: int = 256
    inner: int = 512
    layers: int = 3
    heads: int = 4
    kv_heads: int = 2
    vocabulary: int = 323
    pieces: int = 322
    tied: bool = False
    dtype: Dtype = "F16"
    llama_1: bool = False
    left_overs: bool = False
    biases: bool = False
    family: Family = "llama"
    experts: int = 0
    bpe: Bpe | None = None
    added: Mapping[str, int] | None = None
    form: Format = "safetensors"
    shards: int = 1
    config: Mapping[str, object] = field(default_factory=dict)
    tokenizer: Mapping[str, object] = field(default_factory=dict)
    tokenizer_json: Mapping[str, object] | None = None
    special_map: Mapping[str, str] | None = None
    seed: int = 1

    @property
    def head_size(self) -> int:
        return self.hidden // self.heads

    @property
    def pre(self) -> str | None:
        """What llama.cpp calls the pre-tokenizer of the model this one stands for."""
        if self.bpe is None:
            return None
        return "deepseek-coder" if self.bpe == "deepseek" else "refact"


# Every shape has its own reason to be here; the tests are parametrised over them.
SHAPES = {
    "gqa": Shape(),
    "llama-1": Shape(kv_heads=4, llama_1=True, left_overs=True, seed=2),
    "biases": Shape(
        layers=1,
        biases=True,
        seed=10,
        config={"attention_bias": True, "mlp_bias": True},
    ),
    "tied": Shape(tied=True, layers=2, vocabulary=320, pieces=320, seed=3),
    "wide": Shape(hidden=512, inner=768, layers=1, heads=8, kv_heads=2, seed=4),
    # From 8 layers on, llama.cpp gives the first ones more bits.
    "deep": Shape(inner=256, layers=17, seed=9),
    "scaled": Shape(
        layers=2,
        vocabulary=325,
        seed=8,
        config={
            "rope_theta": 100000.0,
            "rope_scaling": {"type": "linear", "factor": 4.0},
            "pad_token_id": None,
        },
        tokenizer={
            "add_prefix_space": False,
            "added_tokens_decoder": {
                "0": {"content": "<unk>", "special": True},
                "322": {"content": "[PAD]", "special": False},
                "323": {"content": "<|endoftext|>", "special": False},
                "324": {"content": "\u2581two", "special": False},
                "325": {"content": "<outside>", "special": True},
            },
            "chat_template": "{{ messages[0].content }}",
        },
    ),
    "f32": Shape(dtype="F32", layers=2, vocabulary=322, seed=5),
    "bf16": Shape(dtype="BF16", layers=2, kv_heads=1, vocabulary=330, seed=6),
    # Rows of 288 and 352 fit no K-quant: llama.cpp falls back to other types.
    "odd-rows": Shape(hidden=288, inner=352, layers=2, heads=6, kv_heads=3, seed=7),
    # WizardLM-13B-V1.2: an added token without a row, and `</s>` called bos.
    "outside": Shape(
        layers=1,
        kv_heads=4,
        vocabulary=322,
        added={"<pad>": 322},
        form="bin",
        config={"pretraining_tp": 2, "torch_dtype": "float32"},
        special_map={
            "bos_token": "</s>",
            "eos_token": "</s>",
            "unk_token": "</s>",
            "pad_token": "<unk>",
        },
        seed=11,
    ),
    # WizardMath-70B-V1.0: two added tokens, fp32 in several `.bin` files.
    "two-added": Shape(
        layers=2,
        vocabulary=324,
        added={"<pad>": 322, "[PAD]": 323},
        dtype="F32",
        form="bin",
        shards=3,
        config={"rms_norm_eps": 1e-5},
        special_map={"bos_token": "<s>", "eos_token": "</s>", "pad_token": "[PAD]"},
        seed=12,
    ),
    # WizardCoder-Python: Code Llama with one row more than its base.
    "python": Shape(
        layers=2,
        form="bin",
        shards=2,
        config={"rope_theta": 1e6, "max_position_embeddings": 16384},
        special_map={"bos_token": "</s>", "eos_token": "</s>", "unk_token": "</s>"},
        seed=13,
    ),
    # Code Llama itself: by its 32016 rows llama.cpp knows that it can fill in.
    "infill": Shape(
        hidden=64,
        inner=96,
        layers=1,
        heads=2,
        kv_heads=1,
        vocabulary=32016,
        config={"rope_theta": 1000000, "max_position_embeddings": 16384},
        seed=14,
    ),
    # WizardMath-7B-V1.1 and WizardLM-2-7B, with the tokenizer.json of newer ones.
    "mistral": Shape(
        layers=2,
        vocabulary=322,
        family="mistral",
        dtype="BF16",
        form="bin",
        shards=2,
        config={
            "max_position_embeddings": 32768,
            "rms_norm_eps": 1e-5,
            "sliding_window": 4096,
        },
        tokenizer={
            "bos_token": "<s>",
            "eos_token": "</s>",
            "unk_token": "<unk>",
            "pad_token": None,
            "added_tokens_decoder": {
                "0": {"content": "<unk>", "special": True},
                "1": {"content": "<s>", "special": True},
                "2": {"content": "</s>", "special": True},
            },
        },
        tokenizer_json={
            "added_tokens": [
                added_token(0, "<unk>"),
                added_token(1, "<s>"),
                added_token(2, "</s>"),
            ],
            "post_processor": template_processing("<s>"),
        },
        seed=15,
    ),
    # WizardLM-2-8x22B; the experts of a layer lie in several files.
    "mixtral": Shape(
        inner=256,
        layers=2,
        vocabulary=322,
        family="mixtral",
        experts=8,
        dtype="BF16",
        shards=3,
        config={
            "rope_theta": 1000000.0,
            "max_position_embeddings": 65536,
            "sliding_window": None,
            "num_experts_per_tok": 2,
        },
        seed=16,
    ),
    "mixtral-f16": Shape(
        hidden=288,
        inner=352,
        heads=6,
        kv_heads=3,
        layers=1,
        vocabulary=322,
        family="mixtral",
        experts=3,
        form="bin",
        shards=2,
        config={"num_experts_per_tok": 1, "head_dim": 48},
        seed=17,
    ),
    # WizardCoder-33B-V1.1.
    "deepseek": Shape(
        layers=2,
        vocabulary=310,
        bpe="deepseek",
        dtype="BF16",
        shards=2,
        config={
            "bos_token_id": 295,
            "eos_token_id": 296,
            "max_position_embeddings": 16384,
            "rope_theta": 100000,
            "rope_scaling": {"type": "linear", "factor": 4.0},
        },
        seed=18,
    ),
    # WizardCoder-15B-V1.0: one `.bin` whose output is its embedding's storage.
    "starcoder": Shape(
        layers=2, vocabulary=303, family="starcoder", bpe="all", form="bin", seed=19
    ),
    "starcoder-json": Shape(
        hidden=512,
        heads=8,
        layers=1,
        vocabulary=302,
        family="starcoder",
        bpe="json",
        dtype="F32",
        seed=20,
    ),
    "starcoder-pair": Shape(
        layers=1,
        heads=2,
        vocabulary=302,
        family="starcoder",
        bpe="pair",
        dtype="BF16",
        form="bin",
        shards=2,
        seed=21,
    ),
}


def write_checkpoint(
    directory: Path,
    shape: Shape,
    *,
    form: Format | None = None,
    shards: int | None = None,
) -> Path:
    """Write a whole checkpoint with config, tokenizer and weights."""
    directory.mkdir(parents=True, exist_ok=True)
    write_config(directory, shape)
    write_tokenizer(directory, shape)
    weights = random_weights(shape)
    form = form or shape.form
    if shape.family == "starcoder" and form == "bin":
        weights["lm_head.weight"] = weights["transformer.wte.weight"]
    write_weights(directory, weights, form=form, shards=shards or shape.shards)
    return directory


def write_config(directory: Path, shape: Shape) -> None:
    make = starcoder_config if shape.family == "starcoder" else llama_config
    config = {**make(shape), **shape.config}
    (directory / "config.json").write_text(json.dumps(config, indent=2))


def starcoder_config(shape: Shape) -> dict[str, object]:
    return {
        "activation_function": "gelu",
        "architectures": ["GPTBigCodeForCausalLM"],
        "attention_softmax_in_fp32": True,
        "bos_token_id": 0,
        "eos_token_id": 0,
        "layer_norm_epsilon": 1e-5,
        "model_type": "gpt_bigcode",
        "multi_query": True,
        "n_embd": shape.hidden,
        "n_head": shape.heads,
        "n_inner": 4 * shape.hidden,
        "n_layer": shape.layers,
        "n_positions": POSITIONS,
        "scale_attn_weights": True,
        "torch_dtype": TORCH_NAMES[shape.dtype],
        "vocab_size": shape.vocabulary,
    }


def llama_config(shape: Shape) -> dict[str, object]:
    config: dict[str, object] = {
        "architectures": [f"{shape.family.capitalize()}ForCausalLM"],
        "model_type": shape.family,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 0,
        "hidden_act": "silu",
        "hidden_size": shape.hidden,
        "intermediate_size": shape.inner,
        "num_attention_heads": shape.heads,
        "num_hidden_layers": shape.layers,
        "rms_norm_eps": 1e-6,
        "tie_word_embeddings": shape.tied,
        "torch_dtype": TORCH_NAMES[shape.dtype],
        "vocab_size": shape.vocabulary,
    }
    if shape.llama_1:
        config |= {"max_sequence_length": 2048, "transformers_version": "4.28.1"}
    else:
        config |= {
            "max_position_embeddings": 4096,
            "num_key_value_heads": shape.kv_heads,
            "rope_theta": 10000.0,
            "rope_scaling": None,
        }
    if shape.experts:
        config |= {"num_local_experts": shape.experts, "num_experts_per_tok": 2}
    return config


def write_tokenizer(directory: Path, shape: Shape) -> None:
    if shape.bpe:
        write_bpe(directory, shape.bpe)
        return
    (directory / "tokenizer.model").write_bytes(sentencepiece_model(shape.pieces))
    settings = {"add_bos_token": True, "add_eos_token": False, **shape.tokenizer}
    (directory / "tokenizer_config.json").write_text(json.dumps(settings))
    added = shape.added
    if added is None and shape.vocabulary > shape.pieces:
        added = {"[PAD]": shape.pieces}
    for name, content in (
        ("added_tokens.json", added),
        ("special_tokens_map.json", shape.special_map),
        ("tokenizer.json", shape.tokenizer_json),
    ):
        if content is not None:
            (directory / name).write_text(json.dumps(content))


def tensor_shapes(shape: Shape) -> dict[str, tuple[int, ...]]:
    """Return the tensors of a model in the order in which transformers saves them."""
    if shape.family == "starcoder":
        return starcoder_shapes(shape)
    query, shared = shape.hidden, shape.kv_heads * shape.head_size
    shapes: dict[str, tuple[int, ...]] = {
        "model.embed_tokens.weight": (shape.vocabulary, shape.hidden)
    }
    for layer in range(shape.layers):
        prefix = f"model.layers.{layer}"
        shapes |= {
            f"{prefix}.self_attn.q_proj.weight": (query, shape.hidden),
            f"{prefix}.self_attn.k_proj.weight": (shared, shape.hidden),
            f"{prefix}.self_attn.v_proj.weight": (shared, shape.hidden),
            f"{prefix}.self_attn.o_proj.weight": (shape.hidden, query),
            **feed_forward_shapes(shape, prefix),
            f"{prefix}.input_layernorm.weight": (shape.hidden,),
            f"{prefix}.post_attention_layernorm.weight": (shape.hidden,),
        }
        if shape.biases:
            shapes |= {
                name.replace(".weight", ".bias"): sizes[:1]
                for name, sizes in shapes.items()
                if name.startswith(f"{prefix}.") and len(sizes) == 2
            }
        if shape.left_overs:
            name = f"{prefix}.self_attn.rotary_emb.inv_freq"
            shapes[name] = (shape.head_size // 2,)
    shapes["model.norm.weight"] = (shape.hidden,)
    if not shape.tied:
        shapes["lm_head.weight"] = (shape.vocabulary, shape.hidden)
    return shapes


def feed_forward_shapes(shape: Shape, prefix: str) -> dict[str, tuple[int, ...]]:
    wide: tuple[int, ...] = (shape.inner, shape.hidden)
    narrow = wide[::-1]
    if not shape.experts:
        return {
            f"{prefix}.mlp.gate_proj.weight": wide,
            f"{prefix}.mlp.down_proj.weight": narrow,
            f"{prefix}.mlp.up_proj.weight": wide,
        }
    prefix += ".block_sparse_moe"
    router = {f"{prefix}.gate.weight": (shape.experts, shape.hidden)}
    experts = {
        f"{prefix}.experts.{expert}.{name}.weight": sizes
        for expert in range(shape.experts)
        for name, sizes in (("w1", wide), ("w2", narrow), ("w3", wide))
    }
    return router | experts


def starcoder_shapes(shape: Shape) -> dict[str, tuple[int, ...]]:
    """Return the tensors but for the output, which is the embedding."""
    width, inner = shape.hidden, 4 * shape.hidden
    shapes: dict[str, tuple[int, ...]] = {
        "transformer.wte.weight": (shape.vocabulary, width),
        "transformer.wpe.weight": (POSITIONS, width),
    }
    for layer in range(shape.layers):
        for name, sizes in (
            ("ln_1", (width,)),
            ("attn.c_attn", (width + 2 * shape.head_size, width)),
            ("attn.c_proj", (width, width)),
            ("ln_2", (width,)),
            ("mlp.c_fc", (inner, width)),
            ("mlp.c_proj", (width, inner)),
        ):
            shapes[f"transformer.h.{layer}.{name}.weight"] = sizes
            shapes[f"transformer.h.{layer}.{name}.bias"] = sizes[:1]
    shapes["transformer.ln_f.weight"] = shapes["transformer.ln_f.bias"] = (width,)
    return shapes


def random_weights(shape: Shape) -> Weights:
    """Return weights as they are stored; bfloat16 as uint16, left-overs as float32."""
    random = np.random.RandomState(shape.seed)
    weights: Weights = {}
    for name, sizes in tensor_shapes(shape).items():
        values = random.standard_normal(prod(sizes)).astype(np.float32) * 0.05
        if len(sizes) == 1:
            values += 1
        values = values.reshape(sizes)
        weights[name] = (
            values if name.endswith("inv_freq") else as_stored(values, shape.dtype)
        )
    return weights


def as_stored(values: NDArray[np.float32], dtype: Dtype) -> NDArray[np.generic]:
    if dtype == "F32":
        return values
    if dtype == "F16":
        return values.astype(np.float16)
    return (values.view(np.uint32) >> 16).astype(np.uint16)


def write_weights(
    directory: Path, weights: Weights, *, form: Format, shards: int = 1
) -> None:
    stem, suffix, write = {
        "bin": ("pytorch_model", ".bin", write_bin),
        "safetensors": ("model", ".safetensors", write_safetensors),
    }[form]
    names = list(weights)
    if shards == 1:
        write(directory / f"{stem}{suffix}", weights)
        return
    per_shard = -(-len(names) // shards)
    weight_map: dict[str, str] = {}
    for number in range(shards):
        file = f"{stem}-{number + 1:05d}-of-{shards:05d}{suffix}"
        part = names[number * per_shard : (number + 1) * per_shard]
        write(directory / file, {name: weights[name] for name in part})
        weight_map |= dict.fromkeys(part, file)
    total = sum(tensor.nbytes for tensor in weights.values())
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    path = directory / f"{stem}{suffix}.index.json"
    path.write_text(json.dumps(index))


def stored_type(values: NDArray[np.generic]) -> Dtype:
    kinds: dict[str, Dtype] = {"f4": "F32", "f2": "F16", "u2": "BF16"}
    return kinds[values.dtype.str[1:]]


def write_safetensors(path: Path, weights: Weights) -> None:
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, values in weights.items():
        header[name] = {
            "dtype": stored_type(values),
            "shape": list(values.shape),
            "data_offsets": [end, end + values.nbytes],
        }
        end += values.nbytes
    data = b"".join(values.tobytes() for values in weights.values())
    path.write_bytes(safetensors_bytes(header, data))


def safetensors_bytes(header: Mapping[str, object] | str, data: bytes) -> bytes:
    text = header if isinstance(header, str) else json.dumps(header)
    encoded = text.encode()
    return struct.pack("<Q", len(encoded)) + encoded + data


def write_bin(path: Path, weights: Weights) -> None:
    keys = storage_keys(weights)
    storages = {key: weights[name].tobytes() for name, key in keys.items()}
    write_torch_zip(path, state_dict_pickle(weights), storages)


def write_torch_zip(
    path: Path, pickle: bytes, storages: Mapping[str, bytes], root: str = "archive"
) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr(f"{root}/data.pkl", pickle)
        archive.writestr(f"{root}/byteorder", b"little")
        for key, data in storages.items():
            archive.writestr(f"{root}/data/{key}", data)
        archive.writestr(f"{root}/version", b"3\n")
        archive.writestr(f"{root}/.data/serialization_id", b"0" * 40)


def storage_keys(weights: Weights) -> dict[str, str]:
    """Number the storages: one array under two names is one storage, as in torch."""
    numbers: dict[int, str] = {}
    return {
        name: numbers.setdefault(id(values), str(len(numbers)))
        for name, values in weights.items()
    }


def state_dict_pickle(weights: Weights) -> bytes:
    """Pickle an OrderedDict of tensors, each array a storage."""
    keys = storage_keys(weights)
    items = b"".join(
        text(name) + tensor_pickle(keys[name], stored_type(values), values.shape)
        for name, values in weights.items()
    )
    # What transformers leaves behind too: the attribute `_metadata`.
    state = b"}" + text("_metadata") + name("collections", "OrderedDict") + b")Rsb"
    begin = b"\x80\x02" + name("collections", "OrderedDict") + b")Rq\x00("
    return begin + items + b"u" + state + b"."


def tensor_pickle(
    key: str,
    dtype: Dtype,
    sizes: Sequence[int],
    *,
    length: int | None = None,
    offset: int = 0,
    strides: Sequence[int] | None = None,
) -> bytes:
    """Emit the call of `_rebuild_tensor_v2` that torch emits."""
    if strides is None:
        strides = [prod(sizes[axis + 1 :]) for axis in range(len(sizes))]
    persistent = (
        b"("
        + text("storage")
        + name("torch", STORAGES[dtype])
        + text(key)
        + text("cpu")
        + number(prod(sizes) if length is None else length)
        + b"tQ"
    )
    return (
        name("torch._utils", "_rebuild_tensor_v2")
        + b"("
        + persistent
        + number(offset)
        + numbers(sizes)
        + numbers(strides)
        + b"\x89"
        + name("collections", "OrderedDict")
        + b")RtR"
    )


def text(value: str) -> bytes:
    data = value.encode()
    return b"X" + struct.pack("<I", len(data)) + data


def name(module: str, attribute: str) -> bytes:
    return f"c{module}\n{attribute}\n".encode()


def number(value: int) -> bytes:
    if -(1 << 31) <= value < 1 << 31:
        return b"J" + struct.pack("<i", value)
    size = value.bit_length() // 8 + 1
    return b"\x8a" + bytes([size]) + value.to_bytes(size, "little", signed=True)


def numbers(values: Sequence[int]) -> bytes:
    return b"(" + b"".join(map(number, values)) + b"t"


def sentencepiece_model(count: int) -> bytes:
    """Encode a SentencePiece model: <unk>, <s>, </s>, all bytes, then letters.

    Source: sentencepiece src/sentencepiece_model.proto, ModelProto.
    """
    pieces = [("<unk>", 0.0, _UNKNOWN), ("<s>", 0.0, _CONTROL), ("</s>", 0.0, _CONTROL)]
    pieces += [(f"<0x{byte:02X}>", 0.0, _BYTE) for byte in range(256)]
    letters = ["\u2581", *map(chr, range(0x61, 0x7B)), *map(chr, range(0x3B1, 0x3CA))]
    letters += [f"\u2581{letter}" for letter in letters]
    pieces += [(letter, -float(i), _NORMAL) for i, letter in enumerate(letters)]
    encoded = (_field(1, _piece(*piece)) for piece in pieces[:count])
    # trainer_spec: model_type = BPE, byte_fallback; then an empty normalizer.
    return b"".join(encoded) + _field(2, b"\x18\x02\x98\x02\x01") + _field(3, b"")


def _piece(piece: str, score: float, kind: int) -> bytes:
    return (
        _field(1, piece.encode()) + struct.pack("<Bf", 0x15, score) + bytes([24, kind])
    )


def _field(index: int, data: bytes) -> bytes:
    assert len(data) < 128
    return bytes([index << 3 | 2, len(data)]) + data
