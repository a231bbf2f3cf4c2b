"""A model that takes another's place: all of it does, or the other one is there."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.child import environment
from tests.stores import receipt_of, sums_of
from wizard_edge.errors import NotEnough
from wizard_edge.names import RelPath
from wizard_edge.paths import Home
from wizard_edge.store import Installed, Slot, Store

OLD, NEW = b"old weights", b"new weights, and more of them"
NOTICE = RelPath.parse("NOTICE")
NAMES = ["NOTICE", "small.Q8_0.gguf"]
NAMES += [f"small.Q8_0.gguf.{kind}" for kind in ("chunks", "json")]


def part(home: Home) -> Path:
    return home.partial / "new.part"


def commit(store: Store, content: bytes) -> Installed:
    """Install a model from a part that nobody deletes, as `pull` does."""
    receipt = receipt_of(content)
    temp = part(store.home)
    temp.parent.mkdir(parents=True, exist_ok=True)
    temp.write_bytes(content)
    slot = Slot(receipt.model, receipt.files[0].name, temp, sums_of(content))
    return store.commit(receipt, [slot], texts={NOTICE: content})


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def is_whole(item: Installed, content: bytes) -> bool:
    [file] = item.receipt.files
    return (
        item.receipt == receipt_of(content)
        and item.path.read_bytes() == content
        and item.sums_path(file).read_bytes() == sums_of(content).to_bytes()
    )


class Ending:
    """Counts calls of a function of `os`; ends one of them, before or after it."""

    def __init__(self, call: str, number: int, end: BaseException, *, late: bool):
        self.calls = 0
        self._real: Callable[..., object] = getattr(os, call)
        self._number, self._end, self._late = number, end, late

    # Any: whatever the function takes.
    def __call__(self, *arguments: Any, **others: Any) -> object:
        self.calls += 1
        if self.calls != self._number:
            return self._real(*arguments, **others)
        if self._late:
            self._real(*arguments, **others)
        raise self._end


@pytest.mark.parametrize("before", [OLD, None], ids=["replaced", "first"])
@pytest.mark.parametrize(
    ("end", "late"),
    [
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), False),
        (KeyboardInterrupt(), False),
        (KeyboardInterrupt(), True),
    ],
    ids=["full", "interrupted before", "interrupted after"],
)
@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_commit_that_fails_leaves_everything_as_it_was(
    call: str,
    end: BaseException,
    late: bool,
    before: bytes | None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    store = Store(Home(tmp_path))
    counting = Ending(call, 0, end, late=late)
    with monkeypatch.context() as patched:
        patched.setattr(os, call, counting)
        commit(store, NEW)
    store.remove(store.installed()[0])
    if before is not None:
        commit(store, before)

    for number in range(1, counting.calls + 1):
        with monkeypatch.context() as patched:
            patched.setattr(os, call, Ending(call, number, end, late=late))
            with pytest.raises((NotEnough, KeyboardInterrupt)):
                commit(store, NEW)

        assert part(store.home).read_bytes() == NEW
        folder = store.home.models / "small"
        if before is None:
            assert (store.installed(), folder.exists()) == ([], False)
        else:
            [item] = store.installed()
            assert is_whole(item, before)
            assert names(folder) == NAMES
            assert (folder / "NOTICE").read_bytes() == before
    assert counting.calls > 3


def test_without_hard_links_a_commit_that_fails_leaves_the_old_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a stick with FAT."""
    store = Store(Home(tmp_path))
    commit(store, OLD)
    # Of the receipt, the old file, its sums and the new file; then come the names.
    ending = Ending("replace", 7, KeyboardInterrupt(), late=False)

    def unsupported(*_: object, **__: object) -> None:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    with monkeypatch.context() as patched:
        patched.setattr(os, "link", unsupported)
        patched.setattr(os, "replace", ending)
        with pytest.raises(KeyboardInterrupt):
            commit(store, NEW)

    [item] = store.installed()
    assert is_whole(item, OLD)
    assert names(item.folder) == NAMES
    assert part(store.home).read_bytes() == NEW


def test_what_cannot_be_taken_back_is_not_deleted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(Home(tmp_path))
    item = commit(store, OLD)
    real, calls = os.replace, 0

    def failing(*arguments: Any) -> None:
        nonlocal calls
        calls += 1
        if calls > 4:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        real(*arguments)

    with monkeypatch.context() as patched:
        patched.setattr(os, "replace", failing)
        with pytest.raises(OSError, match="Input/output"):
            commit(store, NEW)

    assert store.installed() == []
    assert item.path.read_bytes() == NEW
    contents = [path.read_bytes() for path in item.folder.glob("*.gguf.*.tmp")]
    assert OLD in contents
    assert is_whole(commit(store, NEW), NEW)
    assert names(item.folder) == NAMES


# Ends like a kill when so many files were renamed.
DYING = """
import os, sys
from pathlib import Path
from tests.test_changes import NEW, commit
from wizard_edge.paths import Home
from wizard_edge.store import Store
left, real = int(sys.argv[2]), os.replace
def dying(*arguments):
    global left
    if not left:
        os._exit(9)
    left -= 1
    real(*arguments)
os.replace = dying
commit(Store(Home(Path(sys.argv[1]))), NEW)
"""


def test_a_kill_leaves_the_old_model_or_none_and_the_next_commit_mends_it(
    tmp_path: Path,
) -> None:
    codes: list[int] = []
    while not codes or codes[-1]:
        store = Store(Home(tmp_path / f"{len(codes)}"))
        commit(store, OLD)
        words = [sys.executable, "-c", DYING, str(store.home.root), str(len(codes))]
        ended = subprocess.run(words, env=environment(tmp_path), check=False)
        codes.append(ended.returncode)

        wanted = NEW if ended.returncode == 0 else OLD
        assert [is_whole(item, wanted) for item in store.installed()] in ([], [True])
        item = commit(store, NEW)
        assert is_whole(item, NEW)
        assert names(item.folder) == NAMES
    assert set(codes[:-1]) == {9}
    assert len(codes) > 5
