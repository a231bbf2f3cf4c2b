"""A llama.cpp with RPC for the tests that need one, and workers over it.

Few people build it: `LLAMA_CPP_RPC_LIB` names the folder of its libraries
(docs/several-machines.md says how to make one), else these tests are skipped.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.child import environment
from wizard_edge._llama.built import has_rpc

VARIABLE = "LLAMA_CPP_RPC_LIB"
PROGRAM = (sys.executable, "-P", "-m", "wizard_edge")


def rpc_environment(folder: Path) -> dict[str, str]:
    """Return the environment of a program whose llama.cpp has RPC, or skip the test."""
    library = os.environ.get(VARIABLE)
    if library:
        environ = environment(folder, LLAMA_CPP_LIB_PATH=library)
        assert has_rpc(environ), f"{VARIABLE} names no build with RPC: {library}"
        return environ
    if has_rpc():
        return environment(folder)
    pytest.skip(f"llama.cpp was built without RPC, and {VARIABLE} names no other")


def free_port() -> int:
    with socket.socket() as trial:
        trial.bind(("127.0.0.1", 0))
        port: int = trial.getsockname()[1]
        return port


@dataclass(frozen=True)
class Worker:
    """A `wizard-edge worker` that runs; `said` is what it told before it waited."""

    process: subprocess.Popen[str]
    port: int
    said: str

    @property
    def endpoint(self) -> str:
        return f"127.0.0.1:{self.port}"

    def end(self, number: int = signal.SIGTERM) -> tuple[str, int]:
        """Send a signal; return what it still said, and its exit code."""
        self.process.send_signal(number)
        assert self.process.stderr is not None
        return self.process.stderr.read(), self.process.wait(30)


@contextmanager
def worker(environ: dict[str, str], *options: str) -> Iterator[Worker]:
    """Lend a worker on loopback that listens when the block begins."""
    port = free_port()
    process = subprocess.Popen(
        [*PROGRAM, "worker", "--port", str(port), "-t", "1", *options],
        env=environ,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stderr is not None
        said = ""
        for line in process.stderr:
            said += line
            if line.startswith("at "):
                break
        else:
            raise AssertionError(f"no worker: {said}")
        yield Worker(process, port, said)
    finally:
        process.kill()
        process.communicate()
