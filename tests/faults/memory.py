"""A checkpoint that lies in memory, for campaigns that read thousands of them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path

from wizard_edge.errors import Corrupt, MissingFile
from wizard_edge.names import RelPath
from wizard_edge.receipts import Check, CheckedFile
from wizard_edge_converters.source_files import ByteSource
from wizard_edge_converters.weights import MAX_SIDE_FILE


class Bytes:
    """A `ByteSource` over bytes, as strict at its end as a file."""

    is_stream = False

    def __init__(self, path: str, data: bytes) -> None:
        self.path = path
        self._data = data
        self.size = len(data)
        self.identity = path

    def read(self, offset: int, size: int) -> bytes:
        data = self._data[offset : offset + size] if offset >= 0 <= size else b""
        if len(data) != size:
            raise Corrupt(self.path, f"ends after {self.size} bytes")
        return data

    def peek(self, offset: int, size: int) -> bytes:
        return self.read(offset, size)

    def mark(self) -> str:
        return ""

    def resume(self, mark: str, *, sums: bool) -> None:
        """Do nothing: all is there."""

    def finish(self, *, sums: bool) -> CheckedFile:
        kind = Check.CRC32 if sums else Check.SIZE
        return CheckedFile(RelPath.parse(self.path), self.size, kind)

    def close(self) -> None:
        """Do nothing: nothing is open."""


class MemoryFolder:
    """A `Folder` of files in memory."""

    name = "checkpoint"
    is_remote = False

    def __init__(self, files: Mapping[str, bytes]) -> None:
        self._files = files

    def names(self) -> Collection[str]:
        return list(self._files)

    def label(self, name: str) -> str:
        return name

    def small(self, name: str) -> bytes | None:
        data = self._files.get(name)
        if data is not None and len(data) > MAX_SIDE_FILE:
            raise Corrupt(name, f"{len(data)} bytes")
        return data

    def lacks(self, name: str) -> bool:
        return False

    def open(self, name: str) -> ByteSource:
        if name not in self._files:
            raise MissingFile(name)
        return Bytes(name, self._files[name])


def peak_memory() -> int:
    """Return the most memory this process had resident since `forget_peak`, in bytes.

    Not from getrusage: on Linux a child's figure includes its parent's at the fork.
    """
    return _status("VmHWM:")


def forget_peak() -> int:
    """Begin to measure anew; return what is resident now, in bytes."""
    # Source: Linux Documentation/filesystems/proc.rst, clear_refs.
    Path("/proc/self/clear_refs").write_text("5")
    return _status("VmRSS:")


def _status(field: str) -> int:
    status = Path("/proc/self/status").read_text()
    return int(status.partition(field)[2].split()[0]) * 1024
