from __future__ import annotations

import mmap
import sys
from pathlib import Path

import pytest

from wizard_edge import page_cache
from wizard_edge.page_cache import cached_share, drop_cached

linux = pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells")


@linux
def test_what_was_just_written_is_there(tmp_path: Path) -> None:
    path = tmp_path / "model"
    path.write_bytes(bytes(10 * mmap.PAGESIZE + 1))

    assert cached_share(path) == 1.0


@linux
def test_a_large_file_is_looked_at_in_parts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(page_cache, "_WINDOW", 2 * mmap.PAGESIZE)
    path = tmp_path / "model"
    path.write_bytes(bytes(5 * mmap.PAGESIZE))

    assert cached_share(path) == 1.0


@linux
def test_what_nobody_read_is_not_there(tmp_path: Path) -> None:
    path = tmp_path / "model"
    with path.open("wb") as file:
        file.truncate(1000 * mmap.PAGESIZE)

    share = cached_share(path)

    assert share is not None
    assert share < 0.1


@linux
def test_a_file_can_be_dropped(tmp_path: Path) -> None:
    """A file system in memory, as /tmp may be, has no other place for it."""
    path = tmp_path / "model"
    path.write_bytes(bytes(100 * mmap.PAGESIZE))

    assert drop_cached(path)

    assert cached_share(path) in (0.0, 1.0)


def test_an_empty_file_has_no_share(tmp_path: Path) -> None:
    path = tmp_path / "model"
    path.touch()

    assert cached_share(path) is None


def test_elsewhere_nothing_is_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.platform", "darwin")
    path = tmp_path / "model"
    path.write_bytes(b"content")

    assert cached_share(path) is None
    assert not drop_cached(path)
