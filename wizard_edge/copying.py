"""Copies a range of a file to the same place of another, sharing where it can.

A file system that shares blocks between files, as btrfs and xfs do, moves no bytes;
other systems copy inside the kernel, or through our hands.
"""

from __future__ import annotations

import errno
import os

__all__ = ["copy_range"]

_ROOM = 1 << 20
# What systems and file systems say that cannot do it, or not between these two.
_CANNOT = frozenset(
    {
        errno.ENOSYS,
        errno.EXDEV,
        errno.EINVAL,
        errno.EOPNOTSUPP,
        errno.EPERM,
        errno.EBADF,
        errno.ETXTBSY,
    }
)


def copy_range(source: int, target: int, offset: int, size: int) -> None:
    """Copy bytes from `offset` on between two descriptors, to the same place.

    Ends early where the source does. Moves the position of both.
    Raises: OSError.
    """
    done = _share(source, target, offset, size)
    os.lseek(source, offset + done, os.SEEK_SET)
    os.lseek(target, offset + done, os.SEEK_SET)
    while done < size:
        data = os.read(source, min(size - done, _ROOM))
        if not data:
            return
        done += len(data)
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(target, rest) :]


def _share(source: int, target: int, offset: int, size: int) -> int:
    """Copy as much as the system does by itself; return how many bytes that was."""
    if not hasattr(os, "copy_file_range"):
        return 0
    done = 0
    while done < size:
        place = offset + done
        try:
            count = os.copy_file_range(source, target, size - done, place, place)
        except OSError as err:
            if err.errno in _CANNOT:
                break
            raise
        # Some file systems of network and /proc give nothing instead of an error.
        if not count:
            break
        done += count
    return done
