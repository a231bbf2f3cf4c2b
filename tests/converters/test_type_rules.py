"""What somebody wants otherwise is done exactly as llama.cpp's quantizer does it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.converters.checkpoints import SHAPES
from tests.converters.comparison import (
    metadata_but_ours,
    read_metadata,
    tensor_differences,
)
from tests.converters.quantizing import (
    legacy_matrix,
    legacy_tail,
    quantize_theirs,
    random_importance,
)
from tests.converters.running import Converted, convert
from wizard_edge.conversion import QuantRules
from wizard_edge.errors import CannotConvert, Corrupt, MissingFile, UsageError
from wizard_edge.gguf_types import GgmlType
from wizard_edge_converters.imatrix import read_imatrix
from wizard_edge_converters.options import ConvertOptions

Convert = Callable[[str, str], Converted]
# The matrix says so much of each column after so many calls.
CALLS = 4


def write_matrix(path: Path, model: Path, *, without: str = "-") -> Path:
    """Write a matrix in llama.cpp's legacy form for every matrix of a model."""
    entries = [
        (name, CALLS, values * CALLS)
        for name, values in random_importance(model, seed=11).items()
        if without not in name
    ]
    path.write_bytes(legacy_matrix(entries, legacy_tail(CALLS, b"prose.txt")))
    return path


def lossless(name: str) -> str:
    """Name the quant that holds the checkpoint of a shape exactly."""
    return SHAPES[name].dtype


MATRIX_CASES = [
    *(("gqa", quant) for quant in ("IQ2_XXS", "IQ4_XS", "Q2_K", "Q4_K_M")),
    # The slow ones for experts are compared tensor by tensor elsewhere.
    *(("mixtral", quant) for quant in ("Q4_K_M", "IQ4_NL")),
    *(("starcoder", quant) for quant in ("IQ3_M", "Q4_K_S")),
]


@pytest.mark.parametrize(("name", "quant"), MATRIX_CASES)
def test_a_matrix_weighs_as_in_llama_cpp(
    name: str,
    quant: str,
    checkpoint: Callable[[str], Path],
    converted: Convert,
    tmp_path: Path,
) -> None:
    between = converted(name, lossless(name)).path
    file = write_matrix(tmp_path / "matrix.dat", between)
    options = ConvertOptions(
        quants=(quant,), name="Test Model", rules=QuantRules(importance=file)
    )
    matrix = read_imatrix(file)

    ours = convert(checkpoint(name), tmp_path / "ours.gguf", options).path

    theirs = tmp_path / "theirs.gguf"
    quantize_theirs(between, theirs, quant, importance=matrix.values)
    assert tensor_differences(ours, theirs) == []
    notes = {k: v for k, v in metadata_but_ours(ours) if k.startswith("quantize.")}
    assert notes == {
        "quantize.imatrix.file": ["STRING", "matrix.dat"],
        "quantize.imatrix.dataset": ["STRING", "prose.txt"],
        "quantize.imatrix.entries_count": ["UINT32", len(matrix.values)],
        "quantize.imatrix.chunks_count": ["UINT32", CALLS],
    }
    rest = [(k, v) for k, v in metadata_but_ours(ours) if k not in notes]
    assert rest == metadata_but_ours(theirs)


# Any: fields of a struct of the binding.
RULES: dict[str, tuple[QuantRules, dict[str, Any]]] = {
    "pure": (QuantRules(pure=True), {"pure": True}),
    "output": (
        QuantRules(output_type="q8_0"),
        {"output_tensor_type": int(GgmlType.Q8_0)},
    ),
    "embedding": (
        QuantRules(embedding_type="Q5_1"),
        {"token_embedding_type": int(GgmlType.Q5_1)},
    ),
}


@pytest.mark.parametrize("case", RULES)
def test_rules_are_those_of_llama_cpp(
    case: str, checkpoint: Callable[[str], Path], converted: Convert, tmp_path: Path
) -> None:
    rules, theirs_options = RULES[case]
    options = ConvertOptions(quants=("Q4_K_M",), name="Test Model", rules=rules)

    ours = convert(checkpoint("gqa"), tmp_path / "ours.gguf", options).path

    theirs = tmp_path / "theirs.gguf"
    quantize_theirs(converted("gqa", "F16").path, theirs, "Q4_K_M", **theirs_options)
    assert tensor_differences(ours, theirs) == []
    assert tensor_differences(ours, converted("gqa", "Q4_K_M").path) != []


def test_a_pattern_gives_its_tensors_another_type(
    checkpoint: Callable[[str], Path], converted: Convert, tmp_path: Path
) -> None:
    rules = QuantRules(tensor_types=(r"\.1\.ffn_(up|gate)=q8_0", "ffn_=iq4_nl"))
    options = ConvertOptions(quants=("Q4_K_M",), name="Test Model", rules=rules)

    made = convert(checkpoint("gqa"), tmp_path / "ours.gguf", options)

    types = {tensor.name: tensor.type.name for tensor in made.file.tensors}
    assert types["blk.1.ffn_up.weight"] == types["blk.1.ffn_gate.weight"] == "Q8_0"
    assert types["blk.1.ffn_down.weight"] == types["blk.0.ffn_up.weight"] == "IQ4_NL"
    assert types["blk.0.attn_q.weight"] == "Q4_K"


@pytest.mark.parametrize(
    "rules", [QuantRules(pure=True), QuantRules(tensor_types=("attn_k=q8_0",))]
)
def test_a_plain_quant_has_no_rules(
    rules: QuantRules, checkpoint: Callable[[str], Path], tmp_path: Path
) -> None:
    """llama.cpp would pass over them without a word."""
    options = ConvertOptions(quants=("F16",), rules=rules)

    with pytest.raises(UsageError, match="F16 stores all matrices alike"):
        convert(checkpoint("gqa"), tmp_path / "ours.gguf", options)


@pytest.mark.parametrize(
    ("rules", "error", "said"),
    [
        (QuantRules(tensor_types=("ffn_down",)), UsageError, "not REGEX=TYPE"),
        (QuantRules(tensor_types=("ffn=q9_9",)), UsageError, "unknown tensor type"),
        (QuantRules(tensor_types=("(=q8_0",)), UsageError, "("),
        (QuantRules(output_type="I8"), UsageError, "unknown tensor type 'I8'"),
        (QuantRules(importance=Path("absent.dat")), MissingFile, "absent.dat"),
    ],
)
def test_senseless_rules_are_refused(
    rules: QuantRules,
    error: type[Exception],
    said: str,
    checkpoint: Callable[[str], Path],
    tmp_path: Path,
) -> None:
    options = ConvertOptions(quants=("Q4_K_M",), rules=rules)

    with pytest.raises(error) as caught:
        convert(checkpoint("gqa"), tmp_path / "ours.gguf", options)

    assert said in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_matrix_that_lacks_what_a_type_needs_is_refused(
    checkpoint: Callable[[str], Path], converted: Convert, tmp_path: Path
) -> None:
    model = converted("gqa", "F16").path
    file = write_matrix(tmp_path / "m.dat", model, without="ffn_up")
    options = ConvertOptions(quants=("IQ2_XXS",), rules=QuantRules(importance=file))

    with pytest.raises(CannotConvert, match=r"says nothing of blk\.0\.ffn_up\.weight"):
        convert(checkpoint("gqa"), tmp_path / "ours.gguf", options)


def test_a_matrix_of_another_model_is_refused(
    checkpoint: Callable[[str], Path], converted: Convert, tmp_path: Path
) -> None:
    file = write_matrix(tmp_path / "m.dat", converted("wide", "F16").path)
    options = ConvertOptions(quants=("Q4_K_M",), rules=QuantRules(importance=file))

    with pytest.raises(CannotConvert, match="is of another model"):
        convert(checkpoint("gqa"), tmp_path / "ours.gguf", options)


def test_a_damaged_matrix_is_named(
    checkpoint: Callable[[str], Path], tmp_path: Path
) -> None:
    (tmp_path / "m.dat").write_bytes(b"\1\0\0\0\5")
    options = ConvertOptions(rules=QuantRules(importance=tmp_path / "m.dat"))

    with pytest.raises(Corrupt, match=r"m\.dat"):
        convert(checkpoint("gqa"), tmp_path / "ours.gguf", options)


def test_without_a_matrix_the_metadata_say_nothing_of_one(converted: Convert) -> None:
    metadata = read_metadata(converted("gqa", "Q4_K_M").path)

    assert not [key for key in metadata if key.startswith("quantize.")]
