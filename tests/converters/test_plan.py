"""Plans place every tensor, cut it into blocks of whole heads and count the cost."""

from __future__ import annotations

from math import prod

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wizard_edge.gguf_types import GgmlType, ValueType
from wizard_edge_converters.checkpoint import StoredTensor
from wizard_edge_converters.entries import Entry
from wizard_edge_converters.plan import (
    BLOCK_ELEMENTS,
    JOURNAL_RESERVE,
    Place,
    Plan,
    Wish,
    lossless_type,
    plain_types,
    plan_conversion,
)
from wizard_edge_converters.rules import TensorRule
from wizard_edge_converters.tensors import Match

F32, F16, BF16, Q8_0 = GgmlType.F32, GgmlType.F16, GgmlType.BF16, GgmlType.Q8_0
ENTRIES = (Entry("general.architecture", ValueType.STRING, "llama"),)


def match(
    name: str, *shape: int, kind: GgmlType = F16, heads: int | None = None
) -> Match:
    rule = TensorRule(f"hf.{name}", name, shape, heads)
    return Match(rule, StoredTensor(rule.source, kind, shape, "f", 0, name))


def plan(*matches: Match, matrix: GgmlType = F16) -> Plan:
    wish = Wish("F16", plain_types(matches, matrix), ENTRIES)
    return plan_conversion(
        matches, [wish], architecture="llama", read_bytes=1, threads=2
    )


def places(made: Plan) -> list[Place]:
    return [place for step in made.steps for place in step.places]


def test_vectors_and_norms_are_stored_as_f32() -> None:
    matches = [
        match("output_norm.weight", 64),
        match("blk.0.attn_q.bias", 64),
        match("blk.0.strange_norm.weight", 4, 64),
        match("blk.0.attn_q.weight", 64, 64),
    ]

    assert list(plain_types(matches, BF16).values()) == [F32, F32, F32, BF16]


@pytest.mark.parametrize(
    ("stored", "expected"),
    [
        ([F16, F16], F16),
        ([BF16], BF16),
        ([F32], F32),
        ([F16, BF16], F32),
        ([F16, F32], F32),
        ([], F32),
    ],
)
def test_the_file_between_loses_nothing(
    stored: list[GgmlType], expected: GgmlType
) -> None:
    matrices = [
        match(f"blk.{n}.attn_q.weight", 32, 32, kind=k) for n, k in enumerate(stored)
    ]

    assert lossless_type([*matrices, match("n_norm.weight", 4, kind=F32)]) is expected


def test_steps_keep_the_order_of_reading_and_lie_in_that_of_the_file() -> None:
    made = plan(
        match("blk.1.a.weight", 32, 32),
        match("token_embd.weight", 64, 32),
        match("blk.0.b.weight", 32, 32),
    )

    assert [place.name for place in places(made)] == [
        "blk.1.a.weight",
        "token_embd.weight",
        "blk.0.b.weight",
    ]
    in_file = sorted(places(made), key=lambda place: place.offset)
    assert [place.name for place in in_file] == [
        "token_embd.weight",
        "blk.0.b.weight",
        "blk.1.a.weight",
    ]
    assert in_file[0].offset == len(made.files[0].header)
    assert in_file[-1].offset + 32 * in_file[-1].row_size == made.output_bytes


def test_memory_counts_the_results_of_all_quants() -> None:
    matches = [match("blk.0.a.weight", 4096, 4096, kind=F32)]
    wish = Wish("F16", plain_types(matches, F16), ENTRIES)

    def memory(count: int) -> int:
        return plan_conversion(
            matches, [wish] * count, architecture="llama", read_bytes=1, threads=2
        ).peak_memory_bytes

    # Two of two bytes fit where one of four would.
    assert memory(2) - memory(1) < 10_000
    assert memory(5) - memory(2) >= 3 * 2 * BLOCK_ELEMENTS * 4


@given(
    heads=st.integers(1, 40) | st.none(),
    head_size=st.sampled_from([2, 64, 128]),
    columns=st.sampled_from([1, 32, 4096, 1 << 19, 1 << 21]),
)
def test_blocks_are_whole_heads_and_cover_every_row(
    heads: int | None, head_size: int, columns: int
) -> None:
    rows = (heads or 7) * head_size
    (step,) = plan(match("blk.0.a.weight", rows, columns, heads=heads)).steps

    blocks = list(step.blocks())

    assert len(blocks) == step.block_count
    assert [block.index for block in blocks] == list(range(len(blocks)))
    assert sum(block.rows for block in blocks) == rows
    unit = head_size if heads else 1
    for block in blocks:
        assert block.start % unit == 0
        assert block.rows % unit == 0
        assert block.rows * columns <= max(BLOCK_ELEMENTS, unit * columns)
    assert step.places[0].row_size == columns * 2


def test_a_bias_of_heads_is_one_column() -> None:
    (step,) = plan(match("blk.0.attn_q.bias", 256, heads=4)).steps

    assert (step.rows, step.columns, step.head_rows) == (256, 1, 64)
    assert step.places[0].row_size == 4


@pytest.mark.parametrize("rows", [1_000, 1_000_000])
def test_planned_memory_does_not_grow_with_tensors(rows: int) -> None:
    made = plan(match("token_embd.weight", rows, 8192))

    assert made.peak_memory_bytes < 150_000_000


def test_the_cost_is_known() -> None:
    matches = [match("a.weight", 3, 32), match("b.weight", 2, 64), match("c_norm", 5)]

    made = plan(*matches, matrix=Q8_0)

    assert made.targets[0].tensors == {"Q8_0": 2, "F32": 1}
    data = sum(-(-size // 32) * 32 for size in (3 * 34, 2 * 2 * 34, 5 * 4))
    assert made.output_bytes == len(made.files[0].header) + data
    assert made.peak_disk_bytes == made.output_bytes + JOURNAL_RESERVE
    assert prod(matches[0].stored.shape) == matches[0].stored.elements
