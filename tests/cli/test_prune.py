from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.child import environment
from tests.cli.conftest import Cli
from tests.hub.content import repository
from tests.hub.faults import Fault
from tests.hub.server import LoopbackHub
from tests.stores import tree
from tests.test_gguf_parts import parts
from wizard_edge.gguf_parts import split_name
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


PULL = ("pull", "hf:owner/small:Q8_0", "--json")


def test_a_pull_that_runs_is_not_hurt_and_one_that_was_killed_leaves_nothing(
    cli: Cli, home: Path, tmp_path: Path
) -> None:
    """Killed at the second file of a split model, whose lock is that of the first."""
    names = [split_name("small.Q8_0", number, 3) for number in (1, 2, 3)]
    contents = [part.build() for part in parts()]
    first, digest = len(contents[0]), hashlib.sha256(contents[1]).hexdigest()
    files = dict(zip(names, contents, strict=True))
    with LoopbackHub(repository("owner/small", {**files})) as hub:
        hub.faults.add(Fault(where="cdn", path=digest, stall_after=100, times=99))
        with subprocess.Popen(
            [sys.executable, "-m", "wizard_edge", *PULL],
            env=environment(tmp_path, HF_ENDPOINT=hub.endpoint),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            try:
                assert process.stderr is not None
                while json.loads(process.stderr.readline())["done"] <= first:
                    pass
                before = tree(home)

                meanwhile = cli("prune", "--yes")

                assert meanwhile.stderr.startswith("in use, left alone: ")
                assert tree(home) == before
            finally:
                process.kill()
    killed = cli("prune", "--json")

    assert tree(home) == []
    removed = json.loads(killed.stdout)["removed"]
    # The lock goes last.
    assert {item["path"] for item in removed} == {str(home / name) for name in before}
