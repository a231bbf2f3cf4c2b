from __future__ import annotations

import json
import zlib
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wizard_edge.chunks import CHUNK_SIZE, Chunks, Grid, read_chunks
from wizard_edge.errors import ConfigError, Corrupt, WizardEdgeError
from wizard_edge.names import Sha256

PATH = Path("model.gguf.chunks")
SIZES = (2 * CHUNK_SIZE + 5, CHUNK_SIZE)
CHUNKS = Chunks(Grid(SIZES), Sha256.parse("0" * 64), [1, 2, 3, 2**32 - 1])


def with_sum(body: bytes) -> bytes:
    return body + zlib.crc32(body).to_bytes(4, "little")


def line(**keys: object) -> bytes:
    table = json.loads(CHUNKS.to_bytes().partition(b"\n")[0])
    numbers = CHUNKS.to_bytes().partition(b"\n")[2][:-4]
    return with_sum(json.dumps({**table, **keys}).encode() + b"\n" + numbers)


@given(st.lists(st.integers(0, 3 * CHUNK_SIZE), min_size=1, max_size=4))
def test_chunks_follow_each_other_and_stay_inside_their_piece(sizes: list[int]) -> None:
    grid = Grid(sizes)

    spans = [grid.span(number) for number in range(grid.count)]

    assert sum(span.size for span in spans) == grid.size == sum(sizes)
    assert all(0 < span.size <= CHUNK_SIZE for span in spans)
    assert all(a.end == b.offset for a, b in pairwise(spans))
    for piece, size in enumerate(sizes):
        numbers = grid.numbers(piece)
        assert sum(spans[number].size for number in numbers) == size
        assert {grid.piece(number) for number in numbers} <= {piece}
        if size:
            assert spans[numbers[0]].offset == grid.start(piece)


def test_a_chunk_that_is_not_there() -> None:
    with pytest.raises(IndexError):
        Grid([CHUNK_SIZE]).span(1)


def test_what_was_written_is_read(tmp_path: Path) -> None:
    path = tmp_path / "f.chunks"
    path.write_bytes(CHUNKS.to_bytes())

    found = read_chunks(path)

    assert found.grid.sizes == SIZES
    assert (found.sha256, list(found.sums)) == (CHUNKS.sha256, list(CHUNKS.sums))


def test_every_cut_and_every_changed_byte_is_noticed() -> None:
    good = CHUNKS.to_bytes()

    for at in range(len(good)):
        flipped = bytearray(good)
        flipped[at] ^= 1
        for spoilt in (good[:at], bytes(flipped)):
            with pytest.raises(Corrupt):
                Chunks.parse(PATH, spoilt)


@pytest.mark.parametrize(
    "content",
    [
        line(sizes=[]),
        line(sizes=[-1]),
        line(sizes=[True]),
        line(sizes=["1"]),
        line(sizes=[2**62]),
        line(sizes=None),
        line(chunk=1),
        line(schema=0),
        line(schema="1"),
        line(sha256="../x"),
        with_sum(b"[]\n"),
        with_sum(b"[" * 10_000),
        with_sum(b"\xff\n"),
    ],
)
def test_lines_of_another_form_are_refused(content: bytes) -> None:
    with pytest.raises(Corrupt):
        Chunks.parse(PATH, content)


def test_a_schema_from_the_future_asks_for_an_upgrade() -> None:
    with pytest.raises(ConfigError, match="schema 2") as caught:
        Chunks.parse(PATH, line(schema=2))

    assert caught.value.hint is not None


@given(st.binary(max_size=200))
def test_any_bytes_give_an_error_of_ours(content: bytes) -> None:
    with pytest.raises(WizardEdgeError):
        Chunks.parse(PATH, with_sum(content))
