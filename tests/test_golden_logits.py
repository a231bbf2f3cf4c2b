"""llama.cpp on our F32 file against the numbers that transformers gave.

tests/reference/logits.py made them; `make reference` recomputes all of them. The
context memory is f32 here as it is there: its usual f16 costs some 5e-3.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.reference.logits import Golden, load_golden, summary
from wizard_edge._llama.engine import LlamaEngine
from wizard_edge.engine import LoadOptions

EXACT = LoadOptions(kv_type="f32", flash_attention=False)
MAX_DIFFERENCE = 1e-4


@pytest.fixture(params=range(2), ids=["conversation", "question"])
def golden(request: pytest.FixtureRequest) -> Golden:
    index: int = request.param
    return load_golden()[index]


@pytest.fixture
def found(golden: Golden, apprentice: Callable[[str], Path]) -> Golden:
    with LlamaEngine(apprentice("F32"), EXACT) as engine:
        return summary(golden["ids"], engine.logits(golden["ids"]))


def test_the_likeliest_token_is_the_same_everywhere(
    golden: Golden, found: Golden
) -> None:
    assert found["argmax"] == golden["argmax"]


def test_logits_are_those_of_the_reference(golden: Golden, found: Golden) -> None:
    for key in ("logits", "logsumexp"):
        difference = np.abs(np.array(found[key]) - np.array(golden[key])).max()
        assert difference <= MAX_DIFFERENCE


def test_a_wrong_weight_would_be_noticed(
    golden: Golden, apprentice: Callable[[str], Path], tmp_path: Path
) -> None:
    data = bytearray(apprentice("F32").read_bytes())
    # Zeros over the last stretch of the file: part of the last tensor.
    data[-(1 << 16) :] = bytes(1 << 16)
    wrong = tmp_path / "wrong.gguf"
    wrong.write_bytes(data)

    with LlamaEngine(wrong, EXACT) as engine:
        found = summary(golden["ids"], engine.logits(golden["ids"]))

    difference = np.abs(np.array(found["logits"]) - np.array(golden["logits"])).max()
    assert difference > MAX_DIFFERENCE
