"""A store that a system service shares: everybody reads it, nobody writes."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests import read_only
from tests.gguf_files import small_llama
from tests.hub.content import repository
from tests.hub.server import LoopbackHub
from tests.stores import CONTENT, install, receipt_of, tree
from wizard_edge.paths import Home
from wizard_edge.store import Installed, Store

Run = Callable[..., subprocess.CompletedProcess[str]]

pytestmark = pytest.mark.skipif(
    not read_only.can_be_bound(), reason="modes of files bind nobody here"
)


@pytest.fixture
def model(tmp_path: Path, apprentice: Callable[[str], Path]) -> Installed:
    """The bundled model without sums, and one of random bytes that has them."""
    store = Store(Home(tmp_path / "home"))
    install(store, receipt_of(name="other"))
    content = apprentice("Q8_0").read_bytes()
    return install(store, receipt_of(content, name="apprentice"), content, sums=False)


@pytest.fixture
def shared(tmp_path: Path, model: Installed) -> Iterator[Run]:
    """Return a function that runs the program on it; nothing may change meanwhile."""
    home = tmp_path / "home"
    before = tree(home)
    with read_only.closed(home):
        yield lambda *words: read_only.run(tmp_path, *words)
    assert tree(home) == before


def test_what_only_reads_works(shared: Run) -> None:
    listed = shared("list", "--json")
    shown = shared("show", "apprentice")

    assert [row["name"] for row in json.loads(listed.stdout)] == ["apprentice", "other"]
    assert (listed.stderr, listed.returncode) == ("", 0)
    assert (shown.stderr, shown.returncode) == ("", 0)
    assert "no chunk sums" in shown.stdout


def test_models_are_verified_and_no_sums_are_written(shared: Run) -> None:
    result = shared("verify")

    assert (result.stdout, result.stderr, result.returncode) == (
        "apprentice.Q8_0.gguf  ok\nother.Q8_0.gguf       ok\n",
        "",
        0,
    )


def test_a_model_answers(shared: Run) -> None:
    result = shared("run", "apprentice", "Who are you?")

    assert (result.stderr, result.returncode) == ("", 0)
    assert result.stdout.strip()


@pytest.mark.parametrize(
    "words",
    [
        ("pull", "apprentice:F16"),
        ("rm", "apprentice", "--yes"),
    ],
    ids=" ".join,
)
def test_what_writes_is_refused(words: tuple[str, ...], shared: Run) -> None:
    result = shared(*words)

    assert result.returncode == 5
    error, hint = result.stderr.splitlines()[-2:]
    assert error.startswith("error: cannot write ")
    assert hint == ("hint: check who owns it, or choose another store with --home DIR")


def test_a_download_is_refused_before_a_byte_is_fetched(
    tmp_path: Path, model: Installed
) -> None:
    files: dict[str, bytes | Path] = {"small.Q8_0.gguf": small_llama().build()}
    words = ("pull", "hf:owner/small:Q8_0")
    with (
        LoopbackHub(repository("owner/small", files)) as hub,
        read_only.closed(tmp_path / "home"),
    ):
        result = read_only.run(tmp_path, *words, HF_ENDPOINT=hub.endpoint)

        assert result.returncode == 5
        assert "error: cannot write " in result.stderr
        assert hub.sent("cdn") == 0


def test_prune_is_refused_where_there_is_something(
    tmp_path: Path, model: Installed
) -> None:
    partial = tmp_path / "home" / "partial"
    (partial / "left.part").write_bytes(b"x")

    with read_only.closed(tmp_path / "home"):
        looked = read_only.run(tmp_path, "prune", "--dry-run")
        result = read_only.run(tmp_path, "prune")

    assert (looked.returncode, result.returncode) == (0, 5)
    assert (partial / "left.part").exists()


def test_what_another_user_keeps_to_himself_is_no_bug(
    tmp_path: Path, model: Installed
) -> None:
    run = tmp_path / "home" / "run"
    run.chmod(0)
    try:
        pruned = read_only.run(tmp_path, "prune")
        verified = read_only.run(tmp_path, "verify")
    finally:
        run.chmod(0o700)

    assert (pruned.returncode, verified.returncode) == (5, 0)
    assert "Permission denied" in pruned.stderr


def test_damage_is_told_and_cannot_be_repaired(
    tmp_path: Path, model: Installed
) -> None:
    home = tmp_path / "home"
    other = home / "models" / "other" / "other.Q8_0.gguf"
    with other.open("ab") as file:
        file.write(b"more")

    with read_only.closed(home):
        told = read_only.run(tmp_path, "verify", "other")
        repaired = read_only.run(tmp_path, "verify", "other", "--repair")

    assert told.returncode == 6
    assert repaired.returncode == 6
    assert other.read_bytes() == CONTENT + b"more"


def test_a_model_that_may_not_be_read_is_told(tmp_path: Path, model: Installed) -> None:
    model.path.chmod(0o000)
    try:
        told = read_only.run(tmp_path, "verify")
        result = read_only.run(tmp_path, "verify", "--json")
    finally:
        model.path.chmod(0o644)

    rows = json.loads(result.stdout)
    assert [row["ok"] for row in rows] == [False, True]
    assert told.stdout.startswith("apprentice.Q8_0.gguf  not checked: cannot read ")
    assert rows[0]["problem"] == f"cannot read {model.path}: Permission denied"
    assert result.returncode == 5
