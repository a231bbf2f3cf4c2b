from __future__ import annotations

from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from tests.service.fakes import (
    COST,
    SmallConvert,
    a_checkpoint,
    an_installation,
    stored,
    tree,
)
from wizard_edge import __version__
from wizard_edge.conversion import HubWeights, ModelFacts, Recipe
from wizard_edge.errors import (
    CannotConvert,
    ConfigError,
    MissingFile,
    UnknownModel,
    UnknownQuant,
    UsageError,
    WizardEdgeError,
)
from wizard_edge.names import CommitId, ModelName, RelPath, RepoId, Sha256
from wizard_edge.receipts import Origin, Receipt, StoredFile
from wizard_edge.service.conversions import (
    Request,
    convert_to_file,
    convert_to_store,
    estimate_conversion,
    find_checkpoint,
)
from wizard_edge.service.installation import Installation


# Any: what `Request` takes beside source and quant.
def request(source: str | Path, quant: str = "F16", **said: Any) -> Request:
    return Request(str(source), Recipe((quant,)), **said)


def facts_of(installation: Installation, source: str | Path, **said: Any) -> ModelFacts:
    return find_checkpoint(installation, request(source, **said))[0].facts


def test_a_checkpoint_becomes_a_model_with_its_whole_receipt(tmp_path: Path) -> None:
    installation = an_installation(tmp_path)
    source = a_checkpoint(tmp_path / "My Model")

    wanted = request(
        f"{source}/",
        "q4_k_m",
        template="alpaca",
        licenses=["apache-2.0", "own-licence"],
    )

    [result] = convert_to_store(installation, wanted, convert=SmallConvert())

    content = result.path.read_bytes()
    assert result.already is False
    assert result.path == tmp_path / "home/models/my-model/my-model.Q4_K_M.gguf"
    assert result.receipt == Receipt(
        model=ModelName.parse("my-model"),
        quant="Q4_K_M",
        files=(
            StoredFile(
                RelPath.parse("my-model.Q4_K_M.gguf"),
                len(content),
                Sha256.parse(sha256(content).hexdigest()),
            ),
        ),
        origin=Origin("local"),
        licenses=("apache-2.0", "own-licence"),
        template="alpaca",
        architecture="llama",
        context=64,
        parameters=result.receipt.parameters,
        tool=f"wizard-edge {__version__}",
        created="2026-01-02T03:04:05Z",
        quality={"rms_error.F16": 0.5},
    )
    assert (
        installation.store.find(ModelName.parse("my-model")).receipt == result.receipt
    )


def test_without_options_nothing_is_made_up(tmp_path: Path) -> None:
    receipt = stored(an_installation(tmp_path), tmp_path / "unknown-7b").receipt

    assert (receipt.template, receipt.licenses) == (None, ())


@pytest.mark.parametrize(
    "error", [CannotConvert("truncated"), KeyboardInterrupt()], ids=["error", "Ctrl-C"]
)
def test_a_conversion_that_ends_early_leaves_nothing(
    tmp_path: Path, error: BaseException
) -> None:
    installation = an_installation(tmp_path)
    source = a_checkpoint(tmp_path / "model")

    with pytest.raises(type(error)):
        convert_to_store(
            installation, request(source), convert=SmallConvert(fail=error)
        )

    assert tree(installation.home.root) == []


def test_a_conversion_that_fails_keeps_the_model_of_before(tmp_path: Path) -> None:
    installation = an_installation(tmp_path)
    before = stored(installation, tmp_path / "model")

    with pytest.raises(CannotConvert):
        convert_to_store(
            installation,
            request(tmp_path / "model", "Q8_0"),
            convert=SmallConvert(fail=CannotConvert("no")),
            overwrite=True,
        )

    assert installation.store.find(before.receipt.model).receipt == before.receipt
    assert before.path.stat().st_size == before.receipt.size


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


def test_what_was_given_is_stronger_than_the_registry(tmp_path: Path) -> None:
    source = a_checkpoint(tmp_path / "WizardLM-13B-V1.2")

    facts = facts_of(
        an_installation(tmp_path), source, template="alpaca", licenses=["mine"]
    )

    assert facts.template == "alpaca"
    assert [license.id for license in facts.licenses] == ["mine"]


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

    with pytest.raises(CannotConvert, match="a weight delta of"):
        facts_of(an_installation(tmp_path), source)


def test_merged_weights_called_like_a_delta_take_another_name(tmp_path: Path) -> None:
    installation = an_installation(tmp_path)
    source = str(a_checkpoint(tmp_path / "WizardLM-13B-V1.0"))
    convert = SmallConvert()

    wanted = request(source, name="merged")
    cost = estimate_conversion(installation, wanted, convert=convert)
    convert_to_file(installation, wanted, [tmp_path / "out.gguf"], convert=convert)

    assert cost == COST
    assert [facts.title for _, _, facts in convert.calls] == ["merged"]


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


def test_a_folder_in_the_working_directory_needs_no_slash(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    a_checkpoint(tmp_path / "mymodel")

    checkpoint, _ = find_checkpoint(an_installation(tmp_path), request("mymodel"))

    assert isinstance(checkpoint.weights, Path)
    assert checkpoint.weights.resolve() == tmp_path / "mymodel"


def test_a_folder_whose_name_is_no_name_asks_for_one(tmp_path: Path) -> None:
    source = a_checkpoint(tmp_path / "日本")
    installation = an_installation(tmp_path)

    with pytest.raises(UsageError) as caught:
        facts_of(installation, f"{source}/")

    assert caught.value.hint == "give another one with --name"
    assert facts_of(installation, source, name="x").name == "x"


def test_an_unknown_template_or_quant_is_refused(tmp_path: Path) -> None:
    installation = an_installation(tmp_path)
    source = str(a_checkpoint(tmp_path / "model"))

    with pytest.raises(UsageError):
        facts_of(installation, source, template="chatml")
    with pytest.raises(UnknownQuant):
        convert_to_store(installation, request(source, "Q9"), convert=SmallConvert())
    assert not installation.home.root.exists()


def test_a_conversion_to_a_file_leaves_the_store_alone(tmp_path: Path) -> None:
    installation = an_installation(tmp_path)
    source = str(a_checkpoint(tmp_path / "model"))
    output = tmp_path / "out.gguf"

    [converted] = convert_to_file(
        installation, request(source), [output], convert=SmallConvert()
    )

    assert converted.files[0].path == output
    assert output.stat().st_size == converted.size
    assert not installation.home.root.exists()


def test_an_estimate_writes_nothing(tmp_path: Path) -> None:
    installation = an_installation(tmp_path)
    source = str(a_checkpoint(tmp_path / "model"))

    cost = estimate_conversion(installation, request(source), convert=SmallConvert())

    assert cost == COST
    assert not installation.home.root.exists()


def test_a_checkpoint_lost_from_the_package_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.resources.files", lambda _: tmp_path)

    with pytest.raises(ConfigError) as caught:
        facts_of(an_installation(tmp_path), "apprentice")

    assert caught.value.hint == "install wizard-edge again"


def test_what_is_installed_is_replaced_only_when_asked(tmp_path: Path) -> None:
    installation = an_installation(tmp_path)
    before = stored(installation, tmp_path / "model")
    wanted = request(tmp_path / "model", "Q8_0")

    with pytest.raises(UsageError, match="in the store already") as caught:
        convert_to_store(installation, wanted, convert=SmallConvert())
    assert "--overwrite" in (caught.value.hint or "")
    assert installation.store.find(before.receipt.model).receipt == before.receipt

    convert_to_store(installation, wanted, convert=SmallConvert(), overwrite=True)


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

    checkpoint, recipe = find_checkpoint(an_installation(tmp_path), request(source))

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
    checkpoint, recipe = find_checkpoint(installation, request(source, base=str(base)))
    _, remote = find_checkpoint(
        installation, request(source, base="hf:huggyllama/llama-13b")
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
