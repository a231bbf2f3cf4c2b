"""A delta and its base become their sum in float32; a wrong base is told."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.converters.checkpoints import (
    SHAPES,
    Format,
    Shape,
    Weights,
    random_weights,
    write_checkpoint,
    write_config,
    write_tokenizer,
    write_weights,
)
from tests.converters.comparison import read_tensors
from wizard_edge.errors import CannotConvert, Corrupt, UsageError
from wizard_edge.receipts import Check
from wizard_edge_converters.delta import DeltaCheckpoint
from wizard_edge_converters.directory import open_checkpoint
from wizard_edge_converters.options import ConvertOptions
from wizard_edge_converters.pipeline import Conversion, convert

BASE = Shape(layers=2, kv_heads=4, vocabulary=322, pieces=322, llama_1=True, seed=20)
DELTA = replace(BASE, vocabulary=323, dtype="F32", left_overs=True, seed=21)
GROWN = ("model.embed_tokens.weight", "lm_head.weight")
Rows = NDArray[np.float32]


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return write_checkpoint(tmp_path / "base", BASE, form="bin", shards=2)


@pytest.fixture
def delta(tmp_path: Path) -> Path:
    return write_checkpoint(tmp_path / "delta", DELTA, form="bin", shards=3)


def add(source: Path, base: Path, output: Path, quant: str = "F32") -> Conversion:
    options = ConvertOptions(quants=(quant,), name="Test Model", threads=2)
    return convert(source, [output], options, base=base)


def merged() -> dict[str, Rows]:
    """Add delta and base as the authors' tool does; the mean row in float64."""
    base, sums = random_weights(BASE), {}
    for name, values in random_weights(DELTA).items():
        if name.endswith("inv_freq"):
            continue
        own = base[name].astype(np.float32)
        if name in GROWN:
            mean = own.mean(axis=0, dtype=np.float64, keepdims=True)
            own = np.concatenate([own, mean.astype(np.float32)])
        sums[name] = values.astype(np.float32) + own
    return sums


def written(path: Path, name: str) -> Rows:
    tensor = read_tensors(path)[name]
    return np.frombuffer(tensor.data, dtype=np.float32).reshape(tensor.shape[::-1])


def test_every_tensor_is_the_sum_in_float32(
    delta: Path, base: Path, tmp_path: Path
) -> None:
    add(delta, base, tmp_path / "sum.gguf")

    path, expected = tmp_path / "sum.gguf", merged()
    down = expected["model.layers.1.mlp.down_proj.weight"]
    assert (written(path, "blk.1.ffn_down.weight") == down).all()
    for name, source in (("token_embd", GROWN[0]), ("output", GROWN[1])):
        rows = written(path, f"{name}.weight")
        assert (rows[:-1] == expected[source][:-1]).all()
        assert np.abs(rows[-1] - expected[source][-1]).max() < 1e-7


def test_the_sum_equals_the_merged_checkpoint_in_every_quant(
    delta: Path, base: Path, tmp_path: Path
) -> None:
    """Somebody who merges first and converts then gets the same bytes."""
    options = ConvertOptions(quants=("F32", "Q4_K_M", "F16"), name="Test Model")
    outputs = [tmp_path / f"{quant}.gguf" for quant in options.quants]
    convert(delta, outputs, options, base=base)
    weights: Weights = dict(merged())
    for source, name in zip(GROWN, ("token_embd", "output"), strict=True):
        weights[source] = written(outputs[0], f"{name}.weight")
    whole = tmp_path / "whole"
    whole.mkdir()
    write_config(whole, DELTA)
    write_tokenizer(whole, DELTA)
    write_weights(whole, weights, form="safetensors")

    direct = [tmp_path / f"{quant}-direct.gguf" for quant in options.quants]
    convert(whole, direct, options)

    for ours, theirs in zip(outputs, direct, strict=True):
        assert ours.read_bytes() == theirs.read_bytes()


@pytest.mark.parametrize("form", ["bin", "safetensors"])
def test_the_files_of_the_base_are_checked_as_they_can_be(
    form: Format, delta: Path, tmp_path: Path
) -> None:
    base = write_checkpoint(tmp_path / "b", BASE, form=form)

    weights = add(delta, base, tmp_path / "sum.gguf").weights

    expected = Check.CRC32 if form == "bin" else Check.SIZE
    assert weights[-1].name.startswith("base/")
    assert weights[-1].check is expected
    assert len(weights) == 4


def test_the_mean_row_has_the_cascade_of_sums() -> None:
    """One sum after the other would differ from this in most columns."""
    from wizard_edge_converters.delta import MeanRow

    rows = np.random.RandomState(5).standard_normal((32_000, 64)).astype(np.float32)
    mean = MeanRow(*rows.shape)
    for start in range(0, len(rows), 777):
        mean.add(rows[start : start + 777])

    exact = rows.mean(axis=0, dtype=np.float64)
    straight = np.add.accumulate(rows, axis=0)[-1] / np.float32(len(rows))
    assert np.abs(mean.row() - exact).max() < 2e-9
    assert np.abs(straight - exact).max() > 2e-9


# What is refused -----------------------------------------------------------------


def _other(**changes: object) -> Callable[[Path], Path]:
    shape = replace(BASE, **changes)  # type: ignore[arg-type]
    return lambda folder: write_checkpoint(folder / "other", shape, form="bin")


def _with_config(**changes: object) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        other = _other()(folder)
        config = json.loads((other / "config.json").read_text())
        (other / "config.json").write_text(json.dumps(config | changes))
        return other

    return write


def _in_metas_order(folder: Path) -> Path:
    """Write a base whose rotary pairs have equal lengths and are neighbours."""
    weights = random_weights(BASE)
    scale = np.repeat(np.exp(np.linspace(-2, 2, BASE.hidden // 2)), 2)[:, None]
    for letter in "qk":
        name = f"model.layers.0.self_attn.{letter}_proj.weight"
        weights[name] = (weights[name] * scale).astype(np.float16)
    other = _other()(folder)
    write_weights(other, weights, form="bin")
    return other


BAD_BASES = {
    "wider": (_other(inner=768), "has the shape (768, 256) instead of (512, 256)"),
    "shallower": (_other(layers=1), "no tensor model.layers.1"),
    "larger vocabulary": (
        _other(vocabulary=324, pieces=322),
        "has the shape (324, 256) instead of (323, 256)",
    ),
    "other heads": (_with_config(num_attention_heads=8), "its heads is 8 instead of 4"),
    "other rotation": (_with_config(rope_theta=1e6), "its rope_theta is 1000000.0"),
    "another architecture": (
        lambda folder: write_checkpoint(folder / "other", SHAPES["starcoder"]),
        "is no LLaMA",
    ),
    "Meta's order": (_in_metas_order, "Meta's order"),
}


@pytest.mark.parametrize("case", BAD_BASES)
def test_a_base_that_does_not_fit_is_refused_before_writing(
    case: str, delta: Path, tmp_path: Path
) -> None:
    write, said = BAD_BASES[case]
    base = write(tmp_path)
    folder = tmp_path / "out"
    folder.mkdir()

    with pytest.raises(CannotConvert) as caught:
        add(delta, base, folder / "sum.gguf")

    assert said in caught.value.message
    assert list(folder.iterdir()) == []


def test_a_base_in_the_right_order_is_taken(tmp_path: Path, delta: Path) -> None:
    weights = random_weights(BASE)
    half = np.exp(np.linspace(-2, 2, BASE.head_size // 2))
    scale = np.tile(np.concatenate([half, half]), BASE.heads)[:, None]
    for letter in "qk":
        name = f"model.layers.0.self_attn.{letter}_proj.weight"
        weights[name] = (weights[name] * scale).astype(np.float16)
    base = _other()(tmp_path)
    write_weights(base, weights, form="bin")

    with open_checkpoint(delta) as one, open_checkpoint(base) as other:
        assert DeltaCheckpoint(one, other).tensors.keys() == one.tensors.keys()


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("model.layers.0.self_attn.q_proj.weight", (255, 256)),
        ("model.layers.0.self_attn.k_proj.weight", (256,)),
        ("model.layers.0.self_attn.k_proj.weight", None),
        ("model.embed_tokens.weight", ()),
    ],
)
def test_a_tensor_of_another_shape_in_both_is_named(
    name: str, shape: tuple[int, ...] | None, tmp_path: Path
) -> None:
    folders = []
    for title, side in (("base", BASE), ("delta", DELTA)):
        weights = random_weights(side)
        del weights[name]
        if shape is not None:
            weights[name] = np.ones(shape, np.float16)
        folders.append(write_checkpoint(tmp_path / title, side, form="safetensors"))
        write_weights(folders[-1], weights, form="safetensors")

    with pytest.raises((CannotConvert, Corrupt), match=re.escape(name)):
        add(folders[1], folders[0], tmp_path / "sum.gguf")


def test_what_the_delta_alone_stores_as_one_is_refused(
    base: Path, tmp_path: Path
) -> None:
    weights = random_weights(DELTA)
    weights["lm_head.weight"] = weights["model.embed_tokens.weight"]
    delta = write_checkpoint(tmp_path / "delta", DELTA, form="bin")
    write_weights(delta, weights, form="bin")

    with pytest.raises(CannotConvert, match="as one"):
        add(delta, base, tmp_path / "sum.gguf")


def test_the_base_is_never_replaced(delta: Path, base: Path) -> None:
    [output, *_] = sorted(base.glob("*.bin"))
    options = ConvertOptions(quants=("F16",), overwrite=True)

    with pytest.raises(UsageError, match="part of the checkpoint"):
        convert(delta, [output], options, base=base)
