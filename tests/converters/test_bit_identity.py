"""Our bytes are llama.cpp's bytes: its converter's by stored digests, its quantizer's
live. The digests are remade by `tests/reference/llama_cpp_digests.py`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import CHECKPOINT
from tests.converters.checkpoints import SHAPES
from tests.converters.comparison import (
    MOVED,
    SPELLED_OUT,
    is_compared,
    metadata_but_ours,
    read_metadata,
    tensor_differences,
    tensor_digest,
)
from tests.converters.quantizing import quantize_theirs
from tests.converters.running import Converted
from wizard_edge_converters.model import PLAIN_QUANTS

Convert = Callable[[str, str], Converted]

DIGESTS = json.loads((Path(__file__).parent / "digests.json").read_text())
# What llama.cpp's quantizer makes without an importance matrix.
QUANTS = (
    *("Q8_0", "Q6_K", "Q5_K_M", "Q5_K_S", "Q5_0", "Q5_1", "Q4_K_M", "Q4_K_S"),
    *("Q4_0", "Q4_1", "IQ4_NL", "IQ4_XS", "Q3_K_L", "Q3_K_M", "Q3_K_S", "Q2_K"),
    *("IQ3_M", "IQ3_S"),
)
# The slow ones for one shape, the asked ones for all.
ASKED = ("Q8_0", "Q4_0", "Q4_K_M", "Q5_K_M", "Q6_K")
NAMES = [*SHAPES, *(["apprentice"] if (CHECKPOINT / "config.json").is_file() else [])]


@pytest.mark.parametrize("kind", PLAIN_QUANTS)
@pytest.mark.parametrize("name", NAMES)
def test_unquantized_tensors_equal_those_of_llama_cpp(
    name: str, kind: str, converted: Convert
) -> None:
    assert tensor_digest(converted(name, kind).path) == DIGESTS[name]["tensors"][kind]


@pytest.mark.parametrize("name", NAMES)
def test_metadata_equals_that_of_llama_cpp(name: str, converted: Convert) -> None:
    theirs = DIGESTS[name]["metadata"]
    ours = read_metadata(converted(name, "F16").path)

    common = {key: value for key, value in ours.items() if is_compared(key)}

    assert {key: common.get(key) for key in theirs} == theirs
    assert common.keys() - theirs.keys() <= SPELLED_OUT
    order = [key for key in common if key in theirs and key != MOVED]
    assert order == DIGESTS[name]["keys"]


# Their tensors are as any LLaMA's; what sets them apart is in their metadata.
ALIKE = {"outside", "two-added", "python", "mistral", "deepseek", "starcoder-pair"}
CASES = [(name, quant) for name in NAMES if name not in ALIKE for quant in ASKED]
CASES += [(name, "Q4_K_M") for name in NAMES if name in ALIKE]
CASES += [("gqa", quant) for quant in QUANTS if quant not in ASKED]
CASES += [("odd-rows", quant) for quant in ("IQ4_XS", "Q2_K", "Q3_K_M", "Q4_1")]


@pytest.mark.parametrize(("name", "quant"), CASES)
def test_one_pass_equals_two_steps(
    name: str, quant: str, converted: Convert, tmp_path: Path
) -> None:
    between = converted(name, SHAPES[name].dtype if name in SHAPES else "F16").path
    two_steps = tmp_path / "two-steps.gguf"

    quantize_theirs(between, two_steps, quant)
    one_pass = converted(name, quant).path

    assert tensor_differences(one_pass, two_steps) == []
    assert metadata_but_ours(one_pass) == metadata_but_ours(two_steps)


@pytest.mark.parametrize("kind", PLAIN_QUANTS)
def test_unquantized_types_are_those_the_quantizer_chooses(
    kind: str, converted: Convert, tmp_path: Path
) -> None:
    theirs = tmp_path / "theirs.gguf"

    quantize_theirs(converted("f32", "F32").path, theirs, kind)

    assert tensor_differences(converted("f32", kind).path, theirs) == []


def test_a_changed_byte_is_noticed(converted: Convert, tmp_path: Path) -> None:
    original = converted("gqa", "Q4_K_M")
    tensor = next(t for t in original.file.tensors if t.type.name == "Q4_K")
    changed = bytearray(original.path.read_bytes())
    changed[original.file.offsets[tensor.name] + tensor.size // 2] ^= 1
    copy = tmp_path / "changed.gguf"
    copy.write_bytes(changed)

    assert tensor_differences(copy, original.path) == [f"{tensor.name}: bytes"]
    assert tensor_digest(copy) != tensor_digest(original.path)


def test_a_changed_type_is_noticed(converted: Convert, tmp_path: Path) -> None:
    original = converted("gqa", "Q5_0")
    data = original.path.read_bytes()
    # After the name: count of sizes, two sizes, type. 6 is Q5_0, 2 is Q4_0.
    name = b"blk.0.attn_q.weight"
    at = data.index(name) + len(name) + 4 + 2 * 8
    assert data[at] == 6
    copy = tmp_path / "changed.gguf"
    copy.write_bytes(data[:at] + b"\x02" + data[at + 1 :])

    assert "blk.0.attn_q.weight: type" in tensor_differences(copy, original.path)
