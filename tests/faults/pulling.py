"""Runs `wizard-edge pull` against a loopback hub, and judges what it left behind.

Only the program is used, and what it writes: nothing of how it downloads.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from threading import Condition, Thread
from time import monotonic

from tests.child import environment
from tests.faults.killing import program
from tests.gguf_files import small_llama
from tests.hub.content import HostedRepository, repository
from wizard_edge.errors import WizardEdgeError
from wizard_edge.gguf_rules import read_valid
from wizard_edge.paths import Home, find_home
from wizard_edge.store import Store

REPO = "somebody/Model"
FILE = "model.F32.gguf"
REF = f"hf:{REPO}/{FILE}"
# Bytes of a block of the models below.
_WIDTH = 256
_BLOCK = 2_370_000
# Far longer than any run here takes; for one that hangs.
_HUNG_S = 120.0


def make_model(path: Path, size: int, *, seed: int = 1) -> Path:
    """Write a valid model of about so many bytes, its weights random."""
    file = small_llama(width=_WIDTH, blocks=max(1, round(size / _BLOCK)))
    whole, (header, _) = file.build(), file.header()
    weights = Random(seed).randbytes(len(whole) - len(header) - 64)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(whole[: len(header) + 64] + weights)
    return path


def hosted(path: Path) -> HostedRepository:
    """Return the repository that offers a model."""
    return repository(REPO, {FILE: path})


def digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@dataclass(slots=True)
class Ended:
    """How a run ended; `done` are the bytes it said were there, at most."""

    code: int
    was_killed: bool
    done: int
    seconds: float
    stdout: str
    stderr: str

    @property
    def error(self) -> dict[str, str]:
        """The error as it was told to programs; empty where there was none."""
        for line in reversed(self.stderr.splitlines()):
            if line.startswith('{"error"'):
                found: dict[str, str] = json.loads(line)["error"]
                return found
        return {}


class Pull:
    """One run of a command, watched by what it says of its progress."""

    def __init__(
        self,
        endpoint: str,
        folder: Path,
        *words: str,
        prelude: str = "",
        home: str = "home",
        environ: Mapping[str, str] | None = None,
    ) -> None:
        self.done = 0
        self._begun = monotonic()
        self._lines: list[str] = []
        self._moved = Condition()
        self._process = subprocess.Popen(
            program(prelude, *words),
            env=reaching(endpoint, folder, home) | dict(environ or {}),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
        )
        self._reader = Thread(target=self._read, daemon=True)
        self._reader.start()

    def fetched(self, size: int, timeout_s: float = _HUNG_S) -> bool:
        """Wait until so many bytes are there; False when the run ended before."""
        with self._moved:
            self._moved.wait_for(
                lambda: self.done >= size or not self._reader.is_alive(), timeout_s
            )
            return self.done >= size

    def kill(self, after_s: float = 0.0) -> None:
        """End it with SIGKILL, unless it ends by itself before so long."""
        try:
            self._process.wait(after_s)
        except subprocess.TimeoutExpired:
            self._process.kill()

    def end(self, timeout_s: float = _HUNG_S) -> Ended:
        """Wait for its end. One that hangs is killed, and counts as such."""
        hung = False
        try:
            self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            hung = True
            self._process.kill()
        self._reader.join()
        assert self._process.stdout is not None
        with self._process.stdout as out:
            stdout = out.read()
        code = self._process.wait()
        return Ended(
            code,
            code == -9 and not hung,
            self.done,
            monotonic() - self._begun,
            stdout,
            "".join(self._lines),
        )

    def _read(self) -> None:
        assert self._process.stderr is not None
        with self._process.stderr as lines:
            for line in lines:
                self._lines.append(line)
                if line.startswith('{"stage": "download"'):
                    with self._moved:
                        self.done = max(self.done, json.loads(line)["done"])
                        self._moved.notify_all()
        with self._moved:
            self._moved.notify_all()


def pull(
    endpoint: str,
    folder: Path,
    *words: str,
    ref: str = REF,
    prelude: str = "",
    home: str = "home",
    environ: Mapping[str, str] | None = None,
) -> Pull:
    """Start to pull a model."""
    words = ("pull", ref, "--json", *words)
    return Pull(endpoint, folder, *words, prelude=prelude, home=home, environ=environ)


def reaching(endpoint: str, folder: Path, home: str = "home") -> dict[str, str]:
    """Return the environment of a program that knows this hub only."""
    return environment(
        folder,
        HF_ENDPOINT=endpoint,
        HF_HOME=str(folder / "hf"),
        NO_PROXY="127.0.0.1,localhost",
        WIZARD_EDGE_HOME=str(folder / home),
    )


@dataclass(slots=True)
class Judge:
    """Looks at a store after a run; `good` are the hashes a model may have."""

    home: Home
    good: frozenset[str]
    violations: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, folder: Path, *good: str, home: str = "home") -> Judge:
        return cls(find_home({}, folder / home), frozenset(good))

    def look(self, when: str, *, whole: bool | None = None) -> int:
        """Note what is visible and not right; return how many models are there.

        `whole` tells whether there has to be one, or must be none.
        """
        found = Store(self.home).installed()
        for item in found:
            problem = item.problem() or self._problem(item.path)
            if problem:
                self.violations.append(f"{when}: {item.path.name} {problem}")
        known = {path for item in found for path in item.parts}
        for path in self.home.models.glob("*/*.gguf"):
            # Without a receipt it is not listed, but whoever opens it by hand...
            if path not in known and digest(path) not in self.good:
                self.violations.append(f"{when}: {path.name} lies there, not whole")
        if whole is not None and len(found) != whole:
            self.violations.append(f"{when}: {len(found)} models are listed")
        return len(found)

    def nothing_left(self, when: str) -> None:
        """Note what lies in the store and belongs to no model."""
        folders = (self.home.partial, self.home.run)
        left = [
            path.relative_to(self.home.root).as_posix()
            for folder in folders
            for path in folder.rglob("*")
            if path.is_file()
        ]
        names = {
            path for item in Store(self.home).installed() for path in item.parts
        } | {
            self.home.models / item.receipt.model / name
            for item in Store(self.home).installed()
            for name in ("NOTICE", "LICENSE")
        }
        left += [
            path.relative_to(self.home.root).as_posix()
            for path in self.home.models.rglob("*")
            if path.is_file() and path not in names
        ]
        if left:
            self.violations.append(f"{when}: left {', '.join(sorted(left))}")

    def _problem(self, path: Path) -> str | None:
        if digest(path) not in self.good:
            return "has other bytes"
        try:
            read_valid(path)
        except WizardEdgeError as err:
            return err.message
        return None


def command(endpoint: str, folder: Path, *words: str, home: str = "home") -> Ended:
    """Run any command to its end."""
    return Pull(endpoint, folder, *words, home=home).end()


def told(violations: Sequence[str], most: int = 8) -> str:
    """Return the first violations, a line each."""
    return "".join(f"  {text}\n" for text in violations[:most])
