"""Files that nobody else on this machine reads: what people say to a model.

Folders for their owner alone (0700), files too (0600), whatever the umask. On
Windows, what the user's own folder gives.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO

from wizard_edge.files import sync_folder, temp_beside, translated

FOLDER_MODE = 0o700
FILE_MODE = 0o600

# Windows would turn line ends into others.
_BINARY = getattr(os, "O_BINARY", 0)


def make_folder(folder: Path) -> None:
    """Make a folder, and those above it, for its owner alone.

    One that is there is left as it is.
    Raises: NotEnough on a full disk, Refused where that is not allowed.
    """
    with translated(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        folder.mkdir(mode=FOLDER_MODE, exist_ok=True)


def write(
    path: Path,
    parts: Iterable[bytes | bytearray | memoryview],
    *,
    durable: bool = True,
) -> None:
    """Write parts one after the other to `path`, whole or not at all.

    What was there before is replaced; the bytes are on the disk when this returns,
    where they shall be `durable`.
    Raises: NotEnough on a full disk, Refused where writing is not allowed.
    """
    held = list(parts)
    with translated(path, sum(map(len, held))):
        temp = temp_beside(path)
        try:
            with _open(temp, os.O_CREAT | os.O_EXCL) as file:
                for part in held:
                    file.write(part)
                file.flush()
                if durable:
                    os.fsync(file.fileno())
            temp.replace(path)
        except BaseException:
            with contextlib.suppress(OSError):
                temp.unlink()
            raise
        if durable:
            sync_folder(path.parent)


def append(path: Path, content: bytes, *, at: int) -> None:
    """Write `content` behind the first `at` bytes of a file and have it on the disk.

    What lay behind them, such as half a line, is cut off first.
    Raises: NotEnough on a full disk, Refused where writing is not allowed.
    """
    with translated(path, len(content)), _open(path, 0) as file:
        file.truncate(at)
        file.seek(at)
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _open(path: Path, flags: int) -> BinaryIO:
    return os.fdopen(os.open(path, os.O_RDWR | flags | _BINARY, FILE_MODE), "r+b")
