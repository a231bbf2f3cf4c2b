from __future__ import annotations

import struct
import zlib
from dataclasses import replace
from pathlib import Path

import pytest

from tests.service.fakes import an_installation
from tests.stores import CONTENT, install, receipt_of, spoil, sums_of, tree
from wizard_edge.chunks import CHUNK_SIZE, Chunks, Grid, read_chunks
from wizard_edge.errors import Corrupt, NotFound, Refused
from wizard_edge.names import ModelName, RelPath
from wizard_edge.progress import ProgressEvent
from wizard_edge.receipts import Piece
from wizard_edge.service.verification import DamagedChunk, verify
from wizard_edge.store import Store


def chunk(number: int, size: int = CHUNK_SIZE) -> DamagedChunk:
    return DamagedChunk(number, number * CHUNK_SIZE, size)


def test_a_right_file_with_right_sums_is_all_right(tmp_path: Path) -> None:
    installation = an_installation(tmp_path)
    item = install(installation.store, receipt_of())
    before = tree(tmp_path)

    [found] = verify(installation)

    assert (found.ok, found.problem, found.damaged, found.note) == (
        True,
        None,
        (),
        None,
    )
    assert (found.name, found.quant, found.path) == ("small", "Q8_0", item.path)
    assert tree(tmp_path) == before


@pytest.mark.parametrize("pieces", [1, 2], ids=["one piece", "two pieces"])
def test_damaged_chunks_are_named(tmp_path: Path, pieces: int) -> None:
    installation = an_installation(tmp_path)
    receipt = receipt_of()
    first = 3 * CHUNK_SIZE + 5
    sizes = [len(CONTENT)] if pieces == 1 else [first, len(CONTENT) - first]
    [file] = receipt.files
    parts = tuple(Piece(size, url=f"https://h/{size}") for size in sizes)
    receipt = replace(receipt, files=(replace(file, pieces=parts),))
    item = install(installation.store, receipt)
    spoil(item.path, 0, 2 * CHUNK_SIZE - 1, len(CONTENT) - 1)

    [found] = verify(installation)

    last = Grid(sizes).count - 1
    span = Grid(sizes).span(last)
    assert found.damaged == (
        chunk(0),
        chunk(1),
        DamagedChunk(last, span.offset, span.size),
    )
    assert found.problem == f"3 of {last + 1} chunks are not what they were"
    assert isinstance(found.error, Corrupt)
    assert found.error.hint == "wizard-edge verify small:Q8_0 --repair"


def test_the_last_chunk_is_as_long_as_it_is(tmp_path: Path) -> None:
    installation = an_installation(tmp_path)
    spoil(install(installation.store, receipt_of()).path, len(CONTENT) - 1)

    [found] = verify(installation)

    assert found.damaged == (chunk(6, 1000),)


def test_without_sums_a_file_is_damaged_as_a_whole(tmp_path: Path) -> None:
    installation = an_installation(tmp_path)
    item = install(installation.store, receipt_of(), sums=False)
    spoil(item.path, 5)

    [found] = verify(installation)

    digest = sums_of(item.path.read_bytes()).sha256
    assert found.problem == (
        f"its sha256 begins {digest[:12]}, not {item.receipt.sha256[:12]}"
    )
    assert found.damaged == ()
    assert not item.sums_path(item.receipt.files[0]).exists()


def test_a_right_file_gets_the_sums_it_lacks(tmp_path: Path) -> None:
    installation = an_installation(tmp_path)
    item = install(installation.store, receipt_of(), sums=False)

    [first] = verify(installation)
    [second] = verify(installation)

    assert (first.ok, first.note) == (True, "chunk sums written")
    assert (second.ok, second.note) == (True, None)
    written = read_chunks(item.sums_path(item.receipt.files[0]))
    assert list(written.sums) == list(sums_of(CONTENT).sums)
    assert written.grid.sizes == (len(CONTENT),)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"garbage",
        sums_of(CONTENT).to_bytes()[:-1],
        sums_of(CONTENT[:-1]).to_bytes(),
        sums_of(b"x" * len(CONTENT)).to_bytes(),
        replace(sums_of(CONTENT), sums=[0] * 7).to_bytes(),
    ],
    ids=["empty", "garbage", "cut", "of another size", "of another file", "wrong"],
)
def test_damaged_sums_of_a_right_file_are_made_anew(
    tmp_path: Path, content: bytes
) -> None:
    installation = an_installation(tmp_path)
    item = install(installation.store, receipt_of())
    path = item.sums_path(item.receipt.files[0])
    path.write_bytes(content)

    [found] = verify(installation)

    assert (found.ok, found.damaged) == (True, ())
    assert found.note == "its chunk sums were damaged and are written anew"
    assert path.read_bytes() == sums_of(CONTENT).to_bytes()


def test_sums_from_the_future_are_left_alone(tmp_path: Path) -> None:
    installation = an_installation(tmp_path)
    item = install(installation.store, receipt_of())
    path = item.sums_path(item.receipt.files[0])
    line = b'{"schema": 2}\n'
    future = line + struct.pack("<I", zlib.crc32(line))
    path.write_bytes(future)

    [found] = verify(installation)

    assert (found.ok, found.note) == (True, None)
    assert path.read_bytes() == future


@pytest.mark.parametrize(
    ("content", "problem", "damaged"),
    [
        (
            CONTENT[: 5 * CHUNK_SIZE + 1],
            f"has {5 * CHUNK_SIZE + 1} bytes instead of {len(CONTENT)}",
            (chunk(5), chunk(6, 1000)),
        ),
        (
            CONTENT + b"more",
            f"has {len(CONTENT) + 4} bytes instead of {len(CONTENT)}",
            (),
        ),
        (
            None,
            "there is no such file",
            (*map(chunk, range(6)), chunk(6, 1000)),
        ),
    ],
    ids=["cut", "longer", "gone"],
)
def test_a_file_of_another_length(
    tmp_path: Path,
    content: bytes | None,
    problem: str,
    damaged: tuple[DamagedChunk, ...],
) -> None:
    installation = an_installation(tmp_path)
    path = install(installation.store, receipt_of()).path
    path.unlink()
    if content is not None:
        path.write_bytes(content)

    [found] = verify(installation)

    assert (found.problem, found.damaged) == (problem, damaged)


def test_a_file_whose_chunks_fit_and_whose_hash_does_not(tmp_path: Path) -> None:
    """Sums may be taken of a file that was wrong already."""
    installation = an_installation(tmp_path)
    item = install(installation.store, receipt_of())
    spoil(item.path, 5)
    sums = sums_of(item.path.read_bytes())
    mixed = Chunks(sums.grid, item.receipt.sha256, sums.sums)
    item.sums_path(item.receipt.files[0]).write_bytes(mixed.to_bytes())

    [found] = verify(installation)

    assert found.problem == "every chunk fits its sum, and yet its sha256 is another"
    assert found.damaged == ()


def test_a_damaged_receipt_is_told_and_the_rest_is_looked_at(tmp_path: Path) -> None:
    installation = an_installation(tmp_path)
    bad = install(installation.store, receipt_of(name="bad"))
    bad.receipt_path.write_bytes(b"{")
    install(installation.store, receipt_of(name="good"))

    first, second = verify(installation)

    assert (first.name, first.quant, first.path) == ("bad", None, bad.receipt_path)
    assert (first.problem or "").startswith("not a receipt: ")
    assert (second.name, second.ok) == ("good", True)


def test_what_is_no_file_is_told(tmp_path: Path) -> None:
    installation = an_installation(tmp_path)
    path = install(installation.store, receipt_of()).path
    path.unlink()
    path.mkdir()

    [found] = verify(installation)

    assert found.problem == f"not a regular file: {path}"


def test_only_what_is_named_is_read(tmp_path: Path) -> None:
    installation = an_installation(tmp_path)
    for quant in ("Q8_0", "F16"):
        install(installation.store, receipt_of(quant=quant))
    install(installation.store, receipt_of(name="other"))

    def names(*refs: str) -> list[str]:
        return [f"{item.name}:{item.quant}" for item in verify(installation, refs)]

    assert names("small:F16") == ["small:F16"]
    assert names("small", "small:F16") == ["small:F16", "small:Q8_0"]
    assert names() == ["other:Q8_0", "small:F16", "small:Q8_0"]
    with pytest.raises(NotFound):
        names("small:Q4_0")


def test_every_part_of_a_split_model_has_its_line(tmp_path: Path) -> None:
    installation = an_installation(tmp_path)
    store: Store = installation.store
    one, two = b"one" * 1000, b"two!" * 1000
    first = replace(receipt_of(one).files[0], name=RelPath("s-00001-of-00002.gguf"))
    second = replace(receipt_of(two).files[0], name=RelPath("s-00002-of-00002.gguf"))
    name = ModelName("small")
    receipt = replace(receipt_of(one), files=(first, second))
    with (
        store.open_slot(name, first.name) as slot,
        store.open_slot(name, second.name) as other,
    ):
        slot.temp.write_bytes(one)
        other.temp.write_bytes(two)
        item = store.commit(receipt, [slot, other])
    spoil(item.file_path(second), 9)

    found = verify(installation)

    assert [(row.path.name, row.ok) for row in found] == [
        ("s-00001-of-00002.gguf", True),
        ("s-00002-of-00002.gguf", False),
    ]


def test_progress_counts_the_bytes_of_all_files(tmp_path: Path) -> None:
    installation = an_installation(tmp_path)
    install(installation.store, receipt_of(name="a")).path.unlink()
    spoil(install(installation.store, receipt_of(name="b")).path, 3)
    events: list[ProgressEvent] = []

    verify(installation, progress=events.append)

    total = 2 * len(CONTENT)
    assert {event.stage for event in events} == {"verify"}
    assert {event.total for event in events} == {total}
    assert [event.done for event in events] == sorted(event.done for event in events)
    assert events[-1].done == total


def test_a_store_that_cannot_be_written_is_verified_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installation = an_installation(tmp_path)
    item = install(installation.store, receipt_of(name="a"), sums=False)
    other = install(installation.store, receipt_of(name="b"))
    other.sums_path(other.receipt.files[0]).write_bytes(b"spoilt")

    def closed(*_: object) -> None:
        raise Refused("cannot write it")

    monkeypatch.setattr(Store, "write_sums", closed)

    first, second = verify(installation)

    assert (first.path, first.ok, first.note) == (item.path, True, None)
    assert (second.ok, second.note) == (
        True,
        "its chunk sums are damaged, and stay so: cannot write it",
    )


@pytest.mark.parametrize("by", ["removed", "replaced"])
def test_what_goes_away_meanwhile_is_nobody_s_damage(tmp_path: Path, by: str) -> None:
    installation = an_installation(tmp_path)
    first = install(installation.store, receipt_of(name="a"))
    last = install(installation.store, receipt_of(name="b"))

    def change(event: ProgressEvent) -> None:
        if event.done == first.receipt.size:
            installation.store.remove(last)
            if by == "replaced":
                install(installation.store, receipt_of(b"other", name="b"), b"other")

    found = verify(installation, progress=change)

    assert [(item.ok, item.skipped, item.note) for item in found] == [
        (True, False, None),
        (True, True, "removed or replaced meanwhile"),
    ]
