"""The file of a named session: what was said, one line a turn.

JSON lines. The first is an object with `schema`, the model, the template and the
system text; every other is one finished turn with its tokens. A line is whole when it
ends with a newline: a last one without is what a crash left of a turn, and is no part
of the session. An older schema is read, a newer one refused, unknown keys are ignored.
Knows no folder.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import get_args

from wizard_edge.config import UPGRADE_HINT
from wizard_edge.engine import Finish, Overflow
from wizard_edge.errors import ConfigError, Corrupt
from wizard_edge.history import Exchange

SCHEMA = 1
# Far above any conversation, to keep a wrong file out of memory.
MAX_SIZE = 256 << 20

_MOST_TOKENS = 2**31


@dataclass(frozen=True, slots=True)
class Header:
    """Whom a session is with and how it is spelled.

    `file` tells the model's file from any other. `template_sha256` is that of the
    template's text, `history` whether the model sees earlier turns at all.
    """

    model: str
    file: str
    template: str
    template_sha256: str
    system: str | None
    history: bool
    overflow: Overflow
    created: str


@dataclass(frozen=True, slots=True)
class SavedTurn:
    """A finished turn, when it was, and from which turn on the model saw them."""

    turn: Exchange
    first: int
    time: str


@dataclass(frozen=True, slots=True)
class Transcript:
    """What a file says; the first `size` bytes are its whole lines."""

    header: Header
    turns: tuple[SavedTurn, ...]
    size: int


def header_line(header: Header) -> bytes:
    """Return the first line of a file."""
    return _line({"schema": SCHEMA, **asdict(header)})


def turn_line(saved: SavedTurn) -> bytes:
    """Return the line of a turn."""
    turn = saved.turn
    return _line(
        {
            "question": turn.question,
            "text": turn.text,
            "finish": turn.finish,
            "time": saved.time,
            "first": saved.first,
            "prompt": turn.prompt,
            "answer": turn.answer,
        }
    )


def parse_transcript(content: bytes, path: Path) -> Transcript | None:
    """Read a file; None where not even its first line is whole.

    Raises: Corrupt naming the line that makes no sense, ConfigError for a schema
    from the future.
    """
    *lines, _torn = content.split(b"\n")
    if not lines:
        return None
    header = _header(_object(lines[0], path, 1), path)
    turns = tuple(
        _turn(_object(line, path, number), path, number)
        for number, line in enumerate(lines[1:], 2)
    )
    return Transcript(header, turns, sum(len(line) + 1 for line in lines))


def _line(table: dict[str, object]) -> bytes:
    text = json.dumps(table, ensure_ascii=False, separators=(",", ":"))
    return text.encode("utf-8", "surrogatepass") + b"\n"


def _object(line: bytes, path: Path, number: int) -> dict[str, object]:
    try:
        table: object = json.loads(line.decode("utf-8", "surrogatepass"))
    except (ValueError, RecursionError) as err:
        raise _damaged(path, number, f"not JSON: {err}") from err
    if not isinstance(table, dict):
        raise _damaged(path, number, "should be an object")
    return table


def _header(table: dict[str, object], path: Path) -> Header:
    schema = table.get("schema")
    if not isinstance(schema, int) or isinstance(schema, bool) or schema < 1:
        raise _damaged(path, 1, "schema should be a whole number from 1")
    if schema > SCHEMA:
        raise ConfigError(
            f"{path} has schema {schema}, this version reads up to {SCHEMA}",
            hint=UPGRADE_HINT,
        )
    names = ("model", "file", "template", "template_sha256", "created")
    texts = {name: _text(table, name, path, 1) for name in names}
    system = table.get("system")
    if not (system is None or isinstance(system, str)):
        raise _damaged(path, 1, "system should be a text")
    history = table.get("history")
    if not isinstance(history, bool):
        raise _damaged(path, 1, "history should be true or false")
    overflow = table.get("overflow")
    for known in get_args(Overflow):
        if overflow == known:
            return Header(**texts, system=system, history=history, overflow=known)
    raise _damaged(path, 1, f"overflow is {overflow!r}")


def _turn(table: dict[str, object], path: Path, number: int) -> SavedTurn:
    first = table.get("first")
    # The first line is no turn: turn 0 stands on line 2.
    if not isinstance(first, int) or not 0 <= first <= number - 2:
        raise _damaged(path, number, "first should be an earlier turn")
    answer = _ids(table, "answer", path, number)
    if not answer:
        raise _damaged(path, number, "answer should have tokens")
    finish = table.get("finish")
    for known in get_args(Finish):
        if finish == known:
            turn = Exchange(
                question=_text(table, "question", path, number),
                prompt=_ids(table, "prompt", path, number),
                answer=answer,
                text=_text(table, "text", path, number),
                finish=known,
            )
            return SavedTurn(turn, first, _text(table, "time", path, number))
    raise _damaged(path, number, f"finish is {finish!r}")


def _text(table: dict[str, object], key: str, path: Path, number: int) -> str:
    value = table.get(key)
    if not isinstance(value, str):
        raise _damaged(path, number, f"{key} should be a text")
    return value


def _ids(
    table: dict[str, object], key: str, path: Path, number: int
) -> tuple[int, ...]:
    value = table.get(key)
    if not isinstance(value, list) or not all(
        type(token) is int and 0 <= token < _MOST_TOKENS for token in value
    ):
        raise _damaged(path, number, f"{key} should be a list of tokens")
    return tuple(value)


def _damaged(path: Path, number: int, problem: str) -> Corrupt:
    return Corrupt(
        path,
        problem,
        where=f"line {number}",
        hint="repair the line or move the session's folder away",
    )
