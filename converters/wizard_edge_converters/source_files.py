"""Opens the files of a checkpoint: regular files only, read by offset, bounded.

Knows no format. Nothing is mapped: a mapped file that shrinks kills the process.
What reads a format takes any `ByteSource`: a file here, or one that arrives.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from threading import Lock
from typing import NoReturn, Protocol, Self

from wizard_edge.errors import Corrupt, MissingFile
from wizard_edge.files import open_regular
from wizard_edge.names import RelPath
from wizard_edge.receipts import Check, CheckedFile

# Our own bounds on JSON, which takes ten times its size and more when it is read: the
# fullest file of the family, StarCoder's tokenizer.json, has 150,000 values.
MAX_VALUES = 1 << 19
MAX_DEPTH = 32
# JSON can spell half of a pair, which no text is made of.
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")
# A git-lfs checkout without its content leaves a text of about 130 bytes instead.
# Source: https://github.com/git-lfs/git-lfs/blob/main/docs/spec.md
_LFS_POINTER = b"version https://git-lfs"


class ByteSource(Protocol):
    """The bytes of a weight file, to be closed by whoever reads a format from them."""

    @property
    def path(self) -> Path | str:
        """What a message calls the file."""

    @property
    def size(self) -> int:
        """The size of the whole file in bytes."""

    @property
    def identity(self) -> str:
        """A text that another content would most likely not have."""

    @property
    def is_stream(self) -> bool:
        """Whether only reading from front to back is cheap."""

    def peek(self, offset: int, size: int) -> bytes:
        """Look at a few bytes anywhere. Raises: as `read`."""

    def read(self, offset: int, size: int) -> bytes:
        """Read exactly `size` bytes, of a stream in increasing order of offset.

        Raises: Corrupt when the file ends before.
        """

    def mark(self) -> str:
        """Describe how far the file was read, for `resume`."""

    def resume(self, mark: str, *, sums: bool) -> None:
        """Go on where another run took the mark; `sums` as in `finish`."""

    def finish(self, *, sums: bool) -> CheckedFile:
        """Check the whole; `sums` says that sums inside the file were compared."""

    def close(self) -> None: ...


class SourceFile:
    """An open regular file and its size in bytes; to be closed by its owner.

    Raises: as `files.open_regular`.
    """

    is_stream = False

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor = open_regular(path)
        self._seeking = Lock()
        status = os.fstat(self._descriptor)
        self.size = status.st_size
        self.identity = f"{status.st_size} bytes of {status.st_mtime_ns} ns"

    def peek(self, offset: int, size: int) -> bytes:
        return self.read(offset, size)

    def read(self, offset: int, size: int) -> bytes:
        """Read exactly `size` bytes. Raises: Corrupt when the file ends before."""
        try:
            data = self._read_at(offset, size)
        except OSError as err:
            raise Corrupt(self.path, f"cannot be read: {err.strerror}") from err
        if len(data) != size:
            raise Corrupt(
                self.path,
                f"ends after {offset + len(data)} bytes, {offset + size} are needed",
                where=f"offset {offset}",
                hint="the file is cut off: fetch it again",
            )
        return data

    def mark(self) -> str:
        return ""

    def resume(self, mark: str, *, sums: bool) -> None:
        """Do nothing: a file can be read anywhere."""

    def finish(self, *, sums: bool) -> CheckedFile:
        name = RelPath.parse(self.path.name)
        return CheckedFile(name, self.size, Check.CRC32 if sums else Check.SIZE)

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _read_at(self, offset: int, size: int) -> bytes:
        # A read gives 2 GiB at most, and may give less than was asked.
        data = self._read_once(offset, size)
        if len(data) == size or not data:
            return data
        parts = [data]
        done = len(data)
        while done < size and (data := self._read_once(offset + done, size - done)):
            parts.append(data)
            done += len(data)
        return b"".join(parts)

    def _read_once(self, offset: int, size: int) -> bytes:
        if hasattr(os, "pread"):
            return os.pread(self._descriptor, size, offset)
        with self._seeking:
            os.lseek(self._descriptor, offset, os.SEEK_SET)
            return os.read(self._descriptor, size)


def refuse_pointer(source: ByteSource) -> None:
    """Notice a git-lfs checkout without its content. Raises: Corrupt."""
    if source.peek(0, min(source.size, len(_LFS_POINTER))) == _LFS_POINTER:
        raise Corrupt(
            source.path,
            "is a git-lfs pointer, not the file itself",
            hint="git lfs pull fetches the content",
        )


def read_small(path: Path, *, limit: int) -> bytes | None:
    """Read a whole file of at most `limit` bytes; None where there is none.

    Raises: UsageError for what is no regular file; Corrupt for a larger one.
    """
    try:
        file = SourceFile(path)
    except MissingFile:
        return None
    with file:
        if file.size > limit:
            raise Corrupt(path, f"{file.size} bytes, at most {limit} are expected")
        return file.read(0, file.size)


def parse_json(data: bytes, label: str) -> dict[str, object]:
    """Decode a JSON object; `label` names the file in errors.

    Raises: Corrupt for bad JSON, a key that is there twice, NaN and infinities, half
    of a letter, more than `MAX_VALUES` values, or more than `MAX_DEPTH` levels.
    """
    # Counted before anything is made of them; letters in texts count as well.
    values = sum(map(data.count, (b",", b"[", b"{")))
    if values > MAX_VALUES:
        raise Corrupt(label, f"has {values} values, at most {MAX_VALUES} are expected")
    try:
        value = json.loads(
            data.decode("utf-8"),
            object_pairs_hook=_without_repeats,
            parse_constant=_refuse_constant,
        )
    except UnicodeDecodeError as err:
        raise Corrupt(label, "is not UTF-8", where=f"offset {err.start}") from err
    except RecursionError as err:
        raise Corrupt(label, "is nested too deeply") from err
    except ValueError as err:
        raise Corrupt(label, f"is not valid JSON: {err}") from err
    if not isinstance(value, dict):
        raise Corrupt(label, "is not a JSON object")
    if not _is_shallow(value):
        raise Corrupt(label, "is nested too deeply")
    if _SURROGATE.search(data) and not _is_text(value):
        raise Corrupt(label, "holds half of a surrogate pair: no Unicode text")
    return value


def _is_text(value: object) -> bool:
    """Whether all texts in a decoded value can be written again."""
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True


def _is_shallow(value: object) -> bool:
    """Whether a decoded value can be shown and walked without running out of stack."""
    level = [value]
    for _ in range(MAX_DEPTH):
        groups = [item for item in level if isinstance(item, dict | list)]
        if not groups:
            return True
        level = [
            item
            for group in groups
            for item in (group.values() if isinstance(group, dict) else group)
        ]
    return False


def _without_repeats(pairs: list[tuple[str, object]]) -> dict[str, object]:
    value: dict[str, object] = {}
    for key, item in pairs:
        if key in value:
            raise ValueError(f"key {shown(key)} is there twice")
        value[key] = item
    return value


def _refuse_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is no number")


def shown(value: object) -> str:
    """Quote something from outside for a message, at most 80 characters."""
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
