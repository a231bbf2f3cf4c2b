"""Repairs against a real hub on loopback, whose log says what was fetched."""

from __future__ import annotations

import errno
import mmap
import os
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from tests.hub.content import repository
from tests.hub.faults import Fault
from tests.hub.server import LoopbackHub
from tests.service.fakes import an_installation
from tests.stores import (
    CONTENT,
    install,
    receipt_of,
    sha256_of,
    spoil,
    sums_of,
    tree,
)
from wizard_edge import part_files
from wizard_edge.chunks import CHUNK_SIZE, Chunks
from wizard_edge.errors import (
    Corrupt,
    HubError,
    NotEnough,
    WizardEdgeError,
)
from wizard_edge.names import CommitId, RelPath, RepoId
from wizard_edge.progress import ProgressEvent
from wizard_edge.receipts import Check, CheckedFile, Origin, Piece, Receipt
from wizard_edge.service import repairing
from wizard_edge.service.installation import Installation
from wizard_edge.service.repairing import repair
from wizard_edge.service.verification import Verified
from wizard_edge.store import Installed

REPO = RepoId("owner/small-GGUF")
# Where the second of two pieces begins: inside what would be the fourth chunk.
CUT = 3 * CHUNK_SIZE + 5
FILES: dict[str, bytes | Path] = {
    "small.gguf": CONTENT,
    "small-a.gguf": CONTENT[:CUT],
    "small-b.gguf": CONTENT[CUT:],
}


@dataclass(frozen=True)
class Shop:
    """A store and the hub its models came from."""

    installation: Installation
    hub: LoopbackHub
    head: CommitId

    def piece(self, path: str, content: bytes) -> Piece:
        digest = sha256_of(content)
        return Piece(len(content), digest, REPO, self.head, RelPath(path))

    def fetched(self, *, joined: bool = False) -> Receipt:
        """Return the receipt of a file that came from the hub in one piece or two."""
        receipt = receipt_of(origin=Origin("hub", REPO, self.head))
        pieces: tuple[Piece, ...] = (self.piece("small.gguf", CONTENT),)
        if joined:
            pieces = (
                self.piece("small-a.gguf", CONTENT[:CUT]),
                self.piece("small-b.gguf", CONTENT[CUT:]),
            )
        return replace(receipt, files=(replace(receipt.files[0], pieces=pieces),))

    def install(self, **more: Any) -> Installed:
        return install(self.installation.store, self.fetched(**more))

    def repair(self) -> Verified:
        [found] = repair(self.installation)
        return found


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Shop]:
    hosted = repository(REPO, FILES)
    with LoopbackHub(hosted) as hub:
        installation = an_installation(tmp_path, HF_ENDPOINT=hub.endpoint)
        yield Shop(installation, hub, CommitId(hosted.head))


def nothing_left(shop: Shop) -> bool:
    return tree(shop.installation.home.partial) == []


@pytest.mark.parametrize("joined", [False, True], ids=["one piece", "two pieces"])
@pytest.mark.parametrize("seed", range(4))
def test_what_was_spoilt_is_fetched_and_nothing_else(
    shop: Shop, joined: bool, seed: int
) -> None:
    item = shop.install(joined=joined)
    offsets = [(seed * 7919 + n * 104729) % len(CONTENT) for n in range(seed + 1)]
    spoil(item.path, *offsets)
    grid = sums_of(CONTENT, [CUT, len(CONTENT) - CUT] if joined else ()).grid
    numbers = {
        number
        for number in range(grid.count)
        for offset in offsets
        if grid.span(number).offset <= offset < grid.span(number).end
    }

    found = shop.repair()

    assert found.error is None
    assert item.path.read_bytes() == CONTENT
    assert [chunk.chunk for chunk in found.repaired] == sorted(numbers)
    expected = sum(grid.span(number).size for number in numbers)
    assert (found.fetched, shop.hub.sent("cdn")) == (expected, expected)
    assert nothing_left(shop)


def test_neighbours_are_asked_for_together(shop: Shop) -> None:
    item = shop.install()
    spoil(item.path, 0, CHUNK_SIZE, 2 * CHUNK_SIZE, 5 * CHUNK_SIZE)

    shop.repair()

    asked = [entry.byte_range for entry in shop.hub.requests() if entry.port == "cdn"]
    assert asked == [
        f"bytes=0-{3 * CHUNK_SIZE - 1}",
        f"bytes={5 * CHUNK_SIZE}-{6 * CHUNK_SIZE - 1}",
    ]


@pytest.mark.parametrize("end", [0, 1, 2 * CHUNK_SIZE, 5 * CHUNK_SIZE + 1])
def test_a_cut_file_gets_its_end_back(shop: Shop, end: int) -> None:
    item = shop.install()
    os.truncate(item.path, end)

    found = shop.repair()

    assert found.error is None
    assert item.path.read_bytes() == CONTENT
    whole = end // CHUNK_SIZE * CHUNK_SIZE
    assert shop.hub.sent("cdn") == len(CONTENT) - whole


def test_a_file_that_is_gone_is_fetched_whole(shop: Shop) -> None:
    item = shop.install()
    item.path.unlink()

    assert shop.repair().error is None

    assert item.path.read_bytes() == CONTENT
    assert shop.hub.sent("cdn") == len(CONTENT)


@pytest.mark.parametrize("sums", [True, False], ids=["sums", "no sums"])
def test_a_file_that_grew_is_cut_without_asking_anybody(shop: Shop, sums: bool) -> None:
    item = install(shop.installation.store, receipt_of(), sums=sums)
    with item.path.open("ab") as file:
        file.write(b"more")

    found = shop.repair()

    assert (found.error, found.fetched, found.note) == (None, 0, "brought to its size")
    assert item.path.read_bytes() == CONTENT
    assert shop.hub.log == []


def test_whoever_has_the_file_open_reads_on_in_what_they_have(shop: Shop) -> None:
    item = shop.install()
    spoil(item.path, 0)
    before = item.path.read_bytes()

    with (
        item.path.open("rb") as file,
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped,
    ):
        shop.repair()

        assert mapped[:] == before
    assert item.path.read_bytes() == CONTENT


@pytest.mark.skipif(sys.platform == "win32", reason="needs a right to make links")
def test_a_link_out_of_the_store_is_replaced_and_not_followed(
    shop: Shop, tmp_path: Path
) -> None:
    item = shop.install()
    elsewhere = tmp_path / "mine.gguf"
    shutil.move(item.path, elsewhere)
    spoil(elsewhere, 0)
    theirs = elsewhere.read_bytes()
    item.path.symlink_to(elsewhere)

    assert shop.repair().error is None

    assert elsewhere.read_bytes() == theirs
    assert not item.path.is_symlink()
    assert item.path.read_bytes() == CONTENT


def test_the_receipt_stays_as_it_is(shop: Shop) -> None:
    item = shop.install()
    before = item.receipt_path.read_bytes()
    spoil(item.path, 0)

    shop.repair()

    assert item.receipt_path.read_bytes() == before


def test_a_source_that_serves_other_bytes_installs_nothing(shop: Shop) -> None:
    item = shop.install()
    spoil(item.path, CHUNK_SIZE)
    before = item.path.read_bytes()
    shop.hub.faults.add(Fault(where="cdn", flip=CHUNK_SIZE + 9))

    found = shop.repair()

    assert isinstance(found.error, Corrupt)
    assert found.problem == "what is served for chunk 1 is not what was installed"
    assert found.error.hint == (
        "wizard-edge rm small:Q8_0 && wizard-edge pull hf:owner/small-GGUF/small.gguf"
    )
    assert item.path.read_bytes() == before
    assert nothing_left(shop)


def test_a_hub_that_changed_the_file_is_not_believed(shop: Shop) -> None:
    item = shop.install()
    spoil(item.path, CHUNK_SIZE)
    before = item.path.read_bytes()
    other = repository(REPO, {"small.gguf": b"x" * len(CONTENT)})
    other.commits[shop.head] = other.files
    shop.hub.add(other)

    found = shop.repair()

    assert isinstance(found.error, HubError)
    assert item.path.read_bytes() == before
    assert nothing_left(shop)


def test_a_cut_connection_is_taken_up_again(shop: Shop) -> None:
    item = shop.install()
    item.path.unlink()
    shop.hub.faults.add(Fault(where="cdn", cut_after=CHUNK_SIZE + 3, times=2))

    assert shop.repair().error is None

    assert item.path.read_bytes() == CONTENT
    assert shop.hub.sent("cdn") == len(CONTENT)


def test_without_the_network_the_damage_stays_and_is_told(shop: Shop) -> None:
    environ = {**shop.installation.environ, "HF_HUB_OFFLINE": "1"}
    offline = replace(shop.installation, environ=environ)
    item = shop.install()
    spoil(item.path, 0)

    [found] = repair(offline)

    assert isinstance(found.error, HubError)
    assert [chunk.chunk for chunk in found.damaged] == [0]
    assert nothing_left(shop)


def test_without_sums_the_way_to_fetch_it_anew_is_told(shop: Shop) -> None:
    item = install(shop.installation.store, shop.fetched(), sums=False)
    spoil(item.path, 0)

    found = shop.repair()

    assert (found.problem or "").endswith(", and no sums say where")
    assert found.error is not None
    assert found.error.hint == (
        "wizard-edge rm small:Q8_0 && wizard-edge pull hf:owner/small-GGUF/small.gguf"
    )
    assert shop.hub.log == []


def test_sums_of_wrong_bytes_repair_nothing(shop: Shop) -> None:
    item = shop.install()
    spoil(item.path, 5)
    wrong = sums_of(item.path.read_bytes())
    mixed = Chunks(wrong.grid, item.receipt.sha256, wrong.sums)
    item.sums_path(item.receipt.files[0]).write_bytes(mixed.to_bytes())
    spoil(item.path, 3 * CHUNK_SIZE)
    before = item.path.read_bytes()

    found = shop.repair()

    assert found.problem == "every chunk fits its sum, and yet its sha256 is another"
    assert item.path.read_bytes() == before
    assert nothing_left(shop)


def test_a_full_disk_is_told_before_anything_is_fetched(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    item = shop.install()
    spoil(item.path, 0)
    monkeypatch.setattr(part_files, "free_disk", lambda path: len(CONTENT) - 1)

    found = shop.repair()

    assert isinstance(found.error, NotEnough)
    assert found.error.free == len(CONTENT) - 1
    assert shop.hub.log == []
    assert nothing_left(shop)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EFBIG, errno.EDQUOT])
def test_a_disk_that_gets_full_meanwhile_leaves_all_as_it_was(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    item = shop.install()
    spoil(item.path, 5 * CHUNK_SIZE)
    before = item.path.read_bytes()

    def full(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(repairing, "copy_range", full)

    found = shop.repair()

    assert isinstance(found.error, NotEnough)
    assert found.error.needed == len(CONTENT)
    assert item.path.read_bytes() == before
    assert nothing_left(shop)


@pytest.mark.parametrize("stage", ["verify", "repair", "check"])
def test_ctrl_c_leaves_all_as_it_was(shop: Shop, stage: str) -> None:
    item = shop.install()
    spoil(item.path, 0)
    before = item.path.read_bytes()

    def interrupt(event: ProgressEvent) -> None:
        if event.stage == stage:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        repair(shop.installation, progress=interrupt)

    assert item.path.read_bytes() == before
    assert nothing_left(shop)


def test_a_model_replaced_meanwhile_is_not_overwritten(shop: Shop) -> None:
    item = shop.install()
    spoil(item.path, 0)
    other = CONTENT[: 2 * CHUNK_SIZE]

    def replace_it(event: ProgressEvent) -> None:
        if event.stage == "check":
            install(shop.installation.store, receipt_of(other), other)

    [found] = repair(shop.installation, progress=replace_it)

    assert (found.error, found.skipped) == (None, True)
    assert found.note == "removed or replaced meanwhile"
    assert item.path.read_bytes() == other
    assert nothing_left(shop)


def test_one_that_cannot_be_mended_does_not_keep_another_from_it(shop: Shop) -> None:
    store = shop.installation.store
    lost = install(store, receipt_of(name="lost"))
    spoil(lost.path, 0)
    item = shop.install()
    spoil(item.path, 0)

    first, second = repair(shop.installation)

    assert (first.ok, second.ok) == (False, True)
    assert item.path.read_bytes() == CONTENT


def test_progress_counts_what_is_fetched(shop: Shop) -> None:
    spoil(shop.install().path, 0, 6 * CHUNK_SIZE)
    events: list[ProgressEvent] = []

    repair(shop.installation, progress=events.append)

    fetching = [event for event in events if event.stage == "repair"]
    assert fetching[-1].done == fetching[-1].total == CHUNK_SIZE + 1000
    assert [event.stage for event in events][-1] == "check"


REGISTRY = """\
schema = 1

[models.small]
title = "Small"
architecture = "llama"
template = "vicuna"
licenses = ["apache-2.0"]

[models.small.gguf]
repo = "{repo}"
file = "{{quant}}.gguf"
{revision}

[models.small.variants]
{variants}
"""


def with_registry(shop: Shop, variants: str, *, pinned: bool = True) -> None:
    """Give the user a registry that knows the model."""
    folder = shop.installation.config_dir
    folder.mkdir()
    revision = f'revision = "{shop.head}"' if pinned else ""
    text = REGISTRY.format(repo=REPO, revision=revision, variants=variants)
    (folder / "models.toml").write_text(text)


@pytest.mark.parametrize("pinned", [True, False], ids=["at a commit", "at its head"])
def test_an_import_that_the_registry_knows_is_repaired(
    shop: Shop, pinned: bool
) -> None:
    digest = sha256_of(CONTENT)
    with_registry(
        shop, f'Q8_0 = {{ file = "small.gguf", sha256 = "{digest}" }}', pinned=pinned
    )
    item = install(
        shop.installation.store,
        receipt_of(name="mine", origin=Origin("local")),
    )
    spoil(item.path, CHUNK_SIZE)

    found = shop.repair()

    assert found.error is None
    assert item.path.read_bytes() == CONTENT
    assert shop.hub.sent("cdn") == CHUNK_SIZE


def test_an_import_of_joined_parts_is_repaired(shop: Shop) -> None:
    parts = '[{ file = "small-a.gguf" }, { file = "small-b.gguf" }]'
    with_registry(shop, f'Q8_0 = {{ joined = "bytes", parts = {parts} }}')
    origin = Origin("hub", REPO, shop.head)
    item = install(shop.installation.store, receipt_of(origin=origin))
    # In the fourth chunk, which reaches over the border of the parts.
    spoil(item.path, CUT)

    found = shop.repair()

    assert found.error is None
    assert item.path.read_bytes() == CONTENT
    assert shop.hub.sent("cdn") == CHUNK_SIZE


def test_a_hub_with_another_file_by_now_is_told(shop: Shop) -> None:
    digest = sha256_of(CONTENT)
    with_registry(
        shop, f'Q8_0 = {{ file = "small.gguf", sha256 = "{digest}" }}', pinned=False
    )
    shop.hub.add(repository(REPO, {"small.gguf": b"new"}))
    spoil(install(shop.installation.store, receipt_of()).path, 0)

    found = shop.repair()

    assert found.problem == "the hub has another file by now"


@pytest.mark.parametrize(
    ("origin", "converted", "name", "hint"),
    [
        (
            Origin("bundled"),
            False,
            "small",
            "rm small:Q8_0 && wizard-edge pull small:Q8_0",
        ),
        (
            Origin("local"),
            False,
            "small",
            "rm small:Q8_0, then wizard-edge import FILE",
        ),
        (Origin("local"), True, "small", "rm small:Q8_0, then wizard-edge convert DIR"),
        (
            Origin("hub", RepoId("a/b")),
            True,
            "small",
            "convert hf:a/b -q Q8_0 --overwrite",
        ),
        (
            Origin("hub", RepoId("a/b")),
            True,
            "wizardlm-13b-v1.2",
            "rm wizardlm-13b-v1.2:Q8_0 && "
            "wizard-edge pull wizardlm-13b-v1.2:Q8_0 --from weights",
        ),
    ],
    ids=["bundled", "imported", "converted here", "converted", "of the registry"],
)
def test_what_cannot_be_fetched_again_is_made_anew(
    shop: Shop, origin: Origin, converted: bool, name: str, hint: str
) -> None:
    receipt = receipt_of(name=name, origin=origin)
    if converted:
        checked = CheckedFile(RelPath("model.safetensors"), 1, Check.SIZE)
        receipt = replace(receipt, weights=(checked,))
    spoil(install(shop.installation.store, receipt).path, 0)

    error: WizardEdgeError | None = shop.repair().error

    assert isinstance(error, Corrupt)
    made_here = converted or origin.kind == "bundled"
    assert error.problem == (
        "it was made on this machine, and lies nowhere else to be fetched from"
        if made_here
        else "nobody knows where its bytes can be fetched"
    )
    assert error.hint == f"wizard-edge {hint}"
