"""llama.cpp computes with our F32 file what transformers computes with the checkpoint.

For one random checkpoint of each architecture; `tests/reference/logits.py` made the
numbers. A wrong order of experts, heads or rows would show here.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from tests.converters.running import Converted
from tests.reference.logits import NAMES, load_architectures, summary
from tests.test_golden_logits import EXACT
from wizard_edge._llama.engine import LlamaEngine

# Seen: 1e-5. StarCoder 6e-4: its gelu is looked up in a table of 16 bits, in tanh form.
MAX_DIFFERENCE = {"starcoder": 2e-3}


@pytest.mark.parametrize("name", NAMES)
def test_logits_are_those_of_the_reference(
    name: str, converted: Callable[[str, str], Converted]
) -> None:
    golden = load_architectures()[name]

    with LlamaEngine(converted(name, "F32").path, EXACT) as engine:
        found = summary(golden["ids"], engine.logits(golden["ids"]))

    difference = np.abs(np.array(found["logits"]) - np.array(golden["logits"])).max()
    assert difference <= MAX_DIFFERENCE.get(name, 1e-4)
    assert found["argmax"] == golden["argmax"]
