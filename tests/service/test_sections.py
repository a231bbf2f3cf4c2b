"""A file is cut where it must be, and every byte of it is accounted for."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.service.test_imports import digest
from wizard_edge.errors import UsageError
from wizard_edge.names import RelPath, Sha256
from wizard_edge.receipts import StoredFile
from wizard_edge.service.sections import DamagedSource, Section, Source, plan_sections
from wizard_edge.units import parse_bytes

GIB = 1 << 30


def of_size(size: int) -> StoredFile:
    return StoredFile(RelPath.parse("m.gguf"), size, Sha256.parse("a" * 64))


def cut(size: int, split: int | None) -> list[tuple[str, int, int]]:
    found = plan_sections(of_size(size), split)
    return [(item.name, item.offset, item.size) for item in found]


def test_pieces_follow_each_other() -> None:
    assert cut(25, 10) == [
        ("m.gguf.part1of3", 0, 10),
        ("m.gguf.part2of3", 10, 10),
        ("m.gguf.part3of3", 20, 5),
    ]


@pytest.mark.parametrize(
    ("size", "split"),
    [(25, None), (25, 25), (25, 26), (0, 10), (5 * GIB, 5 * GIB), (5 * GIB, 10 * GIB)],
)
def test_what_fits_stays_whole(size: int, split: int | None) -> None:
    assert cut(size, split) == [("m.gguf", 0, size)]


@pytest.mark.parametrize("text", ["4G", "4GiB", "4294967295", "4294967296"])
@pytest.mark.parametrize("size", [4 * GIB - 1, 4 * GIB, 4 * GIB + 1, 40 * GIB])
def test_fat32_takes_every_piece_of_4g(size: int, text: str) -> None:
    sizes = [item[2] for item in cut(size, parse_bytes(text))]

    assert max(sizes) < 1 << 32
    assert sum(sizes) == size


def test_names_have_three_digits_at_most() -> None:
    assert cut(999, 1)[-1] == ("m.gguf.part999of999", 998, 1)

    with pytest.raises(UsageError) as caught:
        cut(1000, 1)

    assert caught.value.message == "1000 pieces of m.gguf, at most 999"
    assert caught.value.hint == "--split 2 makes as many"


@pytest.mark.parametrize(
    "there", [b"0123x", b"0123", b"012345", b""], ids=["other", "short", "long", "none"]
)
def test_what_is_not_the_same_does_not_count_as_read(
    there: bytes, tmp_path: Path
) -> None:
    (tmp_path / "source").write_bytes(b"0123456789")
    (tmp_path / "there").write_bytes(there)
    name = RelPath.parse("any")
    first, second = Section(name, 0, 5), Section(name, 5, 5)
    counts: list[int] = []

    with Source(tmp_path / "source", 10, counts.append) as source:
        assert source.matches(first, tmp_path / "there") is None
        assert sum(counts) == 0
        assert source.copy(first, tmp_path / "copy") == digest(b"01234")
        assert source.matches(first, tmp_path / "copy") == digest(b"01234")
        assert source.copy(second, tmp_path / "rest") == digest(b"56789")

    assert (tmp_path / "copy").read_bytes() == b"01234"


def test_the_hash_is_that_of_what_was_read(tmp_path: Path) -> None:
    (tmp_path / "source").write_bytes(b"0123456789")
    (tmp_path / "there").write_bytes(b"01234")
    name = RelPath.parse("any")

    with Source(tmp_path / "source", 10, lambda size: None) as source:
        source.matches(Section(name, 0, 5), tmp_path / "there")
        source.copy(Section(name, 5, 5), tmp_path / "rest")

    assert source.sha256 == digest(b"0123456789")


def test_a_short_source_is_damaged(tmp_path: Path) -> None:
    (tmp_path / "source").write_bytes(b"0123")

    with (
        Source(tmp_path / "source", 10, lambda size: None) as source,
        pytest.raises(DamagedSource, match="has not its 10 bytes"),
    ):
        source.copy(Section(RelPath.parse("any"), 0, 10), tmp_path / "copy")
