"""Make the virtual environment and install wizard-edge into it, saying so.

Runs on a bare Python >= 3.11, before anything is installed: stdlib only. The long
part is compiling llama.cpp; its pace is shown. A second run with the same
pyproject.toml and the same extras finds everything there and does nothing.

    python3 tools/setup.py [--venv DIR] [EXTRA ...]
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import shutil
import subprocess
import sys
import time
import venv
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MIN_PYTHON = (3, 11)
SAY_EVERY_S = 15.0
# ninja's and make's ways of counting: "[12/240] Building ..." and "[ 45%] Building".
_PACE = re.compile(r"\[\s*(\d+/\d+|\d+%)\]")


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--venv", type=Path, default=ROOT / ".venv")
    parser.add_argument("extras", nargs="*", help="extras of pyproject.toml")
    arguments = parser.parse_args()
    problem = missing_tool()
    if problem:
        print(f"error: {problem}", file=sys.stderr)
        return 2
    extras = sorted(set(arguments.extras))
    stamp = arguments.venv / f"installed-{'-'.join(extras) or 'plain'}"
    if stamp.exists() and stamp.read_text() == fingerprint():
        return 0
    if not has_pip(arguments.venv) and not make_environment(arguments.venv):
        return 1
    status = install(arguments.venv, extras)
    if status == 0:
        stamp.write_text(fingerprint())
    return status


def missing_tool() -> str | None:
    """Return what this machine lacks, or None."""
    if sys.version_info < MIN_PYTHON:
        return (
            f"Python {MIN_PYTHON[0]}.{MIN_PYTHON[1]} or newer is needed, "
            f"this is {sys.version.split()[0]}: make PYTHON=python3.11 ..."
        )
    if not any(map(shutil.which, (os.environ.get("CXX", "c++"), "g++", "clang++"))):
        return "no C++ compiler found: install one (Debian: build-essential)"
    return None


def has_pip(folder: Path) -> bool:
    """Tell whether the environment is there and whole."""
    python = python_of(folder)
    command = [str(python), "-m", "pip", "--version"]
    return (
        python.exists()
        and not subprocess.run(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False
        ).returncode
    )


def make_environment(folder: Path) -> bool:
    """Make the virtual environment, anew where one was left half made."""
    say(f"making the virtual environment {shown(folder)}")
    try:
        # Cleared only where it is one that was left half made.
        clear = (folder / "pyvenv.cfg").exists()
        venv.create(folder, with_pip=True, clear=clear)
    except subprocess.CalledProcessError:
        print(
            "error: this Python cannot make environments with pip "
            "(Debian: sudo apt install python3-venv)",
            file=sys.stderr,
        )
        return False
    return True


def fingerprint() -> str:
    """Tell installations of different requirements apart."""
    # The place as well: an editable installation points to it.
    place = f"{sys.version} {ROOT}"
    content = (ROOT / "pyproject.toml").read_bytes() + place.encode()
    return hashlib.sha256(content).hexdigest()


def install(folder: Path, extras: list[str]) -> int:
    """Run pip, its talk in a log file, and say every few seconds how far it is."""
    target = f"{ROOT}[{','.join(extras)}]" if extras else str(ROOT)
    log = folder / "install.log"
    environ = dict(os.environ)
    environ.setdefault("CMAKE_BUILD_PARALLEL_LEVEL", str(usable_cores()))
    say(
        "installing wizard-edge and what it needs; the first time llama.cpp is "
        f"compiled on {environ['CMAKE_BUILD_PARALLEL_LEVEL']} cores (about 6 minutes "
        "on 2), later from pip's cache"
    )
    command = [str(python_of(folder)), "-m", "pip", "install", "-v", "-e", target]
    command += ["--progress-bar", "off", "--disable-pip-version-check"]
    begun = time.monotonic()
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        env=environ,
    ) as pip:
        follow(pip, log, begun)
    if pip.returncode != 0:
        print("\n".join(log.read_text(errors="replace").splitlines()[-30:]))
        print(f"error: pip failed; its whole log: {shown(log)}", file=sys.stderr)
        return 1
    say(f"installed in {time.monotonic() - begun:.0f} s")
    return 0


def usable_cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def follow(pip: subprocess.Popen[str], log: Path, begun: float) -> None:
    """Copy pip's lines into the log and report the compiler's pace now and then."""
    said = begun
    with log.open("w") as file:
        for line in lines_of(pip):
            file.write(line)
            pace = _PACE.search(line)
            now = time.monotonic()
            if pace and now - said >= SAY_EVERY_S:
                said = now
                say(f"compiling llama.cpp: {pace[1]} after {now - begun:.0f} s")


def lines_of(pip: subprocess.Popen[str]) -> Iterator[str]:
    assert pip.stdout is not None
    yield from pip.stdout


def python_of(folder: Path) -> Path:
    if os.name == "nt":
        return folder / "Scripts" / "python.exe"
    return folder / "bin" / "python"


def shown(path: Path) -> str:
    return os.path.relpath(path)


def say(text: str) -> None:
    print(f"== {text}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
