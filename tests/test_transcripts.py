"""The file of a session's turns: every beginning of it is a session."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from wizard_edge.config import UPGRADE_HINT
from wizard_edge.errors import ConfigError, Corrupt
from wizard_edge.history import Exchange, History
from wizard_edge.transcripts import (
    SCHEMA,
    Header,
    SavedTurn,
    header_line,
    parse_transcript,
    turn_line,
)
from wizard_edge.turn_files import TurnFile

PATH = Path("turns.jsonl")
NOW = "2026-01-02T03:04:05Z"
HEADER = Header(
    model="tiny:F32",
    file="f" * 64,
    template="vicuna",
    template_sha256="a" * 64,
    system="Be brief.",
    history=True,
    overflow="drop-oldest-turns",
    created=NOW,
)


def turn(number: int) -> Exchange:
    return Exchange(
        question=f"quéstion\n{number}",
        prompt=(1, 5, number),
        answer=(7, number, 2),
        text='an "answer"',
        finish="stop",
    )


def saved(number: int, first: int = 0) -> SavedTurn:
    return SavedTurn(turn(number), first, NOW)


CONTENT = b"".join([header_line(HEADER), *(turn_line(saved(n)) for n in range(3))])


def test_every_beginning_of_the_file_has_its_whole_turns() -> None:
    ends = [at + 1 for at, byte in enumerate(CONTENT) if byte == ord("\n")]
    for length in range(len(CONTENT) + 1):
        found = parse_transcript(CONTENT[:length], PATH)

        whole = sum(end <= length for end in ends)
        if not whole:
            assert found is None
            continue
        assert found is not None
        assert found.header == HEADER
        assert found.turns == tuple(saved(n) for n in range(whole - 1))
        assert found.size == ends[whole - 1]


def test_every_beginning_of_the_file_takes_the_next_turn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Hundreds of files that need not outlive the test.
    monkeypatch.setattr(os, "fsync", lambda number: None)
    path = tmp_path / "turns.jsonl"
    for length in range(0, len(CONTENT) + 1, 2):
        path.write_bytes(CONTENT[:length])
        found = parse_transcript(CONTENT[:length], path)
        turns = [each.turn for each in found.turns] if found else []
        file = TurnFile(path, found)

        file.write(HEADER, History((*turns, turn(9))), NOW)

        again = parse_transcript(path.read_bytes(), path)
        assert again is not None
        assert [each.turn for each in again.turns] == [*turns, turn(9)]
        assert again.size == path.stat().st_size


def test_a_schema_from_the_future_names_the_upgrade() -> None:
    content = CONTENT.replace(b'"schema":1', b'"schema":%d' % (SCHEMA + 1))

    with pytest.raises(ConfigError) as caught:
        parse_transcript(content, PATH)

    assert caught.value.hint == UPGRADE_HINT


# Any: what JSON can be.
@pytest.mark.parametrize(
    ("line", "key", "value"),
    [
        (1, "schema", "1"),
        (1, "schema", 0),
        (1, "model", None),
        (1, "system", 3),
        (1, "history", 1),
        (1, "overflow", "forget"),
        (2, "question", 1),
        (2, "prompt", "1"),
        (2, "prompt", [1, -1]),
        (2, "prompt", [True]),
        (2, "answer", []),
        (2, "answer", [1.5]),
        (2, "finish", "never"),
        (2, "first", 1),
        (2, "time", None),
    ],
    ids=str,
)
def test_a_whole_line_that_makes_no_sense_is_named(
    line: int, key: str, value: Any
) -> None:
    lines = CONTENT.splitlines(keepends=True)
    table = {**json.loads(lines[line - 1]), key: value}
    lines[line - 1] = json.dumps(table).encode() + b"\n"

    with pytest.raises(Corrupt) as caught:
        parse_transcript(b"".join(lines), PATH)

    assert caught.value.where == f"line {line}"


@pytest.mark.parametrize(
    "line", [b"", b"{", b"[]", b"\xff", b"[" * 100_000], ids=lambda line: repr(line[:4])
)
def test_a_line_that_is_no_object_is_named(line: bytes) -> None:
    with pytest.raises(Corrupt) as caught:
        parse_transcript(CONTENT + line + b"\n", PATH)

    assert caught.value.where == "line 5"


def test_unknown_keys_are_ignored() -> None:
    content = CONTENT.replace(b'"question"', b'"new":[1],"question"')

    found = parse_transcript(content, PATH)

    assert found is not None
    assert len(found.turns) == 3


@pytest.fixture
def file(tmp_path: Path) -> Callable[..., TurnFile]:
    def write(*numbers: int) -> TurnFile:
        made = TurnFile(tmp_path / "turns.jsonl", None)
        made.write(HEADER, History(tuple(map(turn, numbers))), NOW)
        return made

    return write


def read(file: TurnFile) -> list[SavedTurn]:
    found = parse_transcript(file.path.read_bytes(), file.path)
    assert found is not None
    return list(found.turns)


def test_a_new_turn_is_appended_and_leaves_the_rest(
    file: Callable[..., TurnFile],
) -> None:
    made = file(0, 1)
    before, inode = made.path.read_bytes(), made.path.stat().st_ino

    made.write(HEADER, History((turn(0), turn(1), turn(2)), first=1), "later")

    assert made.path.stat().st_ino == inode
    assert made.path.read_bytes().startswith(before)
    assert read(made)[2] == SavedTurn(turn(2), 1, "later")


def test_what_was_taken_back_is_not_kept(file: Callable[..., TurnFile]) -> None:
    made = file(0, 1, 2)

    made.write(HEADER, History((turn(0), turn(5))), "later")

    assert read(made) == [saved(0), SavedTurn(turn(5), 0, "later")]


def test_after_undo_the_model_sees_what_it_saw_before(
    file: Callable[..., TurnFile],
) -> None:
    made = file(0, 1)
    made.write(HEADER, History((turn(0), turn(1), turn(2)), first=2), NOW)

    made.write(HEADER, History((turn(0), turn(1))), NOW)

    assert [each.first for each in read(made)] == [0, 0]


def test_another_header_replaces_the_first_line(file: Callable[..., TurnFile]) -> None:
    made = file(0, 1)

    made.write(replace(HEADER, system="Be long."), History((turn(0), turn(1))), NOW)

    found = parse_transcript(made.path.read_bytes(), made.path)
    assert found is not None
    assert found.header.system == "Be long."
    assert list(found.turns) == [saved(0), saved(1)]
