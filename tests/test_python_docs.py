"""Every example of the Python page prints what is shown below it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import wizard_edge

PAGE = Path(__file__).resolve().parent.parent / "docs" / "python.md"
# An example, and the block that stands below it.
_EXAMPLE = re.compile(
    r"^```python\n(?P<code>.*?)^```\n\n```\n(?P<shown>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
TEXT = PAGE.read_text(encoding="utf-8")
EXAMPLES = [
    pytest.param(
        match["code"],
        match["shown"],
        id=f"line {TEXT.count(chr(10), 0, match.start()) + 2}",
    )
    for match in _EXAMPLE.finditer(TEXT)
]


@pytest.fixture(scope="module")
def environ(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """An empty home in which the bundled model has been pulled."""
    folder = tmp_path_factory.mktemp("python")
    environ = os.environ | {
        "WIZARD_EDGE_HOME": str(folder / "home"),
        "WIZARD_EDGE_CONFIG": str(folder / "config"),
        "WIZARD_EDGE_THREADS": "1",
    }
    run(["-m", "wizard_edge", "pull", "apprentice"], environ, folder)
    return environ


def run(words: list[str], environ: dict[str, str], folder: Path) -> str:
    # -P: the checkout must not be imported from the current folder.
    command = [sys.executable, "-P", *words]
    done = subprocess.run(
        command, cwd=folder, env=environ, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize(("code", "shown"), EXAMPLES)
def test_an_example_prints_what_is_shown(
    code: str, shown: str, environ: dict[str, str], tmp_path: Path
) -> None:
    assert run(["-c", code], environ, tmp_path) == shown


def test_no_example_is_left_out() -> None:
    assert len(EXAMPLES) == TEXT.count("```python") == 11


def test_what_the_page_names_is_exported() -> None:
    named = {
        name.strip()
        for line in re.findall(r"^from wizard_edge import (.*)$", TEXT, re.MULTILINE)
        for name in line.split(",")
    }

    assert named <= set(wizard_edge.__all__)
