"""With an importance matrix, types and bytes are those of llama.cpp's quantizer.

The same matrix goes into `llama_model_quantize` through its struct and, a tensor at a
time, into `decide_types` and `quantize_rows`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.converters.comparison import Tensor, read_tensors
from tests.converters.quantizing import answer_of_theirs, random_importance
from tests.llama.models import ModelShape, write_random
from wizard_edge._llama import ggml
from wizard_edge._llama.tensor_types import TypeDecision, decide_types
from wizard_edge.gguf import read_header
from wizard_edge.gguf_types import FileType, GgmlType
from wizard_edge_converters.imatrix import ImportanceMatrix
from wizard_edge_converters.overrides import parse_override

SHAPES = {
    "dense": ModelShape(width=256, blocks=1),
    # Eight experts are the number for which llama.cpp has rules of its own.
    "experts": ModelShape(width=256, blocks=1, experts=8),
}
# The quantizer looks at no number of rows: few will do.
ROWS = 5
# All that need a matrix, and two that only take it.
QUANTS = (
    *("IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ2_M"),
    *("IQ3_XXS", "IQ3_XS", "IQ3_S", "IQ3_M", "Q2_K_S", "Q4_K_M"),
)
# The table of these takes ggml ten seconds, once in a process.
SLOW_QUANTS = ("IQ1_S", "IQ1_M")
CASES = [
    *((name, quant) for name in SHAPES for quant in QUANTS),
    *(
        pytest.param(name, quant, marks=pytest.mark.slow)
        for name in SHAPES
        for quant in SLOW_QUANTS
    ),
]


@dataclass(frozen=True, slots=True)
class Model:
    path: Path
    matrix: ImportanceMatrix


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Model]:
    """Return a function that makes a model and a matrix for it, each once."""
    folder = tmp_path_factory.mktemp("models")

    @cache
    def made(name: str) -> Model:
        file = SHAPES[name].build()
        for tensor in file.tensors:
            if len(tensor.shape) > 1:
                tensor.shape = (tensor.shape[0], ROWS, *tensor.shape[2:])
        path = write_random(folder / f"{name}.gguf", file)
        values = random_importance(path, seed=3, prefix="blk.")
        # As for an expert, or a column, that a text never reached.
        for column_weights in values.values():
            column_weights[3:9] = 0
        return Model(path, ImportanceMatrix(values, None, None, path))

    return made


# Any: what `answer_of_theirs` takes.
def theirs_of(model: Model, output: Path, quant: str, **changes: Any) -> int:
    """Run llama.cpp's own quantizer with the matrix, and return its answer."""
    given = {"importance": model.matrix.values, **changes}
    return answer_of_theirs(model.path, output, quant, **given)


def decide_ours(
    model: Model, quant: str, override: tuple[str, GgmlType] | None = None
) -> TypeDecision:
    header = read_header(model.path)
    return decide_types(
        model.path.read_bytes()[: header.data_offset],
        header.file_size,
        FileType[quant],
        [tensor.name for tensor in header.tensors],
        imatrix_present=True,
        tensor_types=[] if override is None else [override],
    )


def quantize_ours(model: Model, types: Mapping[str, GgmlType]) -> dict[str, Tensor]:
    made = {}
    for name, stored in read_tensors(model.path).items():
        columns, experts = stored.shape[0], prod(stored.shape[2:])
        rows = np.frombuffer(stored.data, "<f4").reshape(-1, columns)
        weights = model.matrix.weights(name, columns=columns, experts=experts)
        data = ggml.quantize_rows(rows, types[name], weights).tobytes()
        made[name] = Tensor(types[name].name, stored.shape, data)
    return made


@pytest.mark.parametrize(("name", "quant"), CASES)
def test_types_and_bytes_are_those_of_llama_cpp(
    name: str, quant: str, model: Callable[[str], Model], tmp_path: Path
) -> None:
    made = model(name)
    theirs = tmp_path / "theirs.gguf"

    assert theirs_of(made, theirs, quant) == 0
    decision = decide_ours(made, quant)

    assert decision.imatrix_tensors <= made.matrix.values.keys()
    assert quantize_ours(made, decision.types) == read_tensors(theirs)


@pytest.mark.parametrize("quant", ["IQ2_XXS", "IQ3_XXS", "Q2_K_S"])
def test_llama_cpp_refuses_without_just_what_needs_weights(
    quant: str, model: Callable[[str], Model], tmp_path: Path
) -> None:
    made = model("dense")
    needing = decide_ours(made, quant).imatrix_tensors
    values = made.matrix.values
    output = tmp_path / "theirs.gguf"
    assert needing

    for name in values:
        others = {key: value for key, value in values.items() if key != name}
        refused = theirs_of(made, output, quant, importance=others) != 0
        assert refused == (name in needing), name


def test_an_override_goes_before_the_decision(
    model: Callable[[str], Model], tmp_path: Path
) -> None:
    made, override = model("dense"), parse_override("ffn_(up|down)=iq3_xxs")
    theirs = tmp_path / "theirs.gguf"

    assert theirs_of(made, theirs, "Q4_K_M", override=override) == 0
    decision = decide_ours(made, "Q4_K_M", override)

    assert decision.imatrix_tensors == {"blk.0.ffn_up.weight", "blk.0.ffn_down.weight"}
    assert quantize_ours(made, decision.types) == read_tensors(theirs)


def test_other_weights_would_be_noticed(
    model: Callable[[str], Model], tmp_path: Path
) -> None:
    made = model("dense")
    theirs = tmp_path / "theirs.gguf"
    changed = {name: values[::-1].copy() for name, values in made.matrix.values.items()}

    assert theirs_of(made, theirs, "Q4_K_M", importance=changed) == 0
    ours = quantize_ours(made, decide_ours(made, "Q4_K_M").types)

    found = read_tensors(theirs)
    assert {name for name in ours if ours[name] != found[name]} == set(changed) - {
        "blk.0.ffn_gate_inp.weight"
    }
