"""Compares GGUF files by content: tensors by type, shape and bytes, metadata by key."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from wizard_edge.gguf import read_array, read_header
from wizard_edge.gguf_types import ArrayValue

# Keys that only our files have, although what they say is llama.cpp's default.
SPELLED_OUT = {"tokenizer.ggml.unknown_token_id", "tokenizer.ggml.add_bos_token"}
# What llama.cpp's converter guesses from folder names, model cards and defaults for
# generation; our registry states it.
GUESSED = (
    "general.basename",
    "general.finetune",
    "general.version",
    "general.organization",
    "general.author",
    "general.description",
    "general.license",
    "general.tags",
    "general.languages",
    "general.base_model.",
    "general.dataset.",
    "general.sampling.",
)


# The quantizer moves it to the end.
MOVED = "general.quantization_version"


def is_compared(key: str) -> bool:
    """Whether a key must be in our file and in llama.cpp's with the same value."""
    ours = ("wizard_edge.", "general.file_type")
    return not key.startswith((*GUESSED, *ours))


@dataclass(frozen=True, slots=True)
class Tensor:
    """One tensor of a file; `shape` has the row length first, as in GGUF."""

    type: str
    shape: tuple[int, ...]
    data: bytes


def read_tensors(path: Path) -> dict[str, Tensor]:
    header = read_header(path)
    tensors = {}
    with path.open("rb") as file:
        for tensor in header.tensors:
            file.seek(header.data_offset + tensor.offset)
            data = file.read(tensor.size)
            tensors[tensor.name] = Tensor(tensor.type.name, tensor.shape, data)
    return tensors


def tensor_digest(path: Path) -> str:
    """Hash names, types, shapes and bytes of all tensors, whatever their order."""
    digest = hashlib.sha256()
    for name, tensor in sorted(read_tensors(path).items()):
        digest.update(f"{name} {tensor.type} {tensor.shape}\n".encode())
        digest.update(tensor.data)
    return digest.hexdigest()


def read_metadata(path: Path) -> dict[str, object]:
    """Return the metadata as JSON could hold it; a long array as its hash."""
    header = read_header(path)
    metadata: dict[str, object] = {}
    for key, value in header.metadata.items():
        if isinstance(value, ArrayValue):
            array = json.dumps(read_array(header, key)).encode()
            kind = value.type.name
            metadata[key] = f"{kind}*{value.length} {hashlib.sha256(array).hexdigest()}"
        else:
            metadata[key] = [header.fields[key].type.name, value]
    return metadata


def metadata_but_ours(path: Path) -> list[tuple[str, object]]:
    """Return all entries in their order, but for those that only our files have."""
    return [
        (key, value)
        for key, value in read_metadata(path).items()
        if not key.startswith("wizard_edge.")
    ]


def tensor_differences(found: Path, expected: Path) -> list[str]:
    """Name every tensor that differs between two files, and how."""
    ours, theirs = read_tensors(found), read_tensors(expected)
    differences = [f"{name}: only in one" for name in ours.keys() ^ theirs.keys()]
    for name in sorted(ours.keys() & theirs.keys()):
        for what, of in _ASPECTS.items():
            if of(ours[name]) != of(theirs[name]):
                differences.append(f"{name}: {what}")
    return sorted(differences)


_ASPECTS: dict[str, Callable[[Tensor], object]] = {
    "type": lambda tensor: tensor.type,
    "shape": lambda tensor: tensor.shape,
    "bytes": lambda tensor: tensor.data,
}
