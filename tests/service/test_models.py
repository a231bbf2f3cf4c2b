from __future__ import annotations

import json
import logging
import subprocess
import sys
from pathlib import Path

import pytest

from tests.service.fakes import an_installation, stored, tree
from wizard_edge.errors import (
    ConfigError,
    NotFound,
    UnknownModel,
    UsageError,
    WizardEdgeError,
)
from wizard_edge.service.models import (
    InstalledModel,
    as_json,
    list_catalogue,
    list_installed,
    plan_removal,
    remove,
)


def test_an_empty_store_lists_nothing_and_creates_nothing(tmp_path: Path) -> None:
    assert list_installed(an_installation(tmp_path)) == []
    assert list(tmp_path.iterdir()) == []


def test_a_row_says_what_the_receipt_says(tmp_path: Path) -> None:
    installation = an_installation(tmp_path)
    receipt = stored(installation, tmp_path / "WizardLM-13B-V1.2").receipt

    assert list_installed(installation) == [
        InstalledModel(
            name="wizardlm-13b-v1.2",
            quant="Q8_0",
            path=tmp_path / "home/models/wizardlm-13b-v1.2/wizardlm-13b-v1.2.Q8_0.gguf",
            size=receipt.size,
            sha256=receipt.sha256,
            licenses=("llama2",),
            template="vicuna",
            architecture="llama",
            context=64,
            parameters=receipt.parameters,
            created="2026-01-02T03:04:05Z",
            problem=None,
            quality={"rms_error.F16": 0.5},
        )
    ]


def test_a_lost_file_is_listed_with_its_problem(tmp_path: Path) -> None:
    installation = an_installation(tmp_path)
    stored(installation, tmp_path / "model").path.unlink()

    [row] = list_installed(installation)

    assert row.problem == "model.Q8_0.gguf: No such file or directory"


def test_a_damaged_receipt_is_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    installation = an_installation(tmp_path)
    path = stored(installation, tmp_path / "model").path
    path.with_name(path.name + ".json").write_text("")

    with caplog.at_level(logging.WARNING):
        assert list_installed(installation) == []

    assert "is damaged" in caplog.text


def test_the_catalogue_says_what_is_installed(tmp_path: Path) -> None:
    installation = an_installation(tmp_path)
    for quant in ("Q8_0", "Q4_K_M"):
        stored(installation, tmp_path / "WizardLM-13B-V1.2", quant)

    entries = {entry.name: entry for entry in list_catalogue(installation)}

    assert len(entries) == len(installation.registry)
    entry = entries["wizardlm-13b-v1.2"]
    assert entry.installed == ("Q4_K_M", "Q8_0")
    assert {v.quant for v in entry.variants if v.installed} == {"Q4_K_M", "Q8_0"}
    assert entries["wizardlm-70b-v1.0"].installed == ()


def test_removing_a_model_takes_all_its_variants(tmp_path: Path) -> None:
    installation = an_installation(tmp_path)
    for quant in ("Q8_0", "Q4_K_M"):
        stored(installation, tmp_path / "model", quant)
    kept = stored(installation, tmp_path / "other")
    (kept.path.parent.parent / "model" / "LICENSE").write_text("text")

    removal = plan_removal(installation, ["model"])

    assert sorted(removal.models) == ["model:Q4_K_M", "model:Q8_0"]
    assert sorted(file.path.name for file in removal.files) == [
        "LICENSE",
        "NOTICE",
        "model.Q4_K_M.gguf",
        "model.Q4_K_M.gguf.json",
        "model.Q8_0.gguf",
        "model.Q8_0.gguf.json",
    ]
    assert remove(installation, removal) == removal.size
    assert tree(installation.home.root) == [
        "models/other/NOTICE",
        "models/other/other.Q8_0.gguf",
        "models/other/other.Q8_0.gguf.json",
    ]


def test_removing_one_quant_keeps_the_other_and_the_licence(tmp_path: Path) -> None:
    installation = an_installation(tmp_path)
    for quant in ("Q8_0", "Q4_K_M"):
        path = stored(installation, tmp_path / "model", quant).path
    (path.parent / "LICENSE").write_text("text")

    removal = plan_removal(installation, ["model:q8_0", "model:Q8_0"])
    remove(installation, removal)

    assert removal.models == ("model:Q8_0",)
    assert sorted(file.path.name for file in removal.files) == [
        "model.Q8_0.gguf",
        "model.Q8_0.gguf.json",
    ]
    assert tree(path.parent) == [
        "LICENSE",
        "NOTICE",
        "model.Q4_K_M.gguf",
        "model.Q4_K_M.gguf.json",
    ]


def test_a_model_whose_receipt_is_damaged_can_be_removed(tmp_path: Path) -> None:
    installation = an_installation(tmp_path)
    for quant in ("Q8_0", "Q4_K_M"):
        path = stored(installation, tmp_path / "model", quant).path
    path.with_name(path.name + ".json").write_text("{")

    removal = plan_removal(installation, ["model"])

    assert removal.models == ("model/model.Q4_K_M.gguf", "model:Q8_0")
    assert remove(installation, removal) == removal.size
    assert tree(installation.home.root) == []


def test_a_receipt_from_the_future_is_not_removed(tmp_path: Path) -> None:
    installation = an_installation(tmp_path)
    path = stored(installation, tmp_path / "model").path
    path.with_name(path.name + ".json").write_text('{"schema": 99}')

    with pytest.raises(ConfigError, match="has schema 99"):
        plan_removal(installation, ["model"])


def test_planning_deletes_nothing(tmp_path: Path) -> None:
    installation = an_installation(tmp_path)
    stored(installation, tmp_path / "model")
    before = tree(tmp_path)

    plan_removal(installation, ["model"])

    assert tree(tmp_path) == before


@pytest.mark.parametrize(
    ("ref", "error"),
    [
        ("nosuch", UnknownModel),
        ("13b", NotFound),
        ("model:F16", NotFound),
        ("./model.gguf", UsageError),
        ("hf:a/b", UsageError),
    ],
)
def test_what_cannot_be_removed(
    tmp_path: Path, ref: str, error: type[WizardEdgeError]
) -> None:
    installation = an_installation(tmp_path)
    stored(installation, tmp_path / "model")

    with pytest.raises(error):
        plan_removal(installation, [ref])


def test_near_names_are_those_of_store_and_registry(tmp_path: Path) -> None:
    installation = an_installation(tmp_path)
    stored(installation, tmp_path / "aprentice")

    with pytest.raises(UnknownModel) as caught:
        plan_removal(installation, ["aprentise"])

    assert set(caught.value.near) == {"aprentice", "apprentice"}


def test_values_become_json(tmp_path: Path) -> None:
    installation = an_installation(tmp_path)
    stored(installation, tmp_path / "model")

    document = json.loads(json.dumps(as_json(list_installed(installation))))

    assert set(document[0]) >= {
        *("name", "quant", "path", "size", "sha256", "licenses", "template"),
    }
    assert document[0]["path"].endswith("model.Q8_0.gguf")


def test_listing_imports_nothing_heavy() -> None:
    code = (
        "import sys; from wizard_edge.service.models import list_installed;"
        "from wizard_edge.service.installation import open_installation;"
        "list_installed(open_installation({'WIZARD_EDGE_HOME': '/none',"
        "'WIZARD_EDGE_CONFIG': '/none'}));"
        "print(*sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True
    )

    loaded = set(done.stdout.split())
    assert not loaded & {
        *("numpy", "llama_cpp", "gguf", "huggingface_hub", "click", "rich"),
        *("filelock",),
        *("wizard_edge.registry", "wizard_edge.gguf", "wizard_edge.config"),
    }
