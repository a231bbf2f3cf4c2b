"""Reads `pytorch_model*.bin` without torch: a zip of storages and one small pickle.

Tensors are views into storages, each a stored member of the zip. Reading in order
checks each member's CRC-32 on the way, what no tensor wants of a member included.
"""

from __future__ import annotations

import json
import zlib
from typing import NoReturn

from wizard_edge.errors import CannotConvert, Corrupt
from wizard_edge.receipts import CheckedFile
from wizard_edge_converters.checkpoint import StoredTensor
from wizard_edge_converters.pickle_values import (
    MAX_SIZE,
    PickleRefused,
    TensorRef,
    read_state_dict,
)
from wizard_edge_converters.source_files import ByteSource, refuse_pointer, shown
from wizard_edge_converters.zip_members import BadZip, Member, locate, read_members

# torch before 1.6 wrote bare pickles that begin with this number.
# Source: PyTorch torch/serialization.py, MAGIC_NUMBER, pickled with protocol 2.
_LEGACY_START = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."
_PIECE = 4 << 20


class TorchFile:
    """A `.bin` file over its bytes, called `name` inside its checkpoint.

    Takes over `source` and closes it.
    Raises: Corrupt, also for a pickle that wants to run something; CannotConvert
    for the format of torch before 1.6.
    """

    def __init__(self, source: ByteSource, name: str) -> None:
        self._file = source
        self.size = source.size
        # Where the data of a member begins, once its header was read.
        self._starts: dict[str, int] = {}
        # Per member that was read from: how far without a break, and the CRC so far.
        self._progress: dict[str, tuple[int, int]] = {}
        try:
            self._members = _read_directory(source)
            self.tensors = self._read_tensors(name)
            if not source.is_stream:
                for member in self._members.values():
                    self._locate(member)
        except BaseException:
            source.close()
            raise

    def read(self, tensor: StoredTensor, start: int, count: int) -> bytes:
        width = tensor.type.type_size
        member = self._members[tensor.storage]
        first, size = tensor.offset + start * width, count * width
        self._complete(but=member)
        done, crc = self._progress.get(member.name, (0, 0))
        if first == 0 and done == member.size:
            # Read a second time, as some of a base is: compared a second time.
            done, crc = 0, 0
        if done < first:
            done, crc = self._pass_over(member, done, first, crc)
        data = self._file.read(self._locate(member) + first, size)
        if first == done:
            done, crc = done + size, zlib.crc32(data, crc)
            if done == member.size:
                self._compare(member, crc)
        self._progress[member.name] = done, crc
        return data

    def mark(self) -> str:
        # Members that were read to their end were compared already.
        unfinished = {
            name: state
            for name, state in self._progress.items()
            if state[0] < self._members[name].size
        }
        return json.dumps({"file": self._file.mark(), "members": unfinished})

    def resume(self, mark: str) -> None:
        state = json.loads(mark)
        self._progress = {
            name: (int(done), int(crc))
            for name, (done, crc) in state["members"].items()
            if name in self._members
        }
        self._file.resume(state["file"], sums=True)

    def finish(self) -> CheckedFile:
        self._complete()
        return self._file.finish(sums=True)

    def close(self) -> None:
        self._file.close()

    def _complete(self, *, but: Member | None = None) -> None:
        """Read what no tensor wanted of members that were begun, and compare them.

        Before another member is begun: a stream does not come back to this one.
        """
        for name, (done, crc) in list(self._progress.items()):
            member = self._members[name]
            if member is not but and done < member.size:
                done, crc = self._pass_over(member, done, member.size, crc)
                self._progress[name] = done, crc
                self._compare(member, crc)

    def _pass_over(
        self, member: Member, done: int, end: int, crc: int
    ) -> tuple[int, int]:
        """Read a member on to `end` for the sake of its sum alone."""
        start = self._locate(member)
        while done < end:
            size = min(_PIECE, end - done)
            crc = zlib.crc32(self._file.read(start + done, size), crc)
            done += size
        return done, crc

    def _locate(self, member: Member) -> int:
        """Return the offset of a member's data in the file."""
        start = self._starts.get(member.name)
        if start is None:
            try:
                start = locate(self._file.peek, member)
            except BadZip as err:
                raise Corrupt(self._file.path, str(err)) from err
            self._starts[member.name] = start
        return start

    def _read_tensors(self, name: str) -> tuple[StoredTensor, ...]:
        file, members = self._file, self._members
        pickles = [path for path in members if path.rpartition("/")[2] == "data.pkl"]
        if len(pickles) != 1:
            raise Corrupt(
                file.path, f"has {len(pickles)} members called data.pkl, not one"
            )
        root = pickles[0].removesuffix("data.pkl")
        self._check_byte_order(members.get(f"{root}byteorder"))
        state = self._read_state(members[pickles[0]])
        tensors = []
        for tensor, ref in state.items():
            member = members.get(f"{root}data/{ref.storage.key}")
            tensors.append(_place(file, name, tensor, ref, member))
        order = {path: index for index, path in enumerate(members)}
        return tuple(sorted(tensors, key=lambda t: (order[t.storage], t.offset)))

    def _read_state(self, member: Member) -> dict[str, TensorRef]:
        path = self._file.path
        if member.size > MAX_SIZE:
            raise Corrupt(path, f"a pickle of {member.size} bytes", where=member.name)
        try:
            return read_state_dict(self._read_member(member))
        except PickleRefused as err:
            raise Corrupt(path, f"refused: {err}", where=member.name) from err

    def _check_byte_order(self, member: Member | None) -> None:
        if member is None:
            return
        order = self._read_member(member) if member.size <= 16 else b""
        if order != b"little":
            raise CannotConvert(
                f"{self._file.path} is not stored in little-endian order"
            )

    def _read_member(self, member: Member) -> bytes:
        data = self._file.peek(self._locate(member), member.size)
        self._compare(member, zlib.crc32(data))
        return data

    def _compare(self, member: Member, crc: int) -> None:
        if crc != member.crc:
            _fail_crc(self._file, member, crc)


def _read_directory(file: ByteSource) -> dict[str, Member]:
    refuse_pointer(file)
    start = file.peek(0, min(file.size, len(_LEGACY_START)))
    if start == _LEGACY_START:
        raise CannotConvert(
            f"{file.path} is in the format of torch before 1.6",
            hint="load and save it once with a current torch, or use safetensors",
        )
    try:
        return read_members(file.peek, file.size)
    except BadZip as err:
        raise Corrupt(
            file.path, str(err), hint="the file may be cut off: fetch it again"
        ) from err


def _place(
    file: ByteSource, name: str, tensor: str, ref: TensorRef, member: Member | None
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
        tensor, storage.type, ref.shape, name, ref.offset * width, member.name
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


def _fail_crc(file: ByteSource, member: Member, crc: int) -> NoReturn:
    raise Corrupt(
        file.path,
        f"CRC-32 {crc:08x}, its zip directory says {member.crc:08x}",
        where=f"member {member.name}",
        hint="bytes changed since it was written: fetch it again",
    )
