"""The folders of named sessions: one writer each, and the disk they share.

    <home>/sessions/<name>/turns.jsonl     what was said, see `transcripts`
    <home>/sessions/<name>/state/*.kv      what was evaluated, see `state_files`
    <home>/sessions/<name>/session.lock    held while the session is open

Turns are what people said and are kept; state only saves time, and goes where disk is
wanted. Knows no engine.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from wizard_edge import private
from wizard_edge.errors import Corrupt, Refused, UsageError
from wizard_edge.files import entries, free_disk
from wizard_edge.locking import SUFFIX as LOCK_SUFFIX
from wizard_edge.locking import Busy, exclusive
from wizard_edge.names import RelPath, SessionName
from wizard_edge.paths import Home, place
from wizard_edge.state_files import remove_state, state_size
from wizard_edge.transcripts import MAX_SIZE, Transcript, parse_transcript

TURNS = RelPath("turns.jsonl")
STATE = RelPath("state")
LOCK = RelPath("session" + LOCK_SUFFIX)
# Bytes of state of all sessions together, and what part of the free disk at most.
DEFAULT_BUDGET = 4 << 30
_FREE_PART = 1 / 10

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class SessionFolder:
    """Where one session lies."""

    home: Home
    name: SessionName

    @property
    def path(self) -> Path:
        return self.home.session(self.name)

    @property
    def turns(self) -> Path:
        return place(self.path, TURNS)

    @property
    def state(self) -> Path:
        return place(self.path, STATE)

    @property
    def lock(self) -> Path:
        return place(self.path, LOCK)

    @contextlib.contextmanager
    def opened(self) -> Iterator[None]:
        """Make the folder where there is none, and keep every other process out.

        Raises: Refused where another process has the session open.
        """
        private.make_folder(self.home.sessions)
        private.make_folder(self.path)
        with contextlib.ExitStack() as held:
            try:
                held.enter_context(exclusive(self.lock))
            except Busy as err:
                raise Refused(
                    f"session {self.name} is open in another process",
                    hint="leave that chat, or take another name",
                ) from err
            yield

    def read(self) -> Transcript | None:
        """Return what was said; None where there is nothing yet.

        Raises: Corrupt, ConfigError for a schema from the future, Refused without
        the permission.
        """
        try:
            with self.turns.open("rb") as file:
                content = file.read(MAX_SIZE + 1)
        except FileNotFoundError:
            return None
        except OSError as err:
            raise Refused(f"cannot read {self.turns}: {err.strerror}") from err
        if len(content) > MAX_SIZE:
            raise Corrupt(self.turns, f"more than {MAX_SIZE} bytes")
        return parse_transcript(content, self.turns)


def list_folders(home: Home) -> list[SessionFolder]:
    """Return the sessions there are, by name.

    Raises: Refused without the permission.
    """
    found: list[SessionFolder] = []
    for path in entries(home.sessions):
        if path.is_dir() and not path.is_symlink():
            with contextlib.suppress(UsageError):
                found.append(SessionFolder(home, SessionName.parse(path.name)))
    return found


def find_budget(home: Home, wanted: int | None) -> int:
    """Return the bytes that the states of all sessions may take.

    By default 4 GiB, or a tenth of what is free besides them if that is less.
    """
    if wanted is not None:
        return wanted
    taken = sum(state_size(folder.state) for folder in list_folders(home))
    return min(DEFAULT_BUDGET, int(_FREE_PART * (free_disk(home.root) + taken)))


def make_room(own: SessionFolder, needed: int, budget: int) -> bool:
    """Give up states of other sessions, the longest unused first, for `needed` bytes.

    False where they would not fit beside what this session has: nothing is given up.
    A session that is open elsewhere keeps its state.
    """
    kept = state_size(own.state) + needed
    if kept > budget:
        return False
    others = [each for each in list_folders(own.home) if each.name != own.name]
    sizes = {each: state_size(each.state) for each in others}
    for each in sorted(others, key=_last_used):
        if kept + sum(sizes.values()) <= budget:
            break
        if sizes[each] and _remove_state(each):
            _logger.info("session %s lost its state: it will be read again", each.name)
            sizes[each] = 0
    return kept + sum(sizes.values()) <= budget


def _remove_state(folder: SessionFolder) -> bool:
    try:
        with exclusive(folder.lock):
            remove_state(folder.state)
    except (Refused, OSError):
        return False
    return True


def _last_used(folder: SessionFolder) -> float:
    try:
        return folder.turns.stat().st_mtime
    except OSError:
        return 0.0
