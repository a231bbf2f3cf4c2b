"""Every quant of every architecture against llama.cpp's quantizer: some minutes.

The default suite compares a part of this, live. The lossless files come from our
converter, whose equality with llama.cpp's is `test_llama_cpp_digests`.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.converters.checkpoints import SHAPES, write_checkpoint
from tests.converters.comparison import metadata_but_ours, tensor_differences
from tests.converters.quantizing import quantize_theirs
from wizard_edge_converters.options import ConvertOptions
from wizard_edge_converters.pipeline import convert

QUANTS = (
    *("Q8_0", "Q6_K", "Q5_K_M", "Q5_K_S", "Q5_1", "Q5_0", "Q4_K_M", "Q4_K_S", "Q4_1"),
    *("Q4_0", "IQ4_NL", "IQ4_XS", "Q3_K_L", "Q3_K_M", "Q3_K_S", "Q2_K"),
)


@pytest.fixture(params=SHAPES)
def source(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, Path]:
    name: str = request.param
    return name, write_checkpoint(tmp_path / name, SHAPES[name])


def test_one_reading_equals_two_steps_in_every_quant(
    source: tuple[str, Path], tmp_path: Path
) -> None:
    name, folder = source
    quants = (SHAPES[name].dtype, *QUANTS)
    outputs = [tmp_path / f"{quant}.gguf" for quant in quants]
    convert(folder, outputs, ConvertOptions(quants=quants, name="Test Model"))
    theirs = tmp_path / "theirs.gguf"

    for quant, ours in zip(quants[1:], outputs[1:], strict=True):
        quantize_theirs(outputs[0], theirs, quant)
        assert tensor_differences(ours, theirs) == [], quant
        assert metadata_but_ours(ours) == metadata_but_ours(theirs), quant
