"""Entries are encoded as GGUF has them and read back the same."""

from __future__ import annotations

import json
from math import prod
from pathlib import Path

import pytest

from tests.converters.checkpoints import Shape, write_config
from wizard_edge.gguf import read_header
from wizard_edge.gguf_types import FileType, GgmlType, ValueType
from wizard_edge_converters.directory import Directory
from wizard_edge_converters.entries import Entry
from wizard_edge_converters.header import TensorEntry, lay_out
from wizard_edge_converters.hparams import read_hparams
from wizard_edge_converters.metadata import Provenance, build_metadata, size_label
from wizard_edge_converters.verify import check_entries
from wizard_edge_converters.vocabulary import TokenType, Vocabulary

ENTRIES = (
    Entry("general.architecture", ValueType.STRING, "llama"),
    Entry("a.count", ValueType.UINT32, (1 << 32) - 1),
    Entry("a.number", ValueType.FLOAT32, 0.1),
    Entry("a.flag", ValueType.BOOL, True),
    Entry("a.empty", ValueType.STRING, ""),
    Entry("a.text", ValueType.STRING, "\u2581Größe\n"),
    Entry("a.texts", ValueType.ARRAY, ("", "\u2581", "x"), ValueType.STRING),
    Entry("a.numbers", ValueType.ARRAY, (0.1, -2.5), ValueType.FLOAT32),
    Entry("a.types", ValueType.ARRAY, (1, -1), ValueType.INT32),
)


def test_entries_read_back_as_they_were_written(tmp_path: Path) -> None:
    path = tmp_path / "a.gguf"
    path.write_bytes(lay_out(ENTRIES, []).header)

    header = read_header(path)

    check_entries(header, ENTRIES)
    assert header.metadata["a.text"] == "\u2581Größe\n"
    assert header.data_offset % 32 == 0


def test_tensors_lie_one_after_another_on_multiples_of_32(tmp_path: Path) -> None:
    path = tmp_path / "a.gguf"
    tensors = [
        TensorEntry("a", (3,), GgmlType.F32),
        TensorEntry("b", (2, 256), GgmlType.Q4_K),
        TensorEntry("c", (5, 1), GgmlType.F32),
    ]

    layout = lay_out(ENTRIES, tensors)
    path.write_bytes(layout.header + bytes(layout.size - len(layout.header)))

    header = read_header(path)
    found = {t.name: header.data_offset + t.offset for t in header.tensors}
    assert found == layout.offsets
    assert [tensor.offset for tensor in header.tensors] == [0, 32, 320]
    assert [tensor.shape for tensor in header.tensors] == [(3,), (256, 2), (1, 5)]
    assert layout.size == header.data_offset + 352


@pytest.mark.parametrize(
    ("parameters", "label"),
    [
        (0, "0.00K"),
        (999, "1.0K"),
        (3_700_000, "3.7M"),
        (6_738_415_616, "6.7B"),
        (13_015_864_320, "13B"),
        (68_976_648_192, "69B"),
        (2_000_000_000_000, "2.0T"),
    ],
)
def test_size_labels_have_two_digits(parameters: int, label: str) -> None:
    assert size_label(parameters) == label


def test_a_model_of_experts_is_labelled_by_one_of_them(tmp_path: Path) -> None:
    """Mixtral-8x22B has 141 B parameters: llama.cpp calls that 8x22B and so do we."""
    write_config(tmp_path, Shape(family="mixtral", experts=8))
    path = tmp_path / "config.json"
    config = json.loads(path.read_text()) | {
        "hidden_size": 6144,
        "intermediate_size": 16384,
        "num_attention_heads": 48,
        "num_hidden_layers": 56,
        "num_key_value_heads": 8,
        "vocab_size": 32000,
    }
    path.write_text(json.dumps(config))
    hparams = read_hparams(Directory(tmp_path))
    parameters = sum(prod(rule.shape) for rule in hparams.rules() if rule.required)

    entries = build_metadata(
        hparams,
        None,
        Provenance("name"),
        parameters=parameters,
        file_type=FileType.F16,
    )

    assert parameters == 140_620_634_112
    values = {entry.key: entry.value for entry in entries}
    assert values["general.size_label"] == "8x22B"


def test_special_tokens_have_the_keys_of_llama_cpp(tmp_path: Path) -> None:
    """One of them is misspelt there, and `cls` has none."""
    kinds = ("bos", "eos", "unk", "sep", "pad", "cls", "mask", "eot", "eom")
    vocabulary = Vocabulary(
        model="gpt2",
        pre="refact",
        tokens=("a",),
        scores=(),
        types=(TokenType.NORMAL,),
        merges=("a b",),
        special_ids={kind: index for index, kind in enumerate(kinds)},
        adds={"bos": False, "sep": True, "pad": True},
        add_space_prefix=None,
        chat_template=None,
        notes=(),
    )
    write_config(tmp_path, Shape())

    entries = build_metadata(
        read_hparams(Directory(tmp_path)),
        vocabulary,
        Provenance("name"),
        parameters=1,
        file_type=FileType.F16,
    )

    keys = [entry.key for entry in entries if entry.key.startswith("tokenizer.")]
    assert [key.removeprefix("tokenizer.ggml.") for key in keys] == [
        "model",
        "pre",
        "tokens",
        "token_type",
        "merges",
        "bos_token_id",
        "eos_token_id",
        "unknown_token_id",
        "seperator_token_id",
        "padding_token_id",
        "mask_token_id",
        "eot_token_id",
        "eom_token_id",
        "add_bos_token",
        "add_sep_token",
    ]
