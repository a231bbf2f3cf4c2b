"""Our parts are byte for byte those that llama-gguf-split makes of our whole file."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from tests.converters.checkpoints import SHAPES, write_checkpoint
from tests.converters.comparison import tensor_differences
from tests.reference.llama_cpp_tools import find_tool, run_tool
from wizard_edge_converters.options import ConvertOptions
from wizard_edge_converters.pipeline import convert
from wizard_edge_converters.requantize import quantize_file

TOOL = "llama-gguf-split"

# The program takes whole megabytes.
MEGABYTES = 1


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Return a function that converts a shape to one F16 file."""
    find_tool(TOOL)
    folder = tmp_path_factory.mktemp("sources")

    @cache
    def converted(name: str) -> Path:
        checkpoint = write_checkpoint(folder / name, SHAPES[name])
        output = folder / f"{name}.gguf"
        convert(checkpoint, [output], ConvertOptions(("F16",), threads=2))
        return output

    return converted


@pytest.mark.parametrize("quant", ["F16", "Q8_0", "Q4_K_M"])
@pytest.mark.parametrize("name", ["wide", "deep"])
def test_parts_equal_those_of_llama_cpp(
    name: str, quant: str, source: Callable[[str], Path], tmp_path: Path
) -> None:
    given = source(name)
    whole, ours, theirs = (tmp_path / n for n in ("whole.gguf", "ours", "theirs"))
    ours.mkdir()
    theirs.mkdir()

    quantize_file(given, [whole], ConvertOptions((quant,), threads=2))
    [made] = quantize_file(
        given,
        [ours / "model.gguf"],
        ConvertOptions((quant,), threads=2, split_max_size=MEGABYTES * 10**6),
    ).made
    limit = f"{MEGABYTES}M"
    run_tool(TOOL, "--split", "--split-max-size", limit, whole, theirs / "model")

    expected = sorted(theirs.iterdir())
    assert len(expected) > 1
    assert [file.path.name for file in made.files] == [path.name for path in expected]
    for file, path in zip(made.files, expected, strict=True):
        assert file.path.read_bytes() == path.read_bytes()


def test_llama_cpp_joins_our_parts_again(
    source: Callable[[str], Path], tmp_path: Path
) -> None:
    given = source("wide")
    options = ConvertOptions(("F16",), threads=2, split_max_size=MEGABYTES * 10**6)
    [made] = quantize_file(given, [tmp_path / "model.gguf"], options).made
    joined = tmp_path / "joined.gguf"

    run_tool(TOOL, "--merge", made.path, joined)
    quantize_file(given, [tmp_path / "again.gguf"], ConvertOptions(("F16",)))

    assert tensor_differences(joined, tmp_path / "again.gguf") == []
