"""Whatever lies in another program's store, nothing outside it is read or written."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from hashlib import sha256
from pathlib import Path

import pytest

from tests.gguf_files import small_llama
from tests.service.fakes import an_installation
from tests.service.other_programs import (
    HUB,
    LM_STUDIO,
    MODEL,
    OLLAMA,
    cached,
    lm_studio,
    manifest,
    ollama,
)
from tests.service.test_imports import COMMIT, digest
from wizard_edge.service import walking
from wizard_edge.service.adoption import Wish, adopt, list_found
from wizard_edge.service.ollama_store import list_manifests

CONTENT = small_llama().build()
# A model that lies outside every store.
SECRET = small_llama(width=16).build()
WHERE = "registry.ollama.ai/library/m/latest"

STRINGS = [
    "",
    " ",
    ".",
    "..",
    "../..",
    "/",
    "//",
    "~",
    "~root",
    "/etc/passwd",
    "../../../etc/passwd",
    "..\\..\\secret",
    "C:\\secret",
    "\\\\host\\share",
    "file:///etc/passwd",
    "http://127.0.0.1/",
    "sha256:",
    "sha256-",
    "sha256:..",
    "sha256:../secret.gguf",
    "sha256:../../../secret.gguf",
    "sha256-../../../secret.gguf",
    f"sha256:{'a' * 63}",
    f"sha256:{'a' * 65}",
    f"sha256:{'A' * 64}",
    f"sha256:{'g' * 64}",
    f"sha256:{'a' * 64}/../../../../secret.gguf",
    f"sha256:{'a' * 64}\x00",
    f"sha256:{'a' * 64}\n",
    f" sha256:{'a' * 64}",
    f"sha512:{'a' * 128}",
    f"md5:{'a' * 32}",
    f"sha256:sha256:{'a' * 64}",
    f"{'a' * 64}",
    "\x00",
    "\n",
    "\x1b[2J\x1b]0;title\x07",
    "‮gpj.exe",
    "％2e％2e",
    "%2e%2e%2f",
    "con",
    "NUL",
    "a" * 300,
    "a" * 60_000,
    "-rf",
    "$(id)",
    "`id`",
    "{0}",
    "%s%n",
    "\ud800",
    "ﬁ",
]
VALUES: list[object] = [
    *STRINGS,
    None,
    True,
    0,
    -1,
    1e308,
    10**400,
    [],
    {},
    [[]],
    {"a": {"b": {}}},
]


def hashed(folder: Path) -> dict[str, str]:
    """Hash everything below a folder, the kinds and the targets of links included."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.is_symlink():
            content = os.fsencode(path.readlink())
        elif path.is_file():
            content = path.read_bytes()
        else:
            content = b"folder or else"
        found[str(path.relative_to(folder))] = sha256(content).hexdigest()
    return found


def attack(tmp_path: Path, user: Path) -> None:
    """List and adopt all there is; see that nothing else was touched, or got in."""
    (tmp_path / "secret.gguf").write_bytes(SECRET)
    before = hashed(tmp_path)
    installation = an_installation(tmp_path)

    found = list_found(installation, user)
    assert hashed(tmp_path) == before
    adoption = adopt(installation, user, Wish(everything=True))

    after = hashed(tmp_path)
    assert {key: after[key] for key in before} == before
    assert all(key.split("/")[0] == "home" for key in after.keys() - before.keys())
    secret = digest(SECRET)
    assert all(stored.receipt.sha256 != secret for stored in adoption.stored)
    assert len(adoption.stored) <= sum(row.problem is None for row in found)


def write(user: Path, content: object, model: str = "m") -> None:
    path = user / OLLAMA / f"manifests/registry.ollama.ai/library/{model}/latest"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


@pytest.mark.parametrize("key", ["digest", "mediaType", "layer", "layers", "all"])
def test_no_value_in_a_manifest_leads_out(key: str, tmp_path: Path) -> None:
    user = tmp_path / "user"
    for number, value in enumerate(VALUES):
        layer: object = {"mediaType": MODEL, "digest": f"sha256:{digest(CONTENT)}"}
        if key in ("digest", "mediaType"):
            assert isinstance(layer, dict)
            layer = {**layer, key: value}
        layers = value if key == "layers" else [value if key == "layer" else layer]
        content = value if key == "all" else {"layers": layers}
        write(user, content, f"m{number}")

    attack(tmp_path, user)

    found = list(list_manifests((user / OLLAMA).resolve()))
    assert len(found) == len(VALUES)
    assert [item for item in found if item.problem is None] == []


@pytest.mark.parametrize("level", range(4))
def test_no_name_of_a_manifest_leads_out(level: int, tmp_path: Path) -> None:
    user = tmp_path / "user"
    taken = 0
    for name in file_names():
        names = WHERE.split("/")
        names[level] = name
        with contextlib.suppress(OSError, UnicodeError):
            ollama(user, CONTENT, "/".join(names))
            taken += 1
    assert taken > 30

    attack(tmp_path, user)


def test_no_name_in_the_other_stores_leads_out(tmp_path: Path) -> None:
    user = tmp_path / "user"
    for name in file_names():
        with contextlib.suppress(OSError, UnicodeError):
            lm_studio(user, CONTENT, f"{name}/{name}/{name}.gguf")
            cached(user, CONTENT, f"{name}.gguf", repo=f"o/{name}", commit=f"c{name}")

    attack(tmp_path, user)


def file_names() -> list[str]:
    """Return the strings as far as they can be names of files."""
    names = [text.replace("/", "_").replace("\x00", "_") for text in STRINGS]
    return [name for name in dict.fromkeys(names) if name not in ("", ".", "..")]


CONTENTS = {
    "no JSON": b"{",
    "not UTF-8": b"\xff\xfe\x00",
    "deep": b"[" * 60_000,
    "long": b" " * (64 << 10) + b"{}",
    "huge number": b'{"layers": ' + b"9" * 60_000 + b"}",
    "many layers": json.dumps({"layers": [{}] * 65}).encode(),
    "two models": json.dumps(
        {"layers": [{"mediaType": MODEL, "digest": f"sha256:{'a' * 64}"}] * 2}
    ).encode(),
    "twice the same key": b'{"layers": [], "layers": {}}',
}


@pytest.mark.parametrize("name", CONTENTS)
def test_no_manifest_breaks_the_list(name: str, tmp_path: Path) -> None:
    user = tmp_path / "user"
    write(user, {})
    path = user / OLLAMA / "manifests" / WHERE
    path.write_bytes(CONTENTS[name])

    attack(tmp_path, user)

    [found] = list_manifests((user / OLLAMA).resolve())
    assert found.problem is not None
    assert len(found.problem) < 200


def test_a_huge_manifest_is_not_read(tmp_path: Path) -> None:
    write(tmp_path, {})
    os.truncate(tmp_path / OLLAMA / "manifests" / WHERE, 1 << 40)

    [found] = list_found(an_installation(tmp_path), tmp_path)

    assert found.problem == "its manifest has more than 65536 bytes"


@pytest.mark.parametrize(
    "place",
    [
        f"{OLLAMA}/blobs/sha256-{digest(CONTENT)}",
        f"{OLLAMA}/manifests/{WHERE}",
        f"{LM_STUDIO}/o/r/studio.gguf",
        f"{HUB}/models--o--r/snapshots/{COMMIT}/cached.gguf",
        f"{HUB}/models--o--r/blobs/{digest(CONTENT)}",
    ],
)
@pytest.mark.parametrize("target", ["model", "other", "manifest", "pipe", "folder"])
def test_no_link_leads_out(place: str, target: str, tmp_path: Path) -> None:
    user = tmp_path / "user"
    ollama(user, CONTENT)
    lm_studio(user, CONTENT, "o/r/studio.gguf")
    cached(user, CONTENT, "cached.gguf", repo="o/r")
    targets = {
        "model": tmp_path / "secret.gguf",
        # Another repository of the same cache is out as well.
        "other": user / HUB / "models--o--other/secret.gguf",
        "manifest": tmp_path / "manifest",
        "pipe": tmp_path / "pipe",
        "folder": tmp_path,
    }
    targets["other"].parent.mkdir()
    targets["other"].write_bytes(SECRET)
    shutil.copy(user / OLLAMA / "manifests" / WHERE, targets["manifest"])
    os.mkfifo(targets["pipe"])
    path = user / place
    path.unlink()
    path.symlink_to(targets[target])

    attack(tmp_path, user)

    rows = list_found(an_installation(tmp_path), user)
    assert sum(row.problem is None for row in rows) == 2


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir], ids=["pipe", "folder"])
def test_what_is_no_file_is_told_and_not_waited_for(
    make: object, tmp_path: Path
) -> None:
    user = tmp_path / "user"
    path = ollama(user, CONTENT)
    path.unlink()
    assert callable(make)
    make(path)
    studio = user / LM_STUDIO / "o/r"
    studio.mkdir(parents=True)
    make(studio / "m.gguf")

    attack(tmp_path, user)


@pytest.mark.parametrize("back", ["outside", "user", "user/.."])
def test_no_folder_is_entered_through_a_link(back: str, tmp_path: Path) -> None:
    user = tmp_path / "user"
    lm_studio(tmp_path / "outside", CONTENT)
    ollama(tmp_path / "outside", CONTENT)
    cached(tmp_path / "outside", CONTENT)
    for folder in (
        f"{OLLAMA}/manifests/a/b",
        f"{OLLAMA}/manifests",
        f"{LM_STUDIO}/a/b",
        LM_STUDIO,
        f"{HUB}/models--a--b/snapshots",
        HUB,
    ):
        (user / folder).mkdir(parents=True, exist_ok=True)
        (user / folder / "models--c--d").symlink_to(tmp_path / back)
    (user / LM_STUDIO / ("d/" * 60)).mkdir(parents=True)

    attack(tmp_path, user)

    assert list_found(an_installation(tmp_path), user) == []


def test_a_folder_of_very_many_files_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(walking, "MAX_ENTRIES", 10)
    for number in range(20):
        lm_studio(tmp_path, b"", f"o/r/{number:02}.gguf")

    found = list_found(an_installation(tmp_path), tmp_path)

    assert len(found) == 8
    assert "more than 10 files" in caplog.text


def test_a_name_that_steers_a_terminal_is_told_to_do_so(tmp_path: Path) -> None:
    lm_studio(tmp_path, CONTENT, "o/r/\x1b[2J.gguf")
    manifest(tmp_path / OLLAMA, "a/b/\x1b[2J/latest", [])

    found = list_found(an_installation(tmp_path), tmp_path)

    assert [row.problem for row in found] == ["its name has control characters"] * 2
