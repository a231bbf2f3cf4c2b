"""Names, shapes and the order of q and k; what does not fit is named."""

from __future__ import annotations

from dataclasses import replace
from math import prod

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.converters.checkpoints import POSITIONS, SHAPES, Shape, tensor_shapes
from wizard_edge.errors import CannotConvert, Corrupt
from wizard_edge.gguf_types import GgmlType
from wizard_edge_converters.checkpoint import StoredTensor
from wizard_edge_converters.llama import LlamaHparams
from wizard_edge_converters.starcoder import StarcoderHparams
from wizard_edge_converters.tensors import (
    file_order,
    match_tensors,
    tensor_rules,
    undo_rotary_order,
)

SHAPE = Shape(left_overs=True)


def hparams(shape: Shape = SHAPE) -> LlamaHparams:
    return LlamaHparams(
        vocabulary=shape.vocabulary,
        context=2048,
        width=shape.hidden,
        feed_forward=shape.inner,
        layers=shape.layers,
        heads=shape.heads,
        kv_heads=shape.kv_heads,
        head_size=shape.head_size,
        epsilon=1e-6,
        rope_theta=1e4,
        rope_factor=None,
        tied=shape.tied,
        special_ids={},
        experts=shape.experts,
        experts_used=2 if shape.experts else 0,
    )


def starcoder_hparams(shape: Shape) -> StarcoderHparams:
    return StarcoderHparams(
        vocabulary=shape.vocabulary,
        context=POSITIONS,
        width=shape.hidden,
        layers=shape.layers,
        heads=shape.heads,
        epsilon=1e-5,
        tied=True,
        special_ids={},
    )


def stored(shape: Shape = SHAPE) -> dict[str, StoredTensor]:
    found, offset = {}, 0
    for name, sizes in tensor_shapes(shape).items():
        found[name] = StoredTensor(name, GgmlType.F16, sizes, "f", offset)
        offset += 2 * prod(sizes)
    return found


@given(heads=st.integers(1, 9), half=st.integers(1, 8), columns=st.integers(1, 5))
def test_rotary_pairs_come_to_lie_beside_each_other(
    heads: int, half: int, columns: int
) -> None:
    """Row j*half + i of a head, j in {0, 1}, becomes its row 2*i + j."""
    rows = np.arange(heads * 2 * half * columns).reshape(-1, columns)

    undone = undo_rotary_order(rows, heads)

    for head in range(heads):
        for i in range(half):
            for j in (0, 1):
                source = rows[head * 2 * half + j * half + i]
                assert (undone[head * 2 * half + 2 * i + j] == source).all()


@given(heads=st.integers(1, 6), half=st.integers(1, 6), cut=st.integers(0, 6))
def test_heads_can_be_taken_in_blocks(heads: int, half: int, cut: int) -> None:
    rows = np.arange(heads * 2 * half * 3, dtype=np.float16).reshape(-1, 3)
    first = min(cut, heads)
    edge = first * 2 * half

    whole = undo_rotary_order(rows, heads)
    parts = [
        undo_rotary_order(part, count)
        for part, count in ((rows[:edge], first), (rows[edge:], heads - first))
        if count
    ]

    assert (np.concatenate(parts) == whole).all()
    assert whole.dtype == rows.dtype


def test_k_has_its_own_number_of_heads() -> None:
    heads = {
        rule.name.split(".", 2)[2]: rule.heads
        for rule in tensor_rules(hparams())
        if rule.name.startswith("blk.0.") and rule.heads
    }

    assert heads == {
        "attn_q.weight": 4,
        "attn_q.bias": 4,
        "attn_k.weight": 2,
        "attn_k.bias": 2,
    }


def test_left_overs_are_left_out() -> None:
    matches = match_tensors(tensor_rules(hparams()), stored(), "model")

    assert "model.layers.0.self_attn.rotary_emb.inv_freq" in stored()
    assert not [m for m in matches if m.stored.name.endswith("inv_freq")]
    assert len(matches) == 3 + 9 * SHAPE.layers


def test_the_order_of_reading_is_that_of_the_checkpoint() -> None:
    matches = match_tensors(tensor_rules(hparams()), stored(), "model")

    offsets = [match.stored.offset for match in matches]
    assert offsets == sorted(offsets)


@pytest.mark.parametrize(
    "name",
    ["model.layers.3.mlp.up_proj.weight", "lm_head.bias", "transformer.wte.weight"],
)
def test_unknown_tensors_are_named(name: str) -> None:
    tensors = stored() | {name: StoredTensor(name, GgmlType.F16, (2,), "f", 0)}

    with pytest.raises(CannotConvert, match=name):
        match_tensors(tensor_rules(hparams()), tensors, "model")


@pytest.mark.parametrize("name", ["lm_head.weight", "model.norm.weight"])
def test_missing_tensors_are_named(name: str) -> None:
    tensors = stored()
    del tensors[name]

    with pytest.raises(Corrupt, match=name):
        match_tensors(tensor_rules(hparams()), tensors, "model")


def test_a_tied_model_needs_no_output() -> None:
    shape = Shape(tied=True)

    matches = match_tensors(tensor_rules(hparams(shape)), stored(shape), "model")

    assert "output.weight" not in {match.rule.name for match in matches}


def test_experts_are_slices_of_one_tensor() -> None:
    shape = SHAPES["mixtral"]

    matches = match_tensors(tensor_rules(hparams(shape)), stored(shape), "model")

    found = {
        match.rule.part: match.stored.name
        for match in matches
        if match.rule.name == "blk.1.ffn_down_exps.weight"
    }
    experts = "model.layers.1.block_sparse_moe.experts"
    assert found == {part: f"{experts}.{part}.w2.weight" for part in range(8)}
    assert {match.rule.parts for match in matches} == {1, 8}
    assert {m.rule.shape for m in matches if m.rule.parts == 8} == {(256, 256)}


def test_a_missing_expert_is_named() -> None:
    shape = SHAPES["mixtral"]
    tensors = stored(shape)
    name = "model.layers.1.block_sparse_moe.experts.5.w3.weight"
    del tensors[name]

    with pytest.raises(Corrupt, match=name):
        match_tensors(tensor_rules(hparams(shape)), tensors, "model")


def test_an_expert_too_many_is_named() -> None:
    shape = SHAPES["mixtral"]
    name = "model.layers.0.block_sparse_moe.experts.8.w1.weight"
    tensors = stored(shape)
    tensors[name] = StoredTensor(name, GgmlType.F16, (256, 256), "f", 0)

    with pytest.raises(CannotConvert, match=name):
        match_tensors(tensor_rules(hparams(shape)), tensors, "model")


def test_routers_and_learned_positions_stay_in_f32() -> None:
    shapes = (SHAPES["mixtral"], SHAPES["starcoder"])
    rules = [
        *tensor_rules(hparams(shapes[0])),
        *tensor_rules(starcoder_hparams(shapes[1])),
    ]

    kept = {rule.name for rule in rules if len(rule.shape) > 1 and not rule.is_matrix}

    routers = {f"blk.{layer}.ffn_gate_inp.weight" for layer in range(2)}
    assert kept == {"position_embd.weight", *routers}


def test_starcoder_may_name_its_output_or_not() -> None:
    shape = SHAPES["starcoder"]
    rules = tensor_rules(starcoder_hparams(shape))
    tensors = stored(shape)
    embedding = tensors["transformer.wte.weight"]
    output = StoredTensor("lm_head.weight", GgmlType.F16, embedding.shape, "f", 0)

    without = match_tensors(rules, tensors, "model")
    tied = match_tensors(rules, tensors | {output.name: output}, "model")

    assert len(without) == 4 + 12 * shape.layers
    assert {m.rule.name for m in tied} - {m.rule.name for m in without} == {
        "output.weight"
    }


def test_an_output_of_its_own_must_be_there() -> None:
    shape = SHAPES["starcoder"]
    rules = tensor_rules(replace(starcoder_hparams(shape), tied=False))

    with pytest.raises(Corrupt, match=r"lm_head\.weight is missing"):
        match_tensors(rules, stored(shape), "model")


def test_attention_masks_of_starcoder_are_left_out() -> None:
    shape = SHAPES["starcoder"]
    tensors = stored(shape)
    masks = [f"transformer.h.0.attn.{name}" for name in ("bias", "masked_bias")]
    for name in masks:
        tensors[name] = StoredTensor(name, GgmlType.F16, (1, 96, 96), "f", 0)

    matches = match_tensors(tensor_rules(starcoder_hparams(shape)), tensors, "model")

    assert not {match.stored.name for match in matches} & set(masks)


@pytest.mark.parametrize(
    "name", ["transformer.h.1.attn.c_attn.bias", "transformer.ln_f.bias"]
)
def test_starcoder_needs_its_biases(name: str) -> None:
    shape = SHAPES["starcoder"]
    tensors = stored(shape)
    del tensors[name]

    with pytest.raises(Corrupt, match=name):
        match_tensors(tensor_rules(starcoder_hparams(shape)), tensors, "model")


def test_another_shape_than_the_config_says_is_named() -> None:
    """A 32000-row embedding under a config of 32001 is the commonest of all."""
    other = Shape(left_overs=True, vocabulary=SHAPE.vocabulary - 1)

    with pytest.raises(Corrupt, match=r"322 x 256.*should have 323 x 256") as caught:
        match_tensors(tensor_rules(hparams()), stored(other), "model")

    assert caught.value.where == "tensor model.embed_tokens.weight in f"


def test_files_are_ordered_as_the_quantizer_orders_them() -> None:
    names = ["blk.10.a", "token_embd.weight", "blk.2.b", "blk.2.a", "output.weight"]

    assert sorted(names, key=file_order) == [
        "output.weight",
        "token_embd.weight",
        "blk.2.a",
        "blk.2.b",
        "blk.10.a",
    ]
