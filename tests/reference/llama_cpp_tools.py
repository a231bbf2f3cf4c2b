"""llama.cpp's own programs, where somebody built them.

They are no dependency and come with no package: build them from the sources that
`make sources` fetches (cmake, target llama-perplexity) and name their folder in
LLAMA_CPP_BIN, or put it on PATH.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

VARIABLE = "LLAMA_CPP_BIN"


def find_tool(name: str) -> Path:
    """Return where a program is; skips the test, saying so, where it is not."""
    found = shutil.which(name, path=os.environ.get(VARIABLE)) or shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not built: name its folder in {VARIABLE}")
    return Path(found)


def run_tool(name: str, *words: str | Path) -> str:
    """Run a program and return all it says."""
    done = subprocess.run(
        [find_tool(name), *words],
        check=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    return done.stdout.decode("utf-8", "replace")
