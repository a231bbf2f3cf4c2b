from __future__ import annotations

from hashlib import sha256
from pathlib import Path

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
from wizard_edge.conversion import ModelFacts
from wizard_edge.errors import (
    CannotConvert,
    ConfigError,
    HubError,
    MissingFile,
    UnknownModel,
    UnknownQuant,
    UsageError,
    WizardEdgeError,
)
from wizard_edge.names import CommitId, ModelName, RelPath, RepoId, Sha256
from wizard_edge.receipts import Origin, Receipt, StoredFile
from wizard_edge.service.conversions import (
    convert_to_file,
    convert_to_store,
    estimate_conversion,
    find_checkpoint,
)


def test_a_checkpoint_becomes_a_model_with_its_whole_receipt(tmp_path: Path) -> None:
    installation = an_installation(tmp_path)
    source = a_checkpoint(tmp_path / "My Model")

    result = convert_to_store(
        installation,
        f"{source}/",
        "q4_k_m",
        convert=SmallConvert(),
        template="alpaca",
        licenses=["apache-2.0", "own-licence"],
    )

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
            installation, f"{source}/", "F16", convert=SmallConvert(fail=error)
        )

    assert tree(installation.home.root) == []


def test_a_conversion_that_fails_keeps_the_model_of_before(tmp_path: Path) -> None:
    installation = an_installation(tmp_path)
    before = stored(installation, tmp_path / "model")

    with pytest.raises(CannotConvert):
        convert_to_store(
            installation,
            f"{tmp_path / 'model'}/",
            "Q8_0",
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

    facts = find_checkpoint(installation, str(source)).facts

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

    facts = find_checkpoint(an_installation(tmp_path), str(source)).facts

    assert facts.name == "wizardlm-13b-v1.2"
    assert facts.origin == Origin(
        "hub",
        RepoId.parse("WizardLMTeam/WizardLM-13B-V1.2"),
        CommitId.parse(commit),
    )


def test_a_name_that_is_given_is_the_one(tmp_path: Path) -> None:
    installation = an_installation(tmp_path)
    source = str(a_checkpoint(tmp_path / "WizardLM-13B-V1.2"))

    assert find_checkpoint(installation, source, name="mine").facts.name == "mine"
    assert find_checkpoint(installation, source, name="70b").facts.name == (
        "wizardlm-70b-v1.0"
    )


def test_what_was_given_is_stronger_than_the_registry(tmp_path: Path) -> None:
    source = a_checkpoint(tmp_path / "WizardLM-13B-V1.2")

    facts = find_checkpoint(
        an_installation(tmp_path), str(source), template="alpaca", licenses=["mine"]
    ).facts

    assert facts.template == "alpaca"
    assert [license.id for license in facts.licenses] == ["mine"]


def test_an_unknown_licence_is_recorded_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    source = str(a_checkpoint(tmp_path / "model"))

    find_checkpoint(
        an_installation(tmp_path), source, licenses=["apache-2.0", "apache-2"]
    )

    [record] = caplog.records
    assert record.getMessage().startswith(
        "licence 'apache-2' is recorded, but not known; known are apache-2.0, "
    )


def test_a_delta_is_refused_by_its_name(tmp_path: Path) -> None:
    source = a_checkpoint(tmp_path / "WizardLM-13B-V1.0")

    with pytest.raises(CannotConvert, match="a weight delta of"):
        find_checkpoint(an_installation(tmp_path), str(source))


def test_merged_weights_called_like_a_delta_take_another_name(tmp_path: Path) -> None:
    installation = an_installation(tmp_path)
    source = str(a_checkpoint(tmp_path / "WizardLM-13B-V1.0"))
    convert = SmallConvert()

    cost = estimate_conversion(
        installation, source, "F16", convert=convert, name="merged"
    )
    convert_to_file(
        installation,
        source,
        "F16",
        tmp_path / "out.gguf",
        convert=convert,
        name="merged",
    )

    assert cost == COST
    assert [facts.title for _, _, facts in convert.calls] == ["merged"]


@pytest.mark.parametrize(
    ("source", "error"),
    [
        ("nosuchmodel", UnknownModel),
        ("./nosuchdir", MissingFile),
        ("wizardlm-70b-v1.0", HubError),
        ("hf:WizardLMTeam/WizardLM-70B-V1.0", HubError),
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
        find_checkpoint(an_installation(tmp_path), source)


def test_a_file_is_no_checkpoint(tmp_path: Path) -> None:
    file = tmp_path / "model.gguf"
    file.write_bytes(b"GGUF")

    with pytest.raises(CannotConvert, match="no checkpoint directory"):
        find_checkpoint(an_installation(tmp_path), str(file))


def test_a_folder_in_the_working_directory_needs_no_slash(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    a_checkpoint(tmp_path / "mymodel")

    checkpoint = find_checkpoint(an_installation(tmp_path), "mymodel")

    assert checkpoint.path.resolve() == tmp_path / "mymodel"


def test_a_folder_whose_name_is_no_name_asks_for_one(tmp_path: Path) -> None:
    source = a_checkpoint(tmp_path / "日本")
    installation = an_installation(tmp_path)

    with pytest.raises(UsageError) as caught:
        find_checkpoint(installation, f"{source}/")

    assert caught.value.hint == "give another one with --name"
    assert find_checkpoint(installation, f"{source}/", name="x").facts.name == "x"


def test_an_unknown_template_or_quant_is_refused(tmp_path: Path) -> None:
    installation = an_installation(tmp_path)
    source = str(a_checkpoint(tmp_path / "model"))

    with pytest.raises(UsageError):
        find_checkpoint(installation, source, template="chatml")
    with pytest.raises(UnknownQuant):
        convert_to_store(installation, source, "Q9", convert=SmallConvert())
    assert not installation.home.root.exists()


def test_a_conversion_to_a_file_leaves_the_store_alone(tmp_path: Path) -> None:
    installation = an_installation(tmp_path)
    source = str(a_checkpoint(tmp_path / "model"))
    output = tmp_path / "out.gguf"

    converted = convert_to_file(
        installation, source, "F16", output, convert=SmallConvert()
    )

    assert converted.path == output
    assert output.stat().st_size == converted.size
    assert not installation.home.root.exists()


def test_an_estimate_writes_nothing(tmp_path: Path) -> None:
    installation = an_installation(tmp_path)
    source = str(a_checkpoint(tmp_path / "model"))

    cost = estimate_conversion(installation, source, "F16", convert=SmallConvert())

    assert cost == COST
    assert not installation.home.root.exists()


def test_a_checkpoint_lost_from_the_package_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.resources.files", lambda _: tmp_path)

    with pytest.raises(ConfigError) as caught:
        find_checkpoint(an_installation(tmp_path), "apprentice")

    assert caught.value.hint == "install wizard-edge again"


def test_what_is_installed_is_replaced_only_when_asked(tmp_path: Path) -> None:
    installation = an_installation(tmp_path)
    before = stored(installation, tmp_path / "model")
    source = f"{tmp_path / 'model'}/"

    with pytest.raises(UsageError, match="in the store already") as caught:
        convert_to_store(installation, source, "Q8_0", convert=SmallConvert())
    assert "--overwrite" in (caught.value.hint or "")
    assert installation.store.find(before.receipt.model).receipt == before.receipt

    convert_to_store(
        installation, source, "Q8_0", convert=SmallConvert(), overwrite=True
    )


def test_other_weights_under_a_registered_name_are_refused(tmp_path: Path) -> None:
    installation = an_installation(tmp_path)
    source = a_checkpoint(tmp_path / "WizardLM-70B-V1.0")
    (source / "config.json").write_text('{"num_hidden_layers": 4, "hidden_size": 256}')

    with pytest.raises(CannotConvert, match=r"num_hidden_layers is 4 instead of 80"):
        convert_to_store(installation, f"{source}/", "Q8_0", convert=SmallConvert())
