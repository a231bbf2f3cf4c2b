"""The weight files of a checkpoint, wherever it lies: which there are, their tensors.

Safetensors count before pickles. An index file names the shards; without one the
names of the shards must count up to the number they state.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Self

from wizard_edge.errors import CannotConvert, Corrupt, UsageError
from wizard_edge.names import RelPath
from wizard_edge.receipts import CheckedFile
from wizard_edge_converters.checkpoint import Folder, StoredTensor, WeightFile
from wizard_edge_converters.safetensors import SafetensorsFile
from wizard_edge_converters.source_files import ByteSource, parse_json, shown
from wizard_edge_converters.torch_zip import TorchFile

# The largest file of this kind in the family is a tokenizer of 1.8 MB; JSON takes
# ten times its size in memory.
MAX_SIDE_FILE = 16 << 20
MAX_TENSORS = 1 << 16
# All are open at once; the largest checkpoint of the family has 29.
MAX_FILES = 256


@dataclass(frozen=True, slots=True)
class Format:
    """How a kind of weight file is called, and what opens one."""

    stem: str
    suffix: str
    open: Callable[[ByteSource, str], WeightFile]

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


class FileCheckpoint:
    """A checkpoint whose weight files are open; a context manager."""

    def __init__(
        self, folder: Folder, files: Mapping[str, WeightFile], identity: str
    ) -> None:
        self._folder = folder
        self._files = files
        self.identity = identity
        self.tensors = _merge(folder.name, files)

    @property
    def name(self) -> str:
        return self._folder.name

    @property
    def is_remote(self) -> bool:
        return self._folder.is_remote

    @property
    def size(self) -> int:
        return sum(file.size for file in self._files.values())

    @property
    def files(self) -> Collection[str]:
        """The names of its weight files."""
        return self._files.keys()

    def label(self, name: str) -> str:
        return self._folder.label(name)

    def small(self, name: str) -> bytes | None:
        return self._folder.small(name)

    def read(self, tensor: StoredTensor, start: int, count: int) -> bytes:
        return self._files[tensor.file].read(tensor, start, count)

    def mark(self, file: str) -> str:
        return self._files[file].mark()

    def resume(self, file: str, mark: str) -> None:
        self._files[file].resume(mark)

    def finish(self, file: str) -> CheckedFile:
        return self._files[file].finish()

    def others(self) -> Sequence[CheckedFile]:
        # No tensor is in them, or an earlier run read them and was to keep none.
        return [
            file.finish()
            for name, file in self._files.items()
            if self._folder.lacks(name)
        ]

    def close(self) -> None:
        for file in self._files.values():
            file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def open_weights(folder: Folder) -> FileCheckpoint:
    """Open the weight files of a folder and read which tensors they hold.

    Raises: MissingFile for a shard that the index names; CannotConvert for a folder
    without weights; Corrupt.
    """
    for kind in FORMATS:
        names = _weight_names(folder, kind)
        if names:
            return _open_files(folder, kind, names)
    looked_for = ", ".join(f"{kind.single}, {kind.index}" for kind in FORMATS)
    raise CannotConvert(
        f"no checkpoint in {folder.name}: looked for {looked_for}",
        hint="a checkpoint is a directory with config.json, tokenizer and weights",
    )


def _weight_names(folder: Folder, kind: Format) -> dict[str, set[str]]:
    """Return the weight files and which tensors the index expects in each.

    Without an index nothing is expected: the set is empty.
    """
    data = folder.small(kind.index)
    if data is not None:
        return _read_index(folder.label(kind.index), data)
    if kind.single in folder.names():
        return {kind.single: set()}
    return {name: set() for name in _numbered_shards(folder, kind)}


def _read_index(label: str, data: bytes) -> dict[str, set[str]]:
    weight_map = parse_json(data, label).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise Corrupt(label, "has no weight_map")
    expected: dict[str, set[str]] = {}
    for tensor, file in weight_map.items():
        try:
            name = RelPath.parse(file)
        except UsageError as err:
            raise Corrupt(
                label,
                f"tensor {shown(tensor)} is said to lie in {shown(file)}, "
                "which is no file of this directory",
                where="weight_map",
            ) from err
        expected.setdefault(name, set()).add(tensor)
    if len(expected) > MAX_FILES:
        raise Corrupt(label, f"names {len(expected)} files, at most {MAX_FILES}")
    return dict(sorted(expected.items()))


def _numbered_shards(folder: Folder, kind: Format) -> list[str]:
    pattern = re.compile(
        rf"{re.escape(kind.stem)}-(\d{{5}})-of-(\d{{5}}){re.escape(kind.suffix)}"
    )
    found = [match for name in folder.names() if (match := pattern.fullmatch(name))]
    counts = {match[2] for match in found}
    if len(counts) > 1:
        raise CannotConvert(f"shards of different checkpoints in {folder.name}")
    return [
        f"{kind.stem}-{number:05d}-of-{count}{kind.suffix}"
        for count in counts
        for number in range(1, int(count) + 1)
    ]


def _open_files(
    folder: Folder, kind: Format, names: Mapping[str, set[str]]
) -> FileCheckpoint:
    identities: dict[str, str] = {}
    files: dict[str, WeightFile] = {}
    with contextlib.ExitStack() as opened:
        for name, expected in names.items():
            source = folder.open(name)
            identities[name] = source.identity
            files[name] = kind.open(source, name)
            opened.callback(files[name].close)
            if expected:
                _compare_with_index(folder.label(name), files[name], expected)
        identity = json.dumps([folder.name, sorted(identities.items())])
        checkpoint = FileCheckpoint(folder, files, identity)
        opened.pop_all()
    return checkpoint


def _compare_with_index(label: str, file: WeightFile, expected: set[str]) -> None:
    found = {tensor.name for tensor in file.tensors}
    if found == expected:
        return
    missing, extra = sorted(expected - found), sorted(found - expected)
    what = f"lacks {shown(missing[0])}" if missing else f"also has {shown(extra[0])}"
    raise Corrupt(label, f"{what}, against what the index says")


def _merge(name: str, files: Mapping[str, WeightFile]) -> Mapping[str, StoredTensor]:
    merged: dict[str, StoredTensor] = {}
    for file in files.values():
        for tensor in file.tensors:
            if tensor.name in merged:
                raise Corrupt(name, f"tensor {shown(tensor.name)} is there twice")
            merged[tensor.name] = tensor
    if len(merged) > MAX_TENSORS:
        raise Corrupt(name, f"{len(merged)} tensors, at most {MAX_TENSORS}")
    return merged
