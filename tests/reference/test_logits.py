"""Recomputes the golden logits with transformers and compares every one of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.reference.logits import (
    NAMES,
    load_architectures,
    load_golden,
    random_summary,
    reference_logits,
    summary,
    token_ids,
)
from tests.test_golden_logits import EXACT, MAX_DIFFERENCE
from wizard_edge._llama.engine import LlamaEngine

pytest.importorskip("transformers", reason="needs the extra reference")


@pytest.mark.parametrize("index", range(2), ids=["conversation", "question"])
def test_stored_numbers_are_what_transformers_gives(index: int) -> None:
    ids = token_ids()[index]
    stored = load_golden()[index]

    again = summary(ids, reference_logits(ids))

    assert again["ids"] == stored["ids"]
    assert again["argmax"] == stored["argmax"]
    np.testing.assert_allclose(again["logits"], stored["logits"], atol=1e-4)


@pytest.mark.parametrize("index", range(2), ids=["conversation", "question"])
def test_llama_cpp_gives_the_same_logits(
    index: int, apprentice: Callable[[str], Path]
) -> None:
    ids = token_ids()[index]
    reference = reference_logits(ids)

    with LlamaEngine(apprentice("F32"), EXACT) as engine:
        ours = engine.logits(ids)

    difference = float(np.abs(ours - reference).max())
    print(f"{len(ids)} positions, max abs difference {difference:.2e}")
    assert difference <= MAX_DIFFERENCE
    assert (ours.argmax(axis=1) == reference.argmax(axis=1)).all()


@pytest.mark.parametrize("name", NAMES)
def test_numbers_of_an_architecture_are_what_transformers_gives(
    name: str, tmp_path: Path
) -> None:
    stored = load_architectures()[name]

    again = random_summary(name, tmp_path)

    assert (again["ids"], again["argmax"]) == (stored["ids"], stored["argmax"])
    np.testing.assert_allclose(again["logits"], stored["logits"], atol=1e-4)
