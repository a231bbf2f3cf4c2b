"""A repository of the hub as the place of a checkpoint, its weight files as streams.

Every weight file passes by once, in order, through the sha256 that the hub states for
it; what a plan needs beforehand (the directory of a zip, the header of a safetensors
file) is read by small range requests. Nothing of it is stored, unless the files are
to be kept.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from wizard_edge.errors import CannotConvert, Corrupt, MissingFile, NotEnough
from wizard_edge.files import free_disk, move_into_place, write_atomically
from wizard_edge.hashing import (
    ResumableSha256,
    StreamingSha256,
    can_resume,
    new_sha256,
)
from wizard_edge.hub import ByteStream, Hub, RemoteFileInfo, Repository
from wizard_edge.names import RelPath
from wizard_edge.part_files import PartFile, allocated
from wizard_edge.paths import place
from wizard_edge.receipts import Check, CheckedFile
from wizard_edge_converters.source_files import ByteSource
from wizard_edge_converters.weights import MAX_SIDE_FILE

# What is asked for at once when a plan looks into a file: a zip's directory ends
# within its last 65,557 bytes, most pickles of a shard are shorter.
_WINDOW = 1 << 16
# So many are remembered of a file.
_REMEMBERED = 8
# What lies this close before the next tensor is read through, not asked for again.
_NEAR = 1 << 16
_PIECE = 1 << 20


class RemoteFolder:
    """The files of one commit of a repository.

    With `in_order` weight files are streams to be read once from front to back; else
    they are read by ranges wherever somebody wants. With `keep`, streams are written
    to that folder while they pass.
    """

    is_remote = True

    def __init__(
        self,
        hub: Hub,
        repository: Repository,
        *,
        in_order: bool = True,
        keep: Path | None = None,
    ) -> None:
        self._hub = hub
        self._repository = repository
        self._in_order = in_order
        self._keep = keep
        self._small: dict[str, bytes] = {}
        self.name = f"hf:{repository.repo}"

    def names(self) -> Collection[str]:
        return [path for path in self._repository.files if "/" not in path]

    def label(self, name: str) -> str:
        return f"{self.name}/{name}"

    def small(self, name: str) -> bytes | None:
        path = RelPath.parse(name)
        if path not in self._repository.files:
            return None
        if name not in self._small:
            data = self._hub.fetch(self._repository, path, MAX_SIDE_FILE)
            self._small[name] = data
            if self._keep is not None:
                _keep_small(place(self._keep, path), data)
        return self._small[name]

    def open(self, name: str) -> ByteSource:
        path = RelPath.parse(name)
        found = self._repository.files.get(path)
        if found is None:
            raise MissingFile(self.label(name), hint="the checkpoint is not complete")
        remote = _Remote(self._hub, self._repository, found)
        if not self._in_order:
            return RangedFile(remote)
        kept = place(self._keep, path) if self._keep is not None else None
        return StreamedFile(remote, kept)

    def lacks(self, name: str) -> bool:
        path = RelPath.parse(name)
        if self._keep is None or not self._in_order:
            return False
        with contextlib.suppress(OSError):
            size = place(self._keep, path).stat().st_size
            return size != self._repository.files[path].size
        return True

    def check_room(self, names: Collection[str]) -> None:
        """See that the folder to keep weight files in has room. Raises: NotEnough."""
        if self._keep is None:
            return
        paths = [RelPath.parse(name) for name in names if self.lacks(name)]
        files = [self._repository.files[path] for path in paths]
        there = [allocated(_part_path(place(self._keep, f.path), f)) for f in files]
        needed = sum(file.size for file in files) - sum(there)
        free = free_disk(self._keep)
        if needed > free:
            raise NotEnough(
                f"disk in {self._keep}",
                needed=needed,
                free=free,
                hint="another folder, or leave out --keep-weights",
            )


@dataclass(frozen=True, slots=True)
class _Remote:
    """A file of the hub and the way to its bytes."""

    hub: Hub
    repository: Repository
    file: RemoteFileInfo

    @property
    def label(self) -> str:
        return f"hf:{self.repository.repo}/{self.file.path}"

    @property
    def identity(self) -> str:
        return f"{self.file.size} bytes of {self.file.sha256 or self.file.blob}"

    def read(self, offset: int, size: int) -> bytes:
        return self.hub.read_range(self.repository, self.file.path, offset, size)

    def stream(self, offset: int) -> ByteStream:
        return self.hub.open_stream(self.repository, self.file.path, offset)


class _Windows:
    """Small pieces of a remote file, each asked for once."""

    def __init__(self, remote: _Remote) -> None:
        self._remote = remote
        self._pieces: list[tuple[int, bytes]] = []

    def read(self, offset: int, size: int) -> bytes:
        for start, data in self._pieces:
            if start <= offset and offset + size <= start + len(data):
                return data[offset - start : offset - start + size]
        file_size = self._remote.file.size
        if offset + size > file_size:
            raise Corrupt(
                self._remote.label,
                f"has {file_size} bytes, {offset + size} are needed",
                where=f"offset {offset}",
            )
        data = self._remote.read(offset, min(max(size, _WINDOW), file_size - offset))
        # A base has hundreds of tensors, each with a header to look at.
        self._pieces = [*self._pieces[1 - _REMEMBERED :], (offset, data)]
        return data[:size]


class StreamedFile:
    """A weight file that passes by once, hashed on the way.

    `peek` looks at any place by a range request; `read` takes what comes next and
    may leave something out, but never goes back.
    """

    is_stream = True

    def __init__(self, remote: _Remote, keep: Path | None = None) -> None:
        self._remote = remote
        self._windows = _Windows(remote)
        self.path = remote.label
        self.size = remote.file.size
        self.identity = remote.identity
        self._position = 0
        self._hash: StreamingSha256 | None = new_sha256()
        self._stream: ByteStream | None = None
        self._begun = False
        self._kept = _Kept(keep, remote.file) if keep is not None else None

    def peek(self, offset: int, size: int) -> bytes:
        if self._begun and 0 <= offset - self._position <= _NEAR:
            return self.read(offset, size)
        return self._windows.read(offset, size)

    def read(self, offset: int, size: int) -> bytes:
        if offset < self._position:
            raise CannotConvert(
                f"{self.path} has tensors that overlap: it cannot be read in one pass",
                hint="fetch the repository and convert its directory",
            )
        self._begun = True
        while self._position < offset:
            self._take(min(_PIECE, offset - self._position))
        return self._take(size)

    def mark(self) -> str:
        state = self._hash.save() if self._hash is not None else None
        return json.dumps({"at": self._position, "sha256": state})

    def resume(self, mark: str, *, sums: bool) -> None:
        """Go on where another run was.

        Without a state of the hash, a file with sums inside goes on all the same;
        one without is read from its beginning again, for there is no other check.
        """
        known = json.loads(mark)
        at, state = int(known["at"]), known["sha256"]
        if self._kept is not None and not self._kept.has(at):
            return
        # The state may be of another machine, whose libcrypto this one lacks.
        if state is not None and can_resume():
            self._hash = ResumableSha256.resume(state)
            self._position = at
        elif sums:
            self._hash = None
            self._position = at

    def finish(self, *, sums: bool) -> CheckedFile:
        while self._position < self.size:
            self._take(min(_PIECE, self.size - self._position))
        file = self._remote.file
        check = Check.CRC32 if sums else Check.SIZE
        if file.sha256 is not None and self._hash is not None:
            found = self._hash.hexdigest()
            if found != file.sha256:
                raise Corrupt(
                    self.path,
                    f"sha256 {found}, the hub states {file.sha256}",
                    hint="run the command again: it begins anew",
                )
            check = Check.SHA256
        self.close()
        if self._kept is not None:
            self._kept.finish()
        return CheckedFile(file.path, self.size, check, file.sha256)

    def close(self) -> None:
        if self._stream is not None:
            self._stream.close()
            self._stream = None
        if self._kept is not None:
            self._kept.close()

    def _take(self, size: int) -> bytes:
        if self._position + size > self.size:
            raise Corrupt(
                self.path,
                f"has {self.size} bytes, {self._position + size} are needed",
                where=f"offset {self._position}",
            )
        if self._stream is None:
            self._stream = self._remote.stream(self._position)
        data = self._stream.read(size)
        if self._hash is not None:
            self._hash.update(data)
        if self._kept is not None:
            self._kept.write(self._position, data)
        self._position += size
        return data


class RangedFile:
    """A weight file that is read wherever somebody wants, by range requests.

    Reading on where the last reading ended, or a little further, costs no new request:
    a base mostly has the order of its delta.
    """

    is_stream = True

    def __init__(self, remote: _Remote) -> None:
        self._remote = remote
        self._windows = _Windows(remote)
        self.path = remote.label
        self.size = remote.file.size
        self.identity = remote.identity
        self._stream: ByteStream | None = None
        self._position = 0

    def peek(self, offset: int, size: int) -> bytes:
        if self._stream is not None and 0 <= offset - self._position <= _NEAR:
            return self.read(offset, size)
        return self._windows.read(offset, size)

    def read(self, offset: int, size: int) -> bytes:
        gap = offset - self._position
        if self._stream is None or not 0 <= gap <= _NEAR:
            self.close()
            self._stream = self._remote.stream(offset)
        else:
            self._stream.read(gap)
        data = self._stream.read(size)
        self._position = offset + size
        return data

    def mark(self) -> str:
        return ""

    def resume(self, mark: str, *, sums: bool) -> None:
        """Do nothing: a range can be asked for anywhere."""

    def finish(self, *, sums: bool) -> CheckedFile:
        # The whole was not read: the hub's sha256 says nothing of what was.
        check = Check.CRC32 if sums else Check.SIZE
        return CheckedFile(self._remote.file.path, self.size, check)

    def close(self) -> None:
        if self._stream is not None:
            self._stream.close()
            self._stream = None


class _Kept:
    """The copy of a weight file that `--keep-weights` leaves behind."""

    def __init__(self, path: Path, file: RemoteFileInfo) -> None:
        self._path = path
        self._file = file
        self._part_path = _part_path(path, file)
        self._part: PartFile | None = None
        self._goes_on = False

    def has(self, size: int) -> bool:
        """Whether an earlier run left at least that many bytes."""
        with contextlib.suppress(OSError):
            self._goes_on = self._part_path.stat().st_size >= size
        return self._goes_on

    def write(self, offset: int, data: bytes) -> None:
        if self._part is None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._part = PartFile(self._part_path, self._file.size)
        self._part.write(offset, data)

    def finish(self) -> None:
        """Give the copy its name. Raises: Corrupt."""
        self.close()
        if not self._part_path.exists():
            return
        if self._goes_on:
            self._compare()
        move_into_place(self._part_path, self._path)

    def _compare(self) -> None:
        """Read again what an earlier run wrote: the disk may not have had it all."""
        with self._part_path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if self._file.sha256 not in (None, found):
            self._part_path.unlink()
            raise Corrupt(
                self._path,
                f"sha256 {found}, the hub states {self._file.sha256}",
                hint="run the command again: it begins anew",
            )

    def close(self) -> None:
        if self._part is not None:
            self._part.close()
            self._part = None


def _part_path(path: Path, file: RemoteFileInfo) -> Path:
    # Another content under the same name is another part.
    content = str(file.sha256 or file.blob)[:16]
    return path.with_name(f".{path.name}.{content}.part")


def _keep_small(path: Path, data: bytes) -> None:
    write_atomically(path, data)
