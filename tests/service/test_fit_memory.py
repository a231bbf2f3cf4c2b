"""What `fit` says a model takes, beside what a process that runs it has resident."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.service.fakes import an_installation
from tests.tiled import Tiled
from wizard_edge.engine import KvType
from wizard_edge.gguf_types import GgmlType
from wizard_edge.models import Shape
from wizard_edge.service import choosing
from wizard_edge.service.fit import fit

# Loads a model, fills its context, and writes its peak of resident memory in bytes.
CHILD = """
import json, sys
from pathlib import Path
from wizard_edge._llama.engine import LlamaEngine
from wizard_edge.engine import LoadOptions, Sampling

path, context, kv_type = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
options = LoadOptions(context=context, kv_type=kv_type, threads=1)
with LlamaEngine(path, options) as engine:
    prompt = [1] + [300 + index % 600 for index in range(context - 6)]
    chunks = list(engine.generate(prompt, Sampling(max_tokens=4)))
status = Path("/proc/self/status").read_text()
peak = int(status.partition("VmHWM:")[2].split()[0]) * 1024
print(json.dumps([peak, chunks[-1].stats.prompt_tokens]))
"""
# 0.1 B and 0.3 B parameters in the proportions of LLaMA; some heads share K and V.
SMALL = Shape(8, 1024, 2816, 8, 8, 8_000)
SHARED = Shape(12, 1536, 4096, 12, 4, 32_000)

pytestmark = pytest.mark.skipif(
    sys.platform != "linux", reason="reads the peak of memory from /proc"
)


@pytest.fixture
def predicted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """Return a function that gives the bytes a process will have resident."""
    monkeypatch.setattr(
        "wizard_edge.service.fit.measure",
        lambda installation, kinds, **options: choosing.find_machine(installation),
    )

    def predict(path: Path, context: int, kv_type: KvType) -> int:
        installation = an_installation(tmp_path)
        report = fit(installation, str(path), context=context, kv_type=kv_type)
        [variant] = report.models[0].variants
        assert variant.copied is not None
        return variant.total + variant.copied

    return predict


def resident(path: Path, context: int, kv_type: KvType) -> int:
    child = subprocess.run(
        [sys.executable, "-c", CHILD, str(path), str(context), kv_type],
        check=True,
        capture_output=True,
    )
    peak, tokens = json.loads(child.stdout)
    assert tokens == context - 5
    assert isinstance(peak, int)
    return peak


@pytest.mark.parametrize(
    ("shape", "weights", "context", "kv_type"),
    [
        (SMALL, GgmlType.Q4_K, 1024, "f16"),
        (SMALL, GgmlType.Q8_0, 640, "q8_0"),
        (SHARED, GgmlType.Q6_K, 512, "f16"),
    ],
    ids=["70 MB", "125 MB and a q8_0 cache", "310 MB"],
)
def test_the_prediction_is_what_the_process_takes(
    shape: Shape,
    weights: GgmlType,
    context: int,
    kv_type: KvType,
    tmp_path: Path,
    predicted: Callable[..., int],
) -> None:
    path = Tiled(shape, weights, GgmlType.Q6_K).write(tmp_path / "model.gguf")

    measured = resident(path, context, kv_type)

    print(f"\npredicted / measured: {predicted(path, context, kv_type) / measured:.3f}")
    assert predicted(path, context, kv_type) == pytest.approx(measured, rel=0.1)


def test_the_prediction_holds_for_the_bundled_model(
    apprentice: Callable[[str], Path], predicted: Callable[..., int]
) -> None:
    path = apprentice("Q8_0")

    measured = resident(path, 1024, "f16")

    print(f"\npredicted / measured: {predicted(path, 1024, 'f16') / measured:.3f}")
    assert predicted(path, 1024, "f16") == pytest.approx(measured, rel=0.1)
