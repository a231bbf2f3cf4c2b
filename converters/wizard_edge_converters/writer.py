"""Writes files of known size in pieces of known place, and puts them in their place.

The pieces go to temporary names in the folder of the destination; the files get
their own names when all is written and on the disk. A journal beside them says what
is final: a run that was killed is continued by the next of the same plan.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import NoReturn

from wizard_edge.errors import (
    CannotConvert,
    Corrupt,
    MissingFile,
    NotEnough,
    Refused,
    UsageError,
)
from wizard_edge.files import move_into_place
from wizard_edge.locking import Busy, exclusive
from wizard_edge_converters.journal import Journal

# What the file system itself may need beside the bytes of the file.
DISK_RESERVE = 1 << 20

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
# FAT32 takes 4 GiB at most.
_FILE_TOO_LARGE = (
    "this file system, or a limit of yours, takes no file of that size: "
    "--split-max-size makes several"
)


class PartFile:
    """A file that is being written; `write` may be called from several threads."""

    def __init__(self, path: Path, size: int) -> None:
        self.path = path
        self.size = size
        # O_EXCL would refuse the file that a killed run left; a link is not followed.
        flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0)
        flags |= getattr(os, "O_NOFOLLOW", 0)
        # 0666: what the umask leaves of it, as for any file a program makes.
        self._descriptor = os.open(path, flags, 0o666)
        self._seeking = Lock()

    def reserve(self) -> None:
        """Give the file its size, so that pieces can go to any place."""
        os.ftruncate(self._descriptor, self.size)

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
            missing = max(self.size - allocated(self.path), len(rest))
            _translate(self.path, missing, err)

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


class PartFiles:
    """The part files of a plan, one per output in their order, and their journal."""

    def __init__(self, parts: Sequence[PartFile], journal: Journal) -> None:
        self.parts = parts
        self.journal = journal

    def sync(self) -> None:
        """Have all that was written on the disk, the journal last."""
        for part in self.parts:
            part.sync()
        self.journal.sync()


def check_output(output: Path, *, overwrite: bool) -> None:
    """See that `output` can be written. Raises: MissingFile; UsageError."""
    if not output.parent.is_dir():
        raise MissingFile(output.parent, hint="the output's folder must exist")
    if output.is_dir():
        raise UsageError(f"the output is a directory: {output}")
    if output.exists() and not output.is_file():
        raise UsageError(f"the output is no regular file: {output}")
    if output.exists() and not overwrite:
        raise UsageError(
            f"the output is there already: {output}",
            hint="name another file, or replace it with --overwrite",
        )


def check_space(folder: Path, needed: int) -> None:
    """See that a folder has room. Raises: NotEnough."""
    free = shutil.disk_usage(folder).free
    if free < needed + DISK_RESERVE:
        raise NotEnough(
            f"disk in {folder}",
            needed=needed + DISK_RESERVE,
            free=free,
            hint="another folder or a smaller quant",
        )


@contextmanager
def replacing(
    outputs: Sequence[Path],
    sizes: Sequence[int],
    key: str,
    *,
    keep: bool,
    folder: Path | None = None,
) -> Iterator[PartFiles]:
    """Give part files that become `outputs` when the block ends well.

    `key` tells plans apart. `folder` is where the parts lie, on the file system of
    the outputs; None means beside them. After an error all is removed, or with `keep`
    left for the next run, unless bytes were found to be wrong.
    Raises: NotEnough; Corrupt when the disk fails; Refused when the folder cannot be
    written to, or another process makes the same files.
    """
    paths = [
        _part_path(output, key, number, folder) for number, output in enumerate(outputs)
    ]
    journal_path = paths[0].with_suffix(".journal")
    check_space(outputs[0].parent, sum(sizes) - sum(map(allocated, paths)))
    with _locked(outputs[0], journal_path.with_suffix(".lock")):
        done = False
        try:
            with contextlib.ExitStack() as opened:
                journal = opened.enter_context(
                    contextlib.closing(Journal(journal_path, key))
                )
                parts = [
                    opened.enter_context(contextlib.closing(PartFile(path, size)))
                    for path, size in zip(paths, sizes, strict=True)
                ]
                for part in parts:
                    part.reserve()
                yield PartFiles(parts, journal)
            for path, output in zip(paths, outputs, strict=True):
                move_into_place(path, output)
            done = True
        except (Corrupt, CannotConvert):
            # Whoever goes on would come to the same.
            keep = False
            raise
        except OSError as err:
            # What the system says is written may not be on a disk that fails.
            keep = keep and err.errno != errno.EIO
            _translate(paths[0], sum(sizes), err)
        finally:
            if done or not keep:
                for path in (*paths, journal_path):
                    with contextlib.suppress(FileNotFoundError):
                        path.unlink()


@contextmanager
def _locked(output: Path, path: Path) -> Iterator[None]:
    """Keep other processes from making the same files meanwhile."""
    with contextlib.ExitStack() as held:
        try:
            held.enter_context(exclusive(path))
        except Busy as err:
            raise Refused(
                f"another process is making {output.name} in {output.parent}",
                hint="wait until it is done",
            ) from err
        except OSError as err:
            if err.errno in (*_FULL, errno.EIO):
                _translate(output, 1, err)
            raise Refused(
                f"cannot write in {output.parent}: {err.strerror}",
                hint="check who owns the folder, or choose another",
            ) from err
        yield


def _part_path(output: Path, key: str, number: int, folder: Path | None) -> Path:
    if folder is not None:
        return folder / f"{key[:32]}.{number}.part"
    # Short, since a name has 255 bytes at most; in the same folder, to be renamed.
    # Numbered, since long names of several outputs may differ in their end alone.
    return output.with_name(f".{output.name[:64]}.{key[:16]}.{number}.part")


def allocated(path: Path) -> int:
    """Return the bytes on the disk that a part file has already."""
    try:
        status = path.lstat()
    except OSError:
        return 0
    # st_blocks is missing on Windows, whose files are not sparse by default.
    blocks = getattr(status, "st_blocks", None)
    return status.st_size if blocks is None else min(status.st_size, blocks * 512)


def _translate(path: Path, needed: int, err: OSError) -> NoReturn:
    """Turn a disk that is full or fails into our error; raise any other as it is."""
    if err.errno == errno.EIO:
        raise Corrupt(
            path,
            f"cannot be written: {err.strerror}",
            hint="the disk may be failing: choose another",
        ) from err
    if err.errno not in _FULL:
        raise err
    raise NotEnough(
        f"disk in {path.parent}",
        needed=needed,
        free=shutil.disk_usage(path.parent).free,
        hint=_FILE_TOO_LARGE if err.errno == errno.EFBIG else None,
    ) from err
