from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import replace
from pathlib import Path

import pytest

from tests.gguf_files import small_llama
from tests.machines import LAPTOP, PI
from tests.service.fakes import an_installation, stored
from tests.tiled import Tiled
from wizard_edge.errors import (
    BackendError,
    Corrupt,
    MissingFile,
    NotFound,
    UnknownModel,
    UnknownQuant,
    UsageError,
)
from wizard_edge.fitting import Candidate, Machine
from wizard_edge.gguf import read_header
from wizard_edge.gguf_types import GgmlType
from wizard_edge.models import Shape
from wizard_edge.progress import ProgressEvent
from wizard_edge.service.cards import show
from wizard_edge.service.choosing import all_candidates, choose_quant
from wizard_edge.service.fit import fit, measure
from wizard_edge.service.imports import import_file
from wizard_edge.service.installation import Installation
from wizard_edge.service.settings import set_setting

Kinds = list[GgmlType]


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> Callable[[Machine], list[Kinds]]:
    """Return a function that puts a machine in the place of this one.

    It returns what types were to be measured, call by call.
    """

    def put(machine: Machine) -> list[Kinds]:
        asked: list[Kinds] = []

        def measure(
            installation: Installation, kinds: Collection[GgmlType], **options: object
        ) -> Machine:
            asked.append(sorted(kinds))
            return machine

        monkeypatch.setattr("wizard_edge.service.fit.measure", measure)
        return asked

    return put


def test_a_model_is_judged_in_every_variant(
    tmp_path: Path, measured: Callable[[Machine], object]
) -> None:
    measured(LAPTOP)

    report = fit(an_installation(tmp_path), "13b")

    [model] = report.models
    assert (model.name, model.context, model.chosen) == (
        "wizardlm-13b-v1.2",
        4096,
        "Q4_K_M",
    )
    assert [item.quant for item in model.variants if item.fits] == [
        *("Q5_K_M", "Q5_K_S", "Q5_0", "Q4_K_M", "Q4_K_S", "Q4_0"),
        *("Q3_K_L", "Q3_K_M", "Q3_K_S", "Q2_K"),
    ]
    assert {item.state for item in model.variants} == {"ready"}
    assert report.machine.room == LAPTOP.room


def test_every_model_of_the_catalogue_is_judged(
    tmp_path: Path, measured: Callable[[Machine], object]
) -> None:
    measured(PI)
    installation = an_installation(tmp_path)

    models = fit(installation).models

    assert [model.name for model in models] == [
        spec.name for spec in installation.registry
    ]
    best = {model.name: model.best for model in models}
    assert all(best.values())
    seventy = best["wizardlm-70b-v1.0"]
    assert seventy is not None
    assert (seventy.quant, seventy.lacks) == ("Q2_K", "memory")


def test_one_quant_alone(tmp_path: Path, measured: Callable[[Machine], object]) -> None:
    measured(LAPTOP)

    [model] = fit(an_installation(tmp_path), "13b:q6_k").models

    assert [item.quant for item in model.variants] == ["Q6_K"]
    assert model.why == (
        "no quant fits: Q6_K, the smallest, takes 14.7 GB of RAM with 4096 tokens of "
        "context, and 14.0 GB of 16.5 GB may be used"
    )


def test_low_memory_is_counted_as_it_is_run(
    tmp_path: Path, measured: Callable[[Machine], object]
) -> None:
    measured(LAPTOP)
    installation = an_installation(tmp_path)
    set_setting(installation, "low-memory", "yes")

    [model] = fit(an_installation(tmp_path), "13b").models
    [small] = fit(an_installation(tmp_path), "apprentice").models

    assert (model.context, model.kv_type) == (2048, "q8_0")
    assert (small.context, small.kv_type) == (1024, "q8_0")


def test_the_context_and_the_cache_are_those_asked_for(
    tmp_path: Path, measured: Callable[[Machine], object]
) -> None:
    measured(LAPTOP)
    installation = an_installation(tmp_path)

    [long] = fit(installation, "13b:Q2_K", context=8192).models
    [small] = fit(installation, "13b:Q2_K", context=8192, kv_type="q4_0").models

    assert long.context == 8192
    assert long.variants[0].kv_cache == 2 * 40 * 8192 * 5120 * 2
    assert small.variants[0].kv_cache == 2 * 40 * 8192 * 5120 * 18 // 32


def test_what_is_stored_is_read(
    tmp_path: Path, measured: Callable[[Machine], list[Kinds]]
) -> None:
    asked = measured(replace(LAPTOP, free_disk=0))
    installation = an_installation(tmp_path)
    stored(installation, tmp_path / "WizardLM-13B-V1.2", "Q8_0")

    [model] = fit(installation, "13b").models

    states = {item.quant: (item.state, item.lacks) for item in model.variants}
    assert states["Q8_0"] == ("installed", None)
    assert states["Q4_K_M"] == ("ready", "disk")
    # The file that the test stores is of F32, whatever it is called.
    assert GgmlType.F32 in asked[0]


def test_a_model_outside_the_registry(
    tmp_path: Path, measured: Callable[[Machine], object]
) -> None:
    measured(LAPTOP)
    installation = an_installation(tmp_path)
    stored(installation, tmp_path / "mine", "F32")

    [model] = fit(installation, "mine").models

    assert model.name == "mine"
    assert [(item.quant, item.state) for item in model.variants] == [
        ("F32", "installed")
    ]


def test_a_stored_model_goes_by_the_quant_of_its_receipt(
    tmp_path: Path, measured: Callable[[Machine], object]
) -> None:
    """The header may name no type: the name of the file did."""
    measured(LAPTOP)
    installation = an_installation(tmp_path)
    unnamed = small_llama().drop("general.file_type")
    path = unnamed.write(tmp_path / "mine.Q4_K_M.gguf")
    assert read_header(path).quant is None
    import_file(installation, path, name="mine")

    [model] = fit(installation, "mine").models

    assert [item.quant for item in model.variants] == ["Q4_K_M"]


def test_every_installed_variant_of_an_unknown_model_is_judged(
    tmp_path: Path, measured: Callable[[Machine], object]
) -> None:
    measured(LAPTOP)
    installation = an_installation(tmp_path)
    for quant in ("Q4_K_M", "Q8_0", "F16"):
        path = stored(installation, tmp_path / "mine", quant).path
    # Its size is known from its receipt.
    path.write_bytes(b"GGUF")

    [model] = fit(installation, "mine").models
    [one] = fit(installation, "mine:Q8_0").models

    states = [(item.quant, item.state) for item in model.variants]
    assert states == [(quant, "installed") for quant in ("F16", "Q8_0", "Q4_K_M")]
    assert [item.quant for item in one.variants] == ["Q8_0"]


@pytest.mark.parametrize("content", ['{"schema": 99}', "{"], ids=["future", "damaged"])
def test_a_receipt_that_cannot_be_read_is_passed_over(
    content: str,
    tmp_path: Path,
    measured: Callable[[Machine], object],
    caplog: pytest.LogCaptureFixture,
) -> None:
    measured(LAPTOP)
    installation = an_installation(tmp_path)
    path = stored(installation, tmp_path / "WizardLM-13B-V1.2", "Q8_0").path
    path.with_name(f"{path.name}.json").write_text(content)

    models = fit(installation).models
    card = show(installation, "13b")

    assert len(models) == len(list(installation.registry))
    assert card.installed == ()
    assert f"{path.name}.json" in caplog.text


def test_a_file_tells_its_own_types(
    tmp_path: Path, measured: Callable[[Machine], list[Kinds]]
) -> None:
    asked = measured(LAPTOP)
    shape = Shape(2, 512, 1024, 4, 4, 300)
    path = Tiled(shape, GgmlType.Q4_K, GgmlType.Q6_K).write(tmp_path / "my.gguf")

    [model] = fit(an_installation(tmp_path), str(path)).models

    [variant] = model.variants
    assert (variant.state, variant.weights) == ("file", path.stat().st_size)
    assert asked == [[GgmlType.Q4_K, GgmlType.Q6_K]]


def test_what_could_be_converted_is_estimated(
    tmp_path: Path, measured: Callable[[Machine], object]
) -> None:
    measured(LAPTOP)

    [model] = fit(an_installation(tmp_path), "apprentice").models

    assert {item.state for item in model.variants} == {"converted"}
    assert model.context == 1024


@pytest.mark.parametrize(
    ("ref", "error"),
    [
        ("nothing-like-it", UnknownModel),
        ("13b:IQ1_S", UnknownQuant),
        ("./none.gguf", MissingFile),
        ("./broken.gguf", Corrupt),
        ("hf:owner/repo", NotFound),
    ],
)
def test_what_cannot_be_judged_is_not_measured(
    ref: str,
    error: type[Exception],
    tmp_path: Path,
    measured: Callable[[Machine], list[Kinds]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = measured(LAPTOP)
    monkeypatch.chdir(tmp_path)
    Path("broken.gguf").write_bytes(b"GGUF")

    with pytest.raises(error):
        fit(an_installation(tmp_path), ref)

    assert asked == []


def test_a_context_out_of_range_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="ctx-size"):
        fit(an_installation(tmp_path), "13b", context=1)


def test_measuring_tells_what_this_machine_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("_MEMORY_S", "_WEIGHTS_S", "_ATTENTION_S"):
        monkeypatch.setattr(f"wizard_edge.service.fit.{name}", 0.001)
    monkeypatch.setattr("wizard_edge._llama.kernels._FOOTPRINT", 1 << 20)
    events: list[ProgressEvent] = []

    machine = measure(
        an_installation(tmp_path), {GgmlType.Q8_0}, progress=events.append
    )

    assert machine.bandwidth
    assert machine.kernels is not None
    assert list(machine.kernels.weights) == [GgmlType.Q8_0]
    assert machine.backends
    assert [event.done for event in events] == [0, 1, 2, 3]


def test_without_llama_cpp_the_memory_is_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("wizard_edge.service.fit._MEMORY_S", 0.001)
    monkeypatch.setattr("wizard_edge._llama.ggml.load", _not_installed)

    machine = measure(an_installation(tmp_path), {GgmlType.Q8_0})

    assert machine.bandwidth
    assert machine.kernels is None
    assert machine.backends == ()


def test_a_choice_counts_the_context_of_the_settings(tmp_path: Path) -> None:
    installation = an_installation(tmp_path)
    installation.config_dir.mkdir(parents=True, exist_ok=True)
    installation.settings_file.write_text("schema = 1\nctx-size = 512\n")
    spec = installation.registry.find("13b")

    found = choose_quant(installation, spec, all_candidates(spec), machine=PI)

    assert found.chosen is not None
    assert found.chosen.quant == "Q3_K_M"


def test_a_choice_without_a_model_of_the_registry(tmp_path: Path) -> None:
    files = [Candidate("Q4_K_M", 4_000_000_000), Candidate("Q2_K", 2_800_000_000)]

    found = choose_quant(an_installation(tmp_path), None, files, machine=PI)

    assert found.chosen is not None
    assert found.chosen.quant == "Q4_K_M"


def _not_installed() -> None:
    raise BackendError("llama.cpp cannot be loaded")
