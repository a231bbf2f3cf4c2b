"""One pass gives the sums that reading a file again would give."""

from __future__ import annotations

import zlib
from hashlib import sha256

import pytest

from wizard_edge.chunks import CHUNK_SIZE, Grid
from wizard_edge.sums import Sums

CONTENT = bytes(range(251)) * 4000
SIZES = (CHUNK_SIZE + 1, 700, 2 * CHUNK_SIZE, len(CONTENT) - 3 * CHUNK_SIZE - 701)


@pytest.mark.parametrize("step", [1 << 20, CHUNK_SIZE, 70_001])
@pytest.mark.parametrize("sizes", [(len(CONTENT),), SIZES], ids=["whole", "pieces"])
def test_the_sums_do_not_depend_on_how_the_bytes_come(
    sizes: tuple[int, ...], step: int
) -> None:
    grid = Grid(sizes)
    sums = Sums(grid)

    for start in range(0, len(CONTENT), step):
        sums.update(CONTENT[start : start + step])

    chunks = sums.chunks()
    spans = [grid.span(number) for number in range(grid.count)]
    assert chunks.sha256 == sha256(CONTENT).hexdigest()
    assert chunks.sums == tuple(zlib.crc32(CONTENT[s.offset : s.end]) for s in spans)
    assert chunks.grid is grid


def test_a_copy_is_a_place_to_go_back_to() -> None:
    sums = Sums(Grid(SIZES))
    sums.update(CONTENT[:300_000])

    before = sums.copy()
    sums.update(bytes(1000))
    before.update(CONTENT[300_000:])

    whole = Sums(Grid(SIZES))
    whole.update(CONTENT)
    assert before.chunks().to_bytes() == whole.chunks().to_bytes()
    assert (sums.size, before.size) == (301_000, len(CONTENT))


def test_bytes_too_many_and_too_few_are_told() -> None:
    sums = Sums(Grid((10,)))

    with pytest.raises(ValueError, match="more than 10 bytes"):
        sums.update(bytes(11))
    sums.update(bytes(9))
    with pytest.raises(ValueError, match="9 of 10 bytes"):
        sums.chunks()


def test_a_file_without_bytes_has_sums() -> None:
    assert Sums(Grid(())).chunks().sha256 == sha256(b"").hexdigest()
