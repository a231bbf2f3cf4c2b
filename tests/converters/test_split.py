"""A model in several files: llama.cpp reads them, and so do we."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.converters.comparison import Tensor, read_tensors, tensor_differences
from tests.converters.quantizing import quantize_theirs
from tests.converters.running import Converted
from wizard_edge._llama.library import load
from wizard_edge.errors import CannotConvert, Corrupt, MissingFile, UsageError
from wizard_edge.gguf import DEFAULT_ALIGNMENT, align, read_fields, read_header
from wizard_edge.gguf_types import GgmlType, Split
from wizard_edge_converters.header import TensorEntry
from wizard_edge_converters.options import ConvertOptions
from wizard_edge_converters.pipeline import Made, convert
from wizard_edge_converters.requantize import quantize_file
from wizard_edge_converters.split import split_paths, split_tensors

Convert = Callable[[str, str], Converted]

MAX_SIZE = 400_000


def split(
    source: Path, output: Path, quant: str = "Q4_K_M", max_size: int | None = MAX_SIZE
) -> Made:
    options = ConvertOptions((quant,), threads=2, split_max_size=max_size)
    [made] = quantize_file(source, [output], options).made
    return made


def parts_of(made: Made) -> list[Path]:
    return [file.path for file in made.files]


def merged(paths: list[Path]) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = {}
    for path in paths:
        tensors |= read_tensors(path)
    return tensors


def parameters_of(path: Path) -> int:
    """Load a model by its first part and count its parameters, as llama.cpp does."""
    library = load()
    settings = library.llama_model_default_params()
    model = library.llama_model_load_from_file(os.fsencode(path), settings)
    assert model is not None
    count: int = library.llama_model_n_params(model)
    library.llama_model_free(model)
    return count


def test_parts_hold_what_the_whole_file_holds(
    converted: Convert, tmp_path: Path
) -> None:
    source = converted("gqa", "F16").path

    whole = split(source, tmp_path / "whole.gguf", max_size=None)
    parts = parts_of(split(source, tmp_path / "model.gguf"))

    count = len(parts)
    assert count > 2
    assert [path.name for path in parts] == [
        f"model-{number:05d}-of-{count:05d}.gguf" for number in range(1, count + 1)
    ]
    assert merged(parts) == read_tensors(whole.path)
    total = len(read_header(whole.path).tensors)
    headers = [read_header(path) for path in parts]
    assert [header.split for header in headers] == [
        Split(number, count, total) for number in range(count)
    ]
    for header in headers:
        sizes = (align(t.size, DEFAULT_ALIGNMENT) for t in header.tensors)
        assert sum(sizes) <= MAX_SIZE
    first = read_fields(headers[0])
    assert list(first)[-3:] == ["split.no", "split.tensors.count", "split.count"]
    assert dict(list(first.items())[:-3]) == read_fields(read_header(whole.path))
    assert list(read_fields(headers[1])) == list(first)[-3:]


def test_a_checkpoint_is_converted_into_parts_alike(
    checkpoint: Callable[[str], Path], converted: Convert, tmp_path: Path
) -> None:
    options = ConvertOptions(
        ("Q4_K_M",), name="Test Model", threads=2, split_max_size=MAX_SIZE
    )

    [made] = convert(checkpoint("gqa"), [tmp_path / "m.gguf"], options).made

    assert merged(parts_of(made)) == read_tensors(converted("gqa", "Q4_K_M").path)


def test_llama_cpp_loads_the_parts(converted: Convert, tmp_path: Path) -> None:
    source = converted("gqa", "F16").path

    parts = parts_of(split(source, tmp_path / "model.gguf"))

    assert parameters_of(parts[0]) == parameters_of(source)


def test_llama_cpp_loads_parts_by_any_name(converted: Convert, tmp_path: Path) -> None:
    source = converted("gqa", "F16").path
    parts = parts_of(split(source, tmp_path / "model.gguf"))
    moved = [
        part.rename(tmp_path / f"part {number}") for number, part in enumerate(parts)
    ]
    library = load()
    names = (ctypes.c_char_p * len(moved))(*map(os.fsencode, moved))

    model = library.llama_model_load_from_splits(
        names, len(moved), library.llama_model_default_params()
    )

    assert model is not None
    library.llama_model_free(model)


def test_parts_are_a_source_like_the_whole_file(
    converted: Convert, tmp_path: Path
) -> None:
    whole = converted("gqa", "F16").path
    parts = parts_of(split(whole, tmp_path / "model.gguf", "F16"))
    assert len(parts) > 2

    from_parts = split(parts[0], tmp_path / "from-parts.gguf", max_size=None)
    from_whole = split(whole, tmp_path / "from-whole.gguf", max_size=None)

    assert from_parts.path.read_bytes() == from_whole.path.read_bytes()


def test_llama_cpp_makes_the_same_of_our_parts(
    converted: Convert, tmp_path: Path
) -> None:
    parts = parts_of(split(converted("gqa", "F16").path, tmp_path / "m.gguf", "F16"))
    theirs = tmp_path / "theirs.gguf"

    ours = split(parts[0], tmp_path / "ours.gguf", max_size=None).path
    quantize_theirs(parts[0], theirs, "Q4_K_M")

    assert tensor_differences(ours, theirs) == []
    found = read_fields(read_header(ours))
    kept = [item for item in found.items() if "wizard_edge.quality" not in item[0]]
    assert kept == list(read_fields(read_header(theirs)).items())


def test_a_missing_part_of_the_source_is_named(
    converted: Convert, tmp_path: Path
) -> None:
    parts = parts_of(split(converted("gqa", "F16").path, tmp_path / "m.gguf", "F16"))
    parts[1].unlink()

    with pytest.raises(MissingFile) as caught:
        split(parts[0], tmp_path / "out.gguf")

    assert caught.value.path == str(parts[1])


def test_a_part_of_another_model_is_told(converted: Convert, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    parts = parts_of(split(converted("gqa", "F16").path, tmp_path / "m.gguf", "F16"))
    others = parts_of(
        split(converted("tied", "F16").path, tmp_path / "other/m.gguf", "F16", 700_000)
    )
    parts[1].write_bytes(others[1].read_bytes())

    with pytest.raises(Corrupt) as caught:
        split(parts[0], tmp_path / "out.gguf")

    assert caught.value.path == str(parts[1])


def test_a_tensor_larger_than_a_file_is_refused(
    converted: Convert, tmp_path: Path
) -> None:
    with pytest.raises(CannotConvert) as caught:
        split(converted("gqa", "F16").path, tmp_path / "model.gguf", max_size=1000)

    assert caught.value.message.endswith("more than 1.0 kB a file")
    assert list(tmp_path.iterdir()) == []


def test_a_part_that_is_there_is_not_replaced(
    converted: Convert, tmp_path: Path
) -> None:
    source = converted("gqa", "F16").path
    parts = parts_of(split(source, tmp_path / "model.gguf"))
    for part in parts[:-1]:
        part.unlink()
    parts[-1].write_bytes(b"precious")

    with pytest.raises(UsageError, match="the output is there already"):
        split(source, tmp_path / "model.gguf")

    assert parts[-1].read_bytes() == b"precious"
    assert list(tmp_path.iterdir()) == [parts[-1]]


def test_a_model_that_fits_stays_one_file(converted: Convert, tmp_path: Path) -> None:
    made = split(converted("gqa", "F16").path, tmp_path / "m.gguf", max_size=1 << 30)

    assert parts_of(made) == [tmp_path / "m.gguf"]
    assert read_header(made.path).split is None


def test_tensors_fill_a_file_to_the_byte() -> None:
    # Each has 128 bytes, and 8 more are padded to 32.
    tensors = [TensorEntry(str(n), (32,), GgmlType.F32) for n in range(4)]
    odd = TensorEntry("odd", (2,), GgmlType.F32)

    assert split_tensors(tensors, 256) == [tensors[:2], tensors[2:]]
    assert split_tensors(tensors, 255) == [[tensor] for tensor in tensors]
    assert split_tensors([*tensors[:1], odd], 159) == [tensors[:1], [odd]]
    assert split_tensors([*tensors[:1], odd], 160) == [[*tensors[:1], odd]]


def test_a_name_without_the_suffix_gets_it() -> None:
    assert split_paths(Path("a/model"), 2) == [
        Path("a/model-00001-of-00002.gguf"),
        Path("a/model-00002-of-00002.gguf"),
    ]
