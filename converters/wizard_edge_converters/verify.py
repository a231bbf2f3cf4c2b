"""Re-reads a written file with our own reader and compares it with its plan.

What is compared: header bytes, every metadata entry and tensor as the reader sees
them, and the CRC-32 of every block with that of the bytes that were to be written.
"""

from __future__ import annotations

import hashlib
import struct
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import NoReturn, TypeAlias

import numpy as np
from numpy.typing import NDArray

from wizard_edge import gguf
from wizard_edge.errors import Corrupt
from wizard_edge.gguf_rules import validate
from wizard_edge.gguf_types import ArrayValue, ValueType
from wizard_edge.progress import Progress, ProgressEvent, silent
from wizard_edge_converters.metadata import Entry
from wizard_edge_converters.plan import Plan, Step
from wizard_edge_converters.source_files import SourceFile

Checks: TypeAlias = Mapping[str, NDArray[np.uint32]]
"""Tensor name -> the CRC-32 of its blocks."""

_PIECE = 4 << 20


def verify_file(
    path: Path, plan: Plan, checks: Checks, *, progress: Progress = silent
) -> str:
    """Compare a file with its plan and the sums of its blocks; return its sha256.

    Raises: Corrupt naming what differs.
    """
    with SourceFile(path) as file:
        if file.size != plan.output_bytes:
            _fail(path, "size", f"{file.size} bytes, {plan.output_bytes} planned")
        if file.read(0, len(plan.header)) != plan.header:
            _fail(path, "header", "differs from the plan")
        digest = _check_blocks(file, plan, checks, progress)
    header = gguf.read_header(path)
    validate(header)
    check_entries(header, plan.entries)
    _check_tensors(header, plan)
    return digest


def _check_blocks(
    file: SourceFile, plan: Plan, checks: Checks, progress: Progress
) -> str:
    """Read the file once from end to end: sha256 of all, CRC-32 of every block."""
    digest = hashlib.sha256()
    at = 0

    def take(size: int) -> bytes:
        nonlocal at
        data = file.read(at, size)
        digest.update(data)
        at += size
        progress(ProgressEvent("verify", at, plan.output_bytes))
        return data

    for step in sorted(plan.steps, key=lambda step: step.offset):
        while at < step.offset:
            take(min(_PIECE, step.offset - at))
        for block in step.blocks():
            data = take(_block_size(step, block.rows))
            if zlib.crc32(data) != checks[step.name][block.index]:
                _fail(file.path, f"tensor {step.name}", "reads back differently")
    while at < plan.output_bytes:
        take(min(_PIECE, plan.output_bytes - at))
    return digest.hexdigest()


def _block_size(step: Step, rows: int) -> int:
    return step.size // step.rows * rows


def check_entries(header: gguf.Header, entries: tuple[Entry, ...]) -> None:
    """Compare metadata as the reader sees it with entries, their order included.

    Raises: Corrupt naming the key.
    """
    if list(header.metadata) != [entry.key for entry in entries]:
        _fail(header.path, "metadata", "has other keys than planned")
    for entry in entries:
        found = header.metadata[entry.key]
        kind = header.fields[entry.key].type
        if isinstance(found, ArrayValue):
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


def _check_tensors(header: gguf.Header, plan: Plan) -> None:
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
        step.name: (step.type, step.offset, step.size, step.source.shape[::-1])
        for step in plan.steps
    }
    if found != planned:
        _fail(header.path, "tensors", "differ from the plan")


def _fail(path: Path, where: str, problem: str) -> NoReturn:
    raise Corrupt(
        path, problem, where=where, hint="the disk or the memory may be failing"
    )
