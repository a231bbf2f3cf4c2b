"""What a conversion will do, decided before the first byte: pure and printable.

From the matched tensors and their types to steps in reading order, each with its
final place in the file, and the sums that a person wants to know beforehand.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from wizard_edge.gguf_types import GgmlType
from wizard_edge.units import format_bytes
from wizard_edge_converters.checkpoint import StoredTensor
from wizard_edge_converters.header import TensorEntry, lay_out
from wizard_edge_converters.metadata import Entry
from wizard_edge_converters.tensors import Match, file_order

# A block is what is read, quantized and written at once: small enough for a few in
# memory per core, large enough that Python costs nothing beside Q4_K (50 ms a block).
BLOCK_ELEMENTS = 1 << 20
# Python, numpy, SentencePiece and llama.cpp's libraries with nothing to do yet:
# 47 MB resident, measured on Linux x86-64.
BASE_MEMORY = 60_000_000
# At most: read buffer (4 bytes), f32 rows (4), the finite check (1), result (4).
_BYTES_PER_ELEMENT = 13


@dataclass(frozen=True, slots=True)
class Block:
    """Some whole rows of a step: where they are read and where they go, in bytes."""

    index: int
    start: int
    rows: int
    offset: int


@dataclass(frozen=True, slots=True)
class Step:
    """One tensor on its way: `offset` and `size` are those in the output file.

    Its rows of `columns` elements go in blocks of `block_rows`; with `head_rows`
    a block is whole heads of that many rows, whose rotary order is undone.
    """

    name: str
    source: StoredTensor
    type: GgmlType
    offset: int
    size: int
    rows: int
    columns: int
    block_rows: int
    head_rows: int | None

    def blocks(self) -> Iterator[Block]:
        row_size = self.size // self.rows
        for index, start in enumerate(range(0, self.rows, self.block_rows)):
            rows = min(self.block_rows, self.rows - start)
            yield Block(index, start, rows, self.offset + start * row_size)

    @property
    def block_count(self) -> int:
        return -(-self.rows // self.block_rows)


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything that is decided before the first byte; sizes in bytes.

    `steps` are in reading order, `entries` and `header` in writing order. `notes`
    are sentences about what of the checkpoint is left out.
    """

    quant: str
    architecture: str
    entries: tuple[Entry, ...]
    header: bytes
    steps: tuple[Step, ...]
    read_bytes: int
    output_bytes: int
    peak_memory_bytes: int
    notes: tuple[str, ...]

    @property
    def peak_disk_bytes(self) -> int:
        """The checkpoint is read where it lies: the output is all that is added."""
        return self.output_bytes

    @property
    def tensors(self) -> dict[str, int]:
        """How many tensors of each type, the most frequent type first."""
        return dict(Counter(step.type.name for step in self.steps).most_common())

    def as_json(self) -> dict[str, object]:
        """Return what `convert --dry-run --json` prints."""
        return {
            "read_bytes": self.read_bytes,
            "output_bytes": self.output_bytes,
            "peak_disk_bytes": self.peak_disk_bytes,
            "peak_memory_bytes": self.peak_memory_bytes,
            "tensors": self.tensors,
        }

    def __str__(self) -> str:
        counts = ", ".join(f"{count} {kind}" for kind, count in self.tensors.items())
        return (
            f"{self.quant}: read {format_bytes(self.read_bytes)}, "
            f"write {format_bytes(self.output_bytes)}, "
            f"memory {format_bytes(self.peak_memory_bytes)}; {counts}"
        )


def lossless_type(stored: Sequence[Match]) -> GgmlType:
    """Return the type that holds every matrix of a checkpoint exactly.

    That is the type they are stored in, or F32 where they are stored in several.
    """
    types = {match.stored.type for match in stored if match.rule.is_matrix}
    return types.pop() if len(types) == 1 else GgmlType.F32


def plain_types(matches: Sequence[Match], matrix: GgmlType) -> dict[str, GgmlType]:
    """Return the types of an unquantized file: F32 for vectors and norms.

    Source: llama.cpp 0c1e57098, conversion/base.py, `prepare_tensors`.
    """
    return {
        match.rule.name: matrix if match.rule.is_matrix else GgmlType.F32
        for match in matches
    }


def tensor_entries(
    matches: Sequence[Match], types: Mapping[str, GgmlType]
) -> list[TensorEntry]:
    """List the tensors in the order of the file."""
    entries = [
        TensorEntry(match.rule.name, match.rule.shape, types[match.rule.name])
        for match in matches
    ]
    return sorted(entries, key=lambda entry: file_order(entry.name))


def plan_conversion(
    matches: Sequence[Match],
    types: Mapping[str, GgmlType],
    entries: tuple[Entry, ...],
    *,
    quant: str,
    architecture: str,
    read_bytes: int,
    threads: int,
    notes: tuple[str, ...] = (),
) -> Plan:
    """Place every tensor and cut it into blocks; `threads` only counts for memory."""
    tensors = tensor_entries(matches, types)
    layout = lay_out(entries, tensors)
    sizes = {tensor.name: tensor.size for tensor in tensors}
    steps = tuple(
        _plan_step(match, types[name], layout.offsets[name], sizes[name])
        for match in matches
        for name in (match.rule.name,)
    )
    largest = max((step.block_rows * step.columns for step in steps), default=0)
    in_flight = threads + 2
    return Plan(
        quant=quant,
        architecture=architecture,
        entries=entries,
        header=layout.header,
        steps=steps,
        read_bytes=read_bytes,
        output_bytes=layout.size,
        peak_memory_bytes=BASE_MEMORY
        + 8 * len(layout.header)
        + in_flight * largest * _BYTES_PER_ELEMENT,
        notes=notes,
    )


def _plan_step(match: Match, kind: GgmlType, offset: int, size: int) -> Step:
    *outer, columns = match.rule.shape
    heads = match.rule.heads
    if heads and not outer:
        # A bias: its rows have one element each.
        outer, columns = [columns], 1
    rows = 1
    for count in outer:
        rows *= count
    head_rows = rows // heads if heads else None
    unit = head_rows or 1
    block_rows = max(BLOCK_ELEMENTS // (columns * unit), 1) * unit
    return Step(
        name=match.rule.name,
        source=match.stored,
        type=kind,
        offset=offset,
        size=size,
        rows=rows,
        columns=columns,
        block_rows=min(block_rows, rows),
        head_rows=head_rows,
    )
