from __future__ import annotations

from pathlib import Path

import pytest

from tests.service.fakes import COST, SmallConvert, a_checkpoint, an_installation, tree
from wizard_edge.errors import (
    CannotConvert,
    ConfigError,
    HubError,
    UnknownModel,
    UnknownQuant,
    UsageError,
    WizardEdgeError,
)
from wizard_edge.progress import ProgressEvent
from wizard_edge.service.consent import record
from wizard_edge.service.pull import pull
from wizard_edge.service.pull_plans import plan_pull
from wizard_edge.service.wanted import PullRequest


@pytest.fixture(autouse=True)
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Put a checkpoint in the place of the bundled one, which these tests need not."""
    monkeypatch.setattr("importlib.resources.files", lambda _: tmp_path / "package")
    return a_checkpoint(tmp_path / "package" / "apprentice")


def test_the_bundled_model_is_converted_with_what_the_registry_says(
    tmp_path: Path, package: Path
) -> None:
    installation = an_installation(tmp_path)
    convert = SmallConvert()
    events: list[ProgressEvent] = []

    pulled = pull(
        installation, PullRequest("apprentice"), convert=convert, progress=events.append
    )

    [(source, recipe, facts)] = convert.calls
    assert (source, recipe.quants, facts.name) == (package, ("Q8_0",), "apprentice")
    assert pulled.already is False
    assert pulled.receipt.origin.kind == "bundled"
    assert (pulled.receipt.template, pulled.receipt.licenses) == (
        "vicuna",
        ("apache-2.0",),
    )
    assert events == [ProgressEvent("convert", 1, 2)]
    assert tree(installation.home.root) == [
        "models/apprentice/NOTICE",
        "models/apprentice/apprentice.Q8_0.gguf",
        "models/apprentice/apprentice.Q8_0.gguf.json",
    ]


def test_pulling_again_reuses_what_is_there(tmp_path: Path) -> None:
    installation = an_installation(tmp_path)
    convert = SmallConvert()
    first = pull(installation, PullRequest("demo"), convert=convert)

    second = pull(installation, PullRequest("apprentice:q8_0"), convert=convert)

    assert second.already is True
    assert second.receipt == first.receipt
    assert len(convert.calls) == 1


@pytest.mark.parametrize("damage", ["cut", "gone", "receipt"])
def test_pulling_again_mends_what_is_damaged(tmp_path: Path, damage: str) -> None:
    installation = an_installation(tmp_path)
    first = pull(installation, PullRequest("apprentice"), convert=SmallConvert())
    if damage == "cut":
        first.path.write_bytes(b"half")
    elif damage == "gone":
        first.path.unlink()
    else:
        first.path.with_name(first.path.name + ".json").write_text("{")

    again = pull(installation, PullRequest("apprentice"), convert=SmallConvert())

    assert again.already is False
    assert installation.store.find(again.receipt.model).problem() is None


def test_a_receipt_from_the_future_is_not_overwritten(tmp_path: Path) -> None:
    installation = an_installation(tmp_path)
    first = pull(installation, PullRequest("apprentice"), convert=SmallConvert())
    receipt = first.path.with_name(first.path.name + ".json")
    receipt.write_text('{"schema": 99}')

    with pytest.raises(ConfigError, match="has schema 99"):
        pull(installation, PullRequest("apprentice"), convert=SmallConvert())

    assert receipt.read_text() == '{"schema": 99}'


def test_two_quants_lie_side_by_side(tmp_path: Path) -> None:
    installation = an_installation(tmp_path)

    pull(installation, PullRequest("apprentice"), convert=SmallConvert())
    pull(installation, PullRequest("apprentice", "q4_k_m"), convert=SmallConvert())

    quants = [item.receipt.quant for item in installation.store.installed()]
    assert quants == ["Q4_K_M", "Q8_0"]


@pytest.mark.parametrize(
    ("ref", "error", "code"),
    [
        ("wizardlm-13b-v1.2", HubError, 4),
        ("wizardlm-13b-v1.0:Q4_K_M", HubError, 4),
        ("hf:TheBloke/WizardLM-13B-V1.2-GGUF:Q4_K_M", HubError, 4),
        ("wizardlm-14b", UnknownModel, 3),
        ("apprentice:Q9", UnknownQuant, 3),
        ("./model.gguf", UsageError, 2),
    ],
)
def test_what_cannot_be_pulled_says_why(
    tmp_path: Path, ref: str, error: type[WizardEdgeError], code: int
) -> None:
    installation = an_installation(tmp_path, HF_HUB_OFFLINE="1")

    for ask in (plan_pull, pull):
        with pytest.raises(error) as caught:
            ask(installation, PullRequest(ref), convert=SmallConvert())
        assert caught.value.exit_code == code
    assert not installation.home.root.exists()


def test_original_weights_are_converted_from_the_hub(tmp_path: Path) -> None:
    installation = an_installation(tmp_path)
    convert = SmallConvert()
    request = PullRequest("wizardlm-70b-v1.0", from_weights=True)

    record(installation, [installation.registry.license("llama2")], "command")

    pulled = pull(installation, request, convert=convert)

    [(source, recipe, facts)] = convert.calls
    assert str(source) == "hf:WizardLMTeam/WizardLM-70B-V1.0"
    assert recipe.quants == ("Q4_K_M",)
    assert facts.template == "vicuna"
    assert pulled.receipt.origin.kind == "hub"


def test_a_delta_is_not_pulled_without_its_base(tmp_path: Path) -> None:
    request = PullRequest("wizardlm-13b-v1.0", from_weights=True)

    with pytest.raises(CannotConvert, match="a weight delta"):
        pull(an_installation(tmp_path), request, convert=SmallConvert())


def test_two_quants_at_once_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        pull(
            an_installation(tmp_path),
            PullRequest("apprentice:F16", "Q8_0"),
            convert=SmallConvert(),
        )


def test_a_plan_changes_nothing_and_says_what_it_takes(tmp_path: Path) -> None:
    installation = an_installation(tmp_path)

    plan = plan_pull(installation, PullRequest("apprentice"), convert=SmallConvert())

    assert (plan.name, plan.quant, plan.source) == ("apprentice", "Q8_0", "bundled")
    assert plan.path == tmp_path / "home/models/apprentice/apprentice.Q8_0.gguf"
    assert (plan.already, plan.cost) == (False, COST)
    assert plan.terms.ids == ("apache-2.0",)
    assert not installation.home.root.exists()


def test_a_plan_for_what_is_there_costs_nothing(tmp_path: Path) -> None:
    installation = an_installation(tmp_path)
    pull(installation, PullRequest("apprentice"), convert=SmallConvert())

    plan = plan_pull(installation, PullRequest("apprentice"), convert=SmallConvert())

    assert (plan.already, plan.cost) == (True, None)
