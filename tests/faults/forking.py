"""Runs wizard-edge many times in forks of one process that has it imported.

Started as a program it reads a line of JSON for each run, and answers with the exit
code. Each fork has its own environment and folder. It may reach loopback alone: an
attempt to reach another host fails at once, as without a network.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.child import environment

_HERE = frozenset({"127.0.0.1", "::1", "localhost"})
# What a run imports late, imported before the first fork.
_EARLY = (
    "wizard_edge.cli._root",
    "wizard_edge.cli.pull",
    "wizard_edge.cli._output",
    "wizard_edge.cli._progress",
    "wizard_edge.service.pull",
    "wizard_edge_converters.seam",
    "filelock",
    "rich.progress",
    "urllib.request",
    "huggingface_hub",
)


class Forks:
    """The process that is forked, as seen by the one that asks for runs."""

    def __init__(self, folder: Path, prelude: str = "") -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-c", f"{prelude}\n{_MAIN}"],
            env=environment(folder),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def run(
        self,
        *words: str,
        environ: Mapping[str, str],
        cwd: Path,
        output: Path,
        timeout_s: int,
    ) -> int:
        """Run wizard-edge; return its exit code, or minus the signal that ended it.

        What it prints goes to the file `output`. After so long SIGALRM ends it.
        """
        asked = {
            "words": words,
            "environ": dict(environ),
            "cwd": str(cwd),
            "output": str(output),
            "timeout_s": timeout_s,
        }
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(asked) + "\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())

    def close(self) -> None:
        self._process.communicate()


_MAIN = "from tests.faults.forking import serve; serve()"


def serve() -> None:
    """Answer requests until there are no more."""
    for name in _EARLY:
        __import__(name)
    for line in sys.stdin:
        asked = json.loads(line)
        child = os.fork()
        if not child:
            _become(asked)
        status = os.waitpid(child, 0)[1]
        print(os.waitstatus_to_exitcode(status), flush=True)


def _become(asked: dict[str, Any]) -> None:
    """Run in this process, and end it."""
    code = 1
    try:
        output = os.open(asked["output"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(output, 1)
        os.dup2(output, 2)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.environ.clear()
        os.environ.update(asked["environ"])
        os.chdir(asked["cwd"])
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(asked["timeout_s"])
        sys.addaudithook(_stay_here)
        sys.argv = ["wizard-edge", *asked["words"]]
        from wizard_edge.cli import main

        main()
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:  # noqa: BLE001 - the border of the process
        import traceback

        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _stay_here(event: str, arguments: tuple[Any, ...]) -> None:
    # Any: what each event passes.
    if event == "socket.getaddrinfo" and _text(arguments[0]) not in _HERE:
        raise socket.gaierror(socket.EAI_NONAME, "no network here")
    if event == "socket.connect":
        address = arguments[1]
        if isinstance(address, tuple) and address[0] not in _HERE:
            raise OSError(101, "no network here")


def _text(host: object) -> str:
    return host.decode("latin-1") if isinstance(host, bytes) else str(host)
