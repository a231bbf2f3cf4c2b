"""Rows become ggml rows; what is no finite number is noticed before or after."""

from __future__ import annotations

import ctypes
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wizard_edge._llama import ggml
from wizard_edge.gguf_types import GgmlType
from wizard_edge_converters.checkpoint import StoredTensor
from wizard_edge_converters.plan import Block, Place, Step
from wizard_edge_converters.quantize import (
    NotFinite,
    encode_block,
    encode_rows,
    is_finite,
    to_bf16,
    to_f32,
)

F32, F16, BF16 = GgmlType.F32, GgmlType.F16, GgmlType.BF16
finite = st.floats(width=32, allow_nan=False, allow_infinity=False)


@given(st.lists(finite, min_size=1, max_size=64))
def test_bfloat16_rounds_as_ggml_does(numbers: list[float]) -> None:
    rows = np.array(numbers, dtype=np.float32)
    theirs = np.empty(len(rows), dtype=np.uint16)
    library = ggml._library()
    library.ggml_fp32_to_bf16_row_ref.restype = None
    library.ggml_fp32_to_bf16_row_ref(
        ctypes.c_void_p(rows.ctypes.data),
        ctypes.c_void_p(theirs.ctypes.data),
        ctypes.c_int64(len(rows)),
    )

    assert to_bf16(rows).tolist() == theirs.tolist()


def test_every_half_widens_exactly_and_comes_back() -> None:
    halves = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
    rows = halves[np.isfinite(halves)].reshape(1, -1)

    wide = ggml.half_to_float(rows)

    assert (wide == rows.astype(np.float32)).all()
    assert bytes(encode_rows(wide, F16).data) == rows.tobytes()


def test_every_bfloat16_widens_exactly_and_comes_back() -> None:
    bits = np.arange(1 << 16, dtype=np.uint16)
    rows = bits[(bits & 0x7F80) != 0x7F80].reshape(1, -1)

    wide = to_f32(rows, BF16)

    assert (wide.view(np.uint32) == rows.astype(np.uint32) << 16).all()
    assert bytes(encode_rows(wide, BF16).data) == rows.tobytes()


@pytest.mark.parametrize("bad", [np.inf, -np.inf, np.nan])
@pytest.mark.parametrize("source", [F32, F16, BF16], ids=lambda kind: kind.name)
def test_infinities_and_nans_are_noticed(source: GgmlType, bad: float) -> None:
    rows = np.zeros((2, 32), dtype=np.float32)
    rows[1, 17] = bad
    stored: np.ndarray[tuple[int, int], np.dtype[np.generic]] = rows
    if source is F16:
        stored = rows.astype(np.float16)
    elif source is BF16:
        stored = (rows.view(np.uint32) >> 16).astype(np.uint16)
    tensor = StoredTensor("w", source, (2, 32), "f", 0)
    place = Place(0, "w", source, 0, stored.nbytes // 2)
    step = Step(tensor, 2, 32, 2, None, (place,))

    assert not is_finite(stored, source)
    with pytest.raises(NotFinite):
        encode_block(stored.tobytes(), step, Block(0, 0, 2))


@pytest.mark.parametrize("target", [F16, GgmlType.Q8_0, GgmlType.Q4_K])
def test_numbers_too_large_for_the_target_are_noticed(
    target: GgmlType, capfd: pytest.CaptureFixture[str]
) -> None:
    rows = np.full((1, 256), 1e30, dtype=np.float32)

    with pytest.raises(NotFinite, match="too large"):
        encode_rows(rows, target)
    capfd.readouterr()


def test_rows_that_are_no_whole_blocks_are_refused() -> None:
    with pytest.raises(ValueError, match="no multiple"):
        ggml.quantize_rows(np.zeros((2, 100), dtype=np.float32), GgmlType.Q4_K)


def test_blocks_of_rows_give_the_bytes_of_the_whole() -> None:
    rows = np.random.RandomState(0).standard_normal((7, 512)).astype(np.float32)

    whole = ggml.quantize_rows(rows, GgmlType.Q5_K)
    parts = [ggml.quantize_rows(part, GgmlType.Q5_K) for part in (rows[:3], rows[3:])]

    assert (np.concatenate(parts) == whole).all()


def test_strided_rows_are_taken_as_they_are_meant() -> None:
    rows = np.random.RandomState(0).standard_normal((64, 4)).astype(np.float32)

    found = ggml.quantize_rows(rows.T, GgmlType.Q8_0)

    assert (found == ggml.quantize_rows(rows.T.copy(), GgmlType.Q8_0)).all()


def random_rows(count: int, columns: int, seed: int = 0) -> np.ndarray:
    return np.random.RandomState(seed).standard_normal((count, columns)).astype("<f4")


def test_every_expert_has_importance_of_its_own() -> None:
    rows = random_rows(6, 256)
    importance = np.abs(random_rows(3, 256, seed=1))

    whole = ggml.quantize_rows(rows, GgmlType.IQ2_XS, importance)
    parts = [
        ggml.quantize_rows(rows[2 * i : 2 * i + 2], GgmlType.IQ2_XS, importance[i])
        for i in range(3)
    ]

    assert (np.concatenate(parts) == whole).all()
    assert (ggml.quantize_rows(rows, GgmlType.IQ2_XS, importance[0]) != whole).any()


@pytest.mark.parametrize("shape", [(255,), (4, 256), (1, 2, 256)], ids=str)
def test_importance_of_another_shape_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="importance of shape"):
        ggml.quantize_rows(random_rows(6, 256), GgmlType.Q4_K, np.ones(shape, "<f4"))


@pytest.mark.parametrize("target", [GgmlType.IQ2_XXS, GgmlType.IQ2_XS, GgmlType.IQ1_S])
def test_what_ggml_would_abort_over_is_refused(target: GgmlType) -> None:
    with pytest.raises(ValueError, match="needs the importance"):
        ggml.quantize_rows(random_rows(1, 256), target)


FIRST_USE = """
from concurrent.futures import ThreadPoolExecutor
import numpy as np
from wizard_edge._llama import ggml
from wizard_edge.gguf_types import GgmlType
rows = np.random.RandomState(0).standard_normal((4, 256)).astype("<f4")
kinds = [GgmlType[name] for name in ("IQ3_XXS", "IQ3_S")] * 4
def encode(kind):
    return ggml.quantize_rows(rows, kind, np.abs(rows[0])).tobytes()
with ThreadPoolExecutor(8) as pool:
    at_once = list(pool.map(encode, kinds))
assert at_once == [encode(kind) for kind in kinds]
"""


def test_tables_are_made_once_when_threads_ask_for_them_together() -> None:
    subprocess.run([sys.executable, "-c", FIRST_USE], check=True)
