"""A named conversation that outlives its process: its turns, and its KV cache.

A turn is on the disk when its last word is read; what was evaluated for it follows a
moment later. So a crash loses the turn in progress at most, and perhaps a little of
what need not be read again. Nothing here ends a chat: what cannot be written is said
once, kept in memory and tried again with the next turn.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from typing import Self

from wizard_edge.conversation import Conversation
from wizard_edge.engine import Engine, Overflow, Stateful
from wizard_edge.errors import Refused, UsageError, WizardEdgeError
from wizard_edge.names import SessionName
from wizard_edge.paths import Home
from wizard_edge.receipts import TIME_FORMAT
from wizard_edge.session_folders import SessionFolder, find_budget, make_room
from wizard_edge.state_files import MOST_FILES, StateFiles, remove_state
from wizard_edge.templates import PromptTemplate
from wizard_edge.transcripts import Header, Transcript
from wizard_edge.turn_files import TurnFile

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ModelFile:
    """Which file a conversation is with; by size and name where no hash is known.

    A state or a token of one file means nothing to another.
    """

    model: str
    file: str
    size: int
    sha256: str | None = None

    @property
    def key(self) -> str:
        """What tells the file from any other."""
        return self.sha256 or f"{self.size} bytes {self.file}"


@dataclass(frozen=True, slots=True)
class Resumed:
    """What came back of a session: turns, tokens, those that need not be read again.

    `reason` says why some do, None where all but the last token came back.
    """

    turns: int = 0
    tokens: int = 0
    restored: int = 0
    reason: str | None = None

    @property
    def to_read(self) -> int:
        """The tokens that are read again with the next question."""
        return self.tokens - self.restored


class Session:
    """The files of one named conversation, open for this process alone."""

    def __init__(
        self,
        home: Home,
        name: SessionName,
        model: ModelFile,
        *,
        other_model: bool = False,
        budget: int | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Open a session, or begin one where there is none of that name.

        `budget` are the bytes for the states of all sessions. With `other_model` a
        session goes on with another model than it began with.
        Raises: Refused where another process has it open, or it is with another
        model; Corrupt; ConfigError for files of a later version.
        """
        self.name = name
        self.resumed = Resumed()
        self._folder = SessionFolder(home, name)
        self._model = model
        self._clock = clock
        self._wanted_budget = budget
        self._states: StateFiles | None = None
        self._warned: set[str] = set()
        self._closed = False
        self._held = contextlib.ExitStack()
        self._held.enter_context(self._folder.opened())
        try:
            self._found = self._folder.read()
            self._file = TurnFile(self._folder.turns, self._found)
            self._check_model(other_model)
        except BaseException:
            self._held.close()
            raise

    @property
    def saved(self) -> Header | None:
        """What the session was begun with; None for a new one."""
        return self._file.header

    def resume(
        self,
        engine: Engine,
        template: PromptTemplate,
        *,
        system: str | None = None,
        history: bool | None = None,
        overflow: Overflow | None = None,
    ) -> Conversation:
        """Return the conversation as it was left; from here on every turn is kept.

        What is None is as it was. `resumed` says afterwards what came back.
        Raises: as `Conversation`.
        """
        found = self._found
        if found is not None:
            system = found.header.system if system is None else system
            history = found.header.history if history is None else history
            overflow = overflow or found.header.overflow
        conversation = Conversation(
            engine,
            template,
            system=system,
            history=history,
            overflow=overflow,
        )
        if isinstance(engine, Stateful):
            self._look_at_state(engine.state_kind)
        if found is not None:
            self._take_up(conversation, found)
        conversation.recorder = self
        return conversation

    def record(self, conversation: Conversation) -> None:
        """Bring the file to what the conversation is now."""
        if self._closed:
            return
        try:
            self._write(conversation)
        # A chat goes on whatever happens to its file.
        except (WizardEdgeError, OSError) as err:
            self._make_room_for_turns(conversation, err)

    def rest(self, conversation: Conversation) -> None:
        """Save what was evaluated since the last time."""
        states = self._states
        engine = conversation.engine
        if self._closed or states is None or not isinstance(engine, Stateful):
            return
        try:
            self._save_state(states, engine, conversation.ids)
        except (WizardEdgeError, OSError) as err:
            self._warn("state", f"its state is not saved: {err}")

    def close(self) -> None:
        """Let other processes have the session. A second call does nothing.

        What the conversation becomes after that is not kept.
        """
        self._closed = True
        self._held.close()
        if self._file.is_new:
            # Nothing was said: the folder is empty.
            with contextlib.suppress(OSError):
                self._folder.path.rmdir()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _check_model(self, other_model: bool) -> None:
        saved = self.saved
        if saved is None or other_model or saved.file == self._model.key:
            return
        raise Refused(
            f"session {self.name} is with {saved.model}, another file than "
            f"{self._model.model}",
            hint="take another name, or go on with this model: --other-model",
        )

    def _take_up(self, conversation: Conversation, found: Transcript) -> None:
        reason = self._change(conversation, found.header)
        turns = tuple(saved.turn for saved in found.turns)
        if reason:
            other = found.header.file != self._model.key
            turns = conversation.spelling.again(turns, answers=other)
            self._file.respell(turns)
        first = found.turns[-1].first if found.turns else 0
        conversation.resume(turns, first=first)
        tokens = len(conversation.ids)
        if tokens >= conversation.engine.context:
            # Most of it goes with the next question.
            restored, reason = 0, reason or "it has outgrown the context"
        else:
            restored = self._restore(conversation)
        if self._states is not None and not reason:
            reason = self._states.problem
        if tokens - restored <= 1:
            reason = None
        elif reason is None:
            reason = "not all of its state was saved"
        self.resumed = Resumed(len(turns), tokens, restored, reason)

    def _look_at_state(self, kind: str) -> None:
        try:
            self._states = StateFiles(
                self._folder.state, model=self._model.key, kind=kind
            )
        except (WizardEdgeError, OSError) as err:
            self._warn("state", f"its state cannot be used: {err}")

    def _change(self, conversation: Conversation, header: Header) -> str | None:
        """Say what is different from when the session was left; None for nothing."""
        if header.file != self._model.key:
            return f"the model was {header.model}"
        if header.template != conversation.template.id:
            return f"the template was {header.template}"
        if header.template_sha256 != _digest(conversation.template):
            return f"template {header.template} has changed"
        if header.system != conversation.system:
            return "the system text has changed"
        return None

    def _restore(self, conversation: Conversation) -> int:
        """Put back what was saved of the KV cache; return how many tokens."""
        engine, ids = conversation.engine, conversation.ids
        if self._states is None or not isinstance(engine, Stateful):
            return 0
        try:
            parts = self._states.parts(ids)
            if not parts:
                return 0
            engine.restore_state(ids, parts, owner=conversation)
        except (WizardEdgeError, OSError) as err:
            _logger.warning("session %s is read anew: %s", self.name, err)
            self._states.clear()
            self._states.problem = str(err)
            return 0
        return parts[-1].first + parts[-1].count

    def _write(self, conversation: Conversation) -> None:
        now = time.strftime(TIME_FORMAT, time.gmtime(self._clock()))
        header = Header(
            model=self._model.model,
            file=self._model.key,
            template=conversation.template.id,
            template_sha256=_digest(conversation.template),
            system=conversation.system,
            history=conversation.keeps_history,
            overflow=conversation.overflow,
            created=self._file.header.created if self._file.header else now,
        )
        self._file.write(header, conversation.history, now)

    def _make_room_for_turns(
        self, conversation: Conversation, error: WizardEdgeError | OSError
    ) -> None:
        """Give up state for what was said, which is worth more."""
        with contextlib.suppress(WizardEdgeError, OSError):
            # Not saved any more: it would take the room again.
            self._states = None
            remove_state(self._folder.state)
            make_room(self._folder, 0, 0)
            self._write(conversation)
            return
        self._warn("turns", f"the last turns are in memory only: {error}")

    def _save_state(
        self, states: StateFiles, engine: Stateful, ids: tuple[int, ...]
    ) -> None:
        budget = find_budget(self._folder.home, self._wanted_budget)
        if not budget:
            return
        first = states.keep(ids)
        if len(states.segments) >= MOST_FILES:
            first = states.segments[MOST_FILES // 2].first
        try:
            part = engine.save_state(ids, first=first)
        except UsageError:
            # An engine of several sequences saves whole ones only.
            part = engine.save_state(ids)
        if not part.count:
            return
        if not make_room(self._folder, len(part.data), budget):
            self._warn("state", f"its state does not fit into {budget} bytes")
            return
        states.append(ids, part)

    def _warn(self, what: str, problem: str) -> None:
        """Say once that the turns, or the state, are not kept."""
        if what not in self._warned:
            self._warned.add(what)
            _logger.warning("session %s: %s", self.name, problem)


def _digest(template: PromptTemplate) -> str:
    """Return what tells a template's text from any other."""
    return sha256(template.jinja.encode()).hexdigest()
