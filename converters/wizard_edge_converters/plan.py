"""What a conversion will do, decided before the first byte: pure and printable.

From matched tensors and their types to steps in reading order, each with its final
places in the files, and the sums that a person wants to know beforehand. One plan
serves several quants: what is read once goes to a place in the file of each.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod

from wizard_edge.gguf_types import GgmlType, row_size
from wizard_edge.units import format_bytes
from wizard_edge_converters.checkpoint import StoredTensor
from wizard_edge_converters.entries import Entry
from wizard_edge_converters.header import TensorEntry, lay_out
from wizard_edge_converters.quality import quality_entries
from wizard_edge_converters.split import split_entries, split_tensors
from wizard_edge_converters.tensors import Match, file_order

# A block is what is read, quantized and written at once: small enough for some in
# memory per core, large enough that Python costs nothing beside Q4_K (34 ms a block).
BLOCK_ELEMENTS = 1 << 19
# Blocks in memory for each thread: with fewer, fast quants wait for one another.
# Measured on 2 cores, 0.95 B to Q8_0: 3.0 s with three of half a million elements,
# 3.4 s with one of a million.
BLOCKS_AHEAD = 3
# Python, numpy, SentencePiece and llama.cpp's libraries with nothing to do yet:
# 47 MB resident, measured on Linux x86-64.
BASE_MEMORY = 60_000_000
# At most: read buffer (4 bytes), f32 rows (4), the finite check (1), and the rows
# read back from a result to measure it (4); beside them the results.
_BYTES_PER_ELEMENT = 13
_RESULT_BYTES = 4
# The journal of a conversion that can go on: 5.3 bytes a block and 300 a step.
JOURNAL_RESERVE = 1 << 20


@dataclass(frozen=True, slots=True)
class Block:
    """Some whole rows of a step."""

    index: int
    start: int
    rows: int


@dataclass(frozen=True, slots=True)
class Place:
    """Where the rows of a step go: from `offset` of file number `file` on.

    `name` is the GGUF tensor of which the step is slice number `part`.
    """

    file: int
    name: str
    type: GgmlType
    offset: int
    row_size: int
    part: int = 0


@dataclass(frozen=True, slots=True)
class Step:
    """Stored rows on their way: read once, written to every place.

    The rows of `columns` elements go in blocks of `block_rows`; with `head_rows` a
    block is whole heads of that many rows, whose rotary order is undone.
    """

    source: StoredTensor
    rows: int
    columns: int
    block_rows: int
    head_rows: int | None
    places: tuple[Place, ...]

    def blocks(self) -> Iterator[Block]:
        for index, start in enumerate(range(0, self.rows, self.block_rows)):
            yield Block(index, start, min(self.block_rows, self.rows - start))

    @property
    def block_count(self) -> int:
        return -(-self.rows // self.block_rows)


@dataclass(frozen=True, slots=True)
class OutputFile:
    """One file to be written; `size` is that of the whole file in bytes."""

    entries: tuple[Entry, ...]
    tensors: tuple[TensorEntry, ...]
    header: bytes
    offsets: Mapping[str, int]
    size: int

    @classmethod
    def lay_out(
        cls, entries: tuple[Entry, ...], tensors: Sequence[TensorEntry]
    ) -> OutputFile:
        layout = lay_out(entries, tensors)
        return cls(entries, tuple(tensors), layout.header, layout.offsets, layout.size)

    def with_entries(self, changed: Mapping[str, Entry]) -> OutputFile:
        """Return the file with other values of the same width for some keys."""
        entries = tuple(changed.get(entry.key, entry) for entry in self.entries)
        layout = lay_out(entries, self.tensors)
        if len(layout.header) != len(self.header):
            raise ValueError("the values have another width")
        return replace(self, entries=entries, header=layout.header)


@dataclass(frozen=True, slots=True)
class Target:
    """What becomes of the model in one quant: a file, or the parts of a split one."""

    quant: str
    files: tuple[OutputFile, ...]

    @property
    def size(self) -> int:
        """The bytes of all files."""
        return sum(file.size for file in self.files)

    @property
    def entries(self) -> tuple[Entry, ...]:
        """The metadata of the first file, which has all."""
        return self.files[0].entries

    @property
    def tensors(self) -> dict[str, int]:
        """How many tensors of each type, the most frequent type first."""
        types = (tensor.type.name for file in self.files for tensor in file.tensors)
        return dict(Counter(types).most_common())


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything that is decided before the first byte; sizes in bytes.

    `steps` are in reading order; a place's `file` counts through the files of all
    targets. `notes` are sentences about what of the checkpoint is left out.
    """

    architecture: str
    targets: tuple[Target, ...]
    steps: tuple[Step, ...]
    read_bytes: int
    peak_memory_bytes: int
    notes: tuple[str, ...]

    @property
    def files(self) -> tuple[OutputFile, ...]:
        return tuple(file for target in self.targets for file in target.files)

    @property
    def output_bytes(self) -> int:
        return sum(target.size for target in self.targets)

    @property
    def weight_files(self) -> dict[str, int]:
        """How many bytes of which weight files become tensors."""
        sizes: Counter[str] = Counter()
        for step in self.steps:
            sizes[step.source.file] += step.source.size
        return dict(sizes)

    @property
    def peak_disk_bytes(self) -> int:
        """The checkpoint is read where it lies, or as it arrives: it takes nothing."""
        return self.output_bytes + JOURNAL_RESERVE

    def __str__(self) -> str:
        outputs = "; ".join(
            f"{target.quant}: write {format_bytes(target.size)}, "
            + ", ".join(f"{count} {kind}" for kind, count in target.tensors.items())
            for target in self.targets
        )
        return (
            f"read {format_bytes(self.read_bytes)}, "
            f"memory {format_bytes(self.peak_memory_bytes)}; {outputs}"
        )


@dataclass(frozen=True, slots=True)
class Wish:
    """One quant that is wanted: the type of every tensor, and all metadata."""

    quant: str
    types: Mapping[str, GgmlType]
    entries: tuple[Entry, ...]


def lossless_type(stored: Sequence[Match]) -> GgmlType:
    """Return the type that holds every matrix of a checkpoint exactly.

    That is the type they are stored in, or F32 where they are stored in several.
    """
    types = {match.stored.type for match in stored if match.rule.is_matrix}
    return types.pop() if len(types) == 1 else GgmlType.F32


def plain_types(matches: Iterable[Match], matrix: GgmlType) -> dict[str, GgmlType]:
    """Return the types of an unquantized file: F32 for vectors and norms.

    Source: llama.cpp 0c1e57098, conversion/base.py, `prepare_tensors`.
    """
    return {
        match.rule.name: matrix if match.rule.is_matrix else GgmlType.F32
        for match in matches
    }


def tensor_entries(
    matches: Iterable[Match], types: Mapping[str, GgmlType]
) -> list[TensorEntry]:
    """List the tensors in the order of the file, each once."""
    entries = {
        match.rule.name: TensorEntry(
            match.rule.name, _whole_shape(match), types[match.rule.name]
        )
        for match in matches
    }
    return sorted(entries.values(), key=lambda entry: file_order(entry.name))


def plan_conversion(
    matches: Sequence[Match],
    wishes: Sequence[Wish],
    *,
    architecture: str,
    read_bytes: int,
    threads: int,
    split_max_size: int | None = None,
    notes: tuple[str, ...] = (),
) -> Plan:
    """Place every tensor and cut it into blocks; `threads` only counts for memory.

    With `split_max_size` the tensors of a file take at most that many bytes.
    Raises: CannotConvert for a tensor that is larger than that.
    """
    targets = tuple(_plan_target(matches, wish, split_max_size) for wish in wishes)
    steps = _plan_steps(matches, targets)
    largest = max(map(_block_memory, steps), default=0)
    headers = sum(len(target.files[0].header) for target in targets)
    return Plan(
        architecture=architecture,
        targets=targets,
        steps=steps,
        read_bytes=read_bytes,
        peak_memory_bytes=BASE_MEMORY
        + 8 * headers
        + (BLOCKS_AHEAD * threads + 2) * largest,
        notes=notes,
    )


def _block_memory(step: Step) -> int:
    """Return how many bytes a block takes on its way, the results of all its places."""
    results = sum(place.row_size for place in step.places)
    row = step.columns * _BYTES_PER_ELEMENT + max(results, step.columns * _RESULT_BYTES)
    return step.block_rows * row


def _plan_target(
    matches: Sequence[Match], wish: Wish, split_max_size: int | None
) -> Target:
    stored = {match.rule.name: match.stored.type for match in matches}
    lossy = {
        kind.name
        for name, kind in wish.types.items()
        if kind not in (GgmlType.F32, stored[name])
    }
    entries = (*wish.entries, *quality_entries(lossy))
    tensors = tensor_entries(matches, wish.types)
    groups = split_tensors(tensors, split_max_size)
    files = tuple(
        OutputFile.lay_out(
            split_entries(entries, number, len(groups), len(tensors)), group
        )
        for number, group in enumerate(groups)
    )
    return Target(wish.quant, files)


def _plan_steps(
    matches: Sequence[Match], targets: Sequence[Target]
) -> tuple[Step, ...]:
    """Group what is stored once under several names, and give each its places."""
    homes: dict[str, list[Place]] = {}
    files = [file for target in targets for file in target.files]
    for number, file in enumerate(files):
        for tensor in file.tensors:
            width = row_size(tensor.type, tensor.shape[-1])
            home = Place(
                number, tensor.name, tensor.type, file.offsets[tensor.name], width
            )
            homes.setdefault(tensor.name, []).append(home)
    grouped: dict[object, list[Match]] = {}
    for match in matches:
        # Two names of one storage that want another order of rows stay apart.
        heads = match.rule.heads
        grouped.setdefault((match.stored.place, heads), []).append(match)
    return tuple(_plan_step(group, homes) for group in grouped.values())


def _plan_step(group: Sequence[Match], homes: Mapping[str, list[Place]]) -> Step:
    rule, stored = group[0].rule, group[0].stored
    *outer, columns = rule.shape
    heads = rule.heads
    if heads and not outer:
        # A bias: its rows have one element each.
        outer, columns = [columns], 1
    rows = prod(outer)
    head_rows = rows // heads if heads else None
    unit = head_rows or 1
    block_rows = max(BLOCK_ELEMENTS // (columns * unit), 1) * unit
    places = tuple(
        _slice(home, match, rows, columns)
        for match in group
        for home in homes[match.rule.name]
    )
    return Step(
        source=stored,
        rows=rows,
        columns=columns,
        block_rows=min(block_rows, rows),
        head_rows=head_rows,
        places=places,
    )


def _slice(home: Place, match: Match, rows: int, columns: int) -> Place:
    width = row_size(home.type, columns)
    return replace(
        home,
        offset=home.offset + match.rule.part * rows * width,
        row_size=width,
        part=match.rule.part,
    )


def _whole_shape(match: Match) -> tuple[int, ...]:
    rule = match.rule
    return rule.shape if rule.parts == 1 else (rule.parts, *rule.shape)
