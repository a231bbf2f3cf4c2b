"""A file that is not whole yet: written in pieces at their places, then renamed.

Refusals of the system become our errors here, with what is needed and what is free.
Knows no format and no folder of ours.
"""

from __future__ import annotations

import ctypes
import errno
import os
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from threading import Lock
from typing import NoReturn

from wizard_edge.errors import Corrupt, NotEnough
from wizard_edge.files import free_disk

__all__ = [
    "DISK_RESERVE",
    "FULL",
    "PART_SUFFIX",
    "TOO_LARGE",
    "PartFile",
    "allocated",
    "check_space",
    "raise_full",
]

PART_SUFFIX = ".part"
# What the file system itself may need beside the bytes of a file.
DISK_RESERVE = 1 << 20

FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
# FAT32 takes 4 GiB at most.
TOO_LARGE = "this file system, or a limit of yours, takes no file of that size"
# Source: Linux, include/uapi/linux/fs.h.
_SYNC_FILE_RANGE_WRITE = 2
# Systems and file systems that cannot set room aside; all of them can do without.
_NO_ALLOCATION = frozenset(
    {errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL, errno.EPERM, errno.ENODEV}
)


class PartFile:
    """A file that is being written; `write` may be called from several threads."""

    def __init__(self, path: Path, size: int, *, too_large: str = TOO_LARGE) -> None:
        """Open or make the file; `too_large` is the hint where it cannot be so big."""
        self.path = path
        self.size = size
        self._too_large = too_large
        # O_EXCL would refuse the file that a killed run left; a link is not followed.
        flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0)
        flags |= getattr(os, "O_NOFOLLOW", 0)
        # 0666: what the umask leaves of it, as for any file a program makes.
        self._descriptor = os.open(path, flags, 0o666)
        self._seeking = Lock()

    def reserve(self) -> None:
        """Give the file its size, so that pieces can go to any place."""
        os.ftruncate(self._descriptor, self.size)

    def allocate(self) -> None:
        """Set the room aside on the disk where the file system can, and reserve.

        Raises: NotEnough.
        """
        try:
            _fallocate(self._descriptor, self.size)
            self.reserve()
        except OSError as err:
            self._fail(err, self.size - allocated(self.path))

    def read(self, offset: int, size: int) -> bytes:
        """Return what was written at `offset`. Raises: Corrupt when the disk fails."""
        try:
            if hasattr(os, "pread"):
                return os.pread(self._descriptor, size, offset)
            with self._seeking:
                os.lseek(self._descriptor, offset, os.SEEK_SET)
                return os.read(self._descriptor, size)
        except OSError as err:
            raise Corrupt(self.path, f"cannot be read: {err.strerror}") from err

    def write(self, offset: int, data: bytes | memoryview) -> None:
        """Write all of `data` at `offset`.

        Raises: NotEnough when the disk is full; Corrupt when it fails.
        """
        rest = memoryview(data)
        try:
            while rest:
                written = self._write_once(offset, rest)
                offset += written
                rest = rest[written:]
        except OSError as err:
            # What one piece lacks is not what the file lacks.
            self._fail(err, max(self.size - allocated(self.path), len(rest)))

    def begin_sync(self, offset: int, size: int) -> None:
        """Have the system begin to write bytes to the disk; wait for nothing.

        So the `sync` at the end of a large file has little left to do: 0.02 s after
        2 GiB instead of 0.7. Where the system has no such call, nothing happens.
        """
        call = _libc_call("sync_file_range")
        if call is not None:
            call(
                self._descriptor,
                ctypes.c_int64(offset),
                ctypes.c_int64(size),
                _SYNC_FILE_RANGE_WRITE,
            )

    def uncache(self, end: int) -> None:
        """Let the system have back the memory that holds the first `end` bytes.

        What is not on the disk yet stays. So a fast download goes on in the pages it
        had before: fresh ones for 2 GiB took 2.9 s of processor time instead of 0.9.
        """
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(self._descriptor, 0, end, os.POSIX_FADV_DONTNEED)

    def sync(self) -> None:
        """Have what was written on the disk."""
        os.fsync(self._descriptor)

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

    def _fail(self, err: OSError, needed: int) -> NoReturn:
        raise_full(self.path, needed, err, too_large=self._too_large)


def check_space(folder: Path, needed: int, *, hint: str) -> None:
    """See that the disk of a folder has room for so many bytes. Raises: NotEnough."""
    free = free_disk(folder)
    if free < needed + DISK_RESERVE:
        raise NotEnough(
            f"disk in {folder}", needed=needed + DISK_RESERVE, free=free, hint=hint
        )


def allocated(path: Path) -> int:
    """Return the bytes on the disk that a part file has already."""
    try:
        status = path.lstat()
    except OSError:
        return 0
    # st_blocks is missing on Windows, whose files are not sparse by default.
    blocks = getattr(status, "st_blocks", None)
    return status.st_size if blocks is None else min(status.st_size, blocks * 512)


def raise_full(
    path: Path, needed: int, err: OSError, *, too_large: str = TOO_LARGE
) -> NoReturn:
    """Turn a disk that is full or fails into our error; raise any other as it is."""
    if err.errno == errno.EIO:
        raise Corrupt(
            path,
            f"cannot be written: {err.strerror}",
            hint="the disk may be failing: choose another",
        ) from err
    if err.errno not in FULL:
        raise err
    raise NotEnough(
        f"disk in {path.parent}",
        needed=needed,
        free=free_disk(path.parent),
        hint=too_large if err.errno == errno.EFBIG else None,
    ) from err


def _fallocate(descriptor: int, size: int) -> None:
    """Set room aside for a file where the file system can.

    Not `os.posix_fallocate`: where the file system cannot, glibc writes a byte into
    every block instead. Source: posix_fallocate(3), NOTES.
    """
    # musl has one name for both, always of 64 bits.
    call = _libc_call("fallocate64") or _libc_call("fallocate")
    if call is None or size == 0:
        return
    if call(descriptor, 0, ctypes.c_int64(0), ctypes.c_int64(size)):
        number = ctypes.get_errno()
        if number not in _NO_ALLOCATION:
            raise OSError(number, os.strerror(number))


@cache
def _libc_call(name: str) -> Callable[..., int] | None:
    """Return a function of Linux's C library, None where there is none."""
    if sys.platform != "linux":
        return None
    call: Callable[..., int] | None
    call = getattr(ctypes.CDLL(None, use_errno=True), name, None)
    return call
