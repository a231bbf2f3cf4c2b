"""Opens the files of a checkpoint: regular files only, read by offset, bounded.

Knows no format. Nothing is mapped: a mapped file that shrinks kills the process.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from threading import Lock
from typing import NoReturn, Self

from wizard_edge.errors import Corrupt, MissingFile
from wizard_edge.files import open_regular

# A git-lfs checkout without its content leaves a text of about 130 bytes instead.
# Source: https://github.com/git-lfs/git-lfs/blob/main/docs/spec.md
_LFS_POINTER = b"version https://git-lfs"


class SourceFile:
    """An open regular file and its size in bytes; to be closed by its owner.

    Raises: as `files.open_regular`.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor = open_regular(path)
        self._seeking = Lock()
        self.size = os.fstat(self._descriptor).st_size

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

    def refuse_pointer(self) -> None:
        """Notice a git-lfs checkout without its content. Raises: Corrupt."""
        if self.read(0, min(self.size, len(_LFS_POINTER))) == _LFS_POINTER:
            raise Corrupt(
                self.path,
                "is a git-lfs pointer, not the file itself",
                hint="git lfs pull fetches the content",
            )

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

    Raises: Corrupt for bad JSON, a key that is there twice, NaN and infinities.
    """
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
    return value


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
