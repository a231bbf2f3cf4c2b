"""Saved parts of a KV cache: what is not exactly right is worth nothing."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from wizard_edge.engine import KvPart
from wizard_edge.state_files import StateFiles, remove_state, state_size

IDS = list(range(100, 160))


def open_files(folder: Path, *, model: str = "m", kind: str = "k") -> StateFiles:
    return StateFiles(folder / "state", model=model, kind=kind)


def part(first: int, count: int) -> KvPart:
    return KvPart(first, count, bytes(range(first, first + count)) * 50)


@pytest.fixture
def files(tmp_path: Path) -> StateFiles:
    """Three parts of 20, 10 and 15 tokens."""
    made = open_files(tmp_path)
    for first, count in ((0, 20), (20, 10), (30, 15)):
        made.append(IDS, part(first, count))
    return made


def names(files: StateFiles) -> list[str]:
    return sorted(path.name for path in files.folder.iterdir())


def held(files: StateFiles, ids: list[int] = IDS) -> list[tuple[int, int, bytes]]:
    return [(p.first, p.count, bytes(p.data)) for p in files.parts(ids)]


WHOLE = [
    (p.first, p.count, bytes(p.data)) for p in map(part, (0, 20, 30), (20, 10, 15))
]


def test_parts_come_back_as_they_were(files: StateFiles, tmp_path: Path) -> None:
    assert held(open_files(tmp_path)) == WHOLE
    assert names(files) == ["000001.kv", "000002.kv", "000003.kv"]
    assert files.size == state_size(files.folder)


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such modes")
def test_nobody_else_may_read_them(files: StateFiles) -> None:
    assert files.folder.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in files.folder.iterdir()} == {0o600}


@pytest.mark.parametrize(
    ("length", "kept"), [(60, 45), (45, 45), (44, 30), (30, 30), (29, 20), (5, 0)]
)
def test_a_history_that_was_cut_gives_up_what_is_beyond(
    length: int, kept: int, files: StateFiles, tmp_path: Path
) -> None:
    assert files.keep(IDS[:length]) == kept
    assert len(held(open_files(tmp_path))) == len(names(files))


def test_another_token_gives_up_its_part_and_those_behind(files: StateFiles) -> None:
    other = [*IDS[:25], 7, *IDS[26:]]

    assert files.keep(other) == 20
    assert names(files) == ["000001.kv"]


def test_a_part_replaces_those_that_hold_its_tokens(
    files: StateFiles, tmp_path: Path
) -> None:
    files.append(IDS, part(20, 40))

    assert held(open_files(tmp_path)) == [WHOLE[0], (20, 40, part(20, 40).data)]
    assert names(files) == ["000001.kv", "000002.kv"]


@pytest.mark.parametrize(
    ("model", "kind", "reason"),
    [
        ("other", "k", "of another model file"),
        ("m", "other", "of another llama.cpp or another KV type"),
    ],
)
def test_a_state_of_something_else_is_given_up(
    model: str,
    kind: str,
    reason: str,
    files: StateFiles,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    other = open_files(tmp_path, model=model, kind=kind)

    assert held(other) == []
    assert other.problem == f"its saved state is {reason}"
    assert [record.getMessage() for record in caplog.records] == [
        f"{files.folder / '000001.kv'} is {reason}: from there on all is read again"
    ]
    assert names(files) == []


def test_every_flipped_byte_is_noticed(
    files: StateFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Hundreds of files that need not outlive the test.
    monkeypatch.setattr(os, "fsync", lambda number: None)
    kept = {path: path.read_bytes() for path in files.folder.iterdir()}
    middle = files.folder / "000002.kv"
    for place in range(0, len(kept[middle]), 5):
        for path, content in kept.items():
            path.write_bytes(content)
        spoilt = bytearray(kept[middle])
        spoilt[place] ^= 0x10
        middle.write_bytes(spoilt)

        again = open_files(tmp_path)

        assert held(again) == WHOLE[:1], place
        assert again.problem
        assert names(again) == ["000001.kv"]


def test_every_length_is_noticed(files: StateFiles, tmp_path: Path) -> None:
    last = files.folder / "000003.kv"
    content = last.read_bytes()
    for length in [*range(0, len(content), 7), len(content) - 1, len(content) + 1]:
        last.write_bytes((content + b"x")[:length])

        assert held(open_files(tmp_path)) == WHOLE[:2], length


def test_a_part_that_is_missing_ends_what_is_known(
    files: StateFiles, tmp_path: Path
) -> None:
    (files.folder / "000002.kv").unlink()

    assert held(open_files(tmp_path)) == WHOLE[:1]


def test_a_file_that_changes_later_is_noticed(files: StateFiles) -> None:
    (files.folder / "000002.kv").write_bytes(b"")

    assert held(files) == WHOLE[:1]


def test_what_else_lies_there_is_left_alone(files: StateFiles, tmp_path: Path) -> None:
    other = files.folder / "notes.txt"
    other.write_text("mine")

    files.clear()

    assert names(files) == ["notes.txt"]
    assert open_files(tmp_path).keep(IDS) == 0


def test_states_are_removed_by_folder(files: StateFiles) -> None:
    remove_state(files.folder)

    assert names(files) == []
    assert state_size(files.folder) == 0


def test_looking_creates_nothing(tmp_path: Path) -> None:
    assert open_files(tmp_path).keep(IDS) == 0
    assert list(tmp_path.iterdir()) == []
