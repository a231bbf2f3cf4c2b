from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.gguf_files import small_llama, string
from tests.service.fakes import an_installation, stored
from wizard_edge.errors import (
    Corrupt,
    HubError,
    MissingFile,
    NotFound,
    UnknownModel,
    UnknownQuant,
    WizardEdgeError,
)
from wizard_edge.gguf import KEY_LICENSES, KEY_TEMPLATE
from wizard_edge.service.cards import show
from wizard_edge.service.models import as_json


def test_a_model_of_the_registry_shows_all_that_is_known(tmp_path: Path) -> None:
    installation = an_installation(tmp_path)
    spec = installation.registry.find("13b")

    card = show(installation, "WizardLM-13B-V1.2")

    assert (card.name, card.title, card.registered) == (spec.name, spec.title, True)
    assert card.template == "vicuna"
    assert card.licenses == card.terms.ids == ("llama2",)
    assert card.terms.conflict == spec.license_conflict
    assert (card.context, card.architecture) == (4096, "llama")
    assert card.scores == spec.scores
    assert card.traps == spec.traps
    assert card.unverified == spec.unverified
    assert card.source == spec.source
    assert [v.quant for v in card.variants] == [v.quant for v in spec.variants]
    assert card.installed == ()


def test_the_keys_that_programs_rely_on_are_there(tmp_path: Path) -> None:
    document = json.loads(json.dumps(as_json(show(an_installation(tmp_path), "70b"))))

    assert set(document) >= {
        *("template", "licenses", "context", "architecture"),
        *("source", "variants", "scores", "traps"),
    }


def test_every_model_of_the_registry_can_be_shown(tmp_path: Path) -> None:
    installation = an_installation(tmp_path)

    for spec in installation.registry:
        json.dumps(as_json(show(installation, spec.name)))


def test_a_quant_narrows_the_card(tmp_path: Path) -> None:
    installation = an_installation(tmp_path)
    for quant in ("Q8_0", "Q4_K_M"):
        stored(installation, tmp_path / "WizardLM-13B-V1.2", quant)

    card = show(installation, "13b:q8_0")

    assert [item.receipt.quant for item in card.installed] == ["Q8_0"]
    assert [item.quant for item in card.variants] == ["Q8_0"]


def test_an_unregistered_model_shows_receipt_and_header(tmp_path: Path) -> None:
    installation = an_installation(tmp_path)
    receipt = stored(installation, tmp_path / "mine").receipt

    card = show(installation, "mine")

    [item] = card.installed
    assert (card.name, card.registered, card.template) == ("mine", False, None)
    assert item.receipt == receipt
    assert item.problem is None
    assert item.header is not None
    assert item.header.context == 64
    assert item.header.tensors == {"F32": 12}
    assert item.header.parameters == receipt.parameters


def test_a_file_that_cannot_be_read_is_a_problem_not_an_error(tmp_path: Path) -> None:
    installation = an_installation(tmp_path)
    stored(installation, tmp_path / "mine").path.write_bytes(b"GGUF")

    [item] = show(installation, "mine").installed

    assert item.header is None
    assert item.problem is not None
    assert item.problem.startswith("mine.Q8_0.gguf has 4 bytes instead of")


def test_a_gguf_file_shows_its_header(tmp_path: Path) -> None:
    file = small_llama()
    file.set(KEY_TEMPLATE, string("vicuna")).set(KEY_LICENSES, string("llama2 odd"))
    path = file.write(tmp_path / "some.gguf")

    card = show(an_installation(tmp_path), str(path))

    assert card.file is not None
    assert (card.name, card.title) == ("some.gguf", "small llama")
    assert (card.template, card.licenses) == ("vicuna", ("llama2", "odd"))
    assert card.terms.commercial is None
    assert card.file.tokenizer == "llama"
    assert card.file.size == path.stat().st_size


@pytest.mark.parametrize(
    ("ref", "error"),
    [
        ("nosuch", UnknownModel),
        ("13b:F32", UnknownQuant),
        ("mine:F16", NotFound),
        ("./nosuch.gguf", MissingFile),
        ("hf:a/b", HubError),
    ],
)
def test_what_cannot_be_shown(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    ref: str,
    error: type[WizardEdgeError],
) -> None:
    monkeypatch.chdir(tmp_path)
    installation = an_installation(tmp_path)
    stored(installation, tmp_path / "mine")

    with pytest.raises(error):
        show(installation, ref)


def test_a_file_that_is_no_gguf_is_damage(tmp_path: Path) -> None:
    path = tmp_path / "x.gguf"
    path.write_bytes(b"PK\x03\x04 not a model at all")

    with pytest.raises(Corrupt):
        show(an_installation(tmp_path), str(path))
