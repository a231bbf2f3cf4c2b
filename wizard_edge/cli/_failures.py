"""Whatever ended a command, as exit code, one line and a hint.

The one table from exceptions to exit codes; docs/cli.md shows it. Errors of ours
carry their own code; the rest are the few that a person can do something about,
and everything else is a bug.
"""

from __future__ import annotations

import errno
from dataclasses import dataclass
from os import fsdecode

import click

from wizard_edge.errors import (
    Interrupted,
    NotEnough,
    Refused,
    UsageError,
    WizardEdgeError,
)

# As a shell reports a program that SIGPIPE ended: 128 + 13.
BROKEN_PIPE = 141

_BUG = 1
_USAGE = 2
_OF_ERRNO: dict[int, type[WizardEdgeError]] = {
    errno.ENOSPC: NotEnough,
    errno.EDQUOT: NotEnough,
    errno.EACCES: Refused,
    errno.EPERM: Refused,
    errno.EROFS: Refused,
    errno.EEXIST: Refused,
    # A path that somebody named leads nowhere.
    errno.ENOTDIR: UsageError,
    errno.EISDIR: UsageError,
    errno.ENAMETOOLONG: UsageError,
    errno.ELOOP: UsageError,
}


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a command ended: the exit code, and what a person is told."""

    code: int
    kind: str
    message: str
    hint: str | None = None

    @property
    def is_bug(self) -> bool:
        """Whether nobody foresaw this."""
        return self.code == _BUG

    def as_dict(self) -> dict[str, object]:
        """Return the shape that `--json` promises."""
        return {
            "error": {
                "code": self.code,
                "kind": self.kind,
                "message": self.message,
                "hint": self.hint,
            }
        }


def explain(error: BaseException) -> Failure:
    """Return what an exception means to the person who typed the command."""
    if isinstance(error, WizardEdgeError):
        return Failure(error.exit_code, error.kind, error.message, error.hint)
    if isinstance(error, KeyboardInterrupt | click.Abort):
        return explain(Interrupted())
    if isinstance(error, click.ClickException):
        return _explain_usage(error)
    if isinstance(error, MemoryError):
        return Failure(NotEnough.exit_code, NotEnough.kind, "not enough memory")
    if isinstance(error, OSError) and error.errno in _OF_ERRNO:
        known = _OF_ERRNO[error.errno]
        return Failure(known.exit_code, known.kind, _os_message(error))
    return Failure(
        _BUG,
        "bug",
        f"{type(error).__name__}: {error}",
        "this is a bug, please report it with the output of the same command with -v",
    )


def _explain_usage(error: click.ClickException) -> Failure:
    # click speaks in sentences; the possibilities of a typo belong into the hint.
    message, hint = error.format_message(), None
    if isinstance(error, click.NoSuchOption):
        message = error.message
        if error.possibilities:
            hint = f"did you mean {error.possibilities[0]}?"
        elif not error.option_name.startswith("--"):
            hint = "a text that begins with a minus goes behind --: -- '-5 + 3'"
    if hint is None and isinstance(error, click.UsageError) and error.ctx:
        hint = f"{error.ctx.command_path} --help"
    message = " ".join(message.split()).rstrip(".")
    return Failure(_USAGE, "usage", message[:1].lower() + message[1:], hint)


def _os_message(error: OSError) -> str:
    reason = (error.strerror or "input/output error").lower()
    return f"{reason}: {fsdecode(error.filename)}" if error.filename else reason
