"""Whether a file lies in the system's page cache, and how to get it out of there.

What decides how long a model takes to load: from the disk or from memory. Linux tells
and obeys; elsewhere nothing is known and nothing happens. numpy is imported where it
is used, to get at the address of a mapping.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import sys
from pathlib import Path

# Asked for at once; each page of it takes a byte of answer.
_WINDOW = 1 << 30


def cached_share(path: Path) -> float | None:
    """Return which share of a file the page cache holds, None where nobody says.

    Source: Linux, mincore(2): since 5.2 it tells the truth of files that the caller
    owns or may write, and says of all others that everything is there.
    """
    if sys.platform != "linux":
        return None
    import numpy as np

    libc = ctypes.CDLL(None, use_errno=True)
    there = pages = 0
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        for offset in range(0, size, _WINDOW):
            length = min(_WINDOW, size - offset)
            count = -(-length // mmap.PAGESIZE)
            with mmap.mmap(
                file.fileno(), length, prot=mmap.PROT_READ, offset=offset
            ) as window:
                view = np.frombuffer(window, dtype=np.uint8)
                answer = np.empty(count, dtype=np.uint8)
                failed = libc.mincore(
                    ctypes.c_void_p(view.ctypes.data),
                    ctypes.c_size_t(length),
                    ctypes.c_void_p(answer.ctypes.data),
                )
                # The mapping cannot be closed while somebody looks into it.
                del view
            if failed:
                return None
            there += int((answer & 1).sum())
            pages += count
    return there / pages if pages else None


def drop_cached(path: Path) -> bool:
    """Ask the system to forget a file's pages; True where it can be asked.

    Pages that some process has mapped stay. Source: posix_fadvise(2).
    """
    if sys.platform != "linux":
        return False
    with path.open("rb") as file:
        # Only what lies on the disk can be forgotten.
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    return True
