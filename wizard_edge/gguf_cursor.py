"""Steps through the first bytes of a file that may lie about itself.

Knows strings, numbers and bounds, not what they are for. The file is read, not
mapped: one that shrinks while it is mapped would kill the process.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from struct import Struct
from typing import NoReturn

from wizard_edge.errors import Corrupt
from wizard_edge.files import open_regular

# Our own bounds, well above Llama 3, the largest vocabulary this program runs:
# 128,256 tokens and 280,147 merges in 8 MB, and no text beyond 100 kB. With them no
# file costs more than 64 MiB.
MAX_STRING_SIZE = 16 << 20
MAX_TEXT_SIZE = 4 << 20
MAX_STRINGS = 1 << 20
MAX_HEADER_SIZE = 32 << 20

U32 = Struct("<I")
U64 = Struct("<Q")

_FIRST_PIECE = 256 << 10
_PIECE = 1 << 20


@contextmanager
def opened(path: Path) -> Iterator[Cursor]:
    """Open a regular file for reading from its beginning.

    Raises: as `files.open_regular`.
    """
    descriptor = open_regular(path)
    try:
        yield Cursor(path, descriptor, os.fstat(descriptor).st_size)
    finally:
        os.close(descriptor)


class Cursor:
    """Walks over the first bytes of an open file, reading no further than it must.

    `item` is what is being read, for the error.
    """

    def __init__(self, path: Path, descriptor: int, file_size: int) -> None:
        self.path = path
        self.file_size = file_size
        self.item = "the beginning"
        self.position = 0
        self.buffer = bytearray()
        self._descriptor = descriptor
        self._strings = 0
        self._text = 0

    def take(self, size: int) -> int:
        """Step over bytes, which are in the buffer then; give where they start."""
        start = self.position
        end = start + size
        if end > len(self.buffer):
            self._fetch(end)
        self.position = end
        return start

    def skip(self, size: int) -> None:
        """Step over bytes that only have to be in the file."""
        self._allow(self.position + size)
        self.position += size

    def number(self, layout: Struct = U32) -> int:
        value: int = layout.unpack_from(self.buffer, self.take(layout.size))[0]
        return value

    def pair(self, layout: Struct) -> tuple[int, int]:
        first, second = layout.unpack_from(self.buffer, self.take(layout.size))
        return first, second

    def string(self, limit: int = MAX_STRING_SIZE) -> str:
        at = self.position
        size = self.number(U64)
        if size > limit:
            self.fail(f"a string of {size} bytes, at most {limit} are allowed", at)
        start = self.take(size)
        # As text it may take four times the memory.
        self._text += size
        if self._text > MAX_TEXT_SIZE:
            self.fail(f"texts of more than {MAX_TEXT_SIZE} bytes together", at)
        try:
            return self.buffer[start : start + size].decode()
        except UnicodeDecodeError as error:
            self.fail(f"text that is not UTF-8: {shown(error.object)}", start)

    def skip_strings(self, count: int) -> None:
        """Step over an array of strings. A loop for speed: 0.2 us a string."""
        self._strings += count
        if self._strings > MAX_STRINGS:
            self.fail(f"more than {MAX_STRINGS} strings in arrays")
        self._allow(self.position + 8 * count)
        position = self.position
        buffer = self.buffer
        size_at = U64.unpack_from
        known = len(buffer) - 8
        for _ in range(count):
            if position > known:
                self.position = position
                self._fetch(position + 8)
                known = len(buffer) - 8
            size = size_at(buffer, position)[0]
            if size > MAX_STRING_SIZE:
                self.fail(f"a string of {size} bytes in an array", position)
            position += 8 + size
        self._allow(position)
        self.position = position

    def read_at(self, offset: int, size: int) -> bytes:
        """Read a range of the file, whatever was read before."""
        self.position = offset
        self._allow(offset + size)
        os.lseek(self._descriptor, offset, os.SEEK_SET)
        self.buffer.clear()
        self._fill(size)
        return bytes(self.buffer)

    def fail(self, problem: str, at: int | None = None) -> NoReturn:
        offset = self.position if at is None else at
        raise Corrupt(self.path, problem, where=f"{self.item}, offset {offset}")

    def _allow(self, end: int) -> None:
        if end > self.file_size:
            self.fail(
                f"the file has {self.file_size} bytes where at least {end} are needed"
            )
        if end > MAX_HEADER_SIZE:
            self.fail(f"a header of more than {MAX_HEADER_SIZE} bytes")

    def _fetch(self, end: int) -> None:
        self._allow(end)
        wanted = max(end, 2 * len(self.buffer), _FIRST_PIECE)
        wanted = min(wanted, self.file_size, MAX_HEADER_SIZE)
        self._fill(wanted)

    def _fill(self, end: int) -> None:
        while len(self.buffer) < end:
            try:
                piece = os.read(self._descriptor, min(_PIECE, end - len(self.buffer)))
            except OSError as error:
                self.fail(f"cannot be read: {error.strerror}")
            if not piece:
                self.fail("the file became shorter while it was read")
            self.buffer += piece


def shown(value: object) -> str:
    """Quote a value from a file for a message, escaped and cut short."""
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
