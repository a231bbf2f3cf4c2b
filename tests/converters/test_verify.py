"""A file that differs from its plan in any byte or entry is not let through."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from tests.converters.running import Converted
from wizard_edge.errors import Corrupt
from wizard_edge.gguf import read_header
from wizard_edge.gguf_types import ValueType
from wizard_edge_converters.entries import Entry
from wizard_edge_converters.plan import OutputFile
from wizard_edge_converters.quality import quality_entries
from wizard_edge_converters.verify import Piece, check_entries, verify_file


@pytest.fixture
def good(converted: Callable[[str, str], Converted]) -> Converted:
    return converted("tied", "Q8_0")


def pieces(good: Converted, path: Path | None = None) -> list[Piece]:
    """List the blocks of a file with the CRC-32 that they have in it."""
    data = (path or good.path).read_bytes()
    found = []
    for step in good.plan.steps:
        for place in step.places:
            for block in step.blocks():
                at = place.offset + block.start * place.row_size
                size = block.rows * place.row_size
                crc = zlib.crc32(data[at : at + size])
                found.append(Piece(place.name, at, size, crc))
    return sorted(found, key=lambda piece: piece.offset)


def as_written(good: Converted) -> OutputFile:
    """Return the file as it was planned, with the figures that were measured."""
    figures = good.made.deviations
    entries = {e.key: e for e in quality_entries(figures, figures)}
    return good.file.with_entries(entries)


def test_an_unchanged_file_gives_its_sha256(good: Converted) -> None:
    digest = verify_file(good.path, as_written(good), pieces(good))

    assert digest == good.sha256
    assert digest == hashlib.sha256(good.path.read_bytes()).hexdigest()


@pytest.mark.parametrize("where", ["header", "first block", "last block", "size"])
def test_a_changed_byte_is_noticed(where: str, good: Converted, tmp_path: Path) -> None:
    found = pieces(good)
    data = bytearray(good.path.read_bytes())
    places = {
        "header": 100,
        "first block": found[0].offset,
        "last block": found[-1].offset + found[-1].size - 1,
    }
    if where == "size":
        data += bytes(32)
    else:
        data[places[where]] ^= 1
    path = tmp_path / "changed.gguf"
    path.write_bytes(data)

    said = "reads back differently" if where.endswith("block") else where
    with pytest.raises(Corrupt, match=said):
        verify_file(path, as_written(good), found)


@pytest.mark.parametrize(
    ("key", "change"),
    [
        ("general.name", {"value": "Another"}),
        ("general.file_type", {"value": 8}),
        ("general.file_type", {"type": ValueType.INT32}),
        ("llama.rope.freq_base", {"value": 10000.5}),
        ("tokenizer.ggml.add_bos_token", {"value": False}),
        ("tokenizer.ggml.tokens", {"value": ("a",) * 320}),
        ("tokenizer.ggml.scores", {"value": (0.5,) * 320}),
        ("tokenizer.ggml.token_type", {"elements": ValueType.UINT32}),
        ("general.type", {"key": "general.kind"}),
    ],
)
def test_a_changed_entry_is_noticed(
    key: str, change: dict[str, object], good: Converted
) -> None:
    header = read_header(good.path)
    entries = tuple(
        replace(entry, **change) if entry.key == key else entry  # type: ignore[arg-type]
        for entry in as_written(good).entries
    )

    check_entries(header, as_written(good).entries)
    with pytest.raises(Corrupt):
        check_entries(header, entries)


def test_a_missing_entry_is_noticed(good: Converted) -> None:
    header = read_header(good.path)
    more = (*as_written(good).entries, Entry("a.b", ValueType.BOOL, True))

    with pytest.raises(Corrupt, match="other keys"):
        check_entries(header, more)
