"""Original weights straight from the hub, as a person asks for them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.conftest import Cli
from tests.converters.checkpoints import SHAPES, write_checkpoint
from tests.hub.content import repository
from tests.hub.faults import Fault
from tests.hub.server import LoopbackHub

REPO = "WizardLMTeam/WizardLM-13B-V1.2"
PULL = (
    *("pull", "wizardlm-13b-v1.2:Q8_0", "--from", "weights"),
    *("--accept-license", "llama2"),
)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LoopbackHub]:
    folder = write_checkpoint(tmp_path / "c", SHAPES["llama-1"], form="bin", shards=2)
    files: dict[str, bytes | Path] = {path.name: path for path in folder.iterdir()}
    with LoopbackHub(repository(REPO, files)) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.endpoint)
        yield hub


def test_pull_from_weights_installs_what_the_registry_says(
    cli: Cli, hub: LoopbackHub, home: Path
) -> None:
    result = cli(*PULL, "--json")

    assert result.exit_code == 0
    document = json.loads(result.stdout)
    assert (document["name"], document["quant"]) == ("wizardlm-13b-v1.2", "Q8_0")
    receipt = json.loads(Path(f"{document['path']}.json").read_text())
    assert receipt["origin"]["repo"] == REPO
    assert receipt["origin"]["revision"] == hub.hosted.repositories[REPO].head
    assert receipt["licenses"] == ["llama2"]
    assert [file["check"] for file in receipt["weights"]] == ["sha256", "sha256"]
    assert receipt["quality"]["relative_error.Q8_0"] < 0.01
    assert not list((home / "partial").iterdir())


def test_show_says_how_the_weights_were_checked(cli: Cli, hub: LoopbackHub) -> None:
    cli(*PULL)

    lines = cli("show", "wizardlm-13b-v1.2").stdout

    assert "2 weight files, checked by sha256" in lines


def test_a_dry_run_from_the_hub_writes_nothing(
    cli: Cli, hub: LoopbackHub, home: Path
) -> None:
    result = cli("convert", f"hf:{REPO}", "-q", "Q8_0", "--dry-run", "--json")

    cost = json.loads(result.stdout)
    assert cost["files"].keys() == {
        "pytorch_model-00001-of-00002.bin",
        "pytorch_model-00002-of-00002.bin",
    }
    assert cost["tensors"]["Q8_0"] == 23
    assert not home.exists()


def test_a_dry_run_counts_the_weights_that_are_to_be_kept(
    cli: Cli, hub: LoopbackHub, tmp_path: Path
) -> None:
    def cost(*more: str) -> int:
        words = ("convert", f"hf:{REPO}", "-q", "Q8_0", "--dry-run", "--json")
        found: int = json.loads(cli(*words, *more).stdout)["peak_disk_bytes"]
        return found

    kept = tmp_path / "kept"
    size = sum(path.stat().st_size for path in (tmp_path / "c").glob("*.bin"))

    assert cost("--keep-weights", str(kept)) - cost() == size
    assert not kept.exists()


def test_weights_of_this_machine_are_not_kept(
    cli: Cli, hub: LoopbackHub, tmp_path: Path
) -> None:
    kept = ("--keep-weights", str(tmp_path / "kept"))

    for words in (("convert", str(tmp_path / "c")), ("pull", "apprentice")):
        result = cli(*words, *kept)

        assert result.exit_code == 2
        assert "none are fetched" in result.stderr


def test_a_hub_that_fails_says_how_to_go_on(
    cli: Cli, hub: LoopbackHub, tmp_path: Path
) -> None:
    hub.faults.add(Fault(where="resolve", path="00002-of", status=403, skip=2, times=9))
    output = tmp_path / "out" / "x.gguf"
    output.parent.mkdir()
    words = ("convert", f"hf:{REPO}", "-q", "Q8_0", "-o", str(output))
    assert cli("licenses", "accept", "llama2").exit_code == 0

    failed = cli(*words)
    hub.faults.clear()
    done = cli(*words)

    assert failed.exit_code in (4, 5)
    assert "the same command goes on where this one stopped" in failed.stderr
    assert done.exit_code == 0
    assert [path.name for path in output.parent.iterdir()] == ["x.gguf"]


def test_a_delta_asks_for_its_base(cli: Cli, hub: LoopbackHub) -> None:
    result = cli("pull", "wizardlm-13b-v1.0", "--from", "weights")

    assert result.exit_code == 9
    assert "a weight delta of" in result.stderr
    assert "--base" in result.stderr
    assert hub.log == []
