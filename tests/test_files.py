from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from wizard_edge.errors import MissingFile, NotEnough, Refused, UsageError
from wizard_edge.files import (
    free_disk,
    is_link,
    move_into_place,
    open_regular,
    translated,
    write_atomically,
)


def test_write_makes_the_folder_and_leaves_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "new" / "file"

    write_atomically(path, b"content")

    assert path.read_bytes() == b"content"
    assert list(path.parent.iterdir()) == [path]


def test_failed_write_keeps_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def fail(number: int) -> None:
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(NotEnough) as caught:
        write_atomically(path, b"new content")

    assert caught.value.needed == len(b"new content")
    assert caught.value.exit_code == 7
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_written_file_has_the_mode_that_the_user_asked_for(tmp_path: Path) -> None:
    path, plain = tmp_path / "file", tmp_path / "plain"
    plain.write_bytes(b"")

    write_atomically(path, b"")

    assert path.stat().st_mode == plain.stat().st_mode


def test_a_file_system_that_cannot_sync_folders_is_good_enough(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sync = os.fsync

    def files_only(number: int) -> None:
        if stat.S_ISDIR(os.fstat(number).st_mode):
            raise OSError(errno.EINVAL, "Invalid argument")
        sync(number)

    monkeypatch.setattr(os, "fsync", files_only)
    write_atomically(tmp_path / "file", b"content")

    assert (tmp_path / "file").read_bytes() == b"content"


def test_move_replaces_what_was_there(tmp_path: Path) -> None:
    temp, path = tmp_path / "temp", tmp_path / "folder" / "file"
    temp.write_bytes(b"new")
    path.parent.mkdir()
    path.write_bytes(b"old")

    move_into_place(temp, path)

    assert path.read_bytes() == b"new"
    assert not temp.exists()


@pytest.mark.parametrize("number", [errno.EACCES, errno.EPERM, errno.EROFS])
def test_a_closed_door_is_a_refusal_with_the_path(tmp_path: Path, number: int) -> None:
    with (
        pytest.raises(Refused, match=r"cannot write .*here"),
        translated(tmp_path / "here"),
    ):
        raise OSError(number, "no")


@pytest.mark.parametrize(
    "number",
    [errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENAMETOOLONG, errno.ELOOP],
)
def test_a_thing_in_the_way_is_a_refusal_with_its_path(
    tmp_path: Path, number: int
) -> None:
    with pytest.raises(Refused, match=r"cannot use .*here"), translated(tmp_path):
        raise OSError(number, "no", str(tmp_path / "here"))


def test_other_system_errors_stay_what_they_are(tmp_path: Path) -> None:
    with pytest.raises(TimeoutError), translated(tmp_path):
        raise TimeoutError(errno.ETIMEDOUT, "too late")


def test_free_disk_of_a_place_that_is_not_there_yet(tmp_path: Path) -> None:
    assert free_disk(tmp_path / "a" / "b") > 0


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="no such permissions here")
def test_a_file_without_permission_is_refused_not_misused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "closed"
    path.write_bytes(b"x")

    def refuse(*args: object) -> int:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(os, "open", refuse)

    with pytest.raises(Refused, match=r"cannot read .*closed: Permission denied"):
        open_regular(path)


def test_only_regular_files_are_opened(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="not a regular file"):
        open_regular(tmp_path)
    with pytest.raises(MissingFile):
        open_regular(tmp_path / "none")


@pytest.mark.parametrize("link", [os.link, os.symlink], ids=["hard", "symbolic"])
def test_what_a_link_leads_to_is_not_opened_for_writing(
    link: Callable[[Path, Path], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs, temp, path = (tmp_path / name for name in ("theirs", "temp", "ours"))
    theirs.write_bytes(b"content")
    link(theirs, temp)
    assert is_link(temp)

    def refuse(*args: object, **options: object) -> None:
        raise AssertionError("opened")

    with monkeypatch.context() as patched:
        patched.setattr(Path, "open", refuse)
        move_into_place(temp, path)

    assert not os.path.lexists(temp)
    assert path.read_bytes() == theirs.read_bytes() == b"content"
