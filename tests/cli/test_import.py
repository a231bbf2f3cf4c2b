from __future__ import annotations

import json
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

from tests.cli.conftest import Cli
from tests.gguf_files import small_llama, string
from tests.test_gguf_parts import LETTERED, cut, parts, write_parts
from wizard_edge.store import Installed


def test_it_installs_into_the_store(cli: Cli, tmp_path: Path, home: Path) -> None:
    path = small_llama().write(tmp_path / "My Model.gguf")

    result = cli("import", str(path))

    assert (result.stdout, result.exit_code) == ("", 0)
    assert result.stderr.splitlines()[-1].startswith("installed my-model:F32 (")
    rows = json.loads(cli("list", "--json").stdout)
    assert [(row["name"], row["problem"]) for row in rows] == [("my-model", None)]
    assert not list((home / "partial").iterdir())
    assert path.exists()


def test_name_template_and_licence_are_recorded(cli: Cli, tmp_path: Path) -> None:
    path = small_llama().write(tmp_path / "m.gguf")
    words = ("--name", "mine", "--template", "vicuna", "--license", "llama2")

    result = cli("import", str(path), "--quiet", *words)

    assert (result.stdout, result.stderr, result.exit_code) == ("", "", 0)
    row = json.loads(cli("list", "--json").stdout)[0]
    assert row["name"] == "mine"
    assert (row["template"], row["licenses"]) == ("vicuna", ["llama2"])


def test_json_is_the_document_of_pull_and_convert(cli: Cli, tmp_path: Path) -> None:
    content = small_llama().build()
    path = tmp_path / "m.gguf"
    path.write_bytes(content)

    result = cli("import", str(path), "--json")

    assert json.loads(result.stdout) == {
        "name": "m",
        "quant": "F32",
        "path": str(tmp_path / "home/models/m/m.F32.gguf"),
        "size": len(content),
        "sha256": sha256(content).hexdigest(),
        "already": False,
    }
    stages = {json.loads(line)["stage"] for line in result.stderr.splitlines()}
    assert stages == {"import"}


def test_parts_are_removed_together(cli: Cli, tmp_path: Path, home: Path) -> None:
    path = write_parts(tmp_path, parts())[0]

    assert cli("import", str(path)).exit_code == 0
    shown = json.loads(cli("show", "model", "--json").stdout)
    assert cli("rm", "model", "--yes").exit_code == 0

    assert len(shown["installed"][0]["receipt"]["files"]) == 3
    assert not (home / "models/model").exists()


def test_pieces_are_joined(cli: Cli, tmp_path: Path, home: Path) -> None:
    path = cut(tmp_path, LETTERED)[2]

    result = cli("import", str(path))

    assert result.exit_code == 0
    assert (home / "models/m/m.F32.gguf").read_bytes() == small_llama().build()


def test_failures_have_their_codes(
    cli: Cli, tmp_path: Path, installed: Callable[..., Installed]
) -> None:
    installed("tiny", "F32")
    tiny = small_llama().write(tmp_path / "tiny.gguf")
    (tmp_path / "text.gguf").write_text("just text")
    mamba = small_llama().set("general.architecture", string("mamba"))
    mamba.write(tmp_path / "mamba.gguf")

    there = cli("import", str(tiny))

    assert there.exit_code == 2
    assert there.stderr.splitlines() == [
        "error: tiny:F32 is in the store already",
        "hint: wizard-edge rm tiny:F32, or install under another --name",
    ]
    assert cli("import", "none.gguf").exit_code == 3
    assert cli("import", "text.gguf").exit_code == 6
    assert cli("import", "mamba.gguf").exit_code == 8
    assert cli("import", str(tiny), "--template", "none").exit_code == 2
