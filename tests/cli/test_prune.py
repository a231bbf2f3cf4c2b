from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.conftest import Cli
from tests.stores import tree
from wizard_edge.locking import exclusive


@pytest.fixture
def leftovers(home: Path) -> Path:
    (home / "partial").mkdir(parents=True)
    (home / "partial" / "abc.part").write_bytes(b"x" * 30_000)
    (home / "models" / "lost").mkdir(parents=True)
    (home / "models" / "lost" / "lost.gguf").write_bytes(b"x" * 2000)
    return home


def test_a_clean_store_says_so(cli: Cli, home: Path) -> None:
    result = cli("prune")

    assert (result.stdout, result.stderr, result.exit_code) == (
        "",
        "nothing is left over\n",
        0,
    )
    assert not home.exists()


def test_a_dry_run_tells_and_removes_nothing(cli: Cli, leftovers: Path) -> None:
    before = tree(leftovers)

    result = cli("prune", "--dry-run")

    assert result.stdout == (
        "PATH                      SIZE  WHAT\n"
        "partial/abc.part       30.0 kB  left of a download, conversion or import\n"
        "models/lost/lost.gguf   2.0 kB  model without a receipt\n"
    )
    assert (result.stderr, result.exit_code) == ("2 items, 32.0 kB in all\n", 0)
    assert tree(leftovers) == before


def test_a_model_file_is_asked_for_and_no_answer_is_no(
    cli: Cli, leftovers: Path
) -> None:
    result = cli("prune")

    assert result.stderr == (
        "2 items, 32.0 kB in all\n"
        "remove lost.gguf too (2.0 kB)? [y/N]: \n"
        "removed 1 item, 30.0 kB freed; models without a receipt stay, "
        "--yes removes them\n"
    )
    assert result.exit_code == 0
    assert tree(leftovers) == ["models/lost/lost.gguf"]


@pytest.mark.parametrize(
    ("words", "answer"), [([], "y\n"), (["--yes"], None)], ids=["asked", "--yes"]
)
def test_all_goes_where_somebody_agrees(
    words: list[str], answer: str | None, cli: Cli, leftovers: Path
) -> None:
    result = cli("prune", *words, input=answer)

    assert result.stderr.endswith("removed 2 items, 32.0 kB freed\n")
    assert tree(leftovers) == []


def test_prune_in_json(cli: Cli, leftovers: Path) -> None:
    result = cli("prune", "--json")

    assert json.loads(result.stdout) == {
        "removed": [
            {
                "path": str(leftovers / "partial" / "abc.part"),
                "size": 30_000,
                "kind": "unfinished",
            }
        ],
        "kept": [
            {
                "path": str(leftovers / "models" / "lost" / "lost.gguf"),
                "size": 2000,
                "kind": "model",
            }
        ],
        "busy": [],
        "freed": 30_000,
    }
    assert result.stderr == ""


def test_what_runs_is_told_and_left_alone(cli: Cli, leftovers: Path) -> None:
    with exclusive(leftovers / "partial" / "abc.lock"):
        result = cli("prune", "--yes")

        assert result.stderr.startswith("in use, left alone: abc\n")
        assert tree(leftovers) == ["partial/abc.lock", "partial/abc.part"]
