from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wizard_edge.errors import UsageError
from wizard_edge.names import BlobId, CommitId, ModelName, RelPath, RepoId, Sha256
from wizard_edge.paths import place

HOSTILE = [
    "",
    ".",
    "..",
    "../x",
    "a/../b",
    "/abs",
    "a//b",
    "a/",
    "C:\\x",
    "C:x",
    "\\\\host\\share",
    "a\\b",
    "a\0b",
    "a\nb",
    "x" * 300,
    ".hidden",
    "-rf",
    "con",
    "aux.txt",
    "a/nul",
    "lpt1.gguf",
    "a ",
    "a.",
    "\u202ea",
    "a\u2028b",
    "\x1b[2J",
    "a:stream",
    "a*",
    'a"b',
    "\ud800",
]


@pytest.mark.parametrize("text", HOSTILE, ids=ascii)
def test_hostile_names_are_no_paths(text: str) -> None:
    with pytest.raises(UsageError):
        RelPath.parse(text)


@pytest.mark.parametrize("text", HOSTILE, ids=ascii)
@pytest.mark.parametrize("kind", [Sha256, CommitId, BlobId, RepoId, ModelName])
def test_hostile_names_are_nothing_else_either(
    text: str, kind: type[Sha256 | CommitId | BlobId | RepoId | ModelName]
) -> None:
    with pytest.raises(UsageError):
        kind.parse(text)


@pytest.mark.parametrize("value", [None, 7, b"abc", ["x"]], ids=repr)
def test_what_is_no_text_is_refused(value: object) -> None:
    with pytest.raises(UsageError):
        Sha256.parse(value)


def test_good_names_pass() -> None:
    assert Sha256.parse("0" * 64) == "0" * 64
    assert CommitId.parse("a1" * 20) == "a1" * 20
    assert BlobId.parse("a1" * 20) == "a1" * 20
    assert RepoId.parse("TheBloke/WizardLM-13B-V1.2-GGUF").count("/") == 1
    assert ModelName.parse("wizardlm-13b-v1.2") == "wizardlm-13b-v1.2"
    assert RelPath.parse("a b/Ünïcode-Q4_K_M.gguf")


def test_upper_case_hex_is_no_hash() -> None:
    with pytest.raises(UsageError, match="64 lower-case hex"):
        Sha256.parse("A" * 64)


def test_a_long_value_is_shown_shortened() -> None:
    with pytest.raises(UsageError) as caught:
        Sha256.parse("x" * 10_000)

    assert len(caught.value.message) < 200


@given(st.text())
def test_a_path_that_parses_stays_inside(text: str) -> None:
    from pathlib import Path

    root = Path("/store/models")
    try:
        path = place(root, RelPath.parse(text))
    except UsageError:
        return
    assert root in path.parents
    assert ".." not in path.parts
