"""Every command shown in the README and the docs runs as it stands there."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "README.md"
# -P: the checkout that a test links to must not be imported from there.
PROGRAM = (sys.executable, "-P", "-m", "wizard_edge")
_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\]\((?!https?:)([^)#]+)(?:#[^)]*)?\)")
DOCS = [README, *sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]


def blocks(path: Path, language: str) -> Iterator[str]:
    for match in _BLOCK.finditer(path.read_text(encoding="utf-8")):
        if match[1] == language:
            yield match[2]


def commands() -> list[str]:
    """Return the program's command lines of the README, in order."""
    return [
        line
        for block in blocks(README, "")
        for line in block.splitlines()
        if line.startswith("wizard-edge ")
    ]


def make_targets() -> list[str]:
    return [
        line.removeprefix("make ").strip()
        for block in blocks(README, "")
        for line in block.splitlines()
        if line.startswith("make ")
    ]


@pytest.fixture(scope="module")
def environ(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """An empty home in which the bundled model has been pulled."""
    folder = tmp_path_factory.mktemp("readme")
    environ = os.environ | {
        "WIZARD_EDGE_HOME": str(folder / "home"),
        "WIZARD_EDGE_CONFIG": str(folder / "config"),
    }
    run([*PROGRAM, "pull", "apprentice"], environ, folder)
    return environ


def run(command: list[str], environ: dict[str, str], folder: Path) -> str:
    done = subprocess.run(
        command,
        cwd=folder,
        env=environ,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{command}: {done.stderr}"
    return done.stdout + done.stderr


@pytest.mark.parametrize("line", commands())
def test_readme_command_runs(
    line: str, environ: dict[str, str], tmp_path: Path
) -> None:
    # The commands name files of the checkout; what they write stays out of it.
    for name in ("docs", "wizard_edge"):
        (tmp_path / name).symlink_to(ROOT / name)

    shown = run([*PROGRAM, *shlex.split(line)[1:]], environ, tmp_path)

    assert shown.strip()


def test_the_readme_shows_five_commands() -> None:
    assert len(commands()) == 5


@pytest.mark.parametrize("code", list(blocks(README, "python")))
def test_readme_python_runs(code: str, environ: dict[str, str], tmp_path: Path) -> None:
    assert len([line for line in code.splitlines() if line.strip()]) <= 5

    shown = run([sys.executable, "-c", code], environ, tmp_path)

    assert "Ada" in shown.splitlines()[-1]


def test_readme_targets_are_in_the_makefile() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")

    assert make_targets() == ["demo", "test"]
    assert all(re.search(rf"^{t}:", makefile, re.MULTILINE) for t in make_targets())


@pytest.mark.parametrize("path", DOCS, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(path: Path) -> None:
    targets = _LINK.findall(path.read_text(encoding="utf-8"))

    assert [t for t in targets if not (path.parent / t).exists()] == []
