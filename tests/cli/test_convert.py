from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.conftest import Cli
from tests.converters.checkpoints import SHAPES, write_checkpoint
from wizard_edge.gguf import read_header


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    return write_checkpoint(tmp_path / "My Model", SHAPES["tied"])


def test_it_installs_into_the_store(cli: Cli, checkpoint: Path, home: Path) -> None:
    result = cli("convert", str(checkpoint), "-q", "f16")

    assert result.stdout == ""
    assert result.exit_code == 0
    assert result.stderr.splitlines()[-1].startswith("installed my-model:F16 (")
    rows = json.loads(cli("list", "--json").stdout)
    assert [(row["name"], row["quant"]) for row in rows] == [("my-model", "F16")]
    assert not list((home / "partial").iterdir())


def test_name_template_and_licence_are_recorded(cli: Cli, checkpoint: Path) -> None:
    words = ("--name", "mine", "--template", "vicuna", "--license", "llama2")

    result = cli("convert", str(checkpoint), "-q", "F16", "--quiet", *words)

    assert (result.stdout, result.stderr, result.exit_code) == ("", "", 0)
    row = json.loads(cli("list", "--json").stdout)[0]
    assert (row["name"], row["template"], row["licenses"]) == (
        "mine",
        "vicuna",
        ["llama2"],
    )


def test_it_writes_a_file_and_leaves_the_store_alone(
    cli: Cli, checkpoint: Path, home: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out.gguf"

    result = cli("convert", str(checkpoint), "-q", "F16", "-o", str(output), "--json")

    document = json.loads(result.stdout)
    assert document["path"] == str(output)
    assert document["size"] == output.stat().st_size
    assert read_header(output).architecture == "llama"
    assert not home.exists()
    stages = {json.loads(line)["stage"] for line in result.stderr.splitlines()}
    assert stages == {"convert", "verify"}


def test_a_file_that_is_there_is_replaced_only_when_told_to(
    cli: Cli, checkpoint: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out.gguf"
    output.write_bytes(b"precious")
    words = ("convert", str(checkpoint), "-q", "F16", "-o", str(output))

    refused = cli(*words)
    kept = output.read_bytes()
    replaced = cli(*words, "--overwrite")

    assert refused.exit_code == 2
    assert kept == b"precious"
    assert replaced.exit_code == 0
    assert read_header(output).architecture == "llama"


def test_dry_run_says_what_it_would_take(
    cli: Cli, checkpoint: Path, home: Path
) -> None:
    words = ("convert", str(checkpoint), "-q", "F16", "--dry-run")

    cost = json.loads(cli(*words, "--json").stdout)
    lines = cli(*words).stdout.splitlines()

    assert {
        *("read_bytes", "output_bytes", "peak_disk_bytes", "peak_memory_bytes"),
        "tensors",
    } <= set(cost)
    assert set(cost["tensors"]) == {"F16", "F32"}
    assert [line.split("  ")[0] for line in lines] == [
        *("model", "to read", "to write F16", "disk at most", "memory at most"),
        "time here",
    ]
    assert not home.exists()


def test_the_name_stands_in_the_file(
    cli: Cli, checkpoint: Path, tmp_path: Path
) -> None:
    output = tmp_path / "x.gguf"

    result = cli(
        "convert", str(checkpoint), "-q", "F16", "--name", "mine", "-o", str(output)
    )

    assert result.exit_code == 0
    assert read_header(output).name == "mine"


def test_dry_run_takes_what_the_conversion_takes(cli: Cli, tmp_path: Path) -> None:
    delta = write_checkpoint(tmp_path / "WizardLM-13B-V1.0", SHAPES["tied"])
    words = ("convert", str(delta), "-q", "F16", "--dry-run")

    assert cli(*words).exit_code == 9
    assert cli(*words, "--name", "merged").stdout.startswith("model           merged\n")
    assert cli(*words, "--name", "merged", "--template", "none").exit_code == 2


def test_an_unknown_licence_is_told(cli: Cli, checkpoint: Path) -> None:
    result = cli("convert", str(checkpoint), "-q", "F16", "--license", "mine")

    assert "warning: licence 'mine' is recorded, but not known; " in result.stderr
    assert json.loads(cli("list", "--json").stdout)[0]["licenses"] == ["mine"]
