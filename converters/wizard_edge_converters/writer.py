"""Writes a file of known size in pieces of known place, and puts it in its place.

The pieces go to a temporary name in the folder of the destination; the file gets its
own name when all is written and on the disk. Any error, Ctrl-C included, removes it.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import NoReturn

from wizard_edge.errors import MissingFile, NotEnough, Refused, UsageError
from wizard_edge.files import move_into_place

# What the file system itself may need beside the bytes of the file.
DISK_RESERVE = 1 << 20


class PartFile:
    """A file that is being written; `write` may be called from several threads."""

    def __init__(self, path: Path, size: int) -> None:
        self.path = path
        self.size = size
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
        # 0666: what the umask leaves of it, as for any file a program makes.
        self._descriptor = os.open(path, flags, 0o666)
        self._seeking = Lock()

    def reserve(self) -> None:
        """Give the file its size, so that pieces can go to any place."""
        os.ftruncate(self._descriptor, self.size)

    def write(self, offset: int, data: bytes | memoryview) -> None:
        """Write all of `data` at `offset`. Raises: NotEnough when the disk is full."""
        rest = memoryview(data)
        try:
            while rest:
                written = self._write_once(offset, rest)
                offset += written
                rest = rest[written:]
        except OSError as err:
            _refuse_full_disk(self.path, len(rest), err)

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _write_once(self, offset: int, data: memoryview) -> int:
        if hasattr(os, "pwrite"):
            return os.pwrite(self._descriptor, data, offset)
        with self._seeking:
            os.lseek(self._descriptor, offset, os.SEEK_SET)
            return os.write(self._descriptor, data)


def check_output(output: Path, *, overwrite: bool) -> None:
    """See that `output` can be written. Raises: MissingFile; UsageError."""
    if not output.parent.is_dir():
        raise MissingFile(output.parent, hint="the output's folder must exist")
    if output.is_dir():
        raise UsageError(f"the output is a directory: {output}")
    if output.exists() and not output.is_file():
        raise UsageError(f"the output is no regular file: {output}")
    if output.exists() and not overwrite:
        raise UsageError(
            f"the output is there already: {output}",
            hint="name another file, or replace it with --overwrite",
        )


def check_space(folder: Path, needed: int) -> None:
    """See that a folder has room. Raises: NotEnough."""
    free = shutil.disk_usage(folder).free
    if free < needed + DISK_RESERVE:
        raise NotEnough(
            f"disk in {folder}",
            needed=needed + DISK_RESERVE,
            free=free,
            hint="another folder or a smaller quant",
        )


@contextmanager
def replacing(output: Path, size: int) -> Iterator[PartFile]:
    """Give a part file that becomes `output` when the block ends well.

    Raises: NotEnough; Refused when the folder cannot be written to.
    """
    part = _create(output, size)
    try:
        part.reserve()
        yield part
        part.close()
        move_into_place(part.path, output)
    except OSError as err:
        _refuse_full_disk(part.path, size, err)
    finally:
        part.close()
        # After the move there is nothing of that name left.
        with contextlib.suppress(FileNotFoundError):
            part.path.unlink()


def _create(output: Path, size: int) -> PartFile:
    # Short, since a name has 255 bytes at most; in the same folder, to be renamed.
    path = output.with_name(f".{output.name[:64]}.{secrets.token_hex(4)}.part")
    try:
        return PartFile(path, size)
    except OSError as err:
        raise Refused(
            f"cannot write in {output.parent}: {err.strerror}",
            hint="check who owns the folder, or choose another",
        ) from err


def _refuse_full_disk(path: Path, needed: int, err: OSError) -> NoReturn:
    """Turn "no space left" into our error; raise any other as it is."""
    if err.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        raise err
    free = shutil.disk_usage(path.parent).free
    raise NotEnough(f"disk in {path.parent}", needed=needed, free=free) from err
