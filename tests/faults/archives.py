"""Zip files as no torch writes them, built field by field.

Source: PKWARE APPNOTE.TXT 6.3.10, sections 4.3.7, 4.3.12, 4.3.14 to 4.3.16, 4.5.3.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from tests.faults.small import small_pickle, small_weights

_LOCAL = struct.Struct("<4s5H3I2H")
_CENTRAL = struct.Struct("<4s6H3I5H2I")
_END = struct.Struct("<4s4H2IH")


@dataclass(frozen=True, slots=True)
class Entry:
    """A member as it is written; what is None says the truth."""

    name: bytes
    data: bytes
    local_name: bytes | None = None
    flags: int = 0
    method: int = 0
    crc: int | None = None
    size: int | None = None
    packed: int | None = None
    offset: int | None = None
    local_mark: bytes = b"PK\x03\x04"
    local_flags: int | None = None
    local_method: int | None = None
    extra: bytes = b""
    local_extra: bytes = b""
    disk: int = 0
    external: int = 0
    is_listed: bool = True


@dataclass(frozen=True, slots=True)
class End:
    """What the end of the directory says; None for the truth."""

    count: int | None = None
    size: int | None = None
    offset: int | None = None
    disk: int = 0
    comment: bytes = b""
    claimed_comment: int | None = None
    before: bytes = b""
    fields: Mapping[str, int] = field(default_factory=dict)


def zip_bytes(entries: Sequence[Entry], end: End = End()) -> bytes:
    """Write a zip file of stored members that lies where it is told to."""
    body, directory, listed = b"", b"", 0
    for entry in entries:
        offset = len(body)
        crc = zlib.crc32(entry.data) if entry.crc is None else entry.crc
        size = len(entry.data) if entry.size is None else entry.size
        packed = size if entry.packed is None else entry.packed
        local_name = entry.name if entry.local_name is None else entry.local_name
        local_flags = entry.flags if entry.local_flags is None else entry.local_flags
        method = entry.method if entry.local_method is None else entry.local_method
        body += _LOCAL.pack(
            *(entry.local_mark, 20, local_flags, method, 0, 0, crc),
            *(packed, size, len(local_name), len(entry.local_extra)),
        )
        body += local_name + entry.local_extra + entry.data
        if entry.is_listed:
            listed += 1
            at = offset if entry.offset is None else entry.offset
            directory += _CENTRAL.pack(
                *(b"PK\x01\x02", 20, 20, entry.flags, entry.method, 0, 0, crc, packed),
                *(size, len(entry.name), len(entry.extra), 0, entry.disk, 0),
                *(entry.external, at),
            )
            directory += entry.name + entry.extra
    count = listed if end.count is None else end.count
    tail = _END.pack(
        *(b"PK\x05\x06", end.disk, end.disk, count, count),
        len(directory) if end.size is None else end.size,
        len(body) if end.offset is None else end.offset,
        len(end.comment) if end.claimed_comment is None else end.claimed_comment,
    )
    return body + directory + end.before + tail + end.comment


def good_entries(root: str = "archive") -> list[Entry]:
    """Return the members of the small checkpoint's weight file."""
    weights = small_weights()
    return [
        Entry(f"{root}/data.pkl".encode(), small_pickle()),
        Entry(f"{root}/byteorder".encode(), b"little"),
        *(
            Entry(f"{root}/data/{key}".encode(), values.tobytes())
            for key, values in enumerate(weights.values())
        ),
        Entry(f"{root}/version".encode(), b"3\n"),
    ]


def torch_zip(pickled: bytes) -> bytes:
    """Return a weight file whose storages are good and whose pickle is this one."""
    pickle_entry, *others = good_entries()
    return zip_bytes([replace(pickle_entry, data=pickled), *others])


def hostile_archives() -> dict[str, bytes]:
    """Return weight files whose pickle is good and whose zip is not."""
    good = good_entries()
    pickle_entry, order, first, second, *rest = good
    last = rest[-1]
    whole = zip_bytes(good)
    directory = whole.index(b"PK\x01\x02")

    def with_name(name: bytes) -> bytes:
        return zip_bytes([*good, Entry(name, b"x")])

    def with_first(**changed: object) -> bytes:
        spoilt = replace(first, **changed)  # type: ignore[arg-type]
        return zip_bytes([pickle_entry, order, spoilt, second, *rest])

    zip64 = struct.pack("<2HQ", 1, 8, 1 << 62)
    cases = {
        f"name {name!r}": with_name(name)
        for name in (
            *(b"../x", b"../../../../etc/cron.d/x", b"archive/../../x", b"/etc/passwd"),
            *(b"archive//x", b"C:\\x", b"..\\..\\x", b"\\\\host\\share", b"archive/."),
            *(b"archive/\n", b"archive/\x00", b"archive/\x1b[2J", b"\xff\xfe", b""),
            *(b"x" * 2_000, "a\u202eb".encode(), b"archive/x:stream", b"archive/x "),
        )
        # A name that ends in a blank stays inside and never becomes a path.
        if name != b"archive/x "
    }
    cases |= {
        "a member twice": zip_bytes([*good, replace(first, data=b"evil")]),
        "the pickle twice": zip_bytes([*good, pickle_entry]),
        "two roots": zip_bytes([*good, *good_entries("other")]),
        "no pickle": zip_bytes([order, first, second, *rest]),
        "a pickle in capitals": zip_bytes(
            [replace(pickle_entry, name=b"archive/DATA.PKL"), *good[1:]]
        ),
        "a missing storage": zip_bytes([pickle_entry, order, second, *rest]),
        "two members in one place": zip_bytes(
            [pickle_entry, order, first, replace(second, offset=0), *rest]
        ),
        "a member inside another": with_first(offset=4),
        "a member that reaches into the next": with_first(size=len(first.data) + 8),
        "a member behind the directory": with_first(offset=len(whole)),
        "a member at 4 GiB": with_first(offset=0xFFFFFFFE),
        "a member of 2 GiB": with_first(size=1 << 31),
        "a member of 2^62 bytes": with_first(size=0xFFFFFFFF, extra=zip64),
        "a size that stands nowhere": with_first(size=0xFFFFFFFF),
        "a zip64 field cut short": with_first(
            size=0xFFFFFFFF, extra=struct.pack("<2HI", 1, 4, 1)
        ),
        "sizes that differ": with_first(packed=3),
        "a wrong sum": with_first(crc=1),
        "a wrong sum of the pickle": zip_bytes(
            [replace(pickle_entry, crc=1), *good[1:]]
        ),
        "another name in its header": with_first(local_name=b"archive/data/X"),
        "a longer name in its header": with_first(local_name=b"archive/data/00"),
        "no header": with_first(local_mark=b"XXXX"),
        "deflated": with_first(method=8),
        "deflated by its header only": with_first(local_method=8),
        "another method": with_first(method=99),
        "encrypted": with_first(flags=1),
        "encrypted by its header only": with_first(local_flags=1),
        "strongly encrypted": with_first(flags=1 << 6),
        "masked": with_first(flags=1 << 13),
        "on another disk": with_first(disk=7),
        "an extra field that reaches over the end": with_first(
            local_extra=b"x" * 65_000, offset=None
        )[:-60_000],
        "hidden before the first": b"MZ" + whole,
        "hidden behind the end": whole + b"#!/bin/sh\n",
        "hidden in the comment": zip_bytes(good, End(comment=b"x", claimed_comment=9)),
        "bytes before the end": zip_bytes(good, End(before=b"x" * 8)),
        "a count too high": zip_bytes(good, End(count=len(good) + 1)),
        "a count too low": zip_bytes(good, End(count=len(good) - 1)),
        "a count of 65535": zip_bytes(good, End(count=0xFFFF)),
        "a directory of 4 GiB": zip_bytes(good, End(size=0xFFFFFFFF)),
        "a directory that begins later": zip_bytes(good, End(offset=directory + 8)),
        "a directory at 4 GiB": zip_bytes(good, End(offset=0xFFFFFFFF)),
        "a second disk": zip_bytes(good, End(disk=1)),
        "100000 members": zip_bytes(
            [*good, Entry(b"a", b"")], End(count=100_000 & 0xFFFF)
        ),
        "a member less in the directory": zip_bytes(
            [*good[:2], replace(first, is_listed=False), *good[3:]]
        ),
        "an end inside the comment": zip_bytes(
            good, End(comment=zip_bytes([])[: _END.size])
        )[:-1],
        "a zip64 record of 2^60 members": _with_end64(good, count=1 << 60),
        "a zip64 record that lies elsewhere": _with_end64(good, at=1 << 40),
        "a zip64 record of 2^60 bytes": _with_end64(good, size=1 << 60),
        "a zip64 record of another size": _with_end64(good, record=1 << 40),
        "zip64 disks": _with_end64(good, disks=9),
        "an empty zip": zip_bytes([]),
        "only an end": b"PK\x05\x06" + bytes(18),
        "an end cut short": whole[:-1],
        "no zip": b"x" * 1_000,
        "nothing": b"",
        "a git-lfs pointer": b"version https://git-lfs.github.com/spec/v1\noid x\n",
        "legacy torch": b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03.",
        "legacy torch with a call": b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
        b"cos\nsystem\n(X\x04\x00\x00\x00truetR.",
        "a tar": b"archive/data.pkl".ljust(257, b"\0") + b"ustar\x0000" + bytes(512),
        "a bare pickle": pickle_entry.data,
        "big endian": zip_bytes([pickle_entry, replace(order, data=b"big"), *good[2:]]),
        "an endless byte order": zip_bytes(
            [pickle_entry, replace(order, data=b"little" * 9), *good[2:]]
        ),
        "a pickle of 17 MB": zip_bytes(
            [replace(pickle_entry, data=b"\x80\x02" + bytes(17 << 20)), *good[1:]]
        ),
        "a storage cut by one byte": with_first(data=first.data[:-1]),
        "a storage longer by one byte": with_first(data=first.data + b"x"),
        "a version of a link": zip_bytes(
            [*good[:-1], replace(last, name=b"archive/../version", external=0xA1FF0000)]
        ),
    }
    # A header whose extra field pushes the data onto the next member.
    cases["data pushed into the next"] = _pushed(whole, directory)
    return cases


def _with_end64(
    entries: Sequence[Entry],
    *,
    count: int | None = None,
    size: int | None = None,
    at: int | None = None,
    record: int = 44,
    disks: int = 1,
) -> bytes:
    """Append a zip64 record and its locator before the end."""
    whole = zip_bytes(entries)
    body, end = whole[: -_END.size], whole[-_END.size :]
    _, _, _, _, listed, length, offset, _ = _END.unpack(end)
    end64 = struct.pack(
        "<4sQ2H2I4Q",
        *(b"PK\x06\x06", record, 20, 20, 0, 0),
        *(listed if count is None else count, listed if count is None else count),
        *(length if size is None else size, offset),
    )
    locator = struct.pack(
        "<4sIQI", b"PK\x06\x07", 0, len(body) if at is None else at, disks
    )
    return body + end64 + locator + end


def _pushed(whole: bytes, directory: int) -> bytes:
    """Claim an extra field of 64 bytes in the header of the third member."""
    data = bytearray(whole)
    at = -1
    for _ in range(3):
        at = data.index(b"PK\x03\x04", at + 1, directory)
    data[at + 28 : at + 30] = struct.pack("<H", 64)
    return bytes(data)
