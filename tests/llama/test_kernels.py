from __future__ import annotations

from pathlib import Path

import pytest

from tests.tiled import Tiled
from wizard_edge._llama import kernels, library
from wizard_edge._llama.devices import list_devices
from wizard_edge._llama.engine import LlamaEngine
from wizard_edge.engine import LoadOptions
from wizard_edge.gguf_types import WEIGHT_TYPES, GgmlType
from wizard_edge.models import Shape

# Types that ggml can neither multiply on every processor nor make from numbers.
SLOW = 0.001


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Measure on little memory: what is timed here does not matter."""
    monkeypatch.setattr(kernels, "_FOOTPRINT", 1 << 20)


@pytest.mark.parametrize("quant", ["F16", "BF16", "Q4_0", "Q4_K", "Q6_K", "IQ2_XXS"])
def test_every_kind_of_matrix_is_timed(quant: str) -> None:
    kind = GgmlType[quant]

    measured = kernels.measure_weights([kind], threads=1, seconds=SLOW)

    assert list(measured) == [kind]
    assert 1e6 < measured[kind] < 1e13


@pytest.mark.parametrize("quant", ["F16", "BF16", "Q4_K", "IQ2_XXS"])
def test_the_reading_of_a_prompt_is_timed(
    quant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kernels, "_PRODUCT_ROWS", 32)
    kind = GgmlType[quant]

    measured = kernels.measure_products([kind], threads=1, seconds=SLOW)

    assert list(measured) == [kind]
    assert 1e7 < measured[kind] < 1e14


@pytest.mark.parametrize("quant", ["F16", "Q8_0", "Q4_0"])
def test_attention_is_timed_for_every_cache(quant: str) -> None:
    measured = kernels.measure_attention(
        [1, 8], GgmlType[quant], threads=1, seconds=SLOW
    )

    assert list(measured) == [1, 8]
    assert all(1e6 < rate < 1e14 for rate in measured.values())


@pytest.mark.parametrize(
    "kind",
    sorted(
        WEIGHT_TYPES
        & {GgmlType.Q4_0, GgmlType.Q4_K, GgmlType.Q5_K, GgmlType.Q6_K, GgmlType.Q8_0}
    ),
)
def test_what_is_rearranged_is_what_llama_cpp_rearranges(
    kind: GgmlType, tmp_path: Path
) -> None:
    model = Tiled(Shape(1, 256, 512, 2, 2, 300), kind, GgmlType.F32)

    with library.listen() as lines:
        LlamaEngine(model.write(tmp_path / "m.gguf"), LoadOptions(context=64)).close()

    rearranged = any("REPACK model buffer" in line for line in lines)
    assert (kind in kernels.find_repacked()) is rearranged


def test_the_processor_is_a_device() -> None:
    assert any(name.startswith("CPU (") for name in list_devices())
