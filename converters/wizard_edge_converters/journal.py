"""The journal of a conversion: which steps are final, so that another run goes on.

Lines of text, each a CRC-32 in hex, a space and a JSON value. The first is the head:
the schema and the key of the plan. A line that is torn or was changed ends what is
believed, and is cut off before anything is added.
"""

from __future__ import annotations

import base64
import json
import os
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from wizard_edge.errors import UsageError
from wizard_edge.files import translated
from wizard_edge.names import RelPath, Sha256
from wizard_edge.receipts import Check, CheckedFile
from wizard_edge_converters.quality import Deviation

SCHEMA = 1
# The longest line is that of the largest tensor: 5.3 bytes for each of its blocks.
_MAX_LINE = 1 << 20

Sums: TypeAlias = NDArray[np.uint32]


@dataclass(frozen=True, slots=True)
class StepDone:
    """A step all of whose bytes were written: what is known of each of its places.

    `sums` are the CRC-32 of its blocks. `mark` is where its weight file was then.
    """

    step: int
    sums: tuple[Sums, ...]
    deviations: tuple[Deviation, ...]
    mark: str


@dataclass(slots=True)
class Progress:
    """What is final so far: steps in their order, files that were checked."""

    steps: list[StepDone] = field(default_factory=list)
    files: dict[str, CheckedFile] = field(default_factory=dict)


class Journal:
    """An open journal; what is added is in the hands of the system at once."""

    def __init__(self, path: Path, key: str) -> None:
        """Open or begin the journal of the plan that has this key.

        `progress` is what it holds. One of another plan or schema is begun anew.
        """
        self.path = path
        self.progress = Progress()
        with translated(path):
            flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0)
            self._descriptor = os.open(path, flags, 0o666)
            end = self._read(key)
            os.ftruncate(self._descriptor, end)
            os.lseek(self._descriptor, end, os.SEEK_SET)
        if end == 0:
            self._append({"schema": SCHEMA, "key": key})

    def forget_from(self, step: int) -> None:
        """Drop what is said of a step and of all after it."""
        kept = self.progress.steps[:step]
        head = {"schema": SCHEMA, "key": self._key}
        self.progress = Progress()
        with translated(self.path):
            os.ftruncate(self._descriptor, 0)
            os.lseek(self._descriptor, 0, os.SEEK_SET)
        self._append(head)
        for done in kept:
            self.add_step(done)

    def add_step(self, done: StepDone) -> None:
        self._append(
            {
                "step": done.step,
                "sums": list(map(_packed, done.sums)),
                "deviations": [
                    [d.error.hex(), d.power.hex(), d.count] for d in done.deviations
                ],
                "mark": done.mark,
            }
        )
        self.progress.steps.append(done)

    def add_file(self, file: CheckedFile) -> None:
        self._append(
            {
                "file": file.name,
                "size": file.size,
                "check": file.check.value,
                "sha256": file.sha256,
            }
        )
        self.progress.files[file.name] = file

    def sync(self) -> None:
        """Have all lines on the disk."""
        os.fsync(self._descriptor)

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _append(self, value: dict[str, object]) -> None:
        text = json.dumps(value, separators=(",", ":"))
        line = f"{zlib.crc32(text.encode()):08x} {text}\n".encode()
        with translated(self.path, len(line)):
            while line:
                line = line[os.write(self._descriptor, line) :]

    def _read(self, key: str) -> int:
        """Read all whole lines; return where the last of them ends."""
        self._key = key
        end = 0
        with open(self._descriptor, "rb", closefd=False) as file:
            for value, size in _lines(file.read()):
                if end == 0:
                    if value != {"schema": SCHEMA, "key": key}:
                        return 0
                elif not self._take(value):
                    break
                end += size
        return end

    def _take(self, value: object) -> bool:
        """Add a line's value to the progress; tell whether it made sense."""
        # The line carries its own sum, so it is one of ours unless somebody forged it.
        try:
            line: _Line = value if isinstance(value, dict) else {}
            if "step" in line:
                done = _step_from(line)
                if done.step != len(self.progress.steps):
                    return False
                self.progress.steps.append(done)
            else:
                file = _file_from(line)
                self.progress.files[file.name] = file
        except (KeyError, TypeError, ValueError, UsageError):
            return False
        return True


def _lines(data: bytes) -> Iterator[tuple[object, int]]:
    """Give the values of lines whose sum is right, and their sizes, up to a bad one."""
    at = 0
    while (end := data.find(b"\n", at, at + _MAX_LINE)) >= 0:
        line = data[at:end]
        try:
            good = int(line[:8], 16) == zlib.crc32(line[9:])
            value: object = json.loads(line[9:]) if good else None
        except ValueError:
            return
        if not good:
            return
        yield value, end + 1 - at
        at = end + 1


# Any: decoded JSON whose shape whoever reads it finds out.
_Line: TypeAlias = dict[str, Any]


def _step_from(line: _Line) -> StepDone:
    return StepDone(
        step=int(line["step"]),
        sums=tuple(map(_unpacked, line["sums"])),
        deviations=tuple(
            Deviation(float.fromhex(error), float.fromhex(power), int(count))
            for error, power, count in line["deviations"]
        ),
        mark=str(line["mark"]),
    )


def _file_from(line: _Line) -> CheckedFile:
    sha256 = line["sha256"]
    return CheckedFile(
        name=RelPath.parse(line["file"]),
        size=int(line["size"]),
        check=Check(line["check"]),
        sha256=None if sha256 is None else Sha256.parse(sha256),
    )


def _packed(sums: Sums) -> str:
    return base64.b64encode(sums.astype("<u4").tobytes()).decode()


def _unpacked(text: str) -> Sums:
    data = base64.b64decode(text, validate=True)
    return np.frombuffer(data, dtype="<u4").astype(np.uint32)
