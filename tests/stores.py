"""Models in a store whose bytes mean nothing, with sums and receipts that do."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from tests.hub.content import random_bytes
from wizard_edge.chunks import CHUNK_SIZE, Chunks, Grid
from wizard_edge.names import ModelName, RelPath, Sha256
from wizard_edge.receipts import Origin, Piece, Receipt, StoredFile
from wizard_edge.store import Installed, Store

# Six whole chunks and a part of one.
CONTENT = random_bytes(7, 6 * CHUNK_SIZE + 1000)


def sha256_of(content: bytes) -> Sha256:
    return Sha256(hashlib.sha256(content).hexdigest())


def sums_of(content: bytes, sizes: Sequence[int] = ()) -> Chunks:
    """Take the sums of a file that was fetched as pieces of these sizes."""
    grid = Grid(sizes or [len(content)])
    spans = [grid.span(number) for number in range(grid.count)]
    sums = [zlib.crc32(content[span.offset : span.end]) for span in spans]
    return Chunks(grid, sha256_of(content), sums)


def receipt_of(
    content: bytes = CONTENT,
    *,
    name: str = "small",
    quant: str = "Q8_0",
    pieces: tuple[Piece, ...] = (),
    origin: Origin | None = None,
    created: str = "2026-01-02T03:04:05Z",
) -> Receipt:
    file = StoredFile(
        RelPath.parse(f"{name}.{quant}.gguf"),
        len(content),
        sha256_of(content),
        pieces,
    )
    return Receipt(
        model=ModelName.parse(name),
        quant=quant,
        files=(file,),
        origin=origin or Origin("local"),
        licenses=("apache-2.0",),
        template="vicuna",
        architecture="llama",
        context=512,
        parameters=1000,
        tool="wizard-edge 0.1.0",
        created=created,
    )


def install(
    store: Store, receipt: Receipt, content: bytes = CONTENT, *, sums: bool = True
) -> Installed:
    """Put a file into the store, as `pull` does."""
    [file] = receipt.files
    sizes = [piece.size for piece in file.pieces]
    with store.open_slot(receipt.model, file.name) as slot:
        slot.temp.write_bytes(content)
        chunks = sums_of(content, sizes) if sums else None
        return store.commit(receipt, [replace(slot, chunks=chunks)])


def spoil(path: Path, *offsets: int) -> None:
    """Change all bits of the bytes at these places, as a failing disk may."""
    content = bytearray(path.read_bytes())
    for offset in offsets:
        content[offset] ^= 0xFF
    path.write_bytes(content)


def tree(folder: Path) -> list[str]:
    """List all files below a folder."""
    return sorted(
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.is_file() or path.is_symlink()
    )
