"""The KV cache of a conversation on the disk: parts that follow each other.

Each file `000001.kv`, `000002.kv`, ... is a header and what `Stateful.save_state` gave
for the tokens behind those of the file before. The header says of which model, under
which `state_kind` and for which tokens, and has the CRC-32 of the rest. A file that is
not exactly right is worth nothing, and none behind it is: what it held is read again.
"""

from __future__ import annotations

import logging
import mmap
import struct
import sys
import zlib
from array import array
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from wizard_edge import private
from wizard_edge.engine import KvPart
from wizard_edge.errors import Refused
from wizard_edge.files import delete, entries

SUFFIX = ".kv"
SCHEMA = 1
# More files than this are made fewer: the newer half of them is saved again as one.
MOST_FILES = 32

_MAGIC = b"WIZEDGKV"
# Little-endian: magic, schema, CRC-32 of the payload, first, count, size of the
# payload, then SHA-256 of the model, of the kind, and of the ids up to the end of the
# part as u32; at last CRC-32 of the header up to there.
_HEADER = struct.Struct("<8sIIQQQ32s32s32s")
_SUM = struct.Struct("<I")
_HEADER_SIZE = _HEADER.size + _SUM.size

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Segment:
    """A file: the tokens it holds, and the bytes it takes."""

    path: Path
    first: int
    count: int
    ids: bytes
    crc32: int
    size: int

    @property
    def end(self) -> int:
        return self.first + self.count


class StateFiles:
    """The files of one conversation in a folder of their own.

    `problem` says what was wrong with the last ones that were given up, None where
    nothing was.
    """

    def __init__(
        self, folder: Path, *, model: str, kind: str, durable: bool = True
    ) -> None:
        """Look at what is there, which may be no folder yet.

        Files that need not outlive the process are not `durable`.
        """
        self._durable = durable
        self.folder = folder
        self.problem: str | None = None
        self._model = sha256(model.encode()).digest()
        self._kind = sha256(kind.encode()).digest()
        self._segments = self._scan()

    @property
    def segments(self) -> tuple[Segment, ...]:
        return tuple(self._segments)

    @property
    def size(self) -> int:
        """The bytes on the disk."""
        return sum(segment.size for segment in self._segments)

    def keep(self, ids: Sequence[int]) -> int:
        """Give up what is not the beginning of `ids`; return how many are saved."""
        sums = _Sums(ids)
        for index, segment in enumerate(self._segments):
            if segment.end > len(ids) or sums.upto(segment.end) != segment.ids:
                self._drop(index)
                break
        return self._segments[-1].end if self._segments else 0

    def append(self, ids: Sequence[int], part: KvPart) -> None:
        """Save what the KV cache holds of `ids` behind what is saved.

        Instead of the files that hold the part's tokens, where some do.
        Raises: NotEnough on a full disk, Refused where writing is not allowed.
        """
        index = next(
            (at for at, kept in enumerate(self._segments) if kept.first == part.first),
            len(self._segments),
        )
        end = part.first + part.count
        fields = (part.first, part.count, len(part.data))
        digest = _Sums(ids).upto(end)
        crc32 = zlib.crc32(part.data)
        head = _HEADER.pack(
            _MAGIC, SCHEMA, crc32, *fields, self._model, self._kind, digest
        )
        path = self.folder / f"{index + 1:06}{SUFFIX}"
        private.make_folder(self.folder)
        parts = [head, _SUM.pack(zlib.crc32(head)), part.data]
        private.write(path, parts, durable=self._durable)
        size = _HEADER_SIZE + len(part.data)
        made = Segment(path, part.first, part.count, digest, crc32, size)
        # From here on those behind it do not follow any more.
        behind = self._segments[index + 1 :]
        self._segments[index:] = [made]
        for segment in behind:
            delete(segment.path)

    def parts(self, ids: Sequence[int]) -> list[KvPart]:
        """Return what is saved of the beginning of `ids`, mapped and checked."""
        self.keep(ids)
        parts: list[KvPart] = []
        for index, segment in enumerate(self._segments):
            try:
                data = _map(segment)
            except (OSError, ValueError) as err:
                self._give_up(index, str(err))
                break
            if zlib.crc32(data) != segment.crc32:
                self._give_up(index, "damaged")
                break
            parts.append(KvPart(segment.first, segment.count, data))
        return parts

    def clear(self) -> None:
        """Give up everything."""
        self._drop(0)

    def _scan(self) -> list[Segment]:
        found = [path for path in entries(self.folder) if path.suffix == SUFFIX]
        segments: list[Segment] = []
        for path in found:
            end = segments[-1].end if segments else 0
            try:
                segment = self._read(path, end)
            except (OSError, ValueError) as err:
                self._warn(path, str(err))
                for late in reversed(found[len(segments) :]):
                    with suppress(OSError, Refused):
                        delete(late)
                break
            segments.append(segment)
        return segments

    def _read(self, path: Path, end: int) -> Segment:
        """Read a header. Raises: ValueError saying what is wrong with it."""
        with path.open("rb") as file:
            head = file.read(_HEADER_SIZE)
            size = file.seek(0, 2)
        if len(head) < _HEADER_SIZE:
            raise ValueError("cut short")
        magic, schema, crc32, first, count, payload, model, kind, ids = _HEADER.unpack(
            head[: _HEADER.size]
        )
        [header_sum] = _SUM.unpack(head[_HEADER.size :])
        problems = (
            (magic != _MAGIC, "no saved state"),
            (zlib.crc32(head[: _HEADER.size]) != header_sum, "damaged"),
            (schema != SCHEMA, "of another version of this program"),
            (size != _HEADER_SIZE + payload, "cut short"),
            (model != self._model, "of another model file"),
            (kind != self._kind, "of another llama.cpp or another KV type"),
            (first != end or not count, "no continuation of the one before"),
        )
        for wrong, problem in problems:
            if wrong:
                raise ValueError(problem)
        return Segment(path, first, count, ids, crc32, size)

    def _give_up(self, index: int, problem: str) -> None:
        self._warn(self._segments[index].path, problem)
        self._drop(index)

    def _warn(self, path: Path, problem: str) -> None:
        self.problem = f"its saved state is {problem}"
        _logger.warning("%s is %s: from there on all is read again", path, problem)

    def _drop(self, index: int) -> None:
        gone = self._segments[index:]
        del self._segments[index:]
        # The last first: what is left after a crash still is a beginning.
        for segment in reversed(gone):
            delete(segment.path)


def state_size(folder: Path) -> int:
    """Return the bytes that the files of a folder take."""
    return sum(path.stat().st_size for path in _files(folder))


def remove_state(folder: Path) -> None:
    """Delete the files of a folder, the last first."""
    for path in reversed(_files(folder)):
        delete(path)


def _files(folder: Path) -> list[Path]:
    return [path for path in entries(folder) if path.suffix == SUFFIX]


def _map(segment: Segment) -> memoryview:
    """Map the payload; it goes when nobody holds it any more."""
    with segment.path.open("rb") as file:
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    if len(mapped) != segment.size:
        raise ValueError("cut short")
    if hasattr(mapped, "madvise"):
        mapped.madvise(mmap.MADV_SEQUENTIAL)
    return memoryview(mapped)[_HEADER_SIZE:]


class _Sums:
    """SHA-256 of the beginnings of some ids, longer and longer ones."""

    def __init__(self, ids: Sequence[int]) -> None:
        self._ids = ids
        self._sum = sha256()
        self._done = 0

    def upto(self, end: int) -> bytes:
        block = array("I", self._ids[self._done : end])
        if sys.byteorder == "big":
            block.byteswap()
        self._sum.update(block.tobytes())
        self._done = end
        return self._sum.copy().digest()
