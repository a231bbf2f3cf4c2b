from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.conftest import Cli
from tests.hub.content import repository
from tests.hub.server import LoopbackHub
from tests.stores import CONTENT, install, receipt_of, sha256_of
from wizard_edge.names import CommitId, RelPath, RepoId
from wizard_edge.paths import Home
from wizard_edge.receipts import Origin, Piece
from wizard_edge.store import Store

REPO = RepoId("owner/small-GGUF")


def add(home: Path, name: str, path: str, revision: str) -> None:
    """Install a file that came from the hub."""
    head = CommitId(revision)
    piece = Piece(len(CONTENT), sha256_of(CONTENT), REPO, head, RelPath(path))
    origin = Origin("hub", REPO, head)
    install(Store(Home(home)), receipt_of(name=name, pieces=(piece,), origin=origin))


def test_an_empty_store(cli: Cli) -> None:
    result = cli("outdated")

    assert (result.stdout, result.stderr, result.exit_code) == (
        "",
        "no model is installed\n",
        0,
    )


def test_what_is_newer_is_told_with_the_way_to_it(
    cli: Cli, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hosted = repository(REPO, {"a.gguf": CONTENT, "b.gguf": b"new"})
    with LoopbackHub(hosted) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.endpoint)
        add(home, "a", "a.gguf", hosted.head)
        add(home, "bb", "b.gguf", hosted.head)
        install(Store(Home(home)), receipt_of(name="c"))

        text = cli("outdated")
        rows = json.loads(cli("outdated", "--json").stdout)

    assert text.stdout == (
        "NAME  QUANT  NEWER\na     Q8_0   -\nbb    Q8_0   hub\nc     Q8_0   -\n"
    )
    assert text.stderr == (
        "bb:Q8_0: hf:owner/small-GGUF/b.gguf is another file by now\n"
        "  wizard-edge rm bb:Q8_0 && wizard-edge pull hf:owner/small-GGUF/b.gguf\n"
    )
    assert text.exit_code == 0
    assert [len(row["newer"]) for row in rows] == [0, 1, 0]
    assert rows[0] == {
        "name": "a",
        "quant": "Q8_0",
        "newer": [],
        "problem": None,
        "checked": True,
    }


def test_a_network_that_is_gone_is_told(
    cli: Cli, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with LoopbackHub() as hub:
        endpoint = hub.endpoint
    monkeypatch.setenv("HF_ENDPOINT", endpoint)
    add(home, "a", "a.gguf", "0" * 40)

    online = cli("outdated")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    offline = cli("outdated")

    assert online.stdout == offline.stdout == "NAME  QUANT  NEWER\na     Q8_0   ?\n"
    assert online.exit_code == 4
    assert online.stderr.startswith("error: ")
    assert (offline.stderr, offline.exit_code) == (
        "warning: not everything was looked at: "
        "HF_HUB_OFFLINE is set, and this needs the hub\n",
        0,
    )
