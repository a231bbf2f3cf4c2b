"""Whatever happens to a download, only the right bytes come out of it."""

from __future__ import annotations

import os
import zlib
from dataclasses import replace
from itertools import count, pairwise
from pathlib import Path
from random import Random
from threading import Barrier

import pytest

from tests.download.serving import NAME, Server, chunks, piece_of, wanted
from wizard_edge import part_files
from wizard_edge.chunks import CHUNK_SIZE
from wizard_edge.download import Fetched, Options, Wanted, download
from wizard_edge.errors import (
    BackendError,
    Corrupt,
    HubError,
    Interrupted,
    NotEnough,
    NotFound,
    Refused,
)
from wizard_edge.names import BlobId
from wizard_edge.progress import ProgressEvent

DATA = Random(1).randbytes(chunks(16) + 1000)
ONE = Options(connections=1)


def fetch(folder: Path, server: Server, options: Options = ONE) -> Fetched:
    return download(wanted(DATA), folder, [server.source()], options)


def left(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("connections", [1, 2, 4, 16])
def test_the_bytes_come_out_with_their_sums(tmp_path: Path, connections: int) -> None:
    server = Server((DATA,))

    got = fetch(tmp_path, server, Options(connections=connections))

    assert got.path.read_bytes() == DATA
    assert got.sha256 == wanted(DATA).sha256
    assert (got.received, server.sent) == (len(DATA), len(DATA))
    assert list(got.chunks.sums) == [
        zlib.crc32(DATA[at : at + CHUNK_SIZE]) for at in range(0, len(DATA), CHUNK_SIZE)
    ]
    assert left(tmp_path) == ["key.journal", "key.part"]


def test_one_connection_asks_once(tmp_path: Path) -> None:
    server = Server((DATA,))

    fetch(tmp_path, server)

    assert server.asked == [(0, len(DATA))]


def test_several_connections_ask_for_each_byte_once(tmp_path: Path) -> None:
    server = Server((DATA,))

    fetch(tmp_path, server, Options(connections=4))

    asked = sorted(server.asked)
    assert len(asked) > 3
    assert asked[0][0] == 0
    assert asked[-1][1] == len(DATA)
    assert all(a[1] == b[0] for a, b in pairwise(asked))


def test_several_connections_are_open_at_once(tmp_path: Path) -> None:
    """The second and the third request wait for each other, else for ever."""
    together = Barrier(2, timeout=20)
    number = count()

    def meet(start: int, end: int) -> None:
        if next(number) in (1, 2):
            together.wait()

    server = Server((DATA,), before=meet)

    fetch(tmp_path, server, Options(connections=3))

    assert len(server.asked) > 3


def test_pieces_are_put_end_to_end(tmp_path: Path) -> None:
    parts = (DATA[: chunks(3) + 7], DATA[chunks(3) + 7 :])

    got = download(wanted(*parts), tmp_path, [Server(parts).source()])

    assert got.path.read_bytes() == DATA
    assert got.chunks.grid.sizes == (chunks(3) + 7, len(DATA) - chunks(3) - 7)


def test_progress_counts_what_was_there(tmp_path: Path) -> None:
    with pytest.raises(HubError):
        fetch(tmp_path, Server((DATA,), fail_at=chunks(8)))
    events: list[ProgressEvent] = []

    download(
        wanted(DATA),
        tmp_path,
        [Server((DATA,)).source()],
        ONE,
        progress=events.append,
    )

    assert events[0] == ProgressEvent("download", chunks(8), len(DATA))
    assert events[-1] == ProgressEvent("download", len(DATA), len(DATA))
    assert [e.done for e in events] == sorted(e.done for e in events)


@pytest.mark.parametrize("connections", [1, 4])
@pytest.mark.parametrize("at", [0, 1, chunks(1) - 1, chunks(5) + 9, len(DATA) - 1])
def test_the_next_run_goes_on(tmp_path: Path, at: int, connections: int) -> None:
    options = Options(connections=connections)
    server = Server((DATA,), fail_at=at)
    with pytest.raises(HubError):
        fetch(tmp_path, server, options)
    server.fail_at = None

    got = fetch(tmp_path, server, options)

    assert got.path.read_bytes() == DATA
    # One chunk for each connection was begun and not whole.
    assert server.sent <= len(DATA) + connections * CHUNK_SIZE


def test_what_is_whole_is_not_asked_for(tmp_path: Path) -> None:
    fetch(tmp_path, Server((DATA,)))
    server = Server((DATA,))

    got = fetch(tmp_path, server)

    assert server.asked == []
    assert (got.received, got.path.read_bytes()) == (0, DATA)


def test_a_chunk_that_the_disk_lost_is_fetched_again(tmp_path: Path) -> None:
    """As after a power cut: the journal promises what was never written."""
    path = fetch(tmp_path, Server((DATA,))).path
    spoilt = bytearray(DATA)
    spoilt[chunks(3) : chunks(4)] = bytes(CHUNK_SIZE)
    spoilt[-1] ^= 1
    path.write_bytes(spoilt)
    server = Server((DATA,))

    got = fetch(tmp_path, server)

    assert got.path.read_bytes() == DATA
    assert server.asked == [(chunks(3), chunks(4)), (chunks(16), len(DATA))]


@pytest.mark.parametrize("cut", [0, 1, 50, -1, -5, -12, -13, -24])
def test_a_torn_journal_costs_what_it_lost(tmp_path: Path, cut: int) -> None:
    got = fetch(tmp_path, Server((DATA,)))
    got.journal.write_bytes(got.journal.read_bytes()[:cut])
    server = Server((DATA,))

    again = fetch(tmp_path, server)

    assert again.path.read_bytes() == DATA
    lost = len(DATA) if cut >= 0 else -(cut // 12) * CHUNK_SIZE
    assert server.sent <= lost


def test_every_changed_byte_of_a_journal_does_no_harm(tmp_path: Path) -> None:
    good = fetch(tmp_path, Server((DATA,))).journal.read_bytes()

    for at in range(0, len(good), 3):
        changed = bytearray(good)
        changed[at] ^= 0x41
        (tmp_path / "key.journal").write_bytes(changed)
        assert fetch(tmp_path, Server((DATA,))).path.read_bytes() == DATA


@pytest.mark.parametrize("damage", ["gone", "cut", "long", "other sizes"])
def test_a_part_that_does_not_fit_its_journal(tmp_path: Path, damage: str) -> None:
    got = fetch(tmp_path, Server((DATA,)))
    if damage == "gone":
        got.path.unlink()
    elif damage == "cut":
        got.path.write_bytes(DATA[:-1])
    elif damage == "long":
        got.path.write_bytes(DATA + b"x")
    content = DATA[:-5] if damage == "other sizes" else DATA

    again = download(wanted(content), tmp_path, [Server((content,)).source()], ONE)

    assert again.path.read_bytes() == content
    assert again.received == len(content)


def test_wrong_bytes_are_fetched_again_and_then_refused(tmp_path: Path) -> None:
    server = Server((bytes(len(DATA)),))

    with pytest.raises(Corrupt, match="not those that were described") as caught:
        fetch(tmp_path, server)

    assert server.sent == 2 * len(DATA)
    assert left(tmp_path) == []
    assert caught.value.hint is not None


def test_a_wrong_piece_is_named(tmp_path: Path) -> None:
    parts = (DATA[: chunks(3)], DATA[chunks(3) :])
    server = Server((parts[0], bytes(len(parts[1]))))

    with pytest.raises(Corrupt, match=r"model\.Q8_0\.gguf-1 is damaged"):
        download(wanted(*parts), tmp_path, [server.source()])

    assert left(tmp_path) == []


def test_a_small_file_is_checked_by_its_git_blob(tmp_path: Path) -> None:
    piece = piece_of(b"hello\n", known=False)
    # What `git hash-object` says of "hello\n".
    blob = BlobId.parse("ce013625030ba8dba906f756967f9e9ca394464a")
    right = Wanted(NAME, (piece,), "key", blobs=(blob,))

    got = download(right, tmp_path, [Server((b"hello\n",)).source()])
    assert got.path.read_bytes() == b"hello\n"
    got.path.unlink()
    with pytest.raises(Corrupt):
        download(right, tmp_path, [Server((b"hallo\n",)).source()])


def test_a_mirror_that_lies_is_left_for_the_hub(tmp_path: Path) -> None:
    mirror, hub = Server((bytes(len(DATA)),)), Server((DATA,))

    got = download(
        wanted(DATA), tmp_path, [mirror.source(is_mirror=True), hub.source()], ONE
    )

    assert got.path.read_bytes() == DATA
    assert hub.sent == len(DATA)


@pytest.mark.parametrize("error", [HubError, NotFound, Refused])
def test_a_mirror_that_fails_loses_nothing(
    tmp_path: Path, error: type[HubError | NotFound | Refused]
) -> None:
    mirror = Server((DATA,), fail_at=chunks(9), error=lambda: error("no"))
    hub = Server((DATA,))

    got = download(
        wanted(DATA), tmp_path, [mirror.source(is_mirror=True), hub.source()], ONE
    )

    assert got.path.read_bytes() == DATA
    assert hub.asked == [(chunks(9), len(DATA))]


def test_a_server_that_wants_fewer_connections_gets_fewer(tmp_path: Path) -> None:
    server = Server((DATA,), step=10_000, most=1)

    got = fetch(tmp_path, server, Options(connections=4, rate=20_000_000))

    assert got.path.read_bytes() == DATA
    assert server.refused > 0


def test_a_server_without_parts_is_asked_by_one(tmp_path: Path) -> None:
    server = Server((DATA,), in_parts=False)

    got = fetch(tmp_path, server, Options(connections=4))

    assert got.path.read_bytes() == DATA
    # What came with the first answer, then all of the rest.
    assert len(server.asked) == 2


def test_the_hub_says_no(tmp_path: Path) -> None:
    def no(start: int, end: int) -> None:
        raise NotFound("no file")

    with pytest.raises(NotFound, match="no file"):
        fetch(tmp_path, Server((DATA,), before=no))

    assert left(tmp_path) == []


def test_a_disk_without_room_is_told_before_the_first_byte(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(part_files, "free_disk", lambda _: 1_000_000)
    server = Server((DATA,))

    with pytest.raises(NotEnough) as caught:
        fetch(tmp_path, server)

    assert (caught.value.needed, caught.value.free) == (
        len(DATA) + part_files.DISK_RESERVE,
        1_000_000,
    )
    assert server.asked == []
    assert left(tmp_path) == []


def test_a_disk_without_room_keeps_what_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(HubError):
        fetch(tmp_path, Server((DATA,), fail_at=chunks(8)))
    before = left(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(part_files, "free_disk", lambda _: 0)
        with pytest.raises(NotEnough):
            fetch(tmp_path, Server((DATA,)))
    server = Server((DATA,))

    got = fetch(tmp_path, server)

    assert before == ["key.journal", "key.part"]
    assert got.path.read_bytes() == DATA
    assert server.asked == [(chunks(8), len(DATA))]


def test_a_look_can_end_a_download_early(tmp_path: Path) -> None:
    looked: list[int] = []

    def look(path: Path, size: int) -> None:
        assert path.read_bytes()[:size] == DATA[:size]
        looked.append(size)
        if size >= chunks(4):
            raise BackendError("of no use")

    server = Server((DATA,), step=10_000)
    options = replace(ONE, looks=(chunks(1), chunks(4)), look=look, rate=20_000_000)

    with pytest.raises(BackendError, match="of no use"):
        fetch(tmp_path, server, options)

    assert looked
    # Once more from the start, in case the bytes were to blame.
    assert server.sent < 2 * len(DATA)
    assert left(tmp_path) == []


def test_what_a_mirror_spoiled_is_no_reason_to_give_up(tmp_path: Path) -> None:
    spoiled = b"x" + DATA[1:]
    mirror, hub = Server((spoiled,)), Server((DATA,))

    def look(path: Path, size: int) -> None:
        if path.read_bytes()[:1] == b"x":
            raise BackendError("of no use")

    got = download(
        wanted(DATA),
        tmp_path,
        [mirror.source(is_mirror=True), hub.source()],
        replace(ONE, looks=(chunks(1),), look=look),
    )

    assert got.path.read_bytes() == DATA
    assert hub.sent == len(DATA)


def test_half_a_record_is_taken_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Behind it no other record would be believed."""
    write, times = os.write, count()

    def short(descriptor: int, data: bytes) -> int:
        return write(descriptor, data[:5] if next(times) == 8 else data)

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", short)
        with pytest.raises(NotEnough):
            fetch(tmp_path, Server((DATA,), fail_at=None), Options(connections=1))
    assert left(tmp_path) == []


def test_small_pieces_are_checked_by_their_git_blobs(tmp_path: Path) -> None:
    pieces = (piece_of(b"hello\n", "a", known=False), piece_of(DATA, "b"))
    blobs = (BlobId.parse("ce013625030ba8dba906f756967f9e9ca394464a"), None)

    with pytest.raises(Corrupt, match="a is damaged"):
        download(
            Wanted(NAME, pieces, "key", blobs=blobs),
            tmp_path,
            [Server((b"hallo\n", DATA)).source()],
        )


def test_ctrl_c_says_how_to_go_on(tmp_path: Path) -> None:
    def interrupt(event: ProgressEvent) -> None:
        if event.done >= chunks(4):
            raise KeyboardInterrupt

    server = Server((DATA,), step=10_000)
    with pytest.raises(Interrupted, match=r"with .* of 4\.2 MB fetched") as caught:
        download(
            wanted(DATA),
            tmp_path,
            [server.source()],
            replace(ONE, rate=10_000_000),
            progress=interrupt,
        )

    assert caught.value.hint == "run the same command again: it goes on from there"
    server.sent = 0
    assert fetch(tmp_path, server).path.read_bytes() == DATA
    assert server.sent <= len(DATA) - chunks(3)


def test_a_link_in_the_place_of_a_part_is_not_followed(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_bytes(b"precious")
    folder = tmp_path / "partial"
    folder.mkdir()
    for name in ("key.part", "key.journal"):
        (folder / name).symlink_to(precious)

    with pytest.raises(Refused):
        fetch(folder, Server((DATA,)))

    assert precious.read_bytes() == b"precious"


def test_an_empty_file(tmp_path: Path) -> None:
    got = download(wanted(b""), tmp_path, [Server((b"",)).source()])

    assert got.path.read_bytes() == b""
