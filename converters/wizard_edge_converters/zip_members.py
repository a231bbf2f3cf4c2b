"""Reads the directory of a zip file as torch writes it: stored members, in place.

Nothing is unpacked and no name becomes a path. The directory lies at the end of the
file. Where a member's data begins stands only in the header before it, which is read
when it is wanted: of a file that passes by as a stream, when it passes.

Source: PKWARE APPNOTE.TXT 6.3.10, sections 4.3.6 to 4.3.16 and 4.5.3 (zip64);
PyTorch caffe2/serialize/inline_container.cc (members are stored, padded to 64).
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

_END_MARK = b"PK\x05\x06"

# Our own bounds: a shard of the largest WizardLM has about 300 members.
MAX_MEMBERS = 1 << 14
MAX_DIRECTORY = 4 << 20
MAX_NAME = 1 << 10

_END = struct.Struct("<4s4H2IH")
_END64_LOCATOR = struct.Struct("<4sIQI")
_END64 = struct.Struct("<4sQ2H2I4Q")
_CENTRAL = struct.Struct("<4s6H3I5H2I")
_LOCAL = struct.Struct("<4s5H3I2H")
_LOCATOR_MARK = b"PK\x06\x07"
_FULL16, _FULL32 = 0xFFFF, 0xFFFFFFFF
_MAX_COMMENT = 0xFFFF
_ZIP64_EXTRA = 1
# Encrypted, strongly encrypted, masked headers.
_FORBIDDEN_FLAGS = 1 | 1 << 6 | 1 << 13

Read = Callable[[int, int], bytes]
"""Give `size` bytes from `offset` of the file, or raise."""


class BadZip(ValueError):
    """The zip file is malformed, or of a kind that torch does not write."""


@dataclass(frozen=True, slots=True)
class Member:
    """A stored member: its header at `header_offset`, then `size` bytes of data.

    The data ends at `limit` at the latest, where something else begins.
    """

    name: str
    header_offset: int
    size: int
    crc: int
    limit: int


@dataclass(frozen=True, slots=True)
class _Directory:
    offset: int
    size: int
    count: int


@dataclass(frozen=True, slots=True)
class _Entry:
    name: bytes
    header_offset: int
    size: int
    crc: int


class _Central(NamedTuple):
    """The fixed part of a directory entry, in its order."""

    mark: bytes
    made_by: int
    needed: int
    flags: int
    method: int
    time: int
    date: int
    crc: int
    packed: int
    size: int
    name_size: int
    extra_size: int
    comment_size: int
    disk: int
    internal: int
    external: int
    offset: int


def read_members(read: Read, file_size: int) -> dict[str, Member]:
    """Read the directory; members in the order in which they lie in the file.

    Raises: BadZip for anything but stored members that lie apart in the file.
    """
    directory = _find_directory(read, file_size)
    entries = sorted(
        _read_entries(read(directory.offset, directory.size), directory.count),
        key=lambda entry: entry.header_offset,
    )
    if not entries:
        raise BadZip("no members")
    members: dict[str, Member] = {}
    limits = [entry.header_offset for entry in entries[1:]] + [directory.offset]
    for entry, limit in zip(entries, limits, strict=True):
        if entry.header_offset + _LOCAL.size + len(entry.name) + entry.size > limit:
            raise BadZip(
                f"member {_shown(entry.name)} overlaps the next or leaves the file"
            )
        name = _plain(entry.name)
        if name in members:
            raise BadZip(f"member {_shown(entry.name)} is there twice")
        members[name] = Member(name, entry.header_offset, entry.size, entry.crc, limit)
    return members


def locate(read: Read, member: Member) -> int:
    """Read the header of a member and return the offset of its data.

    Raises: BadZip when the header differs from the directory.
    """
    name = member.name.encode()
    header = read(member.header_offset, _LOCAL.size + len(name))
    mark, _, flags, method, *_, name_size, extra_size = _LOCAL.unpack_from(header)
    same_name = header[_LOCAL.size :] == name and name_size == len(name)
    if mark != b"PK\x03\x04" or method or flags & _FORBIDDEN_FLAGS or not same_name:
        raise BadZip(f"member {_shown(name)} differs from the directory")
    offset = member.header_offset + _LOCAL.size + name_size + extra_size
    if offset + member.size > member.limit:
        raise BadZip(f"member {_shown(name)} overlaps the next or leaves the file")
    return int(offset)


def _find_directory(read: Read, file_size: int) -> _Directory:
    tail_size = min(file_size, _END.size + _MAX_COMMENT)
    tail_offset = file_size - tail_size
    tail = read(tail_offset, tail_size)
    at = _find_end(tail)
    _, disk, first_disk, here, count, size, offset, _ = _END.unpack_from(tail, at)
    end = tail_offset + at
    # torch writes the zip64 record always, needed or not.
    locator_offset = end - _END64_LOCATOR.size
    if locator_offset >= 0:
        locator = read(locator_offset, _END64_LOCATOR.size)
        if locator.startswith(_LOCATOR_MARK):
            end, disk, first_disk, here, count, size, offset = _read_end64(
                read, locator_offset, locator
            )
    if disk or first_disk or here != count:
        raise BadZip("a zip file in several parts")
    if count > MAX_MEMBERS or size > MAX_DIRECTORY:
        raise BadZip(f"a directory of {count} members in {size} bytes")
    if offset + size != end:
        raise BadZip("the directory does not end where the file does")
    return _Directory(offset, size, count)


def _find_end(tail: bytes) -> int:
    at = tail.rfind(_END_MARK)
    while at >= 0:
        if len(tail) - at >= _END.size:
            comment_size = _END.unpack_from(tail, at)[-1]
            if at + _END.size + comment_size == len(tail):
                return at
        at = tail.rfind(_END_MARK, 0, at)
    raise BadZip("no zip directory at the end")


def _read_end64(
    read: Read, end: int, locator: bytes
) -> tuple[int, int, int, int, int, int, int]:
    """Read the zip64 record, which ends at `end`: its offset, then its fields."""
    _, disk, offset, disks = _END64_LOCATOR.unpack(locator)
    if disk or disks > 1 or offset + _END64.size > end:
        raise BadZip("a damaged zip64 directory")
    mark, record_size, _, _, disk, first_disk, here, count, size, directory = (
        _END64.unpack(read(offset, _END64.size))
    )
    if mark != b"PK\x06\x06" or offset + 12 + record_size != end:
        raise BadZip("a damaged zip64 directory")
    return offset, disk, first_disk, here, count, size, directory


def _read_entries(data: bytes, count: int) -> Iterator[_Entry]:
    at = 0
    for _ in range(count):
        if at + _CENTRAL.size > len(data):
            raise BadZip("the directory ends too early")
        fixed = _Central._make(_CENTRAL.unpack_from(data, at))
        name_end = at + _CENTRAL.size + fixed.name_size
        name = data[at + _CENTRAL.size : name_end]
        extra = data[name_end : name_end + fixed.extra_size]
        at = name_end + fixed.extra_size + fixed.comment_size
        if fixed.mark != b"PK\x01\x02" or at > len(data):
            raise BadZip("a damaged directory entry")
        yield _check_entry(name, fixed, extra)
    if at != len(data):
        raise BadZip("bytes follow the last directory entry")


def _check_entry(name: bytes, fixed: _Central, extra: bytes) -> _Entry:
    if fixed.method != 0:
        raise BadZip(f"member {_shown(name)} is compressed")
    if fixed.flags & _FORBIDDEN_FLAGS:
        raise BadZip(f"member {_shown(name)} is encrypted")
    wide = _read_zip64(extra)
    size, packed, offset = (
        next(wide, -1) if value == _FULL32 else value
        for value in (fixed.size, fixed.packed, fixed.offset)
    )
    if (
        min(size, packed, offset) < 0
        or size != packed
        or fixed.disk not in (0, _FULL16)
    ):
        raise BadZip(f"member {_shown(name)} has no clear size or place")
    return _Entry(name, offset, size, fixed.crc)


def _read_zip64(extra: bytes) -> Iterator[int]:
    """Give the 64-bit numbers of the zip64 field, in the order they are missed."""
    at = 0
    while at + 4 <= len(extra):
        kind, size = struct.unpack_from("<2H", extra, at)
        field = extra[at + 4 : at + 4 + size]
        if kind == _ZIP64_EXTRA:
            count = len(field) // 8
            yield from struct.unpack(f"<{count}Q", field[: 8 * count])
            return
        at += 4 + size


def _plain(name: bytes) -> str:
    """Accept only names that stay inside, although none of them becomes a path."""
    try:
        text = name.decode("utf-8")
    except UnicodeDecodeError:
        text = ""
    parts = text.split("/")
    if (
        not 0 < len(text) <= MAX_NAME
        or not text.isprintable()
        or any(character in text for character in '\\:<>"|?*')
        or any(part in ("", ".", "..") for part in parts)
    ):
        raise BadZip(f"member name {_shown(name)} is not plain")
    return text


def _shown(name: bytes) -> str:
    text = repr(name.decode("utf-8", "replace"))
    return text if len(text) <= 80 else text[:77] + "..."
