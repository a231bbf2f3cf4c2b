"""The metadata of the file to be written: entries in their order, typed.

Keys and types are those of llama.cpp's converter; ours begin with `wizard_edge.`.
Quantization version and file type come last, where llama.cpp's quantizer leaves
them: so a file quantized in one pass equals one that took two, byte for byte.
What the converter of llama.cpp guesses from folder names and model cards (author,
basename, version, tags, sampling) is left out: the registry knows it better.

Source: llama.cpp 0c1e57098, conversion/base.py, conversion/llama.py,
gguf-py/gguf/gguf_writer.py, src/llama-quant.cpp (`gguf_set_val_u32`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from wizard_edge import __version__
from wizard_edge.gguf import KEY_LICENSES, KEY_TEMPLATE, NOT_SAID
from wizard_edge.gguf_types import FileType, ValueType
from wizard_edge.names import RepoId
from wizard_edge_converters.hparams import LlamaHparams
from wizard_edge_converters.tokenizer import Vocabulary

SCHEMA_VERSION = 1
UNKNOWN = "unknown"
# Source: llama.cpp 0c1e57098, ggml/include/ggml.h, GGML_QNT_VERSION.
QUANTIZATION_VERSION = 2

_SPECIAL_KEYS = {
    "bos": "bos_token_id",
    "eos": "eos_token_id",
    "unk": "unknown_token_id",
    "pad": "padding_token_id",
}

_UNITS = {"T": 1e12, "B": 1e9, "M": 1e6, "K": -1.0}
_UNIT_FACTORS = {"T": 1e-12, "B": 1e-9, "M": 1e-6, "K": 1e-3}

Scalar = int | float | bool | str


@dataclass(frozen=True, slots=True)
class Entry:
    """One key with its value; an array has the type of its elements in `elements`."""

    key: str
    type: ValueType
    value: Scalar | Sequence[Scalar]
    elements: ValueType | None = None


@dataclass(frozen=True, slots=True)
class Provenance:
    """What the file says about itself beside the model's own numbers.

    `template` is the id of the prompt template, `licenses` are licence ids. What is
    not known stays None or empty, and the file then says so.
    """

    name: str
    template: str | None = None
    licenses: tuple[str, ...] = ()
    repo: RepoId | None = None
    revision: str | None = None


def build_metadata(
    hparams: LlamaHparams,
    vocabulary: Vocabulary | None,
    provenance: Provenance,
    *,
    parameters: int,
    file_type: FileType,
) -> tuple[Entry, ...]:
    """List all entries; without a vocabulary those of a skeleton."""
    return (
        *_general_entries(hparams, provenance, parameters),
        *_llama_entries(hparams),
        *(_vocabulary_entries(vocabulary) if vocabulary else ()),
        *_own_entries(provenance),
        _u32("general.quantization_version", QUANTIZATION_VERSION),
        _u32("general.file_type", file_type),
    )


def _general_entries(
    hparams: LlamaHparams, provenance: Provenance, parameters: int
) -> Iterable[Entry]:
    yield _text("general.architecture", hparams.architecture)
    yield _text("general.type", "model")
    yield _text("general.name", provenance.name)
    yield _text("general.size_label", size_label(parameters))
    if provenance.licenses:
        yield _text("general.license", ",".join(provenance.licenses))
    if provenance.repo:
        url = f"https://huggingface.co/{provenance.repo}"
        yield _text("general.source.repo_url", url)


def _llama_entries(hparams: LlamaHparams) -> Iterable[Entry]:
    yield _u32("llama.block_count", hparams.layers)
    yield _u32("llama.context_length", hparams.context)
    yield _u32("llama.embedding_length", hparams.width)
    yield _u32("llama.feed_forward_length", hparams.feed_forward)
    yield _u32("llama.attention.head_count", hparams.heads)
    yield _u32("llama.attention.head_count_kv", hparams.kv_heads)
    if hparams.rope_factor is not None:
        yield _text("llama.rope.scaling.type", "linear")
        yield _f32("llama.rope.scaling.factor", hparams.rope_factor)
    yield _f32("llama.rope.freq_base", hparams.rope_theta)
    yield _f32("llama.attention.layer_norm_rms_epsilon", hparams.epsilon)
    yield _u32("llama.attention.key_length", hparams.head_size)
    yield _u32("llama.attention.value_length", hparams.head_size)
    yield _u32("llama.vocab_size", hparams.vocabulary)
    yield _u32("llama.rope.dimension_count", hparams.head_size)


def _vocabulary_entries(vocabulary: Vocabulary) -> Iterable[Entry]:
    prefix = "tokenizer.ggml"
    if vocabulary.add_space_prefix is not None:
        yield _flag(f"{prefix}.add_space_prefix", vocabulary.add_space_prefix)
    yield _text(f"{prefix}.model", "llama")
    yield _text(f"{prefix}.pre", "default")
    yield _array(f"{prefix}.tokens", ValueType.STRING, vocabulary.tokens)
    yield _array(f"{prefix}.scores", ValueType.FLOAT32, vocabulary.scores)
    yield _array(f"{prefix}.token_type", ValueType.INT32, vocabulary.types)
    for kind, key in _SPECIAL_KEYS.items():
        if kind in vocabulary.special_ids:
            yield _u32(f"{prefix}.{key}", vocabulary.special_ids[kind])
    yield _flag(f"{prefix}.add_bos_token", vocabulary.add_bos)
    if vocabulary.add_eos is not None:
        yield _flag(f"{prefix}.add_eos_token", vocabulary.add_eos)
    if vocabulary.chat_template is not None:
        yield _text("tokenizer.chat_template", vocabulary.chat_template)


def _own_entries(provenance: Provenance) -> Iterable[Entry]:
    yield _u32("wizard_edge.schema_version", SCHEMA_VERSION)
    yield _text("wizard_edge.version", __version__)
    yield _text(KEY_TEMPLATE, provenance.template or NOT_SAID)
    yield _text(KEY_LICENSES, " ".join(provenance.licenses) or NOT_SAID)
    yield _text("wizard_edge.source.repo", provenance.repo or UNKNOWN)
    yield _text("wizard_edge.source.revision", provenance.revision or UNKNOWN)


def size_label(parameters: int) -> str:
    """Round a count of parameters to two digits at least: `6.7B`, `13B`, `3.7M`.

    Source: llama.cpp 0c1e57098, gguf-py/gguf/utility.py,
    `model_weight_count_rounded_notation`.
    """
    unit = next(unit for unit, least in _UNITS.items() if parameters > least)
    scaled = parameters * _UNIT_FACTORS[unit]
    digits = max(2 - len(str(round(scaled)).lstrip("0")), 0)
    return f"{scaled:.{digits}f}{unit}"


def _u32(key: str, value: int) -> Entry:
    return Entry(key, ValueType.UINT32, int(value))


def _f32(key: str, value: float) -> Entry:
    return Entry(key, ValueType.FLOAT32, value)


def _flag(key: str, value: bool) -> Entry:
    return Entry(key, ValueType.BOOL, value)


def _text(key: str, value: str) -> Entry:
    return Entry(key, ValueType.STRING, str(value))


def _array(key: str, elements: ValueType, values: Sequence[Scalar]) -> Entry:
    return Entry(key, ValueType.ARRAY, values, elements)
