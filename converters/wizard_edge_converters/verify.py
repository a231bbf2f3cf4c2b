"""Re-reads a written file with our own reader and compares it with its plan.

What is compared: header bytes, every metadata entry and tensor as the reader sees
them, and the CRC-32 of every block with that of the bytes that were to be written.
"""

from __future__ import annotations

import contextlib
import hashlib
import struct
import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from wizard_edge import gguf
from wizard_edge.errors import Corrupt
from wizard_edge.gguf_rules import validate
from wizard_edge.gguf_types import ArrayValue, ValueType
from wizard_edge_converters.entries import Entry
from wizard_edge_converters.journal import StepDone
from wizard_edge_converters.plan import OutputFile, Plan, Step
from wizard_edge_converters.source_files import SourceFile

_PIECE = 4 << 20
Advance = Callable[[int], None]
"""Told how many bytes more were read."""


@dataclass(frozen=True, slots=True)
class Piece:
    """Bytes of a file that were written at once, and their CRC-32."""

    name: str
    offset: int
    size: int
    crc: int


def verify_file(
    path: Path,
    file: OutputFile,
    pieces: Sequence[Piece],
    *,
    advance: Advance = lambda size: None,
) -> str:
    """Compare a file with its plan and the sums of its pieces; return its sha256.

    Raises: Corrupt naming what differs.
    """
    with SourceFile(path) as source:
        if source.size != file.size:
            _fail(path, "size", f"{source.size} bytes, {file.size} planned")
        if source.read(0, len(file.header)) != file.header:
            _fail(path, "header", "differs from the plan")
        digest = _check_pieces(source, pieces, advance)
    header = gguf.read_header(path)
    validate(header)
    check_entries(header, file.entries)
    _check_tensors(header, file)
    return digest


def count_sound(
    plan: Plan,
    steps: Sequence[StepDone],
    paths: Sequence[Path],
    *,
    advance: Advance = lambda size: None,
) -> int:
    """Return how many of the first steps are in the part files as they should be."""
    with contextlib.ExitStack() as opened:
        sources = [opened.enter_context(SourceFile(path)) for path in paths]
        for done in steps:
            if not _is_sound(plan.steps[done.step], done, sources, advance):
                return done.step
    return len(steps)


def _is_sound(
    step: Step, done: StepDone, sources: Sequence[SourceFile], advance: Advance
) -> bool:
    if [len(sums) for sums in done.sums] != [step.block_count] * len(step.places):
        return False
    for number, place in enumerate(step.places):
        for piece in _pieces_of(step, number, done):
            data = sources[place.file].read(piece.offset, piece.size)
            advance(piece.size)
            if zlib.crc32(data) != piece.crc:
                return False
    return True


def pieces_of(plan: Plan, steps: Sequence[StepDone], file: int) -> list[Piece]:
    """List what was written to a file, in the order in which it lies there."""
    pieces = [
        piece
        for done in steps
        for number, place in enumerate(plan.steps[done.step].places)
        if place.file == file
        for piece in _pieces_of(plan.steps[done.step], number, done)
    ]
    return sorted(pieces, key=lambda piece: piece.offset)


def _pieces_of(step: Step, number: int, done: StepDone) -> Iterator[Piece]:
    place = step.places[number]
    for block in step.blocks():
        yield Piece(
            place.name,
            place.offset + block.start * place.row_size,
            block.rows * place.row_size,
            int(done.sums[number][block.index]),
        )


def _check_pieces(source: SourceFile, pieces: Sequence[Piece], advance: Advance) -> str:
    """Read the file once from end to end: sha256 of all, CRC-32 of every piece."""
    digest = hashlib.sha256()
    at = 0
    with ThreadPoolExecutor(1) as hashing:
        last: Future[None] | None = None

        def take(size: int) -> bytes:
            """Read on; the hash follows on a thread of its own, one piece behind."""
            nonlocal at, last
            data = source.read(at, size)
            if last is not None:
                last.result()
            last = hashing.submit(digest.update, data)
            at += size
            advance(size)
            return data

        for piece in pieces:
            while at < piece.offset:
                take(min(_PIECE, piece.offset - at))
            if zlib.crc32(take(piece.size)) != piece.crc:
                _fail(source.path, f"tensor {piece.name}", "reads back differently")
        while at < source.size:
            take(min(_PIECE, source.size - at))
    return digest.hexdigest()


def check_entries(header: gguf.Header, entries: tuple[Entry, ...]) -> None:
    """Compare metadata as the reader sees it with entries, their order included.

    Raises: Corrupt naming the key.
    """
    if list(header.metadata) != [entry.key for entry in entries]:
        _fail(header.path, "metadata", "has other keys than planned")
    copied = any(isinstance(entry.value, bytes) for entry in entries)
    encoded = gguf.read_fields(header) if copied else {}
    for entry in entries:
        found = header.metadata[entry.key]
        kind = header.fields[entry.key].type
        if isinstance(entry.value, bytes):
            same = kind is entry.type and encoded[entry.key] == entry.value
        elif isinstance(found, ArrayValue):
            same = found.type is entry.elements and _same_array(header, entry)
        else:
            same = kind is entry.type and found == _as_stored(entry.type, entry.value)
        if not same:
            _fail(header.path, f"key {entry.key}", "differs from the plan")


def _same_array(header: gguf.Header, entry: Entry) -> bool:
    found = gguf.read_array(header, entry.key)
    if entry.elements is None or not isinstance(entry.value, tuple):
        return False
    return found == [_as_stored(entry.elements, value) for value in entry.value]


def _as_stored(kind: ValueType, value: object) -> object:
    """Return a value as it comes back: a float in 32 bits."""
    if kind is ValueType.FLOAT32:
        return struct.unpack("<f", struct.pack("<f", value))[0]
    return value


def _check_tensors(header: gguf.Header, file: OutputFile) -> None:
    found = {
        tensor.name: (
            tensor.type,
            header.data_offset + tensor.offset,
            tensor.size,
            tensor.shape,
        )
        for tensor in header.tensors
    }
    planned = {
        tensor.name: (
            tensor.type,
            file.offsets[tensor.name],
            tensor.size,
            tensor.shape[::-1],
        )
        for tensor in file.tensors
    }
    if found != planned:
        _fail(header.path, "tensors", "differ from the plan")


def _fail(path: Path, where: str, problem: str) -> NoReturn:
    raise Corrupt(
        path, problem, where=where, hint="the disk or the memory may be failing"
    )
