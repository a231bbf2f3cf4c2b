"""llama.cpp's way to lay one model into several files.

The first file carries all metadata, every file its number, the count of files and
the count of all tensors. Tensors stay whole and keep their order.

Source: llama.cpp 0c1e57098, tools/gguf-split/gguf-split.cpp (`split_strategy`),
src/llama.cpp (`llama_split_path`).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from wizard_edge.errors import CannotConvert
from wizard_edge.gguf import DEFAULT_ALIGNMENT, align
from wizard_edge.gguf_parts import SUFFIX, split_name
from wizard_edge.gguf_types import ValueType
from wizard_edge.units import format_bytes
from wizard_edge_converters.entries import Entry
from wizard_edge_converters.header import TensorEntry

# The number of a file is an unsigned 16-bit integer.
MAX_FILES = (1 << 16) - 1


def split_tensors(
    tensors: Sequence[TensorEntry], max_size: int | None
) -> list[list[TensorEntry]]:
    """Cut a list of tensors into those of each file, at most `max_size` bytes each.

    Raises: CannotConvert for a tensor that alone is larger, or for too many files.
    """
    if max_size is None:
        return [list(tensors)]
    groups: list[list[TensorEntry]] = [[]]
    used = 0
    for tensor in tensors:
        size = align(tensor.size, DEFAULT_ALIGNMENT)
        if size > max_size:
            raise CannotConvert(
                f"tensor {tensor.name} has {format_bytes(size)}, more than "
                f"{format_bytes(max_size)} a file",
                hint="give a larger --split-max-size",
            )
        if used + size > max_size:
            groups.append([])
            used = 0
        groups[-1].append(tensor)
        used += size
    if len(groups) > MAX_FILES:
        raise CannotConvert(
            f"{len(groups)} files, at most {MAX_FILES} are possible",
            hint="give a larger --split-max-size",
        )
    return groups


def split_entries(
    entries: tuple[Entry, ...], number: int, count: int, tensors: int
) -> tuple[Entry, ...]:
    """Return the metadata of file `number` (from 0) of `count`."""
    if count == 1:
        return entries
    return (
        *(entries if number == 0 else ()),
        Entry("split.no", ValueType.UINT16, number),
        Entry("split.tensors.count", ValueType.INT32, tensors),
        Entry("split.count", ValueType.UINT16, count),
    )


def split_paths(output: Path, count: int) -> list[Path]:
    """Name the files of a model that is to be called `output`."""
    if count == 1:
        return [output]
    stem = output.name.removesuffix(SUFFIX)
    return [
        output.with_name(split_name(stem, number, count))
        for number in range(1, count + 1)
    ]
