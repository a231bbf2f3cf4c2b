"""The process in which `bench` has a model: a question a line, an answer a line.

What it takes is the model's and this program's alone: nothing of whoever started it.
It ends when the pipe does.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, is_dataclass
from functools import partial
from pathlib import Path
from queue import SimpleQueue

# JSON, whose values are what the questions say.
from typing import Any, TextIO

from wizard_edge._llama.engine import LlamaEngine
from wizard_edge.engine import LoadOptions
from wizard_edge.errors import NotEnough, WizardEdgeError
from wizard_edge.names import Sha256
from wizard_edge.progress import ProgressEvent
from wizard_edge.service.bench_subject import EngineSubject
from wizard_edge.verdicts import Judge, check, check_once


def main() -> None:
    """Open what the first line names, then measure what the others ask for."""
    # Ctrl-C is for who started us, and ends us.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    answers = _take_stdout()
    questions = _read(sys.stdin)

    def tell(kind: str, value: object) -> None:
        answers.write(json.dumps({kind: value}) + "\n")
        answers.flush()

    def answer(work: Callable[[], object]) -> bool:
        try:
            tell("ok", _plain(work()))
        # The border of this process: the one who asked is told, and raises it.
        except (WizardEdgeError, OSError, MemoryError) as err:
            tell("error", explain(err))
            return False
        return True

    opened: list[EngineSubject] = []

    def load(asked: Mapping[str, Any]) -> object:
        subject = open_subject(
            asked, progress=lambda event: tell("progress", asdict(event))
        )
        opened.append(subject)
        return subject.opened

    if answer(partial(load, next(questions))):
        for question in questions:
            measure = getattr(opened[0], question.pop("do"))
            answer(partial(measure, **question))


def open_subject(
    asked: Mapping[str, Any], *, progress: Callable[[ProgressEvent], None]
) -> EngineSubject:
    """Load the model of a question."""
    engine = LlamaEngine(
        Path(asked["path"]),
        options_from(asked["options"]),
        judge=_judge(asked["sha256"]),
        progress=progress,
    )
    return EngineSubject(
        engine,
        sequences=asked["options"]["parallel"],
        folder=Path(asked["folder"]),
        cold=asked["cold"],
    )


def options_from(given: Mapping[str, Any]) -> LoadOptions:
    """Return the load options whose fields came as JSON: no tuples and no paths."""
    # Any: each value has the type of the field that it is for.
    fields: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in given.items()
    }
    if fields["draft"] is not None:
        fields["draft"] = Path(fields["draft"])
    return LoadOptions(**fields)


def explain(err: BaseException) -> dict[str, object]:
    """Return what of an error goes over the pipe."""
    if isinstance(err, WizardEdgeError):
        return {"code": err.exit_code, "message": err.message, "hint": err.hint}
    if isinstance(err, MemoryError):
        return {"code": NotEnough.exit_code, "message": "not enough memory"}
    return {"code": NotEnough.exit_code, "message": str(err)}


def _plain(found: object) -> object:
    # Any: `is_dataclass` cannot tell an instance from its type.
    value: Any = found
    return asdict(value) if is_dataclass(found) else found


def _judge(sha256: str | None) -> Judge:
    if sha256 is None:
        return check
    return partial(check_once, sha256=Sha256.parse(sha256))


def _take_stdout() -> TextIO:
    """Keep the pipe for answers: what native code writes goes to standard error."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return answers


def _read(stream: TextIO) -> Iterator[dict[str, Any]]:
    """Yield the questions; the process ends with the last, in whatever it is."""
    lines: SimpleQueue[str] = SimpleQueue()

    def listen() -> None:
        with suppress(OSError, ValueError):
            for line in stream:
                lines.put(line)
        os._exit(0)

    threading.Thread(target=listen, daemon=True).start()
    while True:
        yield json.loads(lines.get())


if __name__ == "__main__":
    main()
