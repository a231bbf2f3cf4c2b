"""A model is judged once, and again when it or the rules have changed."""

from __future__ import annotations

import hashlib
import inspect
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.gguf_files import small_llama, u32
from wizard_edge import (
    gguf,
    gguf_cursor,
    gguf_rules,
    gguf_types,
    gguf_vocabulary,
    verdicts,
)
from wizard_edge.errors import Corrupt, MissingFile, NotEnough
from wizard_edge.names import Sha256
from wizard_edge.store import verdict_path
from wizard_edge.verdicts import check, check_once

SHA = Sha256("1" * 64)
# Of the text of the rules as RULES stands for them. Where this differs, raise RULES
# if a file may be judged in another way now, and put the new digest here.
DIGEST = "f7cc770fd69cd879d2a571a6dae73f700a768a3f682b2ba6c2ec800403ca21ce"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return small_llama().write(tmp_path / "m.gguf")


@pytest.fixture
def judged(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The files that were judged in full."""
    found: list[Path] = []
    judge = gguf_rules.read_valid

    def noting(path: Path) -> gguf.Header:
        found.append(path)
        return judge(path)

    monkeypatch.setattr(verdicts, "read_valid", noting)
    return found


def test_a_file_is_judged_once(path: Path, judged: list[Path]) -> None:
    for _ in range(3):
        check_once(path, SHA)

    assert judged == [path]


def test_the_verdict_says_what_it_is_about(path: Path) -> None:
    check_once(path, SHA)

    found = path.stat()
    assert json.loads(verdict_path(path).read_bytes()) == {
        "schema": 1,
        "rules": gguf_rules.RULES,
        "sha256": SHA,
        "size": found.st_size,
        "inode": found.st_ino,
        "mtime_ns": found.st_mtime_ns,
    }


def _replaced(path: Path) -> None:
    other = small_llama().write(path.with_name("other"))
    found = path.stat()
    other.replace(path)
    os.utime(path, ns=(found.st_atime_ns, found.st_mtime_ns))


def _touched(path: Path) -> None:
    found = path.stat()
    os.utime(path, ns=(found.st_atime_ns, found.st_mtime_ns + 1))


def _longer(path: Path) -> None:
    found = path.stat()
    file = small_llama(blocks=2)
    path.write_bytes(file.build())
    os.utime(path, ns=(found.st_atime_ns, found.st_mtime_ns))


@pytest.mark.parametrize("change", [_replaced, _touched, _longer])
def test_a_changed_file_is_judged_anew(
    change: Callable[[Path], None], path: Path, judged: list[Path]
) -> None:
    check_once(path, SHA)
    change(path)
    for _ in range(2):
        check_once(path, SHA)

    assert judged == [path, path]


def test_another_hash_in_the_receipt_is_another_file(
    path: Path, judged: list[Path]
) -> None:
    check_once(path, SHA)
    check_once(path, Sha256("2" * 64))

    assert judged == [path, path]


def test_other_rules_judge_anew(
    path: Path, judged: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    check_once(path, SHA)
    monkeypatch.setattr(verdicts, "RULES", gguf_rules.RULES + 1)
    check_once(path, SHA)

    assert judged == [path, path]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{}",
        b"[]",
        b"null",
        b"\xff",
        b"[" * 4000,
        b'{"schema":1,"rules":1,"sha256":"","size":1,"inode":1,"mtime_ns":1,"x":1}',
    ],
    ids=str,
)
def test_a_verdict_that_cannot_be_read_is_none(
    content: bytes, path: Path, judged: list[Path]
) -> None:
    verdict_path(path).write_bytes(content)
    for _ in range(2):
        check_once(path, SHA)

    assert judged == [path]


def test_a_bad_file_is_refused_each_time_and_leaves_no_verdict(tmp_path: Path) -> None:
    file = small_llama().set("llama.block_count", u32(0))
    path = file.write(tmp_path / "m.gguf")

    for _ in range(2):
        with pytest.raises(Corrupt):
            check_once(path, SHA)

    assert [entry.name for entry in tmp_path.iterdir()] == ["m.gguf"]


def test_a_file_that_goes_bad_after_its_verdict_is_refused(path: Path) -> None:
    check_once(path, SHA)
    small_llama().set("llama.block_count", u32(0)).write(path)

    with pytest.raises(Corrupt):
        check_once(path, SHA)


def test_a_missing_file_is_missing(tmp_path: Path) -> None:
    with pytest.raises(MissingFile):
        check_once(tmp_path / "none.gguf", SHA)


def test_a_store_that_cannot_be_written_is_judged_each_time(
    path: Path, judged: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, content: bytes) -> None:
        raise NotEnough("disk", needed=len(content), free=0)

    monkeypatch.setattr(verdicts, "write_atomically", full)
    for _ in range(2):
        check_once(path, SHA)

    assert judged == [path, path]


def test_a_file_without_a_receipt_is_judged_each_time(
    path: Path, judged: list[Path]
) -> None:
    check(path)
    check(path)

    assert judged == [path, path]
    assert not verdict_path(path).exists()


def test_the_version_of_the_rules_goes_with_their_text() -> None:
    """A rule cannot change while old verdicts go on to hold."""
    whole = (gguf_cursor, gguf_rules, gguf_types, gguf_vocabulary)
    reading = (
        function
        for name, function in sorted(vars(gguf).items())
        if inspect.isfunction(function) and function.__module__ == gguf.__name__
    )
    bounds = [
        f"{name} = {value}"
        for name, value in sorted(vars(gguf).items())
        if name.startswith(("MAX_", "MIN_", "MAGIC", "VERSIONS"))
    ]
    texts = [*map(inspect.getsource, whole), *map(inspect.getsource, reading)]
    texts += bounds

    assert hashlib.sha256("\n".join(texts).encode()).hexdigest() == DIGEST
