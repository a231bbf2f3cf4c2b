"""Runs the program as somebody who may only read the store, whoever runs the tests."""

from __future__ import annotations

import contextlib
import ctypes
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

from tests.child import environment

# Root passes by the modes of files through these rights alone.
# Source: capabilities(7); linux/capability.h, CAP_DAC_OVERRIDE and so on.
_PASSING_BY = (1, 2, 3)
# Source: prctl(2); linux/prctl.h, PR_CAPBSET_DROP.
_DROP = 24


def run(folder: Path, *words: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run a command on the store below `folder`, as somebody whom modes bind."""
    return subprocess.run(
        [sys.executable, "-m", "wizard_edge", *words],
        env=environment(folder, PYTHONDONTWRITEBYTECODE="1", **environ),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=_dropper(),
    )


@contextlib.contextmanager
def closed(folder: Path) -> Iterator[None]:
    """Take the right to write away from a folder and all below it."""
    paths = [folder, *folder.rglob("*")]
    modes = [(path, path.stat().st_mode) for path in paths]
    for path, mode in modes:
        path.chmod(mode & ~0o222)
    try:
        yield
    finally:
        for path, mode in modes:
            path.chmod(mode)


@cache
def can_be_bound() -> bool:
    """Tell whether modes can be made to bind a child of this process."""
    if sys.platform == "win32":
        return False
    script = "import os, sys; sys.exit(os.access(sys.argv[1], os.W_OK))"
    with tempfile.TemporaryDirectory() as folder, closed(Path(folder)):
        try:
            done = subprocess.run(
                [sys.executable, "-c", script, folder],
                preexec_fn=_dropper(),
                check=False,
            )
        except subprocess.SubprocessError:
            return False
    return done.returncode == 0


def _dropper() -> Callable[[], None] | None:
    if os.geteuid() != 0:
        return None
    libc = ctypes.CDLL(None, use_errno=True)

    def drop() -> None:
        for right in _PASSING_BY:
            if libc.prctl(_DROP, right, 0, 0, 0):
                raise OSError(ctypes.get_errno(), "prctl")

    return drop
