"""When a command starts again with large pages."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.child import environment
from wizard_edge.cli._huge_pages import with_huge_pages

MADVISE = "always [madvise] never\n"
GLIBC = "glibc 2.36"


def test_a_command_that_loads_a_model_asks_for_them() -> None:
    found = with_huge_pages(
        ["--home", "x", "run"], {"A": "b"}, mode=MADVISE, libc=GLIBC
    )

    assert found == {"A": "b", "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}


def test_what_is_tuned_already_stays() -> None:
    environ = {"GLIBC_TUNABLES": "glibc.malloc.check=1"}

    found = with_huge_pages(["run"], environ, mode=MADVISE, libc=GLIBC)

    assert found == {"GLIBC_TUNABLES": "glibc.malloc.check=1:glibc.malloc.hugetlb=1"}


@pytest.mark.parametrize(
    ("words", "environ", "mode", "libc"),
    [
        (["list"], {}, MADVISE, GLIBC),
        (["run", "--low-memory"], {}, MADVISE, GLIBC),
        (["run"], {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=0"}, MADVISE, GLIBC),
        (["run"], {}, "[always] madvise never", GLIBC),
        (["run"], {}, "always madvise [never]", GLIBC),
        (["run"], {}, "", GLIBC),
        (["run"], {}, MADVISE, "glibc 2.34"),
        (["run"], {}, MADVISE, ""),
    ],
    ids=[
        "no model",
        "little memory",
        "said",
        "given anyway",
        "never given",
        "no Linux",
        "old",
        "another libc",
    ],
)
def test_nothing_starts_twice_for_nothing(
    words: list[str], environ: dict[str, str], mode: str, libc: str
) -> None:
    assert with_huge_pages(words, environ, mode=mode, libc=libc) is None


def test_a_command_that_started_again_is_the_same_command(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "wizard_edge", "run", "nobody-knows-it", "Hi"]

    done = subprocess.run(
        command,
        env=environment(tmp_path),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.stderr.startswith("error: unknown model 'nobody-knows-it'")
    assert (done.stdout, done.returncode) == ("", 3)
