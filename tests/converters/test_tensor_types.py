"""llama.cpp's own decision is read from its log, completely or not at all."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

import pytest

from wizard_edge._llama.tensor_types import decide_types
from wizard_edge.errors import BackendError, CannotConvert, UsageError
from wizard_edge.gguf_cursor import shown
from wizard_edge.gguf_types import FileType, GgmlType, ValueType
from wizard_edge_converters.entries import Entry
from wizard_edge_converters.header import TensorEntry, lay_out

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


def skeleton(
    architecture: str = "llama", tensors: Sequence[TensorEntry] = TENSORS
) -> tuple[bytes, int]:
    entries = [Entry("general.architecture", ValueType.STRING, architecture)]
    entries += [
        Entry(f"llama.{key}", ValueType.UINT32, value) for key, value in NUMBERS.items()
    ]
    epsilon = "llama.attention.layer_norm_rms_epsilon"
    entries.append(Entry(epsilon, ValueType.FLOAT32, 1e-6))
    layout = lay_out(entries, tensors)
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
    assert decision.imatrix_tensors == frozenset()


def test_says_what_needs_an_importance_matrix() -> None:
    decision = decide_types(*skeleton(), FileType.IQ1_S, NAMES)

    # Not the ffn_up that falls back, nor what llama.cpp gives more bits.
    assert decision.imatrix_tensors == {"blk.0.ffn_gate.weight"}


@pytest.mark.parametrize(
    ("quant", "kind", "needing"),
    [
        # A Q2_K needs one in a Q2_K_S only.
        (FileType.Q2_K_S, GgmlType.Q2_K, {"blk.0.ffn_gate.weight"}),
        (FileType.Q2_K, GgmlType.Q2_K, set()),
        (FileType.Q4_K_M, GgmlType.IQ3_XXS, {"blk.0.ffn_gate.weight"}),
        (FileType.Q4_K_M, GgmlType.IQ3_S, set()),
    ],
    ids=["Q2_K in Q2_K_S", "Q2_K in Q2_K", "IQ3_XXS", "IQ3_S"],
)
@pytest.mark.parametrize("present", [False, True], ids=["without", "with"])
def test_the_need_is_llama_cpps(
    quant: FileType, kind: GgmlType, needing: set[str], *, present: bool
) -> None:
    overrides = [("ffn_gate", kind), (".", GgmlType.Q8_0)]

    decision = decide_types(
        *skeleton(), quant, NAMES, tensor_types=overrides, imatrix_present=present
    )

    assert decision.imatrix_tensors == needing


def test_what_llama_cpp_lets_pass_and_ggml_aborts_over_needs_one_too() -> None:
    decision = decide_types(
        *skeleton(), FileType.Q4_K_M, NAMES, embedding_type=GgmlType.IQ2_XXS
    )

    assert decision.imatrix_tensors == {"token_embd.weight"}


def test_an_importance_matrix_changes_the_decision() -> None:
    without = decide_types(*skeleton(), FileType.IQ3_XXS, NAMES)
    present = decide_types(*skeleton(), FileType.IQ3_XXS, NAMES, imatrix_present=True)

    name = "blk.0.attn_v.weight"
    assert (without.types[name], present.types[name]) == (
        GgmlType.IQ3_S,
        GgmlType.IQ3_XXS,
    )


def test_the_first_pattern_found_in_a_name_decides() -> None:
    overrides = [
        ("ffn_(gate|up)", GgmlType.Q8_0),
        ("gate", GgmlType.Q2_K),
        (r"^blk\.\d+\.attn_v", GgmlType.BF16),
    ]

    types = decide_types(
        *skeleton(), FileType.Q4_K_M, NAMES, tensor_types=overrides
    ).types

    assert {name: types[name].name for name in NAMES[3:]} == {
        "blk.0.attn_v.weight": "BF16",
        "blk.0.ffn_gate.weight": "Q8_0",
        "blk.0.ffn_up.weight": "Q8_0",
    }


def test_output_and_embedding_have_options_of_their_own() -> None:
    types = decide_types(
        *skeleton(),
        FileType.Q4_K_M,
        NAMES,
        output_type=GgmlType.F16,
        embedding_type=GgmlType.Q8_0,
        pure=True,
    ).types

    assert {name: kind.name for name, kind in types.items()} == {
        "output.weight": "F16",
        "output_norm.weight": "F32",
        "token_embd.weight": "Q8_0",
        "blk.0.attn_v.weight": "Q4_K",
        "blk.0.ffn_gate.weight": "Q4_K",
        "blk.0.ffn_up.weight": "Q5_0",
    }


@pytest.mark.parametrize(
    "pattern",
    ["(", "[z-a]", "*", "\\", "(?<x>a)", "a{1000}{1000}", "(" * 1024],
    ids=lambda pattern: pattern[:16],
)
def test_a_pattern_that_llama_cpp_cannot_read_is_named(pattern: str) -> None:
    overrides = [("attn", GgmlType.Q8_0), (pattern, GgmlType.Q6_K)]

    with pytest.raises(UsageError) as caught:
        decide_types(*skeleton(), FileType.Q4_K_M, NAMES, tensor_types=overrides)

    assert caught.value.message.startswith(
        f"llama.cpp cannot use {shown(pattern)} as Q6_K: "
    )


def test_a_type_without_fallback_for_the_shape_is_named() -> None:
    with pytest.raises(UsageError, match="'ffn_up' as NVFP4: no tensor type fallback"):
        decide_types(
            *skeleton(),
            FileType.Q4_K_M,
            NAMES,
            tensor_types=[("ffn_up", GgmlType.NVFP4)],
        )


def test_a_broken_model_is_not_blamed_on_the_patterns() -> None:
    with pytest.raises(BackendError, match="unknown model architecture"):
        decide_types(
            *skeleton("nonsense"),
            FileType.Q4_0,
            NAMES,
            tensor_types=[("(", GgmlType.Q8_0)],
        )


def test_a_type_whose_blocks_do_not_fit_the_rows_is_refused() -> None:
    narrow = [
        TensorEntry(tensor.name, (*tensor.shape[:-1], 288), tensor.type)
        for tensor in TENSORS
    ]

    with pytest.raises(
        UsageError, match=r"output\.weight cannot be Q4_K: a row of 288"
    ):
        decide_types(
            *skeleton(tensors=narrow),
            FileType.Q8_0,
            NAMES,
            output_type=GgmlType.Q4_K,
        )


def test_a_quantized_tensor_becomes_another_only_when_allowed() -> None:
    quantized = [
        TensorEntry(tensor.name, tensor.shape, GgmlType.Q8_0)
        if "ffn" in tensor.name
        else tensor
        for tensor in TENSORS
    ]
    made = skeleton(tensors=quantized)

    with pytest.raises(CannotConvert, match="is Q8_0 already"):
        decide_types(*made, FileType.Q4_0, NAMES)
    allowed = decide_types(*made, FileType.Q4_0, NAMES, allow_requantize=True)
    same = decide_types(*made, FileType.Q8_0, NAMES)

    assert allowed.types["blk.0.ffn_up.weight"] is GgmlType.Q4_0
    assert same.types["blk.0.ffn_up.weight"] is GgmlType.Q8_0


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
