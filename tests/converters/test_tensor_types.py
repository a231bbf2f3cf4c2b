"""llama.cpp's own decision is read from its log, completely or not at all."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest

from wizard_edge._llama.tensor_types import decide_types
from wizard_edge.errors import BackendError
from wizard_edge.gguf_types import FileType, GgmlType, ValueType
from wizard_edge_converters.header import TensorEntry, lay_out
from wizard_edge_converters.metadata import Entry

TENSORS = [
    TensorEntry("output.weight", (320, 256), GgmlType.F16),
    TensorEntry("output_norm.weight", (256,), GgmlType.F32),
    TensorEntry("token_embd.weight", (320, 256), GgmlType.F16),
    TensorEntry("blk.0.attn_v.weight", (256, 256), GgmlType.F16),
    TensorEntry("blk.0.ffn_gate.weight", (256, 256), GgmlType.F16),
    TensorEntry("blk.0.ffn_up.weight", (256, 288), GgmlType.F16),
]
NAMES = [tensor.name for tensor in TENSORS]
NUMBERS = {
    "block_count": 1,
    "context_length": 64,
    "embedding_length": 256,
    "feed_forward_length": 256,
    "attention.head_count": 4,
    "vocab_size": 320,
}


def skeleton(architecture: str = "llama") -> tuple[bytes, int]:
    entries = [Entry("general.architecture", ValueType.STRING, architecture)]
    entries += [
        Entry(f"llama.{key}", ValueType.UINT32, value) for key, value in NUMBERS.items()
    ]
    epsilon = "llama.attention.layer_norm_rms_epsilon"
    entries.append(Entry(epsilon, ValueType.FLOAT32, 1e-6))
    layout = lay_out(entries, TENSORS)
    return layout.header, layout.size


def test_reads_the_decision_on_every_tensor() -> None:
    decision = decide_types(*skeleton(), FileType.Q4_K_M, NAMES)

    assert decision.types == {
        "output.weight": GgmlType.Q6_K,
        "output_norm.weight": GgmlType.F32,
        "token_embd.weight": GgmlType.Q4_K,
        # Of a single block, which counts among the last eighth.
        "blk.0.attn_v.weight": GgmlType.Q6_K,
        "blk.0.ffn_gate.weight": GgmlType.Q4_K,
        # 288 is no multiple of 256: llama.cpp falls back.
        "blk.0.ffn_up.weight": GgmlType.Q5_0,
    }
    assert not decision.needs_imatrix


def test_says_when_an_importance_matrix_is_needed() -> None:
    assert decide_types(*skeleton(), FileType.IQ1_S, NAMES).needs_imatrix


def test_a_tensor_without_decision_is_an_error() -> None:
    with pytest.raises(BackendError, match=r"blk\.1\.attn_v"):
        decide_types(*skeleton(), FileType.Q4_0, [*NAMES, "blk.1.attn_v.weight"])


def test_a_refusal_is_quoted() -> None:
    with pytest.raises(BackendError, match="unknown model architecture"):
        decide_types(*skeleton("nonsense"), FileType.Q4_0, NAMES)


def test_nothing_is_left_in_the_temporary_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

    decide_types(*skeleton(), FileType.Q4_0, NAMES)

    assert list(tmp_path.iterdir()) == []
