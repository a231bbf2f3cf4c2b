from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.service.fakes import (
    a_checkpoint,
    a_request,
    an_installation,
)
from wizard_edge.conversion import HubWeights, ModelFacts, Recipe
from wizard_edge.errors import (
    CannotConvert,
    ConfigError,
    MissingFile,
    UnknownModel,
    UsageError,
    WizardEdgeError,
)
from wizard_edge.names import CommitId, ModelName, RepoId
from wizard_edge.receipts import Origin
from wizard_edge.service.checkpoints import Request, find_checkpoint
from wizard_edge.service.installation import Installation


def facts_of(installation: Installation, source: str | Path, **said: Any) -> ModelFacts:
    return find_checkpoint(installation, a_request(source, **said))[0].facts


def test_a_folder_called_like_a_registered_model_is_taken_for_it(
    tmp_path: Path,
) -> None:
    installation = an_installation(tmp_path)
    source = a_checkpoint(tmp_path / "WizardLM-13B-V1.2")

    facts = facts_of(installation, source)

    assert facts == ModelFacts(
        name=ModelName.parse("wizardlm-13b-v1.2"),
        title="WizardLM-13B-V1.2",
        origin=Origin("local"),
        template="vicuna",
        licenses=(installation.registry.license("llama2"),),
    )


def test_a_snapshot_of_the_hubs_cache_is_known_by_its_repository(
    tmp_path: Path,
) -> None:
    commit = "0123456789abcdef0123456789abcdef01234567"
    cache = tmp_path / "models--WizardLMTeam--WizardLM-13B-V1.2/snapshots" / commit
    source = a_checkpoint(cache)

    facts = facts_of(an_installation(tmp_path), source)

    assert facts.name == "wizardlm-13b-v1.2"
    assert facts.origin == Origin(
        "hub",
        RepoId.parse("WizardLMTeam/WizardLM-13B-V1.2"),
        CommitId.parse(commit),
    )


def test_a_name_that_is_given_is_the_one(tmp_path: Path) -> None:
    installation = an_installation(tmp_path)
    source = str(a_checkpoint(tmp_path / "WizardLM-13B-V1.2"))

    assert facts_of(installation, source, name="mine").name == "mine"
    assert facts_of(installation, source, name="70b").name == ("wizardlm-70b-v1.0")


def test_what_was_given_goes_over_the_registry_but_takes_no_licence_away(
    tmp_path: Path,
) -> None:
    source = a_checkpoint(tmp_path / "WizardLM-13B-V1.2")

    facts = facts_of(
        an_installation(tmp_path), source, template="alpaca", licenses=["mine"]
    )

    assert facts.template == "alpaca"
    assert [license.id for license in facts.licenses] == ["llama2", "mine"]


def test_an_unknown_licence_is_recorded_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    source = str(a_checkpoint(tmp_path / "model"))

    facts_of(an_installation(tmp_path), source, licenses=["apache-2.0", "apache-2"])

    [record] = caplog.records
    assert record.getMessage().startswith(
        "licence 'apache-2' is recorded, but not known; known are apache-2.0, "
    )


def test_a_delta_is_refused_by_its_name(tmp_path: Path) -> None:
    source = a_checkpoint(tmp_path / "WizardLM-13B-V1.0")
    installation = an_installation(tmp_path)

    with pytest.raises(CannotConvert) as folder:
        facts_of(installation, source)
    with pytest.raises(CannotConvert) as name:
        facts_of(installation, "wizardlm-13b-v1.0")

    delta = "a weight delta of LLaMA-1 13B"
    assert folder.value.message == (
        f"{source} goes by the name of wizardlm-13b-v1.0, {delta}"
    )
    assert name.value.message == f"wizardlm-13b-v1.0 is {delta}"


@pytest.mark.parametrize(
    ("source", "error"),
    [
        ("nosuchmodel", UnknownModel),
        ("./nosuchdir", MissingFile),
        ("hf:WizardLMTeam/WizardLM-70B-V1.0:Q4_K_M", UsageError),
        ("apprentice:Q8_0", UsageError),
    ],
)
def test_a_source_that_is_none(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    source: str,
    error: type[WizardEdgeError],
) -> None:
    monkeypatch.chdir(tmp_path)

    with pytest.raises(error):
        facts_of(an_installation(tmp_path), source)


def test_a_file_is_no_checkpoint(tmp_path: Path) -> None:
    file = tmp_path / "model.gguf"
    file.write_bytes(b"GGUF")

    with pytest.raises(CannotConvert, match="no checkpoint directory"):
        facts_of(an_installation(tmp_path), file)


def test_weights_that_are_here_are_not_kept_again(tmp_path: Path) -> None:
    source = a_checkpoint(tmp_path / "model")
    wanted = Request(str(source), Recipe(keep_weights=tmp_path / "kept"))

    with pytest.raises(UsageError, match="none are fetched"):
        find_checkpoint(an_installation(tmp_path), wanted)


def test_a_word_that_is_nothing_may_have_meant_a_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    with pytest.raises(UnknownModel) as caught:
        facts_of(an_installation(tmp_path), "mymodel")

    hint = "; there is no directory of that name either"
    assert (caught.value.hint or "").endswith(hint)


def test_a_folder_in_the_working_directory_needs_no_slash(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    a_checkpoint(tmp_path / "mymodel")

    checkpoint, _ = find_checkpoint(an_installation(tmp_path), a_request("mymodel"))

    assert isinstance(checkpoint.weights, Path)
    assert checkpoint.weights.resolve() == tmp_path / "mymodel"


def test_a_folder_whose_name_is_no_name_asks_for_one(tmp_path: Path) -> None:
    source = a_checkpoint(tmp_path / "日本")
    installation = an_installation(tmp_path)

    with pytest.raises(UsageError) as caught:
        facts_of(installation, f"{source}/")

    assert caught.value.hint == "give another one with --name"
    assert facts_of(installation, source, name="x").name == "x"


def test_a_checkpoint_lost_from_the_package_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.resources.files", lambda _: tmp_path)

    with pytest.raises(ConfigError) as caught:
        facts_of(an_installation(tmp_path), "apprentice")

    assert caught.value.hint == "install wizard-edge again"


def test_other_weights_under_a_registered_name_are_refused(tmp_path: Path) -> None:
    installation = an_installation(tmp_path)
    source = a_checkpoint(tmp_path / "WizardLM-70B-V1.0")
    (source / "config.json").write_text('{"num_hidden_layers": 4, "hidden_size": 256}')

    with pytest.raises(CannotConvert, match=r"num_hidden_layers is 4 instead of 80"):
        facts_of(installation, source)


REPOSITORIES = {
    "wizardlm-70b-v1.0": ("WizardLMTeam/WizardLM-70B-V1.0", "wizardlm-70b-v1.0"),
    "hf:WizardLM/WizardLM-13B-V1.2": (
        "WizardLM/WizardLM-13B-V1.2",
        "wizardlm-13b-v1.2",
    ),
    "hf:somebody/WizardLM-13B-V1.2": (
        "somebody/WizardLM-13B-V1.2",
        "wizardlm-13b-v1.2",
    ),
    "hf:somebody/Something-7B": ("somebody/Something-7B", "something-7b"),
    "hf:LLMs/WizardLM-13B-V1.0": ("LLMs/WizardLM-13B-V1.0", "wizardlm-13b-v1.0"),
}


@pytest.mark.parametrize("source", REPOSITORIES)
def test_a_repository_goes_by_its_id_or_its_name(source: str, tmp_path: Path) -> None:
    """The last holds the sum of what the original repository has as a delta."""
    repo, name = REPOSITORIES[source]

    checkpoint, recipe = find_checkpoint(an_installation(tmp_path), a_request(source))

    assert isinstance(checkpoint.weights, HubWeights)
    assert checkpoint.weights.repo == repo
    assert checkpoint.facts.name == name
    assert checkpoint.facts.origin.repo == repo
    assert recipe.base is None


DELTAS = (
    *("wizardlm-13b-v1.0", "wizardlm-7b-v1.0", "wizardlm-30b-v1.0"),
    *("hf:WizardLMTeam/WizardLM-13B-V1.0", "hf:vanillaOVO/WizardLM-7B-V1.0"),
)


@pytest.mark.parametrize("source", DELTAS)
def test_a_delta_on_the_hub_needs_its_base(source: str, tmp_path: Path) -> None:
    installation = an_installation(tmp_path)
    base = tmp_path / "llama-13b"
    base.mkdir()

    with pytest.raises(CannotConvert, match="a weight delta of") as caught:
        facts_of(installation, source)
    checkpoint, recipe = find_checkpoint(
        installation, a_request(source, base=str(base))
    )
    _, remote = find_checkpoint(
        installation, a_request(source, base="hf:huggyllama/llama-13b")
    )

    assert "--base" in (caught.value.hint or "")
    assert recipe.base == base
    assert checkpoint.facts.origin.base == "llama-13b"
    assert remote.base == HubWeights(RepoId.parse("huggyllama/llama-13b"))


@pytest.mark.parametrize(
    ("source", "base", "error"),
    [
        ("wizardlm-13b-v1.2", "hf:huggyllama/llama-13b", UsageError),
        ("wizardlm-13b-v1.0", "./absent", MissingFile),
        ("wizardlm-13b-v1.0", "hf:huggyllama/llama-13b:Q4_K_M", MissingFile),
    ],
)
def test_a_base_that_makes_no_sense_is_refused(
    source: str, base: str, error: type[WizardEdgeError], tmp_path: Path
) -> None:
    with pytest.raises(error):
        facts_of(an_installation(tmp_path), source, base=base)


@pytest.mark.parametrize(
    ("source", "said", "ids", "needs_consent"),
    [
        ("13b", {}, ("llama2",), True),
        ("13b", {"licenses": ["apache-2.0"]}, ("llama2",), True),
        (
            "wizardlm-13b-v1.0",
            {"base": "hf:huggyllama/llama-13b"},
            ("wizardlm-nc", "cc-by-nc-4.0", "llama-1"),
            True,
        ),
        # This mirror has the sum already.
        ("hf:TheBloke/WizardLM-30B-fp16", {}, ("wizardlm-nc",), True),
        ("hf:TheBloke/WizardLM-30B-fp16", {"name": "x"}, ("wizardlm-nc",), True),
        ("hf:some/body", {"licenses": ["llama2", "mine"]}, ("llama2", "mine"), False),
        ("hf:some/body", {}, (), False),
        ("apprentice", {}, ("apache-2.0",), False),
    ],
)
def test_the_terms_are_those_of_the_weights(
    tmp_path: Path,
    source: str,
    said: dict[str, Any],
    ids: tuple[str, ...],
    needs_consent: bool,
) -> None:
    installation = an_installation(tmp_path)

    checkpoint, _ = find_checkpoint(installation, a_request(source, **said))

    assert (checkpoint.terms.ids, checkpoint.terms.needs_consent) == (
        ids,
        needs_consent,
    )


@pytest.mark.parametrize(
    ("source", "said", "ids"),
    [
        ("13b", {"licenses": ["apache-2.0"]}, ["llama2", "apache-2.0"]),
        (
            "hf:TheBloke/WizardLM-30B-fp16",
            {"name": "x", "licenses": ["mine"]},
            ["wizardlm-nc", "mine"],
        ),
        (
            "wizardlm-13b-v1.0",
            {"base": "hf:huggyllama/llama-13b"},
            ["wizardlm-nc", "cc-by-nc-4.0", "llama-1"],
        ),
    ],
    ids=["by name", "by repository", "delta"],
)
def test_what_is_stored_stays_under_the_terms_of_its_weights(
    tmp_path: Path, source: str, said: dict[str, Any], ids: list[str]
) -> None:
    facts = facts_of(an_installation(tmp_path), source, **said)

    assert [license.id for license in facts.licenses] == ids


def test_another_name_keeps_the_licences_of_a_known_repository(tmp_path: Path) -> None:
    installation = an_installation(tmp_path)
    mirror = "hf:TheBloke/WizardLM-30B-fp16"

    facts = facts_of(installation, mirror, name="mine")

    assert [license.id for license in facts.licenses] == ["wizardlm-nc"]
