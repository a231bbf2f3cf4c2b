"""Reads `pytorch_model*.bin` without torch: a zip of storages and one small pickle.

Tensors are views into storages, each a stored member of the zip. Reading in order
checks each member's CRC-32 on the way; what was read in pieces is checked at the end.
"""

from __future__ import annotations

import zlib
from bisect import bisect_right
from collections.abc import Mapping
from pathlib import Path
from typing import NoReturn

from wizard_edge.errors import CannotConvert, Corrupt
from wizard_edge_converters.checkpoint import StoredTensor
from wizard_edge_converters.pickle_values import (
    MAX_SIZE,
    PickleRefused,
    TensorRef,
    read_state_dict,
)
from wizard_edge_converters.source_files import SourceFile, shown
from wizard_edge_converters.zip_members import BadZip, Member, read_members

# torch before 1.6 wrote bare pickles that begin with this number.
# Source: PyTorch torch/serialization.py, MAGIC_NUMBER, pickled with protocol 2.
_LEGACY_START = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."
_PIECE = 4 << 20


class TorchFile:
    """An open `.bin` file, called `name` inside its checkpoint.

    Raises: MissingFile; UsageError; Corrupt, also for a pickle that wants to run
    something; CannotConvert for the format of torch before 1.6.
    """

    def __init__(self, path: Path, name: str) -> None:
        self._file = SourceFile(path)
        self.size = self._file.size
        try:
            members = _read_directory(self._file)
            self.tensors = _read_tensors(self._file, name, members)
        except BaseException:
            self._file.close()
            raise
        self._members = sorted(members.values(), key=lambda member: member.offset)
        self._starts = [member.offset for member in self._members]
        # Per member that was read from: how far without a break, and the CRC so far.
        self._progress: dict[int, tuple[int, int]] = {}

    def read(self, offset: int, size: int) -> bytes:
        data = self._file.read(offset, size)
        index = bisect_right(self._starts, offset) - 1
        member = self._members[index]
        done, crc = self._progress.get(index, (0, 0))
        if offset == member.offset + done:
            done, crc = done + size, zlib.crc32(data, crc)
            if done == member.size:
                self._compare(member, crc)
        self._progress[index] = done, crc
        return data

    def finish(self) -> None:
        for index, (done, crc) in sorted(self._progress.items()):
            member = self._members[index]
            while done < member.size:
                size = min(_PIECE, member.size - done)
                crc = zlib.crc32(self._file.read(member.offset + done, size), crc)
                done += size
            self._compare(member, crc)

    def close(self) -> None:
        self._file.close()

    def _compare(self, member: Member, crc: int) -> None:
        if crc != member.crc:
            _fail_crc(self._file, member, crc)


def _read_directory(file: SourceFile) -> dict[str, Member]:
    file.refuse_pointer()
    start = file.read(0, min(file.size, len(_LEGACY_START)))
    if start == _LEGACY_START:
        raise CannotConvert(
            f"{file.path} is in the format of torch before 1.6",
            hint="load and save it once with a current torch, or use safetensors",
        )
    try:
        return read_members(file.read, file.size)
    except BadZip as err:
        raise Corrupt(
            file.path, str(err), hint="the file may be cut off: fetch it again"
        ) from err


def _read_tensors(
    file: SourceFile, name: str, members: Mapping[str, Member]
) -> tuple[StoredTensor, ...]:
    pickles = [member for member in members if member.rpartition("/")[2] == "data.pkl"]
    if len(pickles) != 1:
        raise Corrupt(file.path, f"has {len(pickles)} members called data.pkl, not one")
    root = pickles[0].removesuffix("data.pkl")
    _check_byte_order(file, members.get(f"{root}byteorder"))
    member = members[pickles[0]]
    if member.size > MAX_SIZE:
        raise Corrupt(file.path, f"a pickle of {member.size} bytes", where=member.name)
    try:
        state = read_state_dict(_read_member(file, member))
    except PickleRefused as err:
        raise Corrupt(file.path, f"refused: {err}", where=member.name) from err
    tensors = [
        _place(file, name, tensor, ref, members.get(f"{root}data/{ref.storage.key}"))
        for tensor, ref in state.items()
    ]
    return tuple(sorted(tensors, key=lambda tensor: tensor.offset))


def _place(
    file: SourceFile, name: str, tensor: str, ref: TensorRef, member: Member | None
) -> StoredTensor:
    storage = ref.storage
    where = f"tensor {shown(tensor)}"
    if member is None:
        raise Corrupt(
            file.path, f"storage {shown(storage.key)} is missing", where=where
        )
    width = storage.type.type_size
    if member.size != storage.length * width:
        raise Corrupt(
            file.path,
            f"a storage of {storage.length} elements in {member.size} bytes",
            where=where,
        )
    if not _is_row_by_row(ref):
        raise CannotConvert(f"{where} of {file.path} is not stored row by row")
    stored = StoredTensor(
        tensor, storage.type, ref.shape, name, member.offset + ref.offset * width
    )
    if ref.offset + stored.elements > storage.length:
        raise Corrupt(file.path, "reaches beyond its storage", where=where)
    return stored


def _is_row_by_row(ref: TensorRef) -> bool:
    expected = 1
    for size, stride in zip(reversed(ref.shape), reversed(ref.strides), strict=True):
        if size != 1 and stride != expected:
            return False
        expected *= size
    return True


def _check_byte_order(file: SourceFile, member: Member | None) -> None:
    if member is None:
        return
    order = _read_member(file, member) if member.size <= 16 else b""
    if order != b"little":
        raise CannotConvert(f"{file.path} is not stored in little-endian order")


def _read_member(file: SourceFile, member: Member) -> bytes:
    data = file.read(member.offset, member.size)
    if zlib.crc32(data) != member.crc:
        _fail_crc(file, member, zlib.crc32(data))
    return data


def _fail_crc(file: SourceFile, member: Member, crc: int) -> NoReturn:
    raise Corrupt(
        file.path,
        f"CRC-32 {crc:08x}, its zip directory says {member.crc:08x}",
        where=f"member {member.name}",
        hint="bytes changed since it was written: fetch it again",
    )
