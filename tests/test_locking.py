from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from wizard_edge.errors import Refused
from wizard_edge.locking import Busy, exclusive, is_held

HOLD = """
import sys
from pathlib import Path
from wizard_edge.locking import exclusive
with exclusive(Path(sys.argv[1])):
    print("in", flush=True)
    sys.stdin.read()
"""
# Counts up a file under the lock: two at once would lose a step.
COUNT = """
import sys
from pathlib import Path
from wizard_edge.locking import exclusive
file = Path(sys.argv[2])
for _ in range(40):
    with exclusive(Path(sys.argv[1]), waiting=lambda: None):
        file.write_text(str(int(file.read_text()) + 1))
"""


def start(script: str, *words: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", script, *map(str, words)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def held(path: Path) -> subprocess.Popen[str]:
    """Return a process that holds the lock."""
    process = start(HOLD, path)
    assert process.stdout is not None
    assert process.stdout.readline() == "in\n"
    return process


def test_a_lock_leaves_no_file(tmp_path: Path) -> None:
    path = tmp_path / "a.lock"

    with exclusive(path):
        assert path.exists()

    assert list(tmp_path.iterdir()) == []


def test_a_held_lock_refuses_and_stays(tmp_path: Path) -> None:
    path = tmp_path / "a.lock"

    with held(path) as process:
        with (
            pytest.raises(Busy, match=r"another process holds .*a\.lock"),
            exclusive(path),
        ):
            pass
        assert is_held(path)
        assert path.exists()
        process.communicate()

    assert not is_held(path)
    assert list(tmp_path.iterdir()) == []


def test_a_lock_dies_with_its_owner(tmp_path: Path) -> None:
    path = tmp_path / "a.lock"

    with held(path) as process:
        process.kill()
        process.wait()

        assert not is_held(path)
        # Looking changes nothing.
        assert path.exists()
        with exclusive(path):
            pass


def test_whoever_waits_is_asked_and_gets_in(tmp_path: Path) -> None:
    path = tmp_path / "a.lock"
    asked: list[bool] = []

    with held(path) as process:

        def waiting() -> None:
            asked.append(True)
            process.communicate()

        with exclusive(path, waiting=waiting):
            pass

    assert asked


def test_whoever_gives_up_waiting_leaves_the_lock_alone(tmp_path: Path) -> None:
    path = tmp_path / "a.lock"

    def give_up() -> None:
        raise KeyboardInterrupt

    with held(path) as process:
        with pytest.raises(KeyboardInterrupt), exclusive(path, waiting=give_up):
            pass
        assert is_held(path)
        process.communicate()


def test_never_two_at_once(tmp_path: Path) -> None:
    file = tmp_path / "count"
    file.write_text("0")

    processes = [start(COUNT, tmp_path / "a.lock", file) for _ in range(4)]
    ends = [process.wait(timeout=60) for process in processes]
    for process in processes:
        process.communicate()

    assert ends == [0] * 4
    assert file.read_text() == "160"


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    with pytest.raises(Refused), exclusive(tmp_path / "file" / "a.lock"):
        pass
