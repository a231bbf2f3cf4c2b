from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.hub.content import random_bytes
from wizard_edge.copying import copy_range

CONTENT = random_bytes(3, 3_000_001)


@pytest.fixture
def files(tmp_path: Path) -> Iterator[tuple[int, int]]:
    """Return the descriptors of a file with content and of an empty one."""
    (tmp_path / "source").write_bytes(CONTENT)
    with (
        (tmp_path / "source").open("rb") as source,
        (tmp_path / "target").open("wb+") as target,
    ):
        yield source.fileno(), target.fileno()


def everything(descriptor: int) -> bytes:
    os.lseek(descriptor, 0, os.SEEK_SET)
    return os.read(descriptor, 2 * len(CONTENT))


@pytest.mark.parametrize("system", [True, False], ids=["system", "hand"])
@pytest.mark.parametrize(
    ("offset", "size"),
    [(0, len(CONTENT)), (1, 2_500_000), (len(CONTENT) - 1, 1), (5, 0)],
)
def test_a_range_comes_to_the_same_place(
    files: tuple[int, int],
    offset: int,
    size: int,
    system: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if not system:
        monkeypatch.delattr(os, "copy_file_range", raising=False)

    copy_range(*files, offset, size)

    part = CONTENT[offset : offset + size]
    assert everything(files[1]) == (bytes(offset) + part if size else b"")


def test_a_source_that_ends_early_gives_what_it_has(files: tuple[int, int]) -> None:
    copy_range(*files, 10, 2 * len(CONTENT))

    assert everything(files[1]) == bytes(10) + CONTENT[10:]


@pytest.mark.skipif(not hasattr(os, "copy_file_range"), reason="no such call here")
@pytest.mark.parametrize("after", [0, 1_000_000], ids=["at once", "half way"])
@pytest.mark.parametrize("number", [errno.EXDEV, errno.ENOSYS, 0], ids=str)
def test_what_the_system_will_not_do_is_done_by_hand(
    files: tuple[int, int], after: int, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.copy_file_range
    left = [after]

    def reluctant(source: int, target: int, count: int, offset: int, place: int) -> int:
        if not left[0]:
            if number:
                raise OSError(number, os.strerror(number))
            return 0
        done = real(source, target, min(count, left[0]), offset, place)
        left[0] -= done
        return done

    monkeypatch.setattr(os, "copy_file_range", reluctant)

    copy_range(*files, 0, len(CONTENT))

    assert everything(files[1]) == CONTENT


@pytest.mark.skipif(not hasattr(os, "copy_file_range"), reason="no such call here")
def test_a_full_disk_is_no_reason_to_try_by_hand(
    files: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: int) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "copy_file_range", full)

    with pytest.raises(OSError, match="No space left"):
        copy_range(*files, 0, len(CONTENT))

    assert everything(files[1]) == b""
