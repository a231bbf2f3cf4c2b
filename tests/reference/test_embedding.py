"""Vectors of texts against the hidden states that transformers computes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.conftest import CHECKPOINT
from tests.reference.logits import token_ids
from tests.test_golden_logits import EXACT
from wizard_edge._llama.engine import LlamaEngine

pytest.importorskip("transformers", reason="needs the extra reference")


def reference_vector(ids: Sequence[int]) -> NDArray[np.float32]:
    """Return the mean of the last hidden states of the checkpoint, of length 1."""
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(
        CHECKPOINT, dtype=torch.float32, attn_implementation="eager"
    ).eval()
    with torch.no_grad():
        every = model(torch.tensor([list(ids)]), output_hidden_states=True)
    mean = every.hidden_states[-1][0].mean(dim=0)
    array: NDArray[np.float32] = (mean / mean.norm()).numpy()
    return array


@pytest.mark.parametrize("index", range(2), ids=["conversation", "question"])
def test_vectors_are_what_transformers_gives(
    index: int, apprentice: Callable[[str], Path]
) -> None:
    ids = token_ids()[index]

    with LlamaEngine(apprentice("F32"), EXACT) as engine:
        [vector] = engine.embed([ids])

    difference = float(np.abs(vector - reference_vector(ids)).max())
    print(f"{len(ids)} tokens, max abs difference {difference:.2e}")
    assert difference <= 1e-5
