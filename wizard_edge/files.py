"""The two ways this program writes a file, and the one it reads a stranger's.

Writing is whole or moved into place: it ends with the bytes on the disk under their
final name, or with the old state. Knows no format and no folder of ours.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import stat
import sys
from collections.abc import Iterator
from pathlib import Path

from wizard_edge.errors import MissingFile, NotEnough, Refused, UsageError

TEMP_SUFFIX = ".tmp"

_TEMP_NAME = re.compile(rf".+\.[0-9a-f]{{8}}{re.escape(TEMP_SUFFIX)}")
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
_UNSUPPORTED = frozenset({errno.EINVAL, errno.ENOTSUP})
_CLOSED = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})
# Something else stands where a file or a folder should go, or no name can be that.
_OBSTRUCTED = frozenset(
    {errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENAMETOOLONG, errno.ELOOP}
)


# Without O_NONBLOCK, opening a pipe would wait for its other end.
_READ_FLAGS = (
    os.O_RDONLY
    | getattr(os, "O_NONBLOCK", 0)
    | getattr(os, "O_CLOEXEC", 0)
    | getattr(os, "O_BINARY", 0)
)


def open_regular(path: Path) -> int:
    """Open a regular file for reading and return its descriptor.

    Raises: MissingFile; Refused without the permission; UsageError at once for a
    directory, a device or a pipe, and for what else cannot be opened.
    """
    try:
        # Asked before opening: opening a device can have effects.
        regular = stat.S_ISREG(path.stat().st_mode)
        descriptor = os.open(path, _READ_FLAGS) if regular else -1
    except (FileNotFoundError, NotADirectoryError) as err:
        raise MissingFile(path) from err
    except PermissionError as err:
        raise Refused(
            f"cannot read {path}: {err.strerror}", hint="check who owns it"
        ) from err
    except (OSError, ValueError) as err:
        reason = getattr(err, "strerror", None) or err
        raise UsageError(f"cannot read {path}: {reason}") from err
    # Asked again: another file may have taken the name meanwhile.
    if descriptor >= 0 and stat.S_ISREG(os.fstat(descriptor).st_mode):
        return descriptor
    if descriptor >= 0:
        os.close(descriptor)
    raise UsageError(f"not a regular file: {path}")


def write_atomically(path: Path, content: bytes) -> None:
    """Write `content` to `path`, whole or not at all, and have it on the disk.

    The folder is created. A reader sees the old file or the new one, never half.
    Raises: NotEnough on a full disk, Refused where writing is not allowed.
    """
    with translated(path, len(content)):
        path.parent.mkdir(parents=True, exist_ok=True)
        temp = temp_beside(path)
        try:
            with temp.open("xb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            temp.replace(path)
        except BaseException:
            with contextlib.suppress(OSError):
                temp.unlink()
            raise
        sync_folder(path.parent)


def move_into_place(temp: Path, path: Path) -> None:
    """Rename a finished file of the same file system, its bytes on the disk first.

    A link is renamed as it is: the file it leads to is never opened for writing.
    Raises: NotEnough on a full disk, Refused where writing is not allowed.
    """
    sync_file(temp)
    with translated(path, temp.stat().st_size):
        path.parent.mkdir(parents=True, exist_ok=True)
        temp.replace(path)
        sync_folder(path.parent)


def temp_beside(path: Path) -> Path:
    """Return a name in the same folder that nobody has: `NAME.0a1b2c3d.tmp`."""
    return path.with_name(f"{path.name}.{os.urandom(4).hex()}{TEMP_SUFFIX}")


def is_temp(path: Path) -> bool:
    """Tell a file, or a link, whose name is one of `temp_beside`.

    A folder is none, nor is anything else that somebody called `work.tmp`.
    """
    return _TEMP_NAME.fullmatch(path.name) is not None and is_file(path)


def is_file(path: Path) -> bool:
    """Tell whether a name is a regular file's or a link's, wherever that leads."""
    return path.is_symlink() or path.is_file()


def sync_file(path: Path) -> None:
    """Have the bytes of a file on the disk; of a link, which is not ours, nothing.

    Raises: NotEnough on a full disk, Refused where writing is not allowed.
    """
    with translated(path, path.stat().st_size):
        if not is_link(path):
            with path.open("rb+") as file:
                os.fsync(file.fileno())


def delete(path: Path) -> int:
    """Delete a file if it is there and have that on the disk; return what that frees.

    Raises: Refused where that is not allowed, as for an open file on Windows.
    """
    try:
        with translated(path):
            size = freed_by(path)
            path.unlink()
            sync_folder(path.parent)
    except FileNotFoundError:
        return 0
    except Refused as err:
        if isinstance(err.__cause__, PermissionError):
            raise Refused(
                f"cannot delete {path}: {err.__cause__.strerror}",
                hint="close what has it open, or check who owns it",
            ) from err
        raise
    return size


def freed_by(path: Path) -> int:
    """Return the bytes that deleting a file frees: none of one with another name.

    Raises: OSError where it is not there.
    """
    found = path.lstat()
    return 0 if found.st_nlink > 1 else found.st_size


def entries(folder: Path) -> list[Path]:
    """Return what lies in a folder, by name; nothing where there is none.

    Raises: Refused without the permission.
    """
    try:
        return sorted(folder.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []
    except PermissionError as err:
        raise Refused(f"cannot read {folder}: {err.strerror}") from err


def is_link(path: Path) -> bool:
    """Tell whether a file has another name too, or is only a link to one.

    Raises: OSError where it is not there.
    """
    found = path.lstat()
    return stat.S_ISLNK(found.st_mode) or found.st_nlink > 1


def sync_folder(folder: Path) -> None:
    """Have the names inside `folder` on the disk, where the system can do that."""
    # Windows cannot open a folder; its rename is journalled.
    if os.name == "nt":
        return
    number = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(number)
    except OSError as err:
        # Some network file systems know no fsync of a folder.
        if err.errno not in _UNSUPPORTED:
            raise
    finally:
        os.close(number)


@contextlib.contextmanager
def translated(path: Path, needed: int = 0) -> Iterator[None]:
    """Turn the system's refusals to write to `path` into ours; `needed` is bytes.

    Raises: NotEnough on a full disk, Refused where writing is not allowed or
    something stands in the way.
    """
    try:
        yield
    except OSError as err:
        if err.errno in _FULL:
            raise NotEnough("disk", needed=needed, free=free_disk(path)) from err
        if err.errno in _CLOSED:
            raise Refused(
                f"cannot write {path}: {err.strerror}",
                hint="check who owns it, or choose another store with --home DIR",
            ) from err
        if err.errno in _OBSTRUCTED:
            # What is read in the block may be to blame as well as what is written.
            raise Refused(
                f"cannot use {err.filename or path}: {err.strerror}",
                hint="name another place; --home DIR moves the store",
            ) from err
        raise


def free_disk(path: Path) -> int:
    """Return the bytes free for this user where `path` lies or would lie."""
    for place in (path, *path.parents):
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            return _free_bytes(place)
    raise FileNotFoundError(path)


def _free_bytes(place: Path) -> int:
    if sys.platform != "win32":
        found = os.statvfs(place)
        return found.f_bavail * found.f_frsize
    # Imported here: it brings every compression there is, which 'list' need not pay.
    import shutil

    return shutil.disk_usage(place).free
