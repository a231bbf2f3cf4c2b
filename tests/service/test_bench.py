"""`bench` on the bundled model, as little of it as there can be."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.gguf_files import small_llama
from tests.service.fakes import an_installation
from wizard_edge._llama import kernels
from wizard_edge.config import Settings
from wizard_edge.errors import BackendError, Corrupt, MissingFile, UsageError
from wizard_edge.service import bench as module
from wizard_edge.service.bench import Plan, bench
from wizard_edge.service.models import as_json

ONE = Settings(threads=1, prompt_threads=1, ctx_size=256)
SMALL = Plan(
    prompts=(16, 32), depths=(0, 64), conversations=(2,), rounds=1, max_s=120.0
)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Measure this machine in no time: what it can do does not matter here."""
    for name in ("_MEMORY_S", "_WEIGHTS_S", "_ATTENTION_S", "_PRODUCTS_S", "_AGAIN_S"):
        monkeypatch.setattr(module, name, 0.001)
    monkeypatch.setattr(kernels, "_FOOTPRINT", 1 << 20)
    monkeypatch.setattr(kernels, "_PRODUCT_ROWS", 32)


def test_every_figure_of_a_model(
    apprentice: Callable[[str], Path], tmp_path: Path
) -> None:
    path = apprentice("Q8_0")

    report = bench(an_installation(tmp_path), str(path), settings=ONE, plan=SMALL)

    assert report.left_out == ()
    assert (report.model, report.quant, report.sha256) == (path.name, "Q8_0", None)
    assert report.file_bytes == path.stat().st_size
    assert [prompt.tokens for prompt in report.prompts] == [16, 32]
    assert [answer.depth_tokens for answer in report.generation] == [0, 64]
    assert [item.conversations for item in report.together] == [1, 2]
    shares = [prompt.matrix_share for prompt in report.prompts]
    shares += [answer.memory_share for answer in report.generation]
    assert all(share is not None and share > 0 for share in shares)
    first = report.first_token
    assert first.cold_s
    assert first.warm_s
    assert first.resumed_s
    assert first.restore_s
    assert first.restore_s.median < first.resumed_s.median
    used = report.settings
    assert (used.threads, used.prompt_threads, used.context_tokens) == (1, 1, 256)
    # 4 layers, K and V of 128 numbers of two bytes, a token; a file adds its frame.
    assert report.memory.kv_bytes_per_token == 2048
    assert report.memory.saved_bytes_per_token is not None
    assert 2048 < report.memory.saved_bytes_per_token < 4096


def test_a_report_is_json(apprentice: Callable[[str], Path], tmp_path: Path) -> None:
    plan = Plan(prompts=(8,), depths=(0,), conversations=(), rounds=1, max_s=120.0)
    path = str(apprentice("Q8_0"))

    report = bench(an_installation(tmp_path), path, settings=ONE, plan=plan, cold=True)

    found = json.loads(json.dumps(as_json(report)))
    assert found["prompts"][0]["tokens"] == 8
    assert set(found["prompts"][0]["tokens_per_s"]) == {
        *("median", "low", "high", "rounds")
    }
    assert found["settings"]["cold"] is True
    assert found["settings"]["llama_cpp"]


def test_the_memory_is_that_of_the_model_alone(
    apprentice: Callable[[str], Path], tmp_path: Path
) -> None:
    held = b"x" * (200 << 20)
    plan = Plan(prompts=(8,), depths=(0,), conversations=(), rounds=1, max_s=120.0)

    report = bench(
        an_installation(tmp_path), str(apprentice("Q8_0")), settings=ONE, plan=plan
    )

    if report.memory.peak_bytes is not None:
        assert 30 << 20 < report.memory.peak_bytes < len(held)


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        (Plan(rounds=0), "rounds must be from 1 to 100, got 0"),
        (Plan(prompts=(1,)), "prompt must be from 2 to 1048576, got 1"),
        (Plan(conversations=(1,)), "parallel must be from 2 to 64, got 1"),
        (Plan(max_s=0.5), "max-time must be from 1.0 to 86400.0, got 0.5"),
        (Plan(depths=()), "there is no prompt or no depth to measure"),
    ],
    ids=["rounds", "prompt", "parallel", "time", "nothing"],
)
def test_values_out_of_range_are_refused(
    plan: Plan, message: str, tmp_path: Path
) -> None:
    with pytest.raises(UsageError) as told:
        bench(an_installation(tmp_path), "./none.gguf", plan=plan)

    assert told.value.message == message


@pytest.mark.parametrize(
    ("content", "error"), [(None, MissingFile), (b"GGUF", Corrupt)], ids=["none", "bad"]
)
def test_what_is_no_model_is_not_measured(
    content: bytes | None, error: type[Exception], tmp_path: Path
) -> None:
    path = tmp_path / "m.gguf"
    if content is not None:
        path.write_bytes(content)

    with pytest.raises(error):
        bench(an_installation(tmp_path), str(path), plan=SMALL)


def test_what_llama_cpp_refuses_is_an_error_of_ours(tmp_path: Path) -> None:
    file = small_llama()
    file.tensors = [item for item in file.tensors if "ffn_up" not in str(item.name)]
    path = file.write(tmp_path / "m.gguf")

    with pytest.raises(BackendError, match="cannot load"):
        bench(an_installation(tmp_path), str(path), settings=ONE, plan=SMALL)
