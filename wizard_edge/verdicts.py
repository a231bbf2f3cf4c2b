"""What was judged once need not be judged at every load: the verdict beside a model.

A JSON object named like the model's file with `.verdict` added. It holds while the
rules are those it was given by, and the file is the one it was given on: by the hash
in its receipt, its size, its inode and the time of its last change. Anything else,
and any verdict that cannot be read, means that the file is judged anew. Only good
verdicts are kept.
"""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from wizard_edge.errors import WizardEdgeError
from wizard_edge.files import write_atomically
from wizard_edge.gguf_rules import RULES, read_valid
from wizard_edge.names import Sha256
from wizard_edge.store import verdict_path

__all__ = ["Judge", "check", "check_once"]

SCHEMA = 1
# Far above any verdict, to keep a wrong file out of memory.
_MAX_SIZE = 4096

_logger = logging.getLogger(__name__)

# Lets a GGUF file pass, or raises what `read_valid` raises.
Judge = Callable[[Path], None]


@dataclass(frozen=True, slots=True)
class _Verdict:
    """Which rules a file passed, and which file that was."""

    schema: int
    rules: int
    sha256: str
    size: int
    inode: int
    mtime_ns: int


def check(path: Path) -> None:
    """Judge a file that nobody has a hash of. Raises: as `read_valid`."""
    read_valid(path)


def check_once(path: Path, sha256: Sha256) -> None:
    """Let an installed file pass that was judged before; judge any other.

    `sha256` is what its receipt says. The verdict is kept where the store can be
    written. Raises: as `read_valid`.
    """
    # Taken first: what changes while it is judged is another file.
    current = _current(path, sha256)
    if current is not None and _read(path) == current:
        return
    read_valid(path)
    if current is None:
        return
    try:
        write_atomically(verdict_path(path), json.dumps(asdict(current)).encode())
    except (WizardEdgeError, OSError) as err:
        # A store of somebody else, or a full disk: the next load judges again.
        _logger.debug("no verdict kept: %s", err)


def _current(path: Path, sha256: Sha256) -> _Verdict | None:
    """Return what a verdict on the file would say now, None where there is no file."""
    try:
        found = path.stat()
    except OSError:
        return None
    return _Verdict(
        SCHEMA, RULES, sha256, found.st_size, found.st_ino, found.st_mtime_ns
    )


def _read(path: Path) -> _Verdict | None:
    with contextlib.suppress(OSError, ValueError, TypeError, RecursionError):
        with verdict_path(path).open("rb") as file:
            content = file.read(_MAX_SIZE)
        return _Verdict(**json.loads(content))
    return None
