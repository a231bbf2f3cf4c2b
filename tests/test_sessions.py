"""Named sessions over a scripted engine: what is kept, lost and read again."""

from __future__ import annotations

import errno
import json
import logging
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from tests.scripted import ScriptedEngine
from wizard_edge import private
from wizard_edge.conversation import Conversation
from wizard_edge.engine import KvPart, Sampling, Stats
from wizard_edge.errors import Corrupt, NotEnough, Refused
from wizard_edge.files import free_disk
from wizard_edge.names import SessionName
from wizard_edge.paths import Home
from wizard_edge.prompt import encode_messages
from wizard_edge.session_folders import (
    DEFAULT_BUDGET,
    SessionFolder,
    find_budget,
    list_folders,
)
from wizard_edge.sessions import ModelFile, Resumed, Session
from wizard_edge.state_files import MOST_FILES, state_size
from wizard_edge.templates import TEMPLATES, PromptTemplate
from wizard_edge.transcripts import SavedTurn

VICUNA = TEMPLATES["vicuna"]
GREEDY = Sampling()
MODEL = ModelFile("tiny:F32", "tiny.F32.gguf", 1000, "f" * 64)
NAME = SessionName.parse("work")
_SPOILT = KvPart(0, 5, b"not JSON")


class Opened:
    """A session, its engine and its conversation."""

    def __init__(
        self, session: Session, engine: ScriptedEngine, template: PromptTemplate
    ) -> None:
        self.session = session
        self.engine = engine
        self.conversation: Conversation = session.resume(engine, template)

    def ask(self, text: str) -> Stats:
        return list(self.conversation.ask(text, GREEDY))[-1].stats


@pytest.fixture
def home(tmp_path: Path) -> Home:
    (tmp_path / "home").mkdir()
    return Home(tmp_path / "home")


@pytest.fixture
def open_session(home: Home) -> Callable[..., Opened]:
    """Return a function that opens a session with an engine of its own.

    `talk` asks questions and closes it.
    """

    def open_it(
        *answers: str,
        name: SessionName = NAME,
        model: ModelFile = MODEL,
        template: PromptTemplate = VICUNA,
        talk: int = 0,
        other_model: bool = False,
        budget: int | None = 1 << 30,
        saves_parts: bool = True,
        context: int = 4096,
    ) -> Opened:
        scripted = [*answers, *[f" answer {n}" for n in range(talk)]]
        engine = ScriptedEngine(*scripted, saves_parts=saves_parts, context=context)
        session = Session(
            home, name, model, other_model=other_model, budget=budget, clock=lambda: 0
        )
        try:
            opened = Opened(session, engine, template)
        except BaseException:
            session.close()
            raise
        for number in range(talk):
            opened.ask(f"question {number}")
        if talk:
            session.close()
        return opened

    return open_it


def folder(home: Home, name: SessionName = NAME) -> SessionFolder:
    return SessionFolder(home, name)


def saved(home: Home, name: SessionName = NAME) -> list[SavedTurn]:
    found = folder(home, name).read()
    assert found is not None
    return list(found.turns)


def test_a_session_goes_on_where_it_was_left(
    open_session: Callable[..., Opened],
) -> None:
    before = open_session(talk=3).conversation
    again = open_session(" next")

    stats = again.ask("and now?")

    assert again.conversation.history.turns[:3] == before.history.turns
    assert again.session.resumed == Resumed(
        3, len(before.ids), len(before.ids) - 1, None
    )
    assert again.session.resumed.to_read == 1
    assert stats.reread_tokens == 0
    assert again.engine.evaluated == stats.read_tokens + stats.new_tokens - 1
    assert stats.cached_tokens == len(before.ids) - 1


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such modes")
def test_nobody_else_may_read_a_session(
    home: Home, open_session: Callable[..., Opened]
) -> None:
    open_session(talk=1)

    modes = {
        path.relative_to(home.root).as_posix(): path.stat().st_mode & 0o777
        for path in home.root.rglob("*")
    }
    assert modes == {
        "sessions": 0o700,
        "sessions/work": 0o700,
        "sessions/work/state": 0o700,
        "sessions/work/state/000001.kv": 0o600,
        "sessions/work/turns.jsonl": 0o600,
    }


def test_a_turn_is_on_the_disk_with_its_last_chunk(
    home: Home, open_session: Callable[..., Opened]
) -> None:
    opened = open_session(" answer")
    reply = opened.conversation.ask("question", GREEDY)
    while next(reply).finish is None:
        pass

    assert [each.turn for each in saved(home)] == list(
        opened.conversation.history.turns
    )
    assert state_size(folder(home).state) == 0


def test_another_process_is_refused(open_session: Callable[..., Opened]) -> None:
    opened = open_session()

    with pytest.raises(Refused, match="open in another process"):
        open_session()

    opened.session.close()
    open_session().session.close()


def test_a_session_in_which_nothing_was_said_leaves_nothing(
    home: Home, open_session: Callable[..., Opened]
) -> None:
    open_session().session.close()

    assert list_folders(home) == []


def test_sessions_are_listed_by_name(
    home: Home, open_session: Callable[..., Opened]
) -> None:
    for name in ("b", "a.1"):
        open_session(talk=1, name=SessionName.parse(name))
    (home.sessions / "Not one").mkdir()

    assert [each.name for each in list_folders(home)] == ["a.1", "b"]


def test_undo_and_edit_reach_the_file(
    home: Home, open_session: Callable[..., Opened]
) -> None:
    opened = open_session(" a", " b", " c", " B")
    for question in ("1", "2", "3"):
        opened.ask(question)
    opened.conversation.undo()
    undone = [each.turn.question for each in saved(home)]

    list(opened.conversation.edit(2, "two", GREEDY))

    assert undone == ["1", "2"]
    assert [each.turn.text for each in saved(home)] == ["a", "B"]
    opened.session.close()
    again = open_session()
    assert again.session.resumed.to_read == 1


def test_clear_and_a_new_system_text_reach_the_file(
    open_session: Callable[..., Opened],
) -> None:
    opened = open_session(" a", " b")
    opened.ask("1")
    opened.conversation.restart(system="Be brief.")
    opened.ask("2")
    opened.session.close()

    again = open_session()

    assert again.conversation.system == "Be brief."
    assert [turn.question for turn in again.conversation.history.turns] == ["2"]


def test_what_outgrew_the_context_stays_unseen(
    home: Home, open_session: Callable[..., Opened]
) -> None:
    before = open_session(talk=12, context=500).conversation
    again = open_session(context=500)

    assert before.history.first > 0
    assert again.conversation.history == before.history
    assert again.session.resumed.to_read == 1
    assert len(saved(home)) == 12


def test_single_turns_are_all_kept(
    home: Home, open_session: Callable[..., Opened]
) -> None:
    open_session(talk=3, template=TEMPLATES["alpaca"])
    again = open_session(" next", template=TEMPLATES["alpaca"])

    again.ask("one more")

    assert len(saved(home)) == 4
    prompt = "".join(map(again.engine.vocabulary.spell, again.engine.prompts[0]))
    assert "question 2" not in prompt


def test_a_template_that_changed_is_read_again_and_said(
    home: Home, open_session: Callable[..., Opened]
) -> None:
    before = open_session(talk=2).conversation
    changed = replace(VICUNA, before="\nUSER: ")
    again = open_session(" next", template=changed)

    stats = again.ask("and now?")

    assert again.session.resumed.reason == "template vicuna has changed"
    assert again.session.resumed.restored == 0
    assert stats.cached_tokens == 0
    assert [turn.answer for turn in again.conversation.history.turns[:2]] == [
        turn.answer for turn in before.history.turns
    ]
    assert list(again.conversation.ids) == encode_messages(
        changed, again.conversation.messages, again.engine.vocabulary
    )
    again.session.close()
    assert open_session(template=changed).session.resumed.reason is None
    assert {each.time for each in saved(home)} == {"1970-01-01T00:00:00Z"}


def test_another_model_is_refused_unless_it_is_wanted(
    open_session: Callable[..., Opened],
) -> None:
    open_session(talk=2)
    other = replace(MODEL, model="big:Q4_0", sha256="e" * 64)

    with pytest.raises(Refused) as caught:
        open_session(model=other)
    again = open_session(model=other, other_model=True)

    assert caught.value.message == (
        "session work is with tiny:F32, another file than big:Q4_0"
    )
    assert "--other-model" in str(caught.value.hint)
    assert again.session.resumed.reason == "the model was tiny:F32"
    assert len(again.conversation.history.turns) == 2


def test_a_file_without_a_hash_is_told_by_name_and_size() -> None:
    unknown = replace(MODEL, sha256=None)

    assert unknown.key == "1000 bytes tiny.F32.gguf"
    assert MODEL.key == "f" * 64


def test_a_state_that_is_damaged_is_read_again_and_said(
    home: Home,
    open_session: Callable[..., Opened],
    caplog: pytest.LogCaptureFixture,
) -> None:
    open_session(talk=3)
    second = folder(home).state / "000002.kv"
    second.write_bytes(second.read_bytes()[:-1])
    again = open_session(" next")
    restored = again.session.resumed.restored

    stats = again.ask("and now?")

    assert again.session.resumed.reason == "its saved state is cut short"
    assert 0 < restored < again.session.resumed.tokens - 1
    assert stats.cached_tokens == restored
    assert len(caplog.records) == 1
    again.session.close()
    assert open_session().session.resumed.to_read == 1


def test_a_state_that_the_engine_refuses_is_read_again(
    home: Home, open_session: Callable[..., Opened], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        ScriptedEngine,
        "save_state",
        lambda engine, ids, first=0: replace(_SPOILT, first=first),
    )
    open_session(talk=1)

    again = open_session()

    assert again.session.resumed.restored == 0
    assert again.session.resumed.reason == "no state of this engine"
    assert state_size(folder(home).state) == 0


def test_a_whole_state_takes_the_place_of_the_last(
    home: Home, open_session: Callable[..., Opened]
) -> None:
    open_session(talk=3, saves_parts=False)

    assert [path.name for path in folder(home).state.iterdir()] == ["000001.kv"]
    assert open_session(saves_parts=False).session.resumed.to_read == 1


def test_many_parts_become_fewer(
    home: Home, open_session: Callable[..., Opened]
) -> None:
    opened = open_session(*[" a"] * 3 * MOST_FILES, context=10**5)
    most = 0
    for number in range(3 * MOST_FILES):
        opened.ask(str(number))
        most = max(most, len(list(folder(home).state.iterdir())))
    opened.session.close()

    assert most == MOST_FILES
    assert open_session(context=10**5).session.resumed.to_read == 1


def test_other_sessions_lose_their_state_first_and_no_turn(
    home: Home, open_session: Callable[..., Opened]
) -> None:
    names = [SessionName.parse(name) for name in ("old", "older", "busy", "new")]
    for name, used in zip(names[:3], (200, 100, 50), strict=True):
        open_session(talk=2, name=name)
        os.utime(folder(home, name).turns, (used, used))
    busy = open_session(name=names[2])
    one = state_size(folder(home, names[0]).state)

    open_session(talk=2, name=names[3], budget=3 * one + 10)

    sizes = {str(name): state_size(folder(home, name).state) for name in names}
    assert sizes["older"] == 0
    assert min(sizes["old"], sizes["busy"], sizes["new"]) > 0
    assert [len(saved(home, name)) for name in names] == [2, 2, 2, 2]
    busy.session.close()


def test_a_state_beyond_the_budget_is_not_saved_and_said_once(
    home: Home,
    open_session: Callable[..., Opened],
    caplog: pytest.LogCaptureFixture,
) -> None:
    open_session(talk=3, budget=100)

    assert state_size(folder(home).state) == 0
    assert len(saved(home)) == 3
    assert [record.getMessage() for record in caplog.records] == [
        "session work: its state does not fit into 100 bytes"
    ]


def test_no_budget_means_no_state_and_nothing_is_said(
    home: Home,
    open_session: Callable[..., Opened],
    caplog: pytest.LogCaptureFixture,
) -> None:
    open_session(talk=3, budget=0)

    assert not folder(home).state.exists()
    assert caplog.records == []


def test_the_budget_is_bounded_by_the_free_disk(home: Home) -> None:
    assert find_budget(home, 5) == 5
    bound = min(DEFAULT_BUDGET, free_disk(home.root) // 10)
    assert find_budget(home, None) == pytest.approx(bound, rel=0.05)


class FullDisk:
    """A disk that takes so many writes and no more, until it is emptied."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, writes: int) -> None:
        self.left = writes
        for name in ("write", "append"):
            monkeypatch.setattr(private, name, self._bounded(getattr(private, name)))

    def _bounded(self, write: Callable[..., None]) -> Callable[..., None]:
        def bounded(*args: object, **named: object) -> None:
            if self.left <= 0:
                raise NotEnough("disk", needed=1, free=0)
            self.left -= 1
            write(*args, **named)

        return bounded


def test_a_full_disk_loses_no_turn_and_ends_no_chat(
    home: Home,
    open_session: Callable[..., Opened],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    opened = open_session(*[" answer"] * 5)
    disk = FullDisk(monkeypatch, writes=3)
    for number in range(4):
        opened.ask(str(number))
    kept = len(saved(home))
    said = [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]

    disk.left = 99
    opened.ask("4")

    assert kept == 2
    assert [each.turn.question for each in saved(home)] == list("01234")
    assert len(said) == 2
    assert said[1].startswith("session work: the last turns are in memory only: ")


def test_turns_take_the_room_of_states(
    home: Home, open_session: Callable[..., Opened], monkeypatch: pytest.MonkeyPatch
) -> None:
    other = SessionName.parse("other")
    open_session(talk=2, name=other)
    opened = open_session(" a", " b")
    opened.ask("1")
    append = private.append

    def full(*args: object, **named: object) -> None:
        if state_size(folder(home, other).state) or state_size(folder(home).state):
            raise OSError(errno.EDQUOT, "full")
        append(*args, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(private, "append", full)
    opened.ask("2")

    assert len(saved(home)) == 2
    assert len(saved(home, other)) == 2
    assert state_size(folder(home, other).state) == 0


def test_a_file_that_is_damaged_is_refused_and_left(
    home: Home, open_session: Callable[..., Opened]
) -> None:
    open_session(talk=2)
    path = folder(home).turns
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(lines[0] + b"{}\n" + lines[2])
    before = path.read_bytes()

    with pytest.raises(Corrupt, match="line 2"):
        open_session()

    assert path.read_bytes() == before


def test_the_file_holds_what_was_said(
    home: Home, open_session: Callable[..., Opened]
) -> None:
    open_session(talk=1)

    header, turn = map(json.loads, folder(home).turns.read_text().splitlines())

    assert (header["schema"], header["model"], header["file"]) == (
        1,
        "tiny:F32",
        "f" * 64,
    )
    assert (turn["question"], turn["text"], turn["finish"]) == (
        "question 0",
        "answer 0",
        "stop",
    )
