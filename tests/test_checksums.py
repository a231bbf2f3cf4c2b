"""SHA256SUMS is what sha256sum takes, and whatever stands in one is read safely."""

from __future__ import annotations

import os
import shutil
import subprocess
from hashlib import sha256
from pathlib import Path

import pytest

from wizard_edge.checksums import FILE, Checksums, read_checksums
from wizard_edge.errors import Corrupt, UsageError
from wizard_edge.names import RelPath, Sha256

A, B = (Sha256.parse(letter * 64) for letter in "ab")


def name(text: str) -> RelPath:
    return RelPath.parse(text)


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    sums = Checksums({name("m.gguf.part1of1"): A}, {name("m.gguf"): B})
    (tmp_path / FILE).write_bytes(sums.to_bytes())

    assert read_checksums(tmp_path) == sums
    assert (sums.whole("m.gguf"), sums.whole("m.gguf.part1of1")) == (B, A)
    assert (sums.whole("other"), sums.whole("../m.gguf")) == (None, None)


@pytest.mark.skipif(shutil.which("sha256sum") is None, reason="no sha256sum here")
def test_sha256sum_takes_it(tmp_path: Path) -> None:
    (tmp_path / "a b.part1of1").write_bytes(b"content")
    digest = Sha256.parse(sha256(b"content").hexdigest())
    sums = Checksums({name("a b.part1of1"): digest}, {name("not there"): digest})
    (tmp_path / FILE).write_bytes(sums.to_bytes())

    done = subprocess.run(
        ["sha256sum", "--strict", "-c", FILE],
        cwd=tmp_path,
        check=False,
        capture_output=True,
        text=True,
        env={**os.environ, "LC_ALL": "C"},
    )

    assert (done.stdout, done.stderr, done.returncode) == ("a b.part1of1: OK\n", "", 0)


def test_lines_of_another_form_say_nothing(tmp_path: Path) -> None:
    lines = [
        f"{A} *binary.gguf",
        f"{B}  windows.gguf\r",
        f"{A}  ../escape.gguf",
        f"{A}  /etc/passwd",
        f"\\{A}  line\\nbreak",
        f"SHA256 (bsd.gguf) = {A}",
        f"{A.upper()}  upper.gguf",
        f"{A} one-space.gguf",
        "",
        "\x00\x1b[2J",
    ]
    (tmp_path / FILE).write_bytes("\n".join(lines).encode() + b"\n\xff\xfe  x\n")

    assert read_checksums(tmp_path) == Checksums(
        {name("binary.gguf"): A, name("windows.gguf"): B}
    )


def test_no_file_says_nothing(tmp_path: Path) -> None:
    assert read_checksums(tmp_path) == Checksums()


def test_two_hashes_of_one_file_are_damage(tmp_path: Path) -> None:
    (tmp_path / FILE).write_text(f"{A}  m.gguf\n{A}  m.gguf\n{B}  m.gguf\n")

    with pytest.raises(Corrupt, match=r"has two hashes of m\.gguf"):
        read_checksums(tmp_path)


def test_a_huge_file_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / FILE).open("wb") as file:
        file.truncate(1 << 40)

    with pytest.raises(Corrupt, match="more than 1048576 bytes"):
        read_checksums(tmp_path)


@pytest.mark.skipif(os.name == "nt", reason="Windows has no named pipes here")
def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / FILE)

    with pytest.raises(UsageError, match="not a regular file"):
        read_checksums(tmp_path)
