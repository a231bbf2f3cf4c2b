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

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from wizard_edge import __version__
from wizard_edge.gguf import KEY_LICENSES, KEY_NOTICES, KEY_TEMPLATE, NOT_SAID
from wizard_edge.gguf_types import FileType, ValueType
from wizard_edge.names import RepoId
from wizard_edge_converters.entries import Entry, array, flag, text, u32
from wizard_edge_converters.hparams import Hparams
from wizard_edge_converters.vocabulary import Vocabulary

SCHEMA_VERSION = 1
UNKNOWN = "unknown"
# Source: llama.cpp 0c1e57098, ggml/include/ggml.h, GGML_QNT_VERSION.
QUANTIZATION_VERSION = 2

_SPECIAL_KEYS = {
    "bos": "bos_token_id",
    "eos": "eos_token_id",
    "unk": "unknown_token_id",
    # llama.cpp's own spelling.
    "sep": "seperator_token_id",
    "pad": "padding_token_id",
    "mask": "mask_token_id",
    "eot": "eot_token_id",
    "eom": "eom_token_id",
}
_ADDED_KINDS = frozenset({"bos", "eos", "sep"})

_UNITS = {"T": 1e12, "B": 1e9, "M": 1e6, "K": -1.0}
_UNIT_FACTORS = {"T": 1e-12, "B": 1e-9, "M": 1e-6, "K": 1e-3}


@dataclass(frozen=True, slots=True)
class Provenance:
    """What the file says about itself beside the model's own numbers.

    `template` is the id of the prompt template, `licenses` are licence ids; their
    names and links stand beside each other, and `notices` are the lines that have to
    travel with the model. What is not known stays None or empty, and the file then
    says so.
    """

    name: str
    template: str | None = None
    licenses: tuple[str, ...] = ()
    license_names: tuple[str, ...] = ()
    license_links: tuple[str, ...] = ()
    notices: tuple[str, ...] = ()
    repo: RepoId | None = None
    revision: str | None = None


def build_metadata(
    hparams: Hparams,
    vocabulary: Vocabulary | None,
    provenance: Provenance,
    *,
    parameters: int,
    file_type: FileType,
) -> tuple[Entry, ...]:
    """List all entries; without a vocabulary those of a skeleton."""
    return (
        *_general_entries(hparams, provenance, parameters),
        *hparams.entries(),
        *(_vocabulary_entries(vocabulary) if vocabulary else ()),
        *_own_entries(provenance),
        u32("general.quantization_version", QUANTIZATION_VERSION),
        u32("general.file_type", file_type),
    )


def _general_entries(
    hparams: Hparams, provenance: Provenance, parameters: int
) -> Iterable[Entry]:
    yield text("general.architecture", hparams.architecture)
    yield text("general.type", "model")
    yield text("general.name", provenance.name)
    yield text("general.size_label", _size_label(hparams, parameters))
    if provenance.licenses:
        yield text("general.license", ",".join(provenance.licenses))
    if provenance.license_names:
        yield text("general.license.name", "; ".join(provenance.license_names))
    if provenance.license_links:
        yield text("general.license.link", " ".join(provenance.license_links))
    if provenance.repo:
        url = f"https://huggingface.co/{provenance.repo}"
        yield text("general.source.repo_url", url)


def _vocabulary_entries(vocabulary: Vocabulary) -> Iterable[Entry]:
    prefix = "tokenizer.ggml"
    if vocabulary.add_space_prefix is not None:
        yield flag(f"{prefix}.add_space_prefix", vocabulary.add_space_prefix)
    yield text(f"{prefix}.model", vocabulary.model)
    yield text(f"{prefix}.pre", vocabulary.pre)
    yield array(f"{prefix}.tokens", ValueType.STRING, vocabulary.tokens)
    if vocabulary.scores:
        yield array(f"{prefix}.scores", ValueType.FLOAT32, vocabulary.scores)
    yield array(f"{prefix}.token_type", ValueType.INT32, vocabulary.types)
    if vocabulary.model == "gpt2":
        yield array(f"{prefix}.merges", ValueType.STRING, vocabulary.merges)
    yield from _id_entries(vocabulary.special_ids)
    for kind, added in vocabulary.adds.items():
        if kind in _ADDED_KINDS:
            yield flag(f"{prefix}.add_{kind}_token", added)
    if vocabulary.chat_template is not None:
        yield text("tokenizer.chat_template", vocabulary.chat_template)
    if vocabulary.infill_end is not None:
        yield from _id_entries({"eot": vocabulary.infill_end})


def _id_entries(ids: Mapping[str, int]) -> Iterable[Entry]:
    for kind, index in ids.items():
        if kind in _SPECIAL_KEYS:
            yield u32(f"tokenizer.ggml.{_SPECIAL_KEYS[kind]}", index)


def _own_entries(provenance: Provenance) -> Iterable[Entry]:
    yield u32("wizard_edge.schema_version", SCHEMA_VERSION)
    yield text("wizard_edge.version", __version__)
    yield text(KEY_TEMPLATE, provenance.template or NOT_SAID)
    yield text(KEY_LICENSES, " ".join(provenance.licenses) or NOT_SAID)
    if provenance.notices:
        yield text(KEY_NOTICES, "\n".join(provenance.notices))
    yield text("wizard_edge.source.repo", provenance.repo or UNKNOWN)
    yield text("wizard_edge.source.revision", provenance.revision or UNKNOWN)


def _size_label(hparams: Hparams, parameters: int) -> str:
    """Label a model by its parameters; one of experts by how many there are and the
    parameters with one of them.

    Source: llama.cpp 0c1e57098, gguf-py/gguf/utility.py, `size_label`.
    """
    if not hparams.experts:
        return size_label(parameters)
    others = hparams.expert_parameters * (hparams.experts - 1)
    return f"{hparams.experts}x{size_label(parameters - others)}"


def size_label(parameters: int) -> str:
    """Round a count of parameters to two digits at least: `6.7B`, `13B`, `3.7M`.

    Source: llama.cpp 0c1e57098, gguf-py/gguf/utility.py,
    `model_weight_count_rounded_notation`.
    """
    unit = next(unit for unit, least in _UNITS.items() if parameters > least)
    scaled = parameters * _UNIT_FACTORS[unit]
    digits = max(2 - len(str(round(scaled)).lstrip("0")), 0)
    return f"{scaled:.{digits}f}{unit}"
