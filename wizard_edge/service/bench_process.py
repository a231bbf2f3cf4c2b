"""A model in a process of its own, as the `Subject` of `bench`.

So that its memory is the model's alone, the time to start is counted, and one that
takes too long can be ended. Whoever leaves the block leaves no process behind.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from queue import Empty, SimpleQueue

# JSON, whose values are checked where they become values of ours.
from typing import IO, Any, Self

from wizard_edge.engine import LoadOptions
from wizard_edge.errors import (
    BackendError,
    Corrupt,
    MissingFile,
    NotEnough,
    UsageError,
    WizardEdgeError,
)
from wizard_edge.progress import Progress, ProgressEvent
from wizard_edge.service.bench_plan import Budget, OutOfTime
from wizard_edge.service.bench_values import Opened, Reading, Resumed, Spoken

# The child sees the modules that we see, and none of the current folder.
_START = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from wizard_edge.service._bench_child import main; main()"
)
# What a measurement may take beyond the time there is, before its process is ended.
_GRACE_S = 5.0
# How often Ctrl-C is listened for.
_LISTENS_EVERY_S = 0.1
_SAID = 4096
_ERRORS: dict[int, type[WizardEdgeError]] = {
    kind.exit_code: kind for kind in (UsageError, MissingFile, Corrupt, NotEnough)
}


@dataclass(frozen=True, slots=True)
class Request:
    """What to open; `sha256` is the receipt's, `folder` for files on the way.

    With `cold` a saved state is taken out of the page cache before it is read.
    """

    path: Path
    sha256: str | None
    options: LoadOptions
    folder: Path
    cold: bool = False


class BenchProcess:
    """A model that another process has opened. Use it in a `with`."""

    def __init__(
        self,
        request: Request,
        budget: Budget,
        *,
        progress: Progress,
        command: Sequence[str] | None = None,
    ) -> None:
        """`command` is another program that speaks like `_bench_child`."""
        self._request = request
        self._budget = budget
        self._progress = progress
        self._command = command or [sys.executable, "-c", _START, json.dumps(sys.path)]
        self._answers: SimpleQueue[bytes] = SimpleQueue()
        self._over = False

    def __enter__(self) -> Self:
        self._begun = time.perf_counter()
        self._said: IO[bytes] = tempfile.TemporaryFile()
        self._process = subprocess.Popen(
            self._command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._said,
        )
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()
        try:
            found = self._ask(asdict(self._request))
            self.opened = Opened(**{**found, "devices": tuple(found["devices"])})
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        self._end()

    @property
    def pid(self) -> int:
        """The id of the process."""
        return self._process.pid

    @property
    def age_s(self) -> float:
        return time.perf_counter() - self._begun

    def read(self, count: int) -> Reading:
        return Reading(**self._ask({"do": "read", "count": count}))

    def generate(self, depth: int, tokens: int, seconds: float) -> Spoken:
        question = {"depth": depth, "tokens": tokens, "seconds": seconds}
        return Spoken(**self._ask({"do": "generate", **question}))

    def follow(self, history: int, count: int) -> Reading:
        question = {"do": "follow", "history": history, "count": count}
        return Reading(**self._ask(question))

    def resume(self, history: int, count: int) -> Resumed:
        question = {"do": "resume", "history": history, "count": count}
        return Resumed(**self._ask(question))

    def together(self, tokens: int, seconds: float) -> Spoken:
        question = {"do": "together", "tokens": tokens, "seconds": seconds}
        return Spoken(**self._ask(question))

    def peak_memory(self) -> int | None:
        found: int | None = self._ask({"do": "peak_memory"})
        return found

    def _ask(self, question: Mapping[str, object]) -> Any:
        """Put a question and wait for its answer.

        Raises: OutOfTime; BackendError when the process ends instead; what the
        child says that went wrong.
        """
        assert self._process.stdin is not None
        if self._over:
            raise OutOfTime
        # A process that is gone says why with its last words.
        with suppress(OSError):
            line = json.dumps(question, default=str) + "\n"
            self._process.stdin.write(line.encode())
            self._process.stdin.flush()
        while True:
            answer = json.loads(self._receive())
            if "progress" in answer:
                self._progress(ProgressEvent(**answer["progress"]))
            elif "error" in answer:
                raise _error(answer["error"])
            else:
                return answer["ok"]

    def _receive(self) -> bytes:
        while self._budget.left > -_GRACE_S:
            try:
                line = self._answers.get(timeout=_LISTENS_EVERY_S)
            except Empty:
                continue
            if not line:
                # For whoever asks again.
                self._answers.put(b"")
                raise self._ended()
            return line
        self._end()
        raise OutOfTime

    def _listen(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._answers.put(line)
        self._answers.put(b"")

    def _ended(self) -> BackendError:
        code = self._process.wait()
        self._said.seek(0, os.SEEK_END)
        self._said.seek(max(0, self._said.tell() - _SAID))
        said = self._said.read().decode("utf-8", "replace").strip().splitlines()
        how = f"signal {-code}" if code < 0 else f"status {code}"
        return BackendError(
            f"the process of the model ended with {how}: "
            f"{said[-1] if said else 'it gave no reason'}",
            hint="it may lack memory: a smaller --ctx-size, or a smaller quant",
        )

    def _end(self) -> None:
        """End the process by its id and wait for it. A second call does nothing."""
        if self._over:
            return
        self._over = True
        self._process.kill()
        self._process.wait()
        self._listener.join()
        for stream in (self._process.stdin, self._process.stdout):
            assert stream is not None
            # What was not flushed has nobody to read it.
            with suppress(OSError):
                stream.close()
        self._said.close()


def _error(told: Mapping[str, Any]) -> WizardEdgeError:
    """Make an error of ours of what a child told; it has no more than the words."""
    kind = _ERRORS.get(told["code"], BackendError)
    err = kind.__new__(kind)
    WizardEdgeError.__init__(err, told["message"], hint=told.get("hint"))
    return err
