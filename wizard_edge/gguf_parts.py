"""Models that lie in several files: llama.cpp's split form, and pieces of bytes.

The split form is several GGUF files, `NAME-00001-of-0000N.gguf` and so on; the first
has all metadata. They stay apart, and llama.cpp is given the first. Pieces are one
GGUF file cut anywhere, for hosts that limit the size of a file; only joined end to
end they are a GGUF file again.

Source: llama.cpp 0c1e57098, src/llama.cpp (`llama_split_path`),
src/llama-model-loader.cpp (what the parts must agree on). Names of pieces:
`-split-a` from the 70B repositories that the registry names, `-split-aa` as POSIX
`split` counts; `.part1of2` as publishers of larger models use it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from string import ascii_lowercase

from wizard_edge.errors import Corrupt, MissingFile, UsageError
from wizard_edge.gguf import Header, read_header
from wizard_edge.gguf_rules import validate
from wizard_edge.gguf_types import Split
from wizard_edge.models import Joined

__all__ = [
    "SUFFIX",
    "PartName",
    "Pieces",
    "Whole",
    "check_parts",
    "find_file",
    "find_pieces",
    "first_name",
    "is_numbered",
    "model_stem",
    "part_name",
    "read_joined",
    "read_model",
    "read_parts",
    "split_name",
]

SUFFIX = ".gguf"

_SPLIT = re.compile(r"(?P<stem>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf")
_LETTERED = re.compile(r"(?P<whole>.+\.gguf)-split-(?P<letters>[a-z]{1,2})")
_NUMBERED = re.compile(
    r"(?P<whole>.+\.gguf)\.part(?P<number>\d{1,3})of(?P<count>\d{1,3})"
)


@dataclass(frozen=True, slots=True)
class Pieces:
    """The files that make one GGUF file when they are joined in this order.

    `name` is what the joined file is called; `after` the piece that would be next,
    None where the names say how many there are.
    """

    name: str
    paths: tuple[Path, ...]
    after: Path | None


@dataclass(frozen=True, slots=True)
class Whole:
    """A GGUF file as `name`, by its header and the files that make it, in order."""

    name: str
    header: Header
    paths: tuple[Path, ...]


@dataclass(frozen=True, slots=True)
class PartName:
    """What a file's name says of its place in a model.

    `whole` is what the model's file would be called in one, `number` counts from 0.
    `count` is None where the name does not say how many there are.
    """

    whole: str
    joined: Joined
    number: int
    count: int | None


def part_name(name: str) -> PartName | None:
    """Read the name of a GGUF file or of a part of one; None for any other file."""
    if match := _SPLIT.fullmatch(name):
        number, count = int(match["number"]) - 1, int(match["count"])
        return PartName(match["stem"] + SUFFIX, "gguf-split", number, count)
    if match := _NUMBERED.fullmatch(name):
        number, count = int(match["number"]) - 1, int(match["count"])
        return PartName(match["whole"], "bytes", number, count)
    if match := _LETTERED.fullmatch(name):
        number = 0
        for letter in match["letters"]:
            number = 26 * number + ascii_lowercase.index(letter)
        return PartName(match["whole"], "bytes", number, None)
    if name.lower().endswith(SUFFIX):
        return PartName(name, "whole", 0, 1)
    return None


def split_name(stem: str, number: int, count: int) -> str:
    """Name part `number`, from 1, of a split model."""
    return f"{stem}-{number:05d}-of-{count:05d}{SUFFIX}"


def model_stem(name: str) -> str:
    """Return the name of a model's file without what says where in it a part is."""
    match = _SPLIT.fullmatch(name)
    return match["stem"] if match else name.removesuffix(SUFFIX)


def read_parts(path: Path) -> tuple[Header, ...]:
    """Read and judge the headers of a model, given by its file or its first part.

    Raises: MissingFile naming a part that is not there; UsageError for another part
    than the first, or a directory; Corrupt where parts do not belong together; and as
    `read_valid`.
    """
    return tuple(whole.header for whole in _read(_alone(path), _alone))


def read_model(path: Path) -> tuple[Whole, ...]:
    """Read and judge a model as `read_parts` does, each file whole or in pieces.

    Any piece stands for its file, and one of a later part for the first part.
    Raises: as `read_parts` and `find_pieces`; MissingFile where bytes are too few.
    """
    pieces = find_pieces(path)
    match = _SPLIT.fullmatch(pieces.name) if pieces else None
    if match is not None and int(match["number"]) != 1:
        first = split_name(match["stem"], 1, int(match["count"]))
        pieces = _gathered(path.with_name(first))
    return _read(pieces or _alone(path), _gathered)


def find_pieces(path: Path) -> Pieces | None:
    """Find all pieces that belong to one of them; None for what is no piece by name.

    Raises: MissingFile naming the first that is not there.
    """
    if match := _LETTERED.fullmatch(path.name):
        names = [
            f"{match['whole']}-split-{''.join(letters)}"
            for letters in product(ascii_lowercase, repeat=len(match["letters"]))
        ]
        # Where one is missing before the last, it is among the first so many.
        count = sum(path.with_name(name).exists() for name in names)
    elif match := _NUMBERED.fullmatch(path.name):
        count = int(match["count"])
        names = [f"{match['whole']}.part{n}of{count}" for n in range(1, count + 1)]
    else:
        return None
    paths = [path.with_name(name) for name in names]
    for piece in (path, *paths[:count]):
        if not piece.exists():
            raise MissingFile(piece, hint="all pieces must lie in one folder")
    after = paths[count] if count < len(paths) else None
    return Pieces(match["whole"], tuple(paths[:count]), after)


def read_joined(pieces: Pieces) -> Header:
    """Read and judge the header of the file that the pieces make together.

    Raises: MissingFile where the bytes are too few for it; and as `read_valid`.
    """
    # The header lies in the first piece: pieces have gigabytes, a header megabytes.
    header = read_header(pieces.paths[0])
    size = sum(piece.stat().st_size for piece in pieces.paths)
    end = max((tensor.offset + tensor.size for tensor in header.tensors), default=0)
    if pieces.after is not None and header.data_offset + end > size:
        raise MissingFile(
            pieces.after,
            hint=f"{len(pieces.paths)} pieces have {size} bytes, "
            f"the model needs {header.data_offset + end}",
        )
    validate(header, size=size)
    return header


def find_file(path: Path) -> Path:
    """Return a file, or the first of the pieces that make it.

    Raises: MissingFile for a piece that is not there.
    """
    return _gathered(path).paths[0]


def is_numbered(name: str) -> bool:
    """Tell whether a file is a piece by name, one of those that say how many."""
    return _NUMBERED.fullmatch(name) is not None


def first_name(name: str) -> str | None:
    """Return what the first file of a model is called, by the name of any of them.

    Pieces count as joined; None for what is no model by name.
    """
    part = part_name(name)
    if part is not None and part.joined == "bytes":
        part = part_name(part.whole)
    if part is None:
        return None
    if part.joined != "gguf-split":
        return part.whole
    return split_name(part.whole.removesuffix(SUFFIX), 1, part.count or 1)


def _read(first: Pieces, gather: Callable[[Path], Pieces]) -> tuple[Whole, ...]:
    """Read all files of a model; `gather` finds what makes a part."""
    header = read_joined(first)
    split = header.split
    wholes = [Whole(first.name, header, first.paths)]
    if split is None:
        return tuple(wholes)
    _, *others = _part_paths(first.paths[0].with_name(first.name), split)
    for number, path in enumerate(others, start=1):
        wholes.append(_read_part(gather(path), number, split))
    _check_tensors([whole.header for whole in wholes], split)
    return tuple(wholes)


def _alone(path: Path) -> Pieces:
    if path.is_dir():
        raise UsageError(
            f"a directory, not a GGUF file: {path}",
            hint="'wizard-edge convert DIR' takes a checkpoint",
        )
    return Pieces(path.name, (path,), None)


def _gathered(path: Path) -> Pieces:
    """Find a file, or the pieces that make it. Raises: MissingFile for a piece."""
    if path.exists():
        return _alone(path)
    for entry in path.parent.iterdir() if path.parent.is_dir() else ():
        match = _LETTERED.fullmatch(entry.name) or _NUMBERED.fullmatch(entry.name)
        if match and match["whole"] == path.name:
            return find_pieces(entry) or _alone(path)
    return _alone(path)


def check_parts(headers: Sequence[Header]) -> None:
    """See that the judged headers of all parts, in order, make one model.

    Raises: Corrupt.
    """
    split = headers[0].split
    if split is None and len(headers) == 1:
        return
    if split is None or split.count != len(headers):
        raise Corrupt(
            headers[0].path,
            f"says it is {_told(split)}, there are {len(headers)} files",
        )
    for number, header in enumerate(headers):
        _check_number(header, number, split)
    _check_tensors(headers, split)


def _part_paths(path: Path, split: Split) -> list[Path]:
    match = _SPLIT.fullmatch(path.name)
    if match is None or int(match["count"]) != split.count:
        ending = split_name("", split.number + 1, split.count)
        raise UsageError(
            f"{path} is part {split.number + 1} of {split.count}, which its name "
            "does not say",
            hint=f"its name must end in {ending}",
        )
    paths = [
        path.with_name(split_name(match["stem"], number, split.count))
        for number in range(1, split.count + 1)
    ]
    if split.number or int(match["number"]) != 1:
        raise UsageError(
            f"{path} is part {split.number + 1} of {split.count}",
            hint=f"give the first part: {paths[0]}",
        )
    return paths


def _read_part(pieces: Pieces, number: int, split: Split) -> Whole:
    path = pieces.paths[0]
    if not path.exists():
        raise MissingFile(path, hint=f"all {split.count} parts must lie in one folder")
    header = read_joined(pieces)
    _check_number(header, number, split)
    return Whole(pieces.name, header, pieces.paths)


def _check_number(header: Header, number: int, split: Split) -> None:
    if header.split != replace(split, number=number):
        raise Corrupt(
            header.path,
            f"says it is {_told(header.split)}, should be "
            f"{_told(replace(split, number=number))}",
            where="key 'split.no', 'split.count' or 'split.tensors.count'",
            hint="the parts are of different models, or were renamed",
        )


def _check_tensors(headers: Sequence[Header], split: Split) -> None:
    seen: dict[str, Path] = {}
    for header in headers:
        for tensor in header.tensors:
            if tensor.name in seen:
                raise Corrupt(
                    header.path,
                    f"is in {seen[tensor.name].name} too",
                    where=f"tensor {tensor.name!r}",
                )
            seen[tensor.name] = header.path
    if len(seen) != split.tensors:
        headers[0].fail(
            "split.tensors.count",
            f"is {split.tensors}, the {split.count} parts have {len(seen)}",
        )


def _told(split: Split | None) -> str:
    if split is None:
        return "a whole model"
    return f"part {split.number + 1} of {split.count} with {split.tensors} tensors"
