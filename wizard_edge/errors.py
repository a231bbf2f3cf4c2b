"""Every error this package raises on purpose, and its exit code.

    WizardEdgeError
    ├── UsageError            2   the request itself is wrong
    ├── NotFound              3
    │   ├── UnknownModel
    │   ├── UnknownQuant
    │   └── MissingFile
    ├── HubError              4   hub or network
    ├── Refused               5   licence, consent, or a thing in use
    ├── Corrupt               6   bytes that are not what they should be
    ├── NotEnough             7   disk or memory
    ├── BackendError          8   llama.cpp missing, or it will not load
    ├── CannotConvert         9   valid input that cannot be converted
    ├── ConfigError          10   settings or registry files
    └── Interrupted         130   Ctrl-C

The message says what and the value, in lower case without a period; `hint` is
the next thing to do. Anything else that escapes is a bug and exits with 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike, fspath
from typing import ClassVar

from wizard_edge.units import format_bytes

__all__ = [
    "BackendError",
    "CannotConvert",
    "ConfigError",
    "Corrupt",
    "HubError",
    "Interrupted",
    "MissingFile",
    "NotEnough",
    "NotFound",
    "Refused",
    "UnknownModel",
    "UnknownQuant",
    "UsageError",
    "WizardEdgeError",
]


class WizardEdgeError(Exception):
    """Base of all errors that are answers, not bugs."""

    exit_code: ClassVar[int] = 1
    kind: ClassVar[str] = "error"

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class UsageError(WizardEdgeError):
    """The request itself is wrong: a value out of range, options that clash."""

    exit_code = 2
    kind = "usage"


class NotFound(WizardEdgeError):
    """Something that was named does not exist."""

    exit_code = 3
    kind = "not_found"


class UnknownModel(NotFound):
    """A model name that neither the registry nor the store knows."""

    kind = "unknown_model"

    def __init__(self, name: str, *, near: Sequence[str] = ()) -> None:
        hint = (
            f"did you mean {_either(near)}?"
            if near
            else "'wizard-edge list --all' shows every model"
        )
        super().__init__(f"unknown model {name!r}", hint=hint)
        self.name = name
        self.near = tuple(near)


class UnknownQuant(NotFound):
    """A quantization that a model does not come in, or that nobody knows."""

    kind = "unknown_quant"

    def __init__(self, quant: str, *, known: Sequence[str], of: str = "") -> None:
        where = f" of {of}" if of else ""
        super().__init__(
            f"unknown quant {quant!r}{where}", hint=f"known: {', '.join(known)}"
        )
        self.quant = quant
        self.known = tuple(known)


class MissingFile(NotFound):
    """A file or directory that was named is not there."""

    kind = "missing_file"

    def __init__(self, path: str | PathLike[str], *, hint: str | None = None) -> None:
        super().__init__(f"no such file or directory: {fspath(path)}", hint=hint)
        self.path = fspath(path)


class HubError(WizardEdgeError):
    """The hub or the network did not give what was asked."""

    exit_code = 4
    kind = "hub"


class Refused(WizardEdgeError):
    """A licence, a missing consent or a thing in use stands in the way."""

    exit_code = 5
    kind = "refused"


class Corrupt(WizardEdgeError):
    """Bytes that are not what they claim to be.

    `where` names the place inside the file: an offset, a key, a tensor.
    """

    exit_code = 6
    kind = "corrupt"

    def __init__(
        self,
        path: str | PathLike[str],
        problem: str,
        *,
        where: str | None = None,
        hint: str | None = None,
    ) -> None:
        place = f" at {where}" if where else ""
        super().__init__(f"{fspath(path)} is damaged{place}: {problem}", hint=hint)
        self.path = fspath(path)
        self.problem = problem
        self.where = where


class NotEnough(WizardEdgeError):
    """Not enough disk or memory; both figures are in bytes."""

    exit_code = 7
    kind = "not_enough"

    def __init__(
        self, resource: str, *, needed: int, free: int, hint: str | None = None
    ) -> None:
        super().__init__(
            f"not enough {resource}: {format_bytes(needed)} needed, "
            f"{format_bytes(free)} free",
            hint=hint,
        )
        self.resource = resource
        self.needed = needed
        self.free = free


class BackendError(WizardEdgeError):
    """llama.cpp is missing, will not load a model, or gave up."""

    exit_code = 8
    kind = "backend"


class CannotConvert(WizardEdgeError):
    """Valid input that cannot be converted, such as a directory without weights."""

    exit_code = 9
    kind = "cannot_convert"


class ConfigError(WizardEdgeError):
    """A settings or registry file says something that makes no sense."""

    exit_code = 10
    kind = "config"


class Interrupted(WizardEdgeError):
    """The user pressed Ctrl-C; `hint` says how to go on."""

    exit_code = 130
    kind = "interrupted"

    def __init__(
        self, message: str = "interrupted", *, hint: str | None = None
    ) -> None:
        super().__init__(message, hint=hint)


def _either(names: Sequence[str]) -> str:
    *head, last = names
    return f"{', '.join(head)} or {last}" if head else last
