"""What memory follows from, beside the sizes that llama.cpp logs."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.gguf_files import i32s, small_llama, u32
from tests.tiled import Tiled
from wizard_edge._llama import library
from wizard_edge._llama.backend import LlamaBackend
from wizard_edge.engine import KvType, LoadOptions
from wizard_edge.gguf import read_header
from wizard_edge.gguf_types import GgmlType
from wizard_edge.memory import Dimensions, copied_size, kv_cache, main_type, scratch
from wizard_edge.models import Shape
from wizard_edge.refs import QUANTS
from wizard_edge.registry import Registry

MIB = 1 << 20
REGISTRY = Registry.load()
# 7B, Mistral and two experts of 8x22B, with two layers, few tokens and the smallest
# weights there are: no buffer of a step depends on those.
LLAMA = Shape(2, 4096, 11008, 32, 32, 300)
MISTRAL = Shape(2, 4096, 14336, 32, 8, 300)
MIXTRAL = Shape(2, 6144, 16384, 48, 8, 300, experts=2, experts_used=2)
WEIGHTS = GgmlType.IQ1_S


def logged(lines: list[str], name: str) -> int:
    """Find the size of the last such buffer in llama.cpp's log, in bytes."""
    *_, size = [
        float(line.rpartition("=")[2].split()[0])
        for line in lines
        if f"{name} buffer size =" in line
    ]
    return round(size * MIB)


@pytest.mark.parametrize("kv_type", ["f16", "q8_0", "q4_0"])
@pytest.mark.parametrize("context", [512, 4000])
@pytest.mark.parametrize(
    "shape", [LLAMA, MISTRAL, MIXTRAL], ids=["llama", "mistral", "mixtral"]
)
def test_buffers_are_those_that_llama_cpp_logs(
    shape: Shape, context: int, kv_type: KvType, tmp_path: Path
) -> None:
    model = Tiled(shape, WEIGHTS, WEIGHTS)
    dimensions = Dimensions.of(shape)

    with library.listen() as lines:
        backend = LlamaBackend(
            model.write_sparse(tmp_path / "model.gguf"),
            LoadOptions(context=context, kv_type=kv_type),
        )
        backend.reserve(context)
        backend.close()

    # The log has two digits behind the point.
    assert kv_cache(dimensions, context=context, kv_type=kv_type) == pytest.approx(
        logged(lines, "KV"), abs=0.01 * MIB
    )
    found = scratch(dimensions, context=context, kv_type=kv_type)
    cells = -(-context // 256) * 256
    flash = kv_type != "f16"
    work = (
        2
        * min(512, cells)
        * (shape.ffn if flash else max(shape.ffn, shape.heads * cells))
    )
    compute = logged(lines, "CPU compute")
    assert found - work == pytest.approx(compute, rel=0.02)


def test_a_header_says_what_the_registry_says(tmp_path: Path) -> None:
    path = Tiled(MISTRAL, GgmlType.Q8_0, GgmlType.Q8_0).write_sparse(
        tmp_path / "m.gguf"
    )

    assert Dimensions.read(read_header(path)) == Dimensions.of(MISTRAL)


def test_of_heads_that_differ_from_layer_to_layer_the_most_count(
    tmp_path: Path,
) -> None:
    file = small_llama(blocks=2).set("llama.attention.head_count_kv", i32s([1, 2]))

    found = Dimensions.read(read_header(file.write(tmp_path / "m.gguf")))

    assert found is not None
    assert found.kv_width == 2 * 4


def test_a_head_may_be_wider_than_its_share(tmp_path: Path) -> None:
    file = small_llama().set("llama.attention.key_length", u32(16))

    found = Dimensions.read(read_header(file.write(tmp_path / "m.gguf")))

    assert found is not None
    assert found.kv_width == 16


def test_a_header_without_sizes_gives_none(tmp_path: Path) -> None:
    file = small_llama().drop("llama.feed_forward_length")

    assert Dimensions.read(read_header(file.write(tmp_path / "m.gguf"))) is None


@pytest.mark.parametrize("name", ["7b", "13b", "wizardlm-30b-v1.0"])
def test_a_guess_is_a_bound_near_the_truth(name: str) -> None:
    spec = REGISTRY.find(name)
    assert spec.shape is not None
    known = kv_cache(Dimensions.of(spec.shape), context=4096)

    for variant in spec.variants:
        guess = Dimensions.guess(variant.size or 0, variant.quant)

        assert 0.95 < kv_cache(guess, context=4096) / known < 1.5, variant.quant


def test_only_matrices_of_rearranged_types_are_kept_twice(tmp_path: Path) -> None:
    shape = Shape(1, 256, 512, 2, 2, 300)
    path = Tiled(shape, GgmlType.Q4_K, GgmlType.Q6_K).write(tmp_path / "m.gguf")
    weights = 4 * 256 * 256 + 3 * 256 * 512

    found = copied_size([read_header(path)], {GgmlType.Q4_K})

    assert found == weights * 144 // 256


@pytest.mark.parametrize(
    ("quant", "kind"),
    [("Q4_K_M", "Q4_K"), ("Q8_0", "Q8_0"), ("Q2_K", "Q2_K"), ("IQ3_M", "IQ3_S")],
)
def test_a_quant_is_named_after_its_type(quant: str, kind: str) -> None:
    assert main_type(quant).name == kind


def test_every_quant_has_a_type() -> None:
    assert all(main_type(quant).type_size for quant in QUANTS)


def test_what_is_no_quant_has_none() -> None:
    with pytest.raises(KeyError):
        main_type("Q9_X")
