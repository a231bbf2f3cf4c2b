from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.conftest import Cli
from tests.gguf_files import small_llama, string
from tests.service.other_programs import OLLAMA, lm_studio, ollama
from wizard_edge.units import format_bytes

CONTENT = small_llama().build()
SIZE = format_bytes(len(CONTENT))


@pytest.fixture
def user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a home folder with a model of Ollama, and one that cannot be run."""
    home = tmp_path / "user"
    monkeypatch.setenv("HOME", str(home))
    for name in (
        "OLLAMA_MODELS",
        "HF_HUB_CACHE",
        "HUGGINGFACE_HUB_CACHE",
        "HF_HOME",
        "XDG_CACHE_HOME",
    ):
        monkeypatch.delenv(name, raising=False)
    ollama(home, CONTENT)
    mamba = small_llama().set("general.architecture", string("mamba"))
    lm_studio(home, mamba.build(), "o/r/mamba.gguf")
    return home


def test_without_a_file_it_lists_what_others_have(cli: Cli, user: Path) -> None:
    before = cli("import")
    adopted = cli("import", "--from", "ollama", "m")
    after = cli("import", "--from", "ollama")

    path = user / ".lmstudio/models/o/r/mamba.gguf"
    assert before.stdout.splitlines() == [
        "FROM       NAME               SIZE  WOULD BE  STATE",
        f"ollama     m:latest        {SIZE}  m:F32     -",
        f"lm-studio  o/r/mamba.gguf        -  -         {path} is of the architecture "
        "'mamba', which wizard-edge does not run",
    ]
    assert adopted.exit_code == 0
    assert adopted.stderr.splitlines()[-1].startswith("installed m:F32 (")
    assert after.stdout.splitlines()[1:] == [
        f"ollama  m:latest  {SIZE}  m:F32     installed"
    ]


def test_json_lists_all_that_is_known(cli: Cli, user: Path) -> None:
    result = cli("import", "--from", "ollama", "--json")

    [row] = json.loads(result.stdout)
    blob = next((user / OLLAMA / "blobs").glob("*"))
    assert Path(row.pop("path")).parent == blob.parent
    assert row == {
        "program": "ollama",
        "name": "m:latest",
        "size": len(CONTENT),
        "model": "m",
        "quant": "F32",
        "installed": False,
        "problem": None,
        "licenses": ["Some Licence"],
    }


def test_all_takes_what_can_be_run(cli: Cli, user: Path) -> None:
    result = cli("import", "--all", "--json")

    assert result.exit_code == 0
    assert json.loads(result.stdout)["name"] == "m"


def test_where_nothing_is_the_next_command_is_named(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "nobody"))

    result = cli("import")

    assert (result.stdout, result.exit_code) == ("", 0)
    assert result.stderr == (
        "no model of another program is here\n"
        "hint: wizard-edge import FILE, or wizard-edge pull MODEL\n"
    )


def test_a_link_is_made_where_one_is_wished(cli: Cli, tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(CONTENT)

    result = cli("import", "m.gguf", "--how", "symlink", "--json")

    stored = Path(json.loads(result.stdout)["path"])
    assert stored.readlink() == path.resolve()


def test_failures_have_their_codes(cli: Cli, user: Path) -> None:
    unknown = cli("import", "--from", "ollama", "none")

    assert unknown.exit_code == 3
    assert unknown.stderr.splitlines() == [
        "error: no model 'none' of another program",
        "hint: 'wizard-edge import' without a FILE lists them",
    ]
    assert cli("import", "a.gguf", "b.gguf").exit_code == 2
    assert cli("import", "--all", "m").exit_code == 2
    assert cli("import", "--from", "nobody").exit_code == 2
    assert cli("import", "--from", "lm-studio", "mamba.gguf").exit_code == 8
    for blob in (user / OLLAMA / "blobs").glob("*"):
        if blob.stat().st_size == len(CONTENT):
            blob.write_bytes(CONTENT[:-1] + b"?")
    assert cli("import", "--all").exit_code == 6
