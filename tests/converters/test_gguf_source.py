"""Quantizing a GGUF file equals llama.cpp's quantizer of the same library."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.converters.comparison import read_metadata, tensor_differences
from tests.converters.quantizing import (
    legacy_matrix,
    quantize_theirs,
    random_importance,
)
from tests.converters.running import Converted
from tests.gguf_files import (
    Entry,
    array,
    f32,
    small_llama,
    small_starcoder,
    u32,
)
from tests.gguf_files import string as text
from tests.llama.models import ModelShape, write_random, write_random_model
from wizard_edge.conversion import QuantRules
from wizard_edge.errors import (
    CannotConvert,
    Corrupt,
    MissingFile,
    UsageError,
    WizardEdgeError,
)
from wizard_edge.gguf import read_fields, read_header
from wizard_edge.gguf_rules import UnsupportedArchitecture
from wizard_edge.gguf_types import GgmlType, ValueType
from wizard_edge.progress import ProgressEvent
from wizard_edge_converters.checkpoint import StoredTensor
from wizard_edge_converters.gguf_source import GgufCheckpoint, open_gguf
from wizard_edge_converters.options import ConvertOptions
from wizard_edge_converters.pipeline import Conversion
from wizard_edge_converters.requantize import plan_file, quantize_file

Convert = Callable[[str, str], Converted]


@dataclass(frozen=True, slots=True)
class Case:
    """A source by shape and quant, and the quants to make of it."""

    shape: str
    source: str
    quants: tuple[str, ...]
    again: bool = False


CASES = [
    Case("gqa", "F16", ("Q4_K_M", "Q8_0", "F16", "F32", "BF16", "IQ4_XS")),
    Case("bf16", "BF16", ("Q5_K_M", "Q4_0", "F32")),
    Case("f32", "F32", ("Q6_K", "Q3_K_M", "F16", "BF16")),
    Case("odd-rows", "F16", ("Q4_K_M", "Q2_K")),
    Case("tied", "F16", ("Q5_0",)),
    Case("biases", "F16", ("Q4_K_S",)),
    Case("deep", "F16", ("Q4_K_M",)),
    Case("gqa", "Q8_0", ("Q8_0", "Q4_K_M", "F16", "Q5_1"), again=True),
    Case("gqa", "Q4_K_M", ("Q4_K_M", "Q6_K", "F32", "BF16"), again=True),
]


def quantize(
    source: Path,
    output: Path,
    *quants: str,
    allow_requantize: bool = False,
    threads: int = 2,
    split: int | None = None,
    overwrite: bool = False,
) -> Conversion:
    options = ConvertOptions(
        quants, threads=threads, split_max_size=split, overwrite=overwrite
    )
    return quantize_file(
        source,
        [output.with_name(output.name.replace("{quant}", q)) for q in quants],
        options,
        allow_requantize=allow_requantize,
    )


def encoded(path: Path) -> list[tuple[str, str, bytes]]:
    """All metadata in their order, with types and bytes, but for the quality."""
    header = read_header(path)
    return [
        (key, header.fields[key].type.name, value)
        for key, value in read_fields(header).items()
        if not key.startswith("wizard_edge.quality.")
    ]


@pytest.mark.parametrize(
    "case", CASES, ids=lambda c: f"{c.shape}-{c.source}-to-{'-'.join(c.quants)}"
)
def test_files_equal_those_of_llama_cpp(
    case: Case, converted: Convert, tmp_path: Path
) -> None:
    source = converted(case.shape, case.source).path

    done = quantize(
        source, tmp_path / "{quant}.gguf", *case.quants, allow_requantize=case.again
    )

    for made in done.made:
        theirs = tmp_path / "theirs.gguf"
        quantize_theirs(source, theirs, made.quant, allow_requantize=case.again)
        assert tensor_differences(made.path, theirs) == []
        assert encoded(made.path) == encoded(theirs)
        assert [t.name for t in read_header(made.path).tensors] == [
            t.name for t in read_header(theirs).tensors
        ]


EXPERTS = 4


# The matrix that chooses experts stays F32 in all.
@pytest.mark.parametrize("quant", ["Q8_0", "Q4_0", "F32", "F16", "BF16"])
def test_experts_equal_those_of_llama_cpp(quant: str, tmp_path: Path) -> None:
    shape = ModelShape(width=32, experts=EXPERTS, weights=GgmlType.F16)
    source = write_random_model(tmp_path / "experts.gguf", shape)
    ours, theirs = tmp_path / "ours.gguf", tmp_path / "theirs.gguf"

    quantize(source, ours, quant)

    quantize_theirs(source, theirs, quant)
    assert tensor_differences(ours, theirs) == []
    assert read_header(ours).tensors[0].shape == read_header(theirs).tensors[0].shape


def test_importance_counts_expert_by_expert(tmp_path: Path) -> None:
    shape = ModelShape(width=256, blocks=1, experts=EXPERTS)
    source = write_random_model(tmp_path / "source.gguf", shape)
    values = random_importance(source, seed=3, prefix="blk.")
    matrix = tmp_path / "imatrix.dat"
    matrix.write_bytes(legacy_matrix([(name, 1, v) for name, v in values.items()]))
    ours, theirs = tmp_path / "ours.gguf", tmp_path / "theirs.gguf"
    rules = QuantRules(importance=matrix)

    quantize_file(source, [ours], ConvertOptions(("Q2_K_S",), threads=2, rules=rules))
    # Its metadata name the matrix of before: the new one takes their place.
    again = quantize_file(
        ours, [tmp_path / "again.gguf"], ConvertOptions(("Q2_K_S",), rules=rules)
    )

    quantize_theirs(source, theirs, "Q2_K_S", importance=values)
    assert tensor_differences(ours, theirs) == []
    assert tensor_differences(again.made[0].path, theirs) == []
    notes = [key for key in read_metadata(ours) if key.startswith("quantize.imatrix.")]
    assert notes
    assert notes == [
        key
        for key in read_metadata(again.made[0].path)
        if key.startswith("quantize.imatrix.")
    ]


def test_rules_of_types_are_those_of_llama_cpp(
    converted: Convert, tmp_path: Path
) -> None:
    source = converted("gqa", "F16").path
    rules = QuantRules(output_type="Q8_0", pure=True)

    done = quantize_file(
        source,
        [tmp_path / "out.gguf"],
        ConvertOptions(("Q4_0",), threads=2, rules=rules),
    )

    types = {t.name: t.type.name for t in read_header(done.made[0].path).tensors}
    assert types["output.weight"] == "Q8_0"
    assert {kind for name, kind in types.items() if "attn_q.weight" in name} == {"Q4_0"}


@pytest.mark.parametrize("quant", ["F16", "Q8_0"])
def test_a_starcoder_equals_that_of_llama_cpp(quant: str, tmp_path: Path) -> None:
    """Its learned positions keep the type they have in the source."""
    source = write_random(tmp_path / "starcoder.gguf", small_starcoder())
    ours, theirs = tmp_path / "ours.gguf", tmp_path / "theirs.gguf"

    quantize(source, ours, quant)

    quantize_theirs(source, theirs, quant)
    assert tensor_differences(ours, theirs) == []
    assert encoded(ours) == encoded(theirs)


def numbers(kind: ValueType, code: str, *values: float) -> Entry:
    return array(kind, len(values), struct.pack(f"<{len(values)}{code}", *values))


SCALARS = {
    "u8": Entry(ValueType.UINT8, b"\xff"),
    "i8": Entry(ValueType.INT8, b"\x80"),
    "u16": Entry(ValueType.UINT16, b"\x01\xff"),
    "i16": Entry(ValueType.INT16, b"\x01\x80"),
    "u32": u32((1 << 32) - 1),
    "i32": Entry(ValueType.INT32, struct.pack("<i", -(1 << 31))),
    "f32": f32(0.1),
    "nan": Entry(ValueType.FLOAT32, b"\x01\x00\xa0\x7f"),
    "bool": Entry(ValueType.BOOL, b"\x01"),
    "text": text("ü \U0001f9d9"),
    "u64": Entry(ValueType.UINT64, b"\xff" * 8),
    "i64": Entry(ValueType.INT64, struct.pack("<q", -(1 << 63))),
    "f64": Entry(ValueType.FLOAT64, struct.pack("<d", 0.1)),
}
ARRAYS = {
    "u8s": numbers(ValueType.UINT8, "B", 0, 255),
    "i8s": numbers(ValueType.INT8, "b", -128, 127),
    "u16s": numbers(ValueType.UINT16, "H", 0, 65535),
    "i16s": numbers(ValueType.INT16, "h", -32768, 32767),
    "u32s": numbers(ValueType.UINT32, "I", 0, (1 << 32) - 1),
    "i32s": numbers(ValueType.INT32, "i", -1, 1),
    "f32s": numbers(ValueType.FLOAT32, "f", 0.1, -0.0),
    "bools": array(ValueType.BOOL, 2, b"\x00\x01"),
    "texts": array(ValueType.STRING, 1, struct.pack("<Q", 2) + b"ab"),
    "u64s": numbers(ValueType.UINT64, "Q", 0, (1 << 64) - 1),
    "i64s": numbers(ValueType.INT64, "q", -(1 << 63), 1),
    "f64s": numbers(ValueType.FLOAT64, "d", 0.1, 1e300),
    "none": array(ValueType.STRING, 0, b""),
}


def test_metadata_of_every_type_are_kept_to_the_byte(tmp_path: Path) -> None:
    model = small_llama(width=32)
    for name, entry in (SCALARS | ARRAYS).items():
        model.set(f"test.{name}", entry)
    model.set("wizard_edge.quality.Q4_K.rms_error", f32(0.5))
    source = write_random(tmp_path / "source.gguf", model)
    ours, theirs = tmp_path / "ours.gguf", tmp_path / "theirs.gguf"

    quantize(source, ours, "Q8_0")

    quantize_theirs(source, theirs, "Q8_0")
    assert encoded(ours) == encoded(theirs)
    header = read_header(ours)
    found = read_fields(header)
    for name, entry in (SCALARS | ARRAYS).items():
        assert header.fields[f"test.{name}"].type == entry.type
        assert found[f"test.{name}"] == entry.data
    assert [key for key in found if key.startswith("wizard_edge.quality")] == [
        "wizard_edge.quality.rms_error.Q8_0",
        "wizard_edge.quality.relative_error.Q8_0",
    ]


def test_another_alignment_becomes_the_usual_one(tmp_path: Path) -> None:
    """llama.cpp keeps the key and aligns to 32 bytes: it cannot read that itself."""
    model = small_llama(width=32).set("general.alignment", u32(128))
    model.alignment = 128
    source = write_random(tmp_path / "source.gguf", model)
    plain = small_llama(width=32)
    usual = write_random(tmp_path / "usual.gguf", plain)

    done = quantize(source, tmp_path / "ours.gguf", "Q8_0")

    quantize_theirs(usual, tmp_path / "theirs.gguf", "Q8_0")
    assert read_metadata(done.made[0].path)["general.alignment"] == ["UINT32", 32]
    assert tensor_differences(done.made[0].path, tmp_path / "theirs.gguf") == []


def test_several_quants_come_from_one_reading(
    converted: Convert, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = converted("gqa", "F16").path
    sizes: list[int] = []
    real = GgufCheckpoint.read

    def counted(
        self: GgufCheckpoint, tensor: StoredTensor, start: int, count: int
    ) -> bytes:
        data = real(self, tensor, start, count)
        sizes.append(len(data))
        return data

    monkeypatch.setattr(GgufCheckpoint, "read", counted)
    done = quantize(source, tmp_path / "{quant}.gguf", "Q8_0", "Q4_0")

    assert [made.path.name for made in done.made] == ["Q8_0.gguf", "Q4_0.gguf"]
    assert sum(sizes) == sum(tensor.size for tensor in read_header(source).tensors)


def test_what_has_the_wanted_type_is_copied(converted: Convert, tmp_path: Path) -> None:
    source = converted("gqa", "Q8_0").path

    done = quantize(source, tmp_path / "copy.gguf", "Q8_0")

    assert tensor_differences(done.made[0].path, source) == []
    assert done.made[0].deviations == {}


@pytest.mark.parametrize(("quant", "kind"), [("Q4_0", "Q6_K"), ("F16", "F16")])
def test_a_second_loss_needs_to_be_asked_for(
    quant: str, kind: str, converted: Convert, tmp_path: Path
) -> None:
    source = converted("gqa", "Q8_0").path

    with pytest.raises(CannotConvert) as caught:
        quantize(source, tmp_path / "out.gguf", quant)

    assert f"is Q8_0 already: making it {kind} loses twice" in caught.value.message
    assert "--allow-requantize" in (caught.value.hint or "")
    assert list(tmp_path.iterdir()) == []


def test_a_dry_run_plans_the_size_to_the_byte(
    converted: Convert, tmp_path: Path
) -> None:
    source = converted("gqa", "F16").path

    plan = plan_file(source, [tmp_path / "out.gguf"], ConvertOptions(("Q4_K_M",)))
    done = quantize(source, tmp_path / "out.gguf", "Q4_K_M")

    assert plan.read_bytes == source.stat().st_size
    assert plan.targets[0].size == done.made[0].path.stat().st_size
    assert plan.targets[0].tensors == done.plan.targets[0].tensors


def test_a_quant_that_needs_an_importance_matrix_is_refused(
    converted: Convert, tmp_path: Path
) -> None:
    with pytest.raises(CannotConvert, match="IQ2_XXS needs an importance matrix"):
        quantize(converted("gqa", "F16").path, tmp_path / "out.gguf", "IQ2_XXS")

    assert list(tmp_path.iterdir()) == []


def a_copy(converted: Convert, tmp_path: Path) -> Path:
    copy = tmp_path / "in.gguf"
    copy.write_bytes(converted("gqa", "F16").path.read_bytes())
    return copy


@pytest.mark.parametrize("how", ["same path", "symlink", "hard link", "dotted path"])
def test_the_source_is_never_the_output(
    how: str, converted: Convert, tmp_path: Path
) -> None:
    source = a_copy(converted, tmp_path)
    content = source.read_bytes()
    output = tmp_path / "out.gguf"
    if how == "same path":
        output = source
    elif how == "symlink":
        output.symlink_to(source)
    elif how == "hard link":
        output.hardlink_to(source)
    else:
        output = tmp_path / "." / ".." / tmp_path.name / "in.gguf"

    with pytest.raises(UsageError) as caught:
        quantize(source, output, "Q8_0", overwrite=True)

    assert caught.value.message == f"the output is the source: {output}"
    assert source.read_bytes() == content


def test_that_the_source_is_the_output_comes_before_all_else(
    converted: Convert,
) -> None:
    source = converted("gqa", "Q8_0").path

    with pytest.raises(UsageError, match="the output is the source"):
        quantize(source, source, "Q4_0", overwrite=True)


@pytest.mark.parametrize("kind", ["F16", "Q8_0"])
def test_blocks_are_read_where_they_lie(
    kind: str, converted: Convert, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = converted("gqa", kind).path
    whole = quantize(source, tmp_path / "1.gguf", "Q4_0", allow_requantize=True)

    monkeypatch.setattr("wizard_edge_converters.plan.BLOCK_ELEMENTS", 1024)
    cut = quantize(source, tmp_path / "2.gguf", "Q4_0", allow_requantize=True)

    assert max(step.block_count for step in whole.plan.steps) == 1
    assert max(step.block_count for step in cut.plan.steps) > 64
    assert tensor_differences(cut.made[0].path, whole.made[0].path) == []


def test_a_part_of_the_source_is_never_an_output(
    converted: Convert, tmp_path: Path
) -> None:
    whole = converted("gqa", "F16").path
    done = quantize(whole, tmp_path / "model.gguf", "F16", split=600_000)
    parts = [file.path for file in done.made[0].files]
    before = [part.read_bytes() for part in parts]

    with pytest.raises(UsageError, match="the output is the source"):
        quantize(
            parts[0], tmp_path / "model.gguf", "F16", split=600_000, overwrite=True
        )

    assert [part.read_bytes() for part in parts] == before


@pytest.mark.parametrize("stage", ["convert", "verify"])
def test_an_interruption_leaves_nothing(
    stage: str, converted: Convert, tmp_path: Path
) -> None:
    source = converted("gqa", "F16").path

    def interrupt(event: ProgressEvent) -> None:
        if event.stage == stage:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        quantize_file(
            source,
            [tmp_path / "out.gguf"],
            ConvertOptions(("Q8_0",), threads=2),
            progress=interrupt,
        )

    assert list(tmp_path.iterdir()) == []


def test_tensors_that_are_no_numbers_are_told_by_name(
    converted: Convert, tmp_path: Path
) -> None:
    source = a_copy(converted, tmp_path)
    header = read_header(source)
    tensor = next(t for t in header.tensors if t.name == "blk.1.attn_q.weight")
    with source.open("r+b") as file:
        file.seek(header.data_offset + tensor.offset)
        file.write(b"\x00\x7c")

    with pytest.raises(Corrupt) as caught:
        quantize(source, tmp_path / "out.gguf", "Q8_0")

    assert caught.value.where == "tensor blk.1.attn_q.weight"
    assert caught.value.path == str(source)
    assert [path.name for path in tmp_path.iterdir()] == ["in.gguf"]


def test_a_file_that_became_shorter_is_told(converted: Convert, tmp_path: Path) -> None:
    source = a_copy(converted, tmp_path)
    size = source.stat().st_size

    with open_gguf(source) as checkpoint:
        os.truncate(source, size // 2)
        last = max(checkpoint.tensors.values(), key=lambda tensor: tensor.offset)
        with pytest.raises(Corrupt, match="ends after"):
            checkpoint.read(last, 0, last.elements)


def write(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


BAD: dict[str, tuple[Callable[[Path], object], type[WizardEdgeError]]] = {
    "nothing": (lambda path: None, MissingFile),
    "a folder": (lambda path: path.mkdir(), UsageError),
    "four bytes": (lambda path: write(path, b"GGUF"), Corrupt),
    "cut off": (
        lambda path: write(path, small_llama().build()[:-1]),
        Corrupt,
    ),
    "another architecture": (
        lambda path: small_llama().set("general.architecture", text("mpt")).write(path),
        UnsupportedArchitecture,
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_what_llama_cpp_would_choke_on_is_refused(name: str, tmp_path: Path) -> None:
    make, error = BAD[name]
    make(tmp_path / "bad.gguf")

    with pytest.raises(error):
        quantize(tmp_path / "bad.gguf", tmp_path / "out.gguf", "Q8_0")

    assert not (tmp_path / "out.gguf").exists()
