"""What other programs have is found, judged, and taken over without a copy."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from tests.gguf_files import small_llama, string
from tests.service.fakes import an_installation, tree
from tests.service.other_programs import (
    HUB,
    LM_STUDIO,
    MODEL,
    OLLAMA,
    blob,
    cached,
    lm_studio,
    manifest,
    ollama,
)
from tests.service.test_imports import COMMIT, digest, knowing
from tests.test_gguf_parts import parts, write_parts
from wizard_edge.errors import Corrupt, NotFound, UsageError
from wizard_edge.names import CommitId, RelPath, RepoId
from wizard_edge.receipts import Origin, Piece
from wizard_edge.service.adoption import Adoption, FoundModel, Wish, adopt, list_found
from wizard_edge.service.installation import Installation
from wizard_edge.service.models import plan_removal, remove
from wizard_edge.service.other_stores import Program
from wizard_edge.service.taking import How

CONTENT = small_llama().build()
OTHER = small_llama(width=16).build()


def adopted(
    installation: Installation, user: Path, program: Program, *names: str
) -> Adoption:
    wish = Wish(names, program=program, everything=not names)
    return adopt(installation, user, wish)


def test_everything_there_is_is_listed(tmp_path: Path) -> None:
    user = tmp_path / "user"
    in_ollama = ollama(user, CONTENT)
    in_studio = lm_studio(user, OTHER)
    cached(user, CONTENT, "sub/m.Q8_0.gguf")
    mamba = small_llama().set("general.architecture", string("mamba")).build()
    lm_studio(user, mamba, "owner/Mamba-GGUF/mamba.gguf")

    found = list_found(an_installation(tmp_path), user)

    mamba_path = user / LM_STUDIO / "owner/Mamba-GGUF/mamba.gguf"
    snapshot = user / HUB / "models--owner--Repo-GGUF/snapshots" / COMMIT
    rows = [(row.program, row.name, row.path, row.size, row.problem) for row in found]
    assert rows == [
        ("ollama", "m:latest", in_ollama, len(CONTENT), None),
        (
            "lm-studio",
            "owner/Mamba-GGUF/mamba.gguf",
            mamba_path,
            None,
            f"{mamba_path} is of the architecture 'mamba', which wizard-edge does "
            "not run",
        ),
        ("lm-studio", "owner/Repo-GGUF/m.gguf", in_studio, len(OTHER), None),
        (
            "huggingface",
            "owner/Repo-GGUF/sub/m.Q8_0.gguf",
            snapshot / "sub/m.Q8_0.gguf",
            len(CONTENT),
            None,
        ),
    ]
    assert [str(row.model) for row in found] == ["m", "None", "m", "m"]
    assert found[0].licenses == ("Some Licence",)
    assert {row.quant for row in found if row.quant} == {"F32"}
    only = list_found(an_installation(tmp_path), user, program="huggingface")
    assert only == found[-1:]


def test_nothing_is_found_where_nothing_is(tmp_path: Path) -> None:
    assert list_found(an_installation(tmp_path), tmp_path / "nobody") == []


@pytest.mark.parametrize(
    ("variable", "folder", "program"),
    [
        ("OLLAMA_MODELS", OLLAMA, "ollama"),
        ("HF_HUB_CACHE", HUB, "huggingface"),
        ("HUGGINGFACE_HUB_CACHE", HUB, "huggingface"),
        ("HF_HOME", ".cache/huggingface", "huggingface"),
        ("XDG_CACHE_HOME", ".cache", "huggingface"),
    ],
)
def test_the_environment_says_where_the_stores_are(
    variable: str, folder: str, program: Program, tmp_path: Path
) -> None:
    elsewhere = tmp_path / "elsewhere"
    ollama(elsewhere, CONTENT)
    cached(elsewhere, CONTENT)
    installation = an_installation(tmp_path, **{variable: str(elsewhere / folder)})

    found = list_found(installation, tmp_path / "user", program=program)

    assert len(found) == 1


def test_an_older_lm_studio_is_found(tmp_path: Path) -> None:
    user = tmp_path / "user"
    path = lm_studio(user, CONTENT)
    (user / ".cache/lm-studio").mkdir(parents=True)
    (user / LM_STUDIO).rename(user / ".cache/lm-studio/models")

    [found] = list_found(an_installation(tmp_path), user)

    assert found.path == user / ".cache/lm-studio/models/owner/Repo-GGUF" / path.name


@pytest.mark.parametrize("program", ["ollama", "lm-studio", "huggingface"])
@pytest.mark.parametrize("across", [False, True], ids=["same disk", "other disk"])
def test_nothing_is_copied(
    across: bool,
    program: Program,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    user = tmp_path / "user"
    theirs = {"ollama": ollama, "lm-studio": lm_studio, "huggingface": cached}[program](
        user, CONTENT
    )
    before = {path: (user / path).lstat().st_mtime_ns for path in tree(user)}
    installation = an_installation(tmp_path)

    def refuse(*names: object) -> None:
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    if across:
        monkeypatch.setattr(os, "link", refuse)
    [stored] = adopted(installation, user, program).stored

    assert stored.path.samefile(theirs)
    assert stored.path.is_symlink() == across
    assert stored.receipt.sha256 == digest(CONTENT)
    [row] = list_found(installation, user)
    assert row.installed
    assert adopted(installation, user, program).stored[0].already
    remove(installation, plan_removal(installation, ["m"]))
    assert theirs.read_bytes() == CONTENT
    assert {path: (user / path).lstat().st_mtime_ns for path in tree(user)} == before


def test_the_cache_of_the_hub_says_where_to_fetch_it_again(tmp_path: Path) -> None:
    cached(tmp_path, CONTENT, "sub/m.gguf")

    [stored] = adopted(an_installation(tmp_path), tmp_path, "huggingface").stored

    repo, commit = RepoId.parse("owner/Repo-GGUF"), CommitId.parse(COMMIT)
    path = RelPath.parse("sub/m.gguf")
    assert stored.receipt.origin == Origin("hub", repo, commit)
    assert stored.receipt.files[0].pieces == (
        Piece(len(CONTENT), digest(CONTENT), repo, commit, path),
    )


def test_licence_texts_of_the_repository_come_along(tmp_path: Path) -> None:
    cached(tmp_path, CONTENT)
    cached(tmp_path, b"the licence", "LICENSE.txt")

    [stored] = adopted(an_installation(tmp_path), tmp_path, "huggingface").stored

    assert (stored.path.parent / "LICENSE.txt").read_bytes() == b"the licence"


def test_parts_in_the_cache_are_one_model(tmp_path: Path) -> None:
    paths = write_parts(tmp_path, parts())
    blobs = [cached(tmp_path, path.read_bytes(), path.name) for path in paths]

    [stored] = adopted(an_installation(tmp_path), tmp_path, "huggingface").stored

    linked = [stored.path.parent / str(file.name) for file in stored.receipt.files]
    assert [one.samefile(two) for one, two in zip(linked, blobs, strict=True)] == [
        True
    ] * 3


def test_the_registry_knows_it_by_its_hash_before_it_is_read(tmp_path: Path) -> None:
    installation = knowing(tmp_path, f'Q4_0 = {{ sha256 = "{digest(CONTENT)}" }}')
    ollama(tmp_path, CONTENT)

    [found] = list_found(installation, tmp_path)
    [stored] = adopted(installation, tmp_path, "ollama").stored

    assert (found.model, found.quant) == ("wizard-7b", "Q4_0")
    assert (stored.receipt.model, stored.receipt.quant) == ("wizard-7b", "Q4_0")
    assert stored.receipt.licenses == ("llama2",)


@pytest.mark.parametrize(
    "name",
    ["quants/Wizard-7B-GGUF/w.Q2_K.gguf", "other/Wizard-7B-GGUF/any.gguf"],
    ids=["file", "title"],
)
def test_the_registry_knows_it_by_its_repository(name: str, tmp_path: Path) -> None:
    installation = knowing(tmp_path)
    lm_studio(tmp_path, CONTENT, name)

    [stored] = adopted(installation, tmp_path, "lm-studio").stored

    assert (stored.receipt.model, stored.receipt.template) == ("wizard-7b", "alpaca")
    assert stored.receipt.origin == Origin("local")


@pytest.mark.parametrize(
    ("manifest_name", "name", "model"),
    [
        ("registry.ollama.ai/library/m/latest", "m:latest", "m"),
        ("registry.ollama.ai/library/m/7b-q4_0", "m:7b-q4_0", "m-7b"),
        ("registry.ollama.ai/me/m/1", "me/m:1", "m-1"),
        ("hf.co/owner/Wizard-7B-GGUF/F32", "hf.co/owner/Wizard-7B-GGUF:F32", "wizard"),
    ],
)
def test_ollama_names_have_their_own_form(
    manifest_name: str, name: str, model: str, tmp_path: Path
) -> None:
    ollama(tmp_path, CONTENT, manifest_name)

    [found] = list_found(knowing(tmp_path), tmp_path)

    assert (found.name, found.problem) == (name, None)
    assert found.model is not None
    assert found.model.removesuffix("-7b") == model.removesuffix("-7b")


def test_a_blob_that_is_not_its_name_is_refused(tmp_path: Path) -> None:
    path = ollama(tmp_path, CONTENT)
    path.write_bytes(CONTENT[:-1] + b"?")
    installation = an_installation(tmp_path)

    with pytest.raises(Corrupt) as caught:
        adopted(installation, tmp_path, "ollama", "m")

    assert caught.value.path == str(path)
    assert tree(installation.home.models) == []


def test_of_everything_what_fails_is_told_at_the_end(tmp_path: Path) -> None:
    ollama(tmp_path, CONTENT, "registry.ollama.ai/library/a/latest")
    bad = ollama(tmp_path, OTHER, "registry.ollama.ai/library/b/latest")
    bad.write_bytes(OTHER[:-1] + b"?")
    blob(tmp_path / OLLAMA, b"no GGUF")
    manifest(
        tmp_path / OLLAMA,
        "registry.ollama.ai/library/c/latest",
        [{"mediaType": MODEL, "digest": f"sha256:{digest(b'no GGUF')}"}],
    )
    third = small_llama(blocks=2).build()
    ollama(tmp_path, third, "registry.ollama.ai/library/d/latest")

    adoption = adopted(an_installation(tmp_path), tmp_path, "ollama")

    assert [stored.receipt.model for stored in adoption.stored] == ["a", "d"]
    assert [failed.name for failed in adoption.failed] == ["ollama b:latest"]


def test_a_name_must_mean_one_model(tmp_path: Path) -> None:
    lm_studio(tmp_path, CONTENT, "a/R/m.gguf")
    lm_studio(tmp_path, OTHER, "b/R/m.gguf")
    installation = an_installation(tmp_path)

    with pytest.raises(UsageError) as caught:
        adopted(installation, tmp_path, "lm-studio", "m.gguf")
    with pytest.raises(NotFound):
        adopted(installation, tmp_path, "lm-studio", "n.gguf")
    with pytest.raises(UsageError):
        adopt(installation, tmp_path, Wish(everything=True, name="x"))

    assert caught.value.hint == "lm-studio a/R/m.gguf, lm-studio b/R/m.gguf"
    [stored] = adopted(installation, tmp_path, "lm-studio", "b/R").stored
    assert stored.receipt.sha256 == digest(OTHER)


def test_a_copy_is_made_where_one_is_wished(tmp_path: Path) -> None:
    theirs = ollama(tmp_path, CONTENT)
    wish = Wish(("m",), program="ollama", how=How.COPY, name="mine")

    [stored] = adopt(an_installation(tmp_path), tmp_path, wish).stored

    assert (stored.receipt.model, stored.path.samefile(theirs)) == ("mine", False)


def test_what_cannot_be_run_says_why(tmp_path: Path) -> None:
    root = tmp_path / OLLAMA
    digest_ = blob(root, CONTENT)
    model = {"mediaType": MODEL, "digest": digest_}
    adapter = {"mediaType": MODEL.replace("model", "adapter"), "digest": digest_}
    manifest(root, "registry.ollama.ai/library/adapted/latest", [model, adapter])
    manifest(root, "registry.ollama.ai/library/empty/latest", [])
    manifest(
        root,
        "registry.ollama.ai/library/gone/latest",
        [{"mediaType": MODEL, "digest": f"sha256:{'a' * 64}"}],
    )

    found = list_found(an_installation(tmp_path), tmp_path)

    def problem(row: FoundModel) -> str | None:
        return row.problem

    assert list(map(problem, found)) == [
        "it has an adapter, which this program does not apply",
        "its manifest names 0 models instead of one",
        f"{root}/blobs/sha256-{'a' * 64} leads nowhere",
    ]
