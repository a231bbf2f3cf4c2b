"""What a command reads besides its options: files that were named, standard input.

Everything is UTF-8 text; what is not, is an error that says so.
"""

from __future__ import annotations

import sys
from pathlib import Path

from wizard_edge.cli._output import is_terminal
from wizard_edge.errors import MissingFile, Refused, UsageError


def read_file(name: str) -> str:
    """Return the text of a file, of standard input for `-`.

    Raises: MissingFile, Refused when it may not be read, UsageError for what is no
    file and for bytes that are no UTF-8.
    """
    if name == "-":
        return read_stdin()
    path = Path(name).expanduser()
    try:
        return _decode(path.read_bytes(), name)
    except FileNotFoundError as err:
        raise MissingFile(name) from err
    except IsADirectoryError as err:
        raise UsageError(f"{name} is a directory, not a file") from err
    except PermissionError as err:
        raise Refused(f"cannot read {name}: {err.strerror}") from err
    except OSError as err:
        raise UsageError(f"cannot read {name}: {err.strerror}") from err


def read_stdin() -> str:
    """Return all of standard input, "" where there is none.

    Raises: UsageError for bytes that are no UTF-8.
    """
    if sys.stdin is None:
        return ""
    return _decode(sys.stdin.buffer.read(), "standard input")


def read_pipe() -> str:
    """Return what was piped in, without its last line breaks; "" on a terminal."""
    if is_terminal(sys.stdin):
        return ""
    return read_stdin().rstrip("\r\n")


def _decode(content: bytes, name: str) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as err:
        raise UsageError(f"{name} is not UTF-8 text") from err
