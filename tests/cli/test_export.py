from __future__ import annotations

import json
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

from tests.cli.conftest import SIZE, Cli
from wizard_edge.store import Installed


def test_a_model_goes_out_and_comes_in(
    cli: Cli, installed: Callable[..., Installed], tmp_path: Path
) -> None:
    content = installed().path.read_bytes()

    result = cli("export", "tiny", "stick", "--split", "20k")

    assert (result.stdout, result.exit_code) == ("", 0)
    assert result.stderr.splitlines()[-1] == (
        f"exported tiny:F32 (30.0 kB) as 3 files to {tmp_path / 'stick'}"
    )
    back = cli("import", "stick/tiny.F32.gguf.part2of2", "--name", "back", "--json")
    assert back.exit_code == 0
    assert Path(json.loads(back.stdout)["path"]).read_bytes() == content


def test_json_tells_every_file(
    cli: Cli, installed: Callable[..., Installed], tmp_path: Path
) -> None:
    model = installed()
    digest = sha256(model.path.read_bytes()).hexdigest()
    receipt = model.receipt_path.read_bytes()

    result = cli("export", "tiny:F32", "stick", "--json")

    assert json.loads(result.stdout) == {
        "name": "tiny",
        "quant": "F32",
        "folder": str(tmp_path / "stick"),
        "size": SIZE,
        "sha256": digest,
        "files": [
            {"name": "tiny.F32.gguf", "size": SIZE, "sha256": digest, "kept": False},
            {
                "name": "tiny.F32.gguf.json",
                "size": len(receipt),
                "sha256": sha256(receipt).hexdigest(),
                "kept": False,
            },
        ],
    }
    stages = {json.loads(line)["stage"] for line in result.stderr.splitlines()}
    assert stages == {"export"}


def test_failures_have_their_codes(
    cli: Cli, installed: Callable[..., Installed], tmp_path: Path
) -> None:
    model = installed()
    (tmp_path / "stick").mkdir()
    (tmp_path / "stick/tiny.F32.gguf").write_bytes(b"other")

    there = cli("export", "tiny", "stick")

    assert there.exit_code == 2
    assert there.stderr.splitlines() == [
        f"error: {tmp_path / 'stick/tiny.F32.gguf'} is there and something else",
        "hint: replace it with --overwrite, or name another folder",
    ]
    assert cli("export", "tiny", "stick", "--overwrite").exit_code == 0
    assert cli("export", "none", "stick").exit_code == 3
    assert cli("export", "tiny", "stick", "--split", "4X").exit_code == 2
    assert cli("export", "tiny", "stick/tiny.F32.gguf").exit_code == 5
    model.path.write_bytes(bytes(SIZE))
    assert cli("export", "tiny", "other").exit_code == 6


def test_a_model_that_is_not_free_for_commercial_use_is_refused(
    cli: Cli, installed: Callable[..., Installed], tmp_path: Path
) -> None:
    installed("wizardlm-13b-v1.1")

    result = cli("export", "wizardlm-13b-v1.1", "stick", "--commercial")

    assert result.exit_code == 5
    assert result.stderr == (
        "error: wizardlm-nc: commercial use not allowed\nhint: leave out --commercial\n"
    )
    assert not (tmp_path / "stick").exists()
