"""Conversations that gave way: in RAM, then on the disk, then gone."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from pathlib import Path

import pytest

from wizard_edge.parking import Parked, Parking
from wizard_edge.parking_disk import LOCK, ParkingDisk, files_of, find_parked


class Conversation:
    """Somebody whose tokens are parked."""


OWNERS = [Conversation() for _ in range(4)]
SIZE = 1000
# What a file has beside the bytes is less than this.
ROOM = SIZE + 300


def parked(number: int, owner: Conversation | None = None) -> Parked:
    holder: object = OWNERS[number] if owner is None else owner
    ids = (number, *range(10))
    return Parked(weakref.ref(holder), ids, bytes([number]) * SIZE)


def bytes_of(parking: Parking, number: int) -> bytes | None:
    """Return what is found for a conversation, None where nothing of it is."""
    count, found = parking.find((number, *range(20)))
    if found is None or count == 0:
        return None
    data = parking.read(found)
    return None if data is None else bytes(data)


@pytest.fixture
def disk(tmp_path: Path) -> ParkingDisk:
    return ParkingDisk(tmp_path, 3 * ROOM, kind="a kind")


def test_what_is_kept_is_found_by_its_beginning() -> None:
    parking = Parking(10 * SIZE)
    parking.keep(parked(1))

    count, found = parking.find((1, 0, 1, 2, 99))

    assert count == 4
    assert found is not None
    assert bytes_of(parking, 1) == bytes([1]) * SIZE


def test_the_longest_unused_goes_first() -> None:
    parking = Parking(2 * SIZE)
    for number in range(3):
        parking.keep(parked(number))

    assert parking.size == 2 * SIZE
    assert [bytes_of(parking, number) is None for number in range(3)] == [
        True,
        False,
        False,
    ]


def test_what_was_taken_is_gone() -> None:
    parking = Parking(10 * SIZE)
    parking.keep(parked(1))
    _, found = parking.find((1, 0))
    assert found is not None

    parking.take(found)

    assert bytes_of(parking, 1) is None


def test_a_conversation_that_is_gone_makes_room(disk: ParkingDisk) -> None:
    owner = Conversation()
    parking = Parking(0, disk)
    parking.keep(parked(1, owner))
    del owner

    parking.keep(parked(2))

    assert bytes_of(parking, 1) is None
    assert len(disk.parked) == 1


@pytest.mark.parametrize("budget", [0, SIZE], ids=["no RAM", "RAM for one"])
def test_what_ram_does_not_hold_goes_to_the_disk_and_comes_back(
    disk: ParkingDisk, budget: int
) -> None:
    parking = Parking(budget, disk)
    for number in range(3):
        parking.keep(parked(number))

    assert [bytes_of(parking, n) for n in range(3)] == [
        bytes([n]) * SIZE for n in range(3)
    ]
    assert len(disk.parked) == 3 - budget // SIZE


def test_the_disk_has_a_budget_too(disk: ParkingDisk) -> None:
    parking = Parking(0, disk)
    for number in range(4):
        parking.keep(parked(number))

    assert bytes_of(parking, 0) is None
    assert bytes_of(parking, 3) == bytes([3]) * SIZE


def damage(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("spoil", [damage, Path.unlink], ids=["damaged", "deleted"])
def test_what_the_disk_spoilt_is_not_used(
    disk: ParkingDisk, spoil: Callable[[Path], None]
) -> None:
    parking = Parking(0, disk)
    parking.keep(parked(1))
    [file] = [path for path in files_of(disk.folder) if not path.is_dir()]

    spoil(file)

    assert bytes_of(parking, 1) is None
    assert disk.parked == []


def test_closing_leaves_nothing(tmp_path: Path, disk: ParkingDisk) -> None:
    parking = Parking(0, disk)
    parking.keep(parked(1))
    assert find_parked(tmp_path) == [disk.folder]
    assert (disk.folder / LOCK).exists()

    parking.close()

    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_made_is_told_once_and_harms_nobody(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("no folder")
    parking = Parking(0, ParkingDisk(tmp_path / "file", 10 * SIZE, kind="a kind"))

    parking.keep(parked(1))
    parking.keep(parked(2))

    assert bytes_of(parking, 1) is None
    assert len(caplog.records) == 1
