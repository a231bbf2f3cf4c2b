"""Large pages of memory for what a model computes with, where Linux has them to give.

glibc asks for them from its start on or not at all, so a command that loads a model
starts once again with that said. Measured on a 0.95 B model: `run` to the first token
1.02 s instead of 1.50 s, generation 1.08 times as fast. Stdlib only, and little of it.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

# Source: glibc manual, "Memory Allocation Tunables": 1 is madvise; since 2.35.
VARIABLE = "GLIBC_TUNABLES"
_TUNABLE = "glibc.malloc.hugetlb"
_SINCE = (2, 35)
# Source: Linux, Documentation/admin-guide/mm/transhuge.rst.
_MODE = Path("/sys/kernel/mm/transparent_hugepage/enabled")
_ON_ASKING = "[madvise]"
_COMMANDS = frozenset(("bench", "chat", "eval", "imatrix", "run", "serve"))
_SPARING = "--low-memory"


def start_again(command: str | None = None) -> None:
    """Replace this process by one with large pages, where that is of use.

    `command` is what runs here, None for what `sys.argv` says.
    """
    words = sys.argv[1:] if command is None else [command]
    environ = with_huge_pages(words, os.environ, mode=_mode(), libc=_libc())
    if environ is not None:
        # A system that does not let us goes on without.
        with suppress(OSError):
            os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], environ)


def with_huge_pages(
    words: Sequence[str], environ: Mapping[str, str], *, mode: str, libc: str
) -> dict[str, str] | None:
    """Return the environment to start again with, None where all is well as it is.

    `mode` is what the kernel says of large pages, `libc` such as `glibc 2.36`.
    """
    known = environ.get(VARIABLE, "")
    found = re.fullmatch(r"glibc (\d+)\.(\d+)", libc)
    if (
        found is None
        or tuple(map(int, found.groups())) < _SINCE
        or _ON_ASKING not in mode
        # Said already, by us or by somebody who knows better.
        or _TUNABLE in known
        or _SPARING in words
        or _COMMANDS.isdisjoint(words)
    ):
        return None
    ours = f"{_TUNABLE}=1"
    return {**environ, VARIABLE: f"{known}:{ours}" if known else ours}


def _mode() -> str:
    with suppress(OSError):
        return _MODE.read_text(encoding="ascii", errors="replace")
    return ""


def _libc() -> str:
    # Other systems have no such name, other C libraries no such value.
    with suppress(ValueError, OSError, AttributeError):
        return os.confstr("CS_GNU_LIBC_VERSION") or ""
    return ""
