from __future__ import annotations

import hashlib
import io
import zlib
from pathlib import Path

import pytest

from tests.hub.content import random_bytes
from wizard_edge.chunks import CHUNK_SIZE, Grid
from wizard_edge.errors import MissingFile
from wizard_edge.names import Sha256
from wizard_edge.scanning import Scan, scan

# Two pieces, neither of which ends where a chunk of a file would.
SIZES = (5 * CHUNK_SIZE + 17, 2 * CHUNK_SIZE + 1)
CONTENT = random_bytes(1, sum(SIZES))
GRID = Grid(SIZES)


def sha256(content: bytes) -> Sha256:
    return Sha256(hashlib.sha256(content).hexdigest())


def sums_of(content: bytes) -> tuple[int | None, ...]:
    spans = [GRID.span(number) for number in range(GRID.count)]
    return tuple(
        zlib.crc32(content[span.offset : span.end])
        if span.end <= len(content)
        else None
        for span in spans
    )


def test_a_file_is_read_once_and_has_both_sums(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(CONTENT)
    read: list[int] = []

    found = scan(path, GRID, read.append)

    assert found == Scan(len(CONTENT), sha256(CONTENT), sums_of(CONTENT))
    assert sum(read) == len(CONTENT)
    assert len(found.sums) == 9


@pytest.mark.parametrize("end", [0, 1, CHUNK_SIZE, 5 * CHUNK_SIZE + 16, -1])
def test_chunks_that_are_not_there_whole_have_no_sum(tmp_path: Path, end: int) -> None:
    path = tmp_path / "f"
    path.write_bytes(CONTENT[:end])
    read: list[int] = []

    found = scan(path, GRID, read.append)

    assert found == Scan(len(CONTENT[:end]), None, sums_of(CONTENT[:end]))
    assert sum(read) == len(CONTENT)


def test_what_lies_behind_the_grid_is_counted_only(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(CONTENT + b"more")

    found = scan(path, GRID, lambda size: None)

    assert found == Scan(len(CONTENT) + 4, sha256(CONTENT), sums_of(CONTENT))


def test_an_empty_file_has_the_sum_of_nothing(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.touch()

    found = scan(path, Grid([0]), lambda size: None)

    assert found == Scan(0, sha256(b""), ())


def test_a_disk_that_fails_at_one_place_costs_one_chunk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "f"
    path.write_bytes(CONTENT)
    bad = 2 * CHUNK_SIZE + 5

    class Failing(io.FileIO):
        def readinto(self, buffer: memoryview) -> int | None:  # type: ignore[override]
            place = self.tell()
            if place <= bad < place + len(buffer):
                raise OSError(5, "Input/output error")
            return super().readinto(buffer)

    monkeypatch.setattr("wizard_edge.scanning.io.FileIO", Failing)

    found = scan(path, GRID, lambda size: None)

    expected = list(sums_of(CONTENT))
    expected[2] = None
    assert found == Scan(len(CONTENT), None, tuple(expected), "Input/output error")


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(MissingFile):
        scan(tmp_path / "none", GRID, lambda size: None)
