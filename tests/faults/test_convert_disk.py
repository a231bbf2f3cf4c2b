"""A disk that is full or fails ends a conversion plainly and leaves no trace."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from tests.child import environment
from tests.converters.checkpoints import Shape, write_checkpoint
from tests.converters.running import convert
from tests.faults.small import SMALL
from wizard_edge.errors import Corrupt, NotEnough, WizardEdgeError
from wizard_edge.part_files import DISK_RESERVE
from wizard_edge.progress import Progress, ProgressEvent, silent
from wizard_edge_converters.directory import Directory
from wizard_edge_converters.options import ConvertOptions
from wizard_edge_converters.pipeline import convert_checkpoint, plan_source
from wizard_edge_converters.weights import open_weights

pytestmark = pytest.mark.skipif(os.name == "nt", reason="needs a POSIX system")

STEPS = 16
OLD = b"precious"
OPTIONS = ConvertOptions(quants=("F16",), threads=1, overwrite=True)
# Whatever writes, makes or renames a file on the way.
CALLS = ("pwrite", "write", "fsync", "ftruncate", "replace", "open")


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("small") / "source", SMALL)


@pytest.fixture(scope="module")
def larger(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("larger") / "source"
    return write_checkpoint(folder, Shape(inner=1024, layers=2, vocabulary=330))


@pytest.fixture
def output(tmp_path: Path) -> Path:
    path = tmp_path / "output" / "model.gguf"
    path.parent.mkdir()
    path.write_bytes(OLD)
    return path


class Failing:
    """Counts calls of a function of `os` in a folder, and lets one of them fail."""

    def __init__(self, call: str, number: int, code: int) -> None:
        self.calls = 0
        self._call, self._number, self._code = call, number, code
        self._real: Callable[..., object] = getattr(os, call)

    def __call__(self, *arguments: Any, **others: Any) -> object:
        if self._call == "open" and not arguments[1] & os.O_CREAT:
            return self._real(*arguments, **others)
        self.calls += 1
        if self.calls == self._number:
            raise OSError(self._code, os.strerror(self._code))
        return self._real(*arguments, **others)


def fail(
    monkeypatch: pytest.MonkeyPatch,
    source: Path,
    output: Path,
    failing: Failing,
    call: str,
) -> WizardEdgeError | None:
    """Convert with a failing call; return how it ended."""
    with monkeypatch.context() as patched:
        patched.setattr(os, call, failing)
        try:
            convert(source, output, OPTIONS)
        except WizardEdgeError as err:
            return err
    return None


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
def test_every_call_that_fails_is_told(
    call: str,
    code: int,
    source: Path,
    output: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    expected = tmp_path / "expected.gguf"
    counting = Failing(call, 0, code)
    assert fail(monkeypatch, source, expected, counting, call) is None
    kind = Corrupt if code == errno.EIO else NotEnough

    for number in range(1, counting.calls + 1):
        error = fail(monkeypatch, source, output, Failing(call, number, code), call)

        assert type(error) is kind, (number, error)
        assert os.listdir(output.parent) == [output.name]  # noqa: PTH208
        # The last fsync is that of the folder: by then the new file is in place.
        is_in_place = call == "fsync" and number == counting.calls
        assert output.read_bytes() == (expected.read_bytes() if is_in_place else OLD)
        output.write_bytes(OLD)

    assert counting.calls > 0


class Arriving(Directory):
    """A directory that is treated as if it came over the network."""

    is_remote = True


def test_a_sync_that_failed_in_the_background_is_no_success(
    source: Path, output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The system reports it once; a later fsync succeeds though bytes are lost."""
    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", Failing("fsync", 1, errno.EIO))
        with (
            open_weights(Arriving(source)) as checkpoint,
            pytest.raises(Corrupt, match="cannot be written"),
        ):
            convert_checkpoint(checkpoint, "small", [output], OPTIONS)
    assert output.read_bytes() == OLD
    assert os.listdir(output.parent) == [output.name]  # noqa: PTH208


def test_a_full_disk_says_what_is_needed_and_free(
    source: Path, output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    error = fail(monkeypatch, source, output, Failing("pwrite", 3, 28), "pwrite")

    assert isinstance(error, NotEnough)
    assert error.message.startswith(f"not enough disk in {output.parent}: ")
    assert error.needed > 10_000
    assert error.free > 0


def test_a_file_too_large_for_the_system_says_so(
    source: Path, output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing = Failing("ftruncate", 2, errno.EFBIG)

    error = fail(monkeypatch, source, output, failing, "ftruncate")

    assert isinstance(error, NotEnough)
    assert error.hint is not None
    assert "no file of that size" in error.hint


LIMITED = """
import resource, runpy, signal, sys
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
limit = int(sys.argv.pop(1))
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
runpy.run_module("wizard_edge", run_name="__main__")
"""


@pytest.mark.parametrize("part", [0.0, 0.5, 0.99])
def test_a_limit_on_file_sizes_ends_the_program_with_7(
    part: float, source: Path, output: Path
) -> None:
    size = plan_source(source, OPTIONS).output_bytes
    words = ["convert", str(source), "-q", "F16", "-o", str(output), "--overwrite"]

    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(int(part * size)), *words],
        env=environment(output.parent.parent),
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.stderr.startswith("error: not enough disk")
    assert done.returncode == NotEnough.exit_code
    assert os.listdir(output.parent) == [output.name]  # noqa: PTH208
    assert output.read_bytes() == OLD


# Real disks ----------------------------------------------------------------------


@contextmanager
def small_disk(folder: Path, size: int) -> Iterator[Path]:
    """Mount a file system of `size` bytes in memory, where that is allowed."""
    folder.mkdir(exist_ok=True)
    options = ["-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    try:
        mounted = subprocess.run(["mount", *options], capture_output=True, check=False)
    except FileNotFoundError:
        pytest.skip("no mount on this system")
    if mounted.returncode:
        pytest.skip("may not mount a file system")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def test_disks_of_every_size_are_too_small_or_enough(
    larger: Path, tmp_path: Path
) -> None:
    """From nothing to 10% more than is needed; what is refused leaves it empty."""
    needed = plan_source(larger, OPTIONS).output_bytes + DISK_RESERVE
    sizes = [needed * 11 // 10 * step // STEPS for step in range(1, STEPS + 1)]
    ends = []
    for size in sizes:
        with small_disk(tmp_path / "disk", size) as disk:
            error = convert_to(disk / "model.gguf", larger)
            left = [path.name for path in disk.iterdir()]
        assert left == ([] if error else ["model.gguf"])
        assert error is None or error.free < error.needed
        ends.append(error is None)

    assert ends == sorted(ends)
    assert {False, True} == set(ends)


def convert_to(
    output: Path, source: Path, progress: Progress = silent
) -> NotEnough | None:
    try:
        convert(source, output, OPTIONS, progress=progress)
    except NotEnough as err:
        return err
    return None


class Neighbour:
    """Takes all that is left of a disk when a conversion comes to a certain step."""

    def __init__(self, path: Path, step: int) -> None:
        self.path = path
        self.step = step
        self.steps = 0

    def __call__(self, event: ProgressEvent) -> None:
        if event.stage == "convert":
            self.steps += 1
            if self.steps == self.step:
                self._fill()

    def _fill(self) -> None:
        with self.path.open("wb", buffering=0) as file, suppress(OSError):
            while True:
                file.write(bytes(4096))


def test_a_disk_that_others_fill_meanwhile_is_told(
    larger: Path, tmp_path: Path
) -> None:
    size = plan_source(larger, OPTIONS).output_bytes + DISK_RESERVE + (1 << 20)
    with small_disk(tmp_path / "disk", size) as disk:
        counting = Neighbour(disk / "ballast", 0)
        assert convert_to(disk / "model.gguf", larger, counting) is None
    refused = 0
    for number in range(STEPS):
        with small_disk(tmp_path / "disk", size) as disk:
            output = disk / "model.gguf"
            output.write_bytes(OLD)
            step = 1 + number * counting.steps // STEPS
            error = convert_to(output, larger, Neighbour(disk / "ballast", step))
            left = sorted(path.name for path in disk.iterdir())
            is_old = output.read_bytes() == OLD
        assert left == ["ballast", "model.gguf"]
        assert is_old == (error is not None)
        refused += is_old

    # What is asked for last is in the file already.
    assert refused >= STEPS // 2
