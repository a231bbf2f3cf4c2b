"""`verify` as a person runs it, with a real hub on loopback to repair from."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.cli.conftest import Cli
from tests.gguf_files import small_llama, string
from tests.hub.content import repository
from tests.hub.server import LoopbackHub
from tests.stores import CONTENT, install, receipt_of, spoil, tree
from wizard_edge.chunks import CHUNK_SIZE, read_chunks
from wizard_edge.names import CommitId, RelPath, RepoId
from wizard_edge.paths import Home
from wizard_edge.receipts import Origin, Piece, Receipt
from wizard_edge.store import Store

REPO = RepoId("owner/small-GGUF")


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[LoopbackHub]:
    with LoopbackHub(repository(REPO, {"small.gguf": CONTENT})) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.endpoint)
        yield hub


@pytest.fixture
def store(home: Path) -> Store:
    return Store(Home(home))


def fetched(hub: LoopbackHub, **more: object) -> Receipt:
    """Return the receipt of a file that came from the hub."""
    revision = CommitId(hub.hosted.repositories[REPO].head)
    receipt = receipt_of(origin=Origin("hub", REPO, revision))
    [file] = receipt.files
    piece = Piece(file.size, file.sha256, REPO, revision, RelPath("small.gguf"))
    return replace(receipt, files=(replace(file, pieces=(piece,)),))


def test_a_right_store_is_told_file_by_file(cli: Cli, store: Store) -> None:
    install(store, receipt_of(name="a"))
    install(store, receipt_of(name="bb", quant="F16"), sums=False)

    result = cli("verify")

    assert (result.stdout, result.stderr, result.exit_code) == (
        "a.Q8_0.gguf  ok\nbb.F16.gguf  ok\n             chunk sums written\n",
        "",
        0,
    )


def test_an_empty_store_has_nothing_to_check(cli: Cli) -> None:
    result = cli("verify")

    assert (result.stdout, result.stderr, result.exit_code) == (
        "",
        "no model is installed: nothing to check\n",
        0,
    )


def test_damage_is_told_and_ends_with_6(cli: Cli, store: Store) -> None:
    install(store, receipt_of(name="a"))
    bad = install(store, receipt_of(name="b"))
    spoil(bad.path, *range(CHUNK_SIZE, 3 * CHUNK_SIZE, CHUNK_SIZE))

    result = cli("verify")

    assert result.stdout == (
        "a.Q8_0.gguf  ok\n"
        "b.Q8_0.gguf  damaged: 2 of 7 chunks are not what they were\n"
        "             chunk 1 at byte 262144, 262144 bytes\n"
        "             chunk 2 at byte 524288, 262144 bytes\n"
    )
    assert result.stderr == (
        f"error: {bad.path} is damaged: 2 of 7 chunks are not what they were\n"
        "hint: wizard-edge verify b:Q8_0 --repair\n"
    )
    assert result.exit_code == 6


def test_damage_in_json(cli: Cli, store: Store) -> None:
    path = install(store, receipt_of()).path
    spoil(path, 6 * CHUNK_SIZE)

    result = cli("verify", "small", "--json")

    assert json.loads(result.stdout) == [
        {
            "name": "small",
            "quant": "Q8_0",
            "path": str(path),
            "ok": False,
            "problem": "1 of 7 chunks are not what they were",
            "damaged": [{"chunk": 6, "offset": 6 * CHUNK_SIZE, "size": 1000}],
            "note": None,
            "repaired": [],
            "fetched": 0,
        }
    ]
    last = json.loads(result.stderr.splitlines()[-1])
    assert (last["error"]["code"], result.exit_code) == (6, 6)


def test_several_damaged_files_are_counted(cli: Cli, store: Store) -> None:
    for name in ("a", "b", "c"):
        spoil(install(store, receipt_of(name=name)).path, 0)

    first = cli("verify").stderr.splitlines()[0]

    assert first.endswith("(2 other files are not right either)")


def test_repair_fetches_the_damaged_chunks_alone(
    cli: Cli, store: Store, home: Path, hub: LoopbackHub
) -> None:
    item = install(store, fetched(hub))
    before = tree(home)
    spoil(item.path, 3 * CHUNK_SIZE + 7, 6 * CHUNK_SIZE + 999)

    result = cli("verify", "--repair")

    assert (result.stdout, result.stderr, result.exit_code) == (
        "small.Q8_0.gguf  ok\n                 repaired: 2 chunks, 263 kB fetched\n",
        "",
        0,
    )
    assert hub.sent("cdn") == CHUNK_SIZE + 1000
    assert item.path.read_bytes() == CONTENT
    assert tree(home) == before
    assert cli("verify").exit_code == 0


def test_repair_in_json(cli: Cli, store: Store, hub: LoopbackHub) -> None:
    spoil(install(store, fetched(hub)).path, 6 * CHUNK_SIZE)

    [row] = json.loads(cli("verify", "--repair", "--json").stdout)

    assert (row["ok"], row["problem"], row["damaged"]) == (True, None, [])
    assert row["repaired"] == [{"chunk": 6, "offset": 6 * CHUNK_SIZE, "size": 1000}]
    assert row["fetched"] == 1000


def test_without_the_network_damage_is_told_and_ends_with_6(
    cli: Cli, store: Store, hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = install(store, fetched(hub)).path
    spoil(path, 6 * CHUNK_SIZE)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")

    result = cli("verify", "--repair")

    assert result.stdout == (
        "small.Q8_0.gguf  damaged, not repaired: "
        "HF_HUB_OFFLINE is set, and this needs the hub\n"
        "                 chunk 6 at byte 1572864, 1000 bytes\n"
    )
    assert result.stderr.startswith(
        f"error: {path} is damaged: 1 of 7 chunks are not what they were; "
        "not repaired: HF_HUB_OFFLINE is set, and this needs the hub\n"
    )
    assert result.exit_code == 6


def test_what_pull_brought_is_repaired_by_its_receipt(
    cli: Cli, hub: LoopbackHub
) -> None:
    """Damaged in the middle, cut, grown and gone, each time by the chunks it takes."""
    model = small_llama().set("test.padding", string("x" * (5 * CHUNK_SIZE)))
    content = model.build()
    halves = {"m.Q8_0.gguf-split-a": content[:700_000]}
    halves["m.Q8_0.gguf-split-b"] = content[700_000:]
    hub.add(repository("owner/m", {**halves}))
    path = Path(json.loads(cli("pull", "hf:owner/m:Q8_0", "--json").stdout)["path"])
    chunks = read_chunks(path.with_name(f"{path.name}.chunks")).grid

    def repaired() -> int:
        hub.forget()
        result = cli("verify", "--repair", "--json")
        assert (result.exit_code, path.read_bytes() == content) == (0, True)
        [row] = json.loads(result.stdout)
        bodies = [entry for entry in hub.requests() if entry.status in (200, 206)]
        assert sum(entry.sent for entry in bodies) == row["fetched"]
        fetched: int = row["fetched"]
        return fetched

    # Two chunks that lie side by side and are of two pieces.
    spoil(path, 699_999, 700_000)
    assert repaired() == chunks.span(2).size + chunks.span(3).size
    path.write_bytes(content[:-1])
    assert repaired() == chunks.span(chunks.count - 1).size
    path.write_bytes(content + b"more")
    assert repaired() == 0
    path.unlink()
    assert repaired() == len(content)


def test_repair_of_what_was_made_here_says_how_to_make_it_anew(
    cli: Cli, store: Store, hub: LoopbackHub
) -> None:
    path = install(store, receipt_of()).path
    spoil(path, 0)

    result = cli("verify", "--repair")

    assert result.stderr == (
        f"error: {path} is damaged: nobody knows where its bytes can be fetched\n"
        "hint: wizard-edge rm small:Q8_0, then wizard-edge import FILE\n"
    )
    assert result.exit_code == 6
    assert hub.log == []
