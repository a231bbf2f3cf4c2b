from __future__ import annotations

from pathlib import Path

import pytest

from tests.gguf_files import small_llama
from tests.tiled import Tiled
from wizard_edge.gguf import read_header
from wizard_edge.gguf_types import GgmlType
from wizard_edge.memory import Dimensions
from wizard_edge.models import Shape
from wizard_edge.registry import Registry
from wizard_edge.speed import (
    SHARE_OF_PARTS,
    Kernels,
    least_seconds,
    multiplied_by_tensors,
    read_by_size,
    read_by_tensors,
    seconds_per_prompt_token,
    seconds_per_token,
)

GB = 10**9
DENSE = Dimensions(10, 1000, 3000, 10, 1000, 100)
KERNELS = Kernels({GgmlType.Q4_K: 20 * GB, GgmlType.Q6_K: 10 * GB}, {1: 5 * GB})


def test_each_type_goes_at_its_own_pace() -> None:
    read = {GgmlType.Q4_K: 20 * GB, GgmlType.Q6_K: 10 * GB}

    spent = seconds_per_token(KERNELS, DENSE, read, depth=0)

    assert spent == pytest.approx(2 / SHARE_OF_PARTS)


def test_a_type_that_was_not_measured_goes_at_the_slowest() -> None:
    spent = seconds_per_token(KERNELS, DENSE, {GgmlType.F32: 10 * GB}, depth=0)

    assert spent == pytest.approx(1 / SHARE_OF_PARTS)


def test_attention_goes_in_steps_of_256_cells() -> None:
    cells = 2 * 10 * 256 * 1000 * 2 / (5 * GB) / SHARE_OF_PARTS

    times = [seconds_per_token(KERNELS, DENSE, {}, depth=n) for n in (1, 256, 257)]

    assert times == pytest.approx([cells, cells, 2 * cells])


def test_heads_that_share_are_timed_by_the_nearest_below() -> None:
    kernels = Kernels(KERNELS.weights, {1: 5 * GB, 4: 10 * GB, 8: 20 * GB})
    sharing = Dimensions(10, 1000, 3000, 10, 200, 100)

    spent = seconds_per_token(kernels, sharing, {}, depth=256)

    assert spent == pytest.approx(2 * 10 * 256 * 1000 * 2 / (10 * GB) / SHARE_OF_PARTS)


def test_without_kernels_reading_bounds_it() -> None:
    spent = least_seconds(GB, DENSE, {GgmlType.Q4_K: GB}, depth=256, kv_type="f16")

    assert spent == pytest.approx(1 + 2 * 10 * 256 * 1000 * 2 / GB)


def test_the_embedding_is_not_read(tmp_path: Path) -> None:
    shape = Shape(1, 256, 512, 2, 2, 300)
    path = Tiled(shape, GgmlType.Q4_K, GgmlType.Q6_K).write(tmp_path / "m.gguf")

    assert read_by_tensors(read_header(path)) == {
        GgmlType.F32: 3 * 4 * 256,
        GgmlType.Q4_K: (4 * 256 * 256 + 3 * 256 * 512) * 144 // 256,
        GgmlType.Q6_K: 256 * 300 * 210 // 256,
    }


def test_an_embedding_that_is_the_output_too_is_read(tmp_path: Path) -> None:
    file = small_llama()
    file.tensors = [item for item in file.tensors if item.name != "output.weight"]
    header = read_header(file.write(tmp_path / "m.gguf"))

    assert read_by_tensors(header) == {
        GgmlType.F32: sum(tensor.size for tensor in header.tensors)
    }


def test_experts_that_are_not_asked_are_not_read(tmp_path: Path) -> None:
    shape = Shape(1, 256, 512, 2, 2, 300, experts=8, experts_used=2)
    path = Tiled(shape, GgmlType.Q8_0, GgmlType.Q8_0).write_sparse(tmp_path / "m.gguf")
    weights = 4 * 256 * 256 + 2 * 3 * 256 * 512 + 256 * 300

    assert read_by_tensors(read_header(path))[GgmlType.Q8_0] == weights * 34 // 32


def test_a_prompt_is_multiplied_by_all_matrices_but_the_ends(tmp_path: Path) -> None:
    shape = Shape(3, 256, 512, 2, 2, 300, experts=8, experts_used=2)
    path = Tiled(shape, GgmlType.Q8_0, GgmlType.Q6_K).write_sparse(tmp_path / "m.gguf")

    weights = multiplied_by_tensors(read_header(path))

    attention, experts = 4 * 256 * 256, 2 * 3 * 256 * 512
    assert weights[GgmlType.Q8_0] == 3 * (attention + experts)
    # What chooses the experts is a matrix too.
    assert sum(weights.values()) - weights[GgmlType.Q8_0] == 3 * 8 * 256


def test_a_prompt_takes_as_long_as_the_arithmetic_of_each_type() -> None:
    rates = {GgmlType.Q4_K: 100.0, GgmlType.Q6_K: 50.0}
    weights = {GgmlType.Q4_K: 1000, GgmlType.Q6_K: 100, GgmlType.F32: 10}

    # What was not measured is taken to be as slow as the slowest.
    assert seconds_per_prompt_token(rates, weights) == pytest.approx(20 + 4 + 0.4)


@pytest.mark.parametrize("name", ["7b", "wizardlm-70b-v1.0", "wizardmath-7b-v1.1"])
def test_the_size_tells_nearly_as_much_as_the_tensors(
    name: str, tmp_path: Path
) -> None:
    shape = Registry.load().find(name).shape
    assert shape is not None
    path = Tiled(shape, GgmlType.Q8_0, GgmlType.Q8_0).write_sparse(tmp_path / "m.gguf")

    guessed = read_by_size(Dimensions.of(shape), path.stat().st_size, "Q8_0")

    read = sum(read_by_tensors(read_header(path)).values())
    assert sum(guessed.values()) == pytest.approx(read, rel=0.005)
