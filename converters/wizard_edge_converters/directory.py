"""A checkpoint that lies in a directory: which files it has, and their tensors.

Safetensors count before pickles. An index file names the shards; without one the
names of the shards must count up to the number they state.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from wizard_edge.errors import CannotConvert, Corrupt, MissingFile, UsageError
from wizard_edge.names import RelPath
from wizard_edge.paths import place
from wizard_edge_converters.checkpoint import StoredTensor, WeightFile
from wizard_edge_converters.safetensors import SafetensorsFile
from wizard_edge_converters.source_files import parse_json, read_small, shown
from wizard_edge_converters.torch_zip import TorchFile

# The largest file of this kind in the family is a tokenizer of 1.8 MB; JSON takes
# ten times its size in memory.
MAX_SIDE_FILE = 16 << 20
MAX_TENSORS = 1 << 16


@dataclass(frozen=True, slots=True)
class Format:
    """How a kind of weight file is called, and what opens one."""

    stem: str
    suffix: str
    open: Callable[[Path, str], WeightFile]

    @property
    def single(self) -> str:
        return f"{self.stem}{self.suffix}"

    @property
    def index(self) -> str:
        return f"{self.single}.index.json"


FORMATS = (
    Format("model", ".safetensors", SafetensorsFile),
    Format("pytorch_model", ".bin", TorchFile),
)


class DirectorySideFiles:
    """The side files of a checkpoint directory."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def label(self, name: str) -> str:
        return str(place(self.directory, RelPath.parse(name)))

    def small(self, name: str) -> bytes | None:
        path = place(self.directory, RelPath.parse(name))
        return read_small(path, limit=MAX_SIDE_FILE)


class DirectoryCheckpoint(DirectorySideFiles):
    """A checkpoint in a directory, its weight files open; a context manager."""

    def __init__(self, directory: Path, files: Mapping[str, WeightFile]) -> None:
        super().__init__(directory)
        self._files = files
        self.tensors = _merge(directory, files)

    @property
    def name(self) -> str:
        return str(self.directory)

    @property
    def size(self) -> int:
        return sum(file.size for file in self._files.values())

    def read(self, tensor: StoredTensor, start: int, count: int) -> bytes:
        width = tensor.type.type_size
        offset = tensor.offset + start * width
        return self._files[tensor.file].read(offset, count * width)

    def finish(self) -> None:
        for file in self._files.values():
            file.finish()

    def close(self) -> None:
        for file in self._files.values():
            file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def open_checkpoint(directory: Path) -> DirectoryCheckpoint:
    """Open a checkpoint directory and read what tensors its weight files hold.

    Raises: MissingFile for the directory or a shard that the index names;
    CannotConvert for a directory without weights; Corrupt.
    """
    if not directory.exists():
        raise MissingFile(directory)
    if not directory.is_dir():
        raise UsageError(
            f"not a directory: {directory}",
            hint="name the directory that holds config.json and the weights",
        )
    for kind in FORMATS:
        names = _weight_names(directory, kind)
        if names:
            return _open_files(directory, kind, names)
    looked_for = ", ".join(f"{kind.single}, {kind.index}" for kind in FORMATS)
    raise CannotConvert(
        f"no checkpoint in {directory}: looked for {looked_for}",
        hint="a checkpoint is a directory with config.json, tokenizer and weights",
    )


def _weight_names(directory: Path, kind: Format) -> dict[str, set[str]]:
    """Return the weight files and which tensors the index expects in each.

    Without an index nothing is expected: the set is empty.
    """
    index = directory / kind.index
    data = read_small(index, limit=MAX_SIDE_FILE)
    if data is not None:
        return _read_index(index, data)
    if (directory / kind.single).exists():
        return {kind.single: set()}
    return {name: set() for name in _numbered_shards(directory, kind)}


def _read_index(index: Path, data: bytes) -> dict[str, set[str]]:
    weight_map = parse_json(data, str(index)).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise Corrupt(index, "has no weight_map")
    expected: dict[str, set[str]] = {}
    for tensor, file in weight_map.items():
        try:
            name = RelPath.parse(file)
        except UsageError as err:
            raise Corrupt(
                index,
                f"tensor {shown(tensor)} is said to lie in {shown(file)}, "
                "which is no file of this directory",
                where="weight_map",
            ) from err
        expected.setdefault(name, set()).add(tensor)
    return dict(sorted(expected.items()))


def _numbered_shards(directory: Path, kind: Format) -> list[str]:
    pattern = re.compile(
        rf"{re.escape(kind.stem)}-(\d{{5}})-of-(\d{{5}}){re.escape(kind.suffix)}"
    )
    found = [match for p in directory.iterdir() if (match := pattern.fullmatch(p.name))]
    counts = {match[2] for match in found}
    if len(counts) > 1:
        raise CannotConvert(f"shards of different checkpoints in {directory}")
    return [
        f"{kind.stem}-{number:05d}-of-{count}{kind.suffix}"
        for count in counts
        for number in range(1, int(count) + 1)
    ]


def _open_files(
    directory: Path, kind: Format, names: Mapping[str, set[str]]
) -> DirectoryCheckpoint:
    files: dict[str, WeightFile] = {}
    try:
        for name, expected in names.items():
            path = place(directory, RelPath.parse(name))
            if not path.exists():
                raise MissingFile(path, hint="the checkpoint is not complete")
            files[name] = kind.open(path, name)
            if expected:
                _compare_with_index(path, files[name], expected)
        return DirectoryCheckpoint(directory, files)
    except BaseException:
        for file in files.values():
            file.close()
        raise


def _compare_with_index(path: Path, file: WeightFile, expected: set[str]) -> None:
    found = {tensor.name for tensor in file.tensors}
    if found == expected:
        return
    missing, extra = sorted(expected - found), sorted(found - expected)
    what = f"lacks {shown(missing[0])}" if missing else f"also has {shown(extra[0])}"
    raise Corrupt(path, f"{what}, against what the index says")


def _merge(
    directory: Path, files: Mapping[str, WeightFile]
) -> Mapping[str, StoredTensor]:
    merged: dict[str, StoredTensor] = {}
    for file in files.values():
        for tensor in file.tensors:
            if tensor.name in merged:
                raise Corrupt(directory, f"tensor {shown(tensor.name)} is there twice")
            merged[tensor.name] = tensor
    if len(merged) > MAX_TENSORS:
        raise Corrupt(directory, f"{len(merged)} tensors, at most {MAX_TENSORS}")
    return merged
