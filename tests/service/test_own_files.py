"""A model file without a receipt may be somebody's own: nothing takes its place."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from tests.gguf_files import small_llama
from tests.service.fakes import (
    SmallConvert,
    a_checkpoint,
    a_request,
    an_installation,
    tree,
)
from wizard_edge.errors import Refused
from wizard_edge.service.conversions import convert_to_store
from wizard_edge.service.imports import import_file
from wizard_edge.service.installation import Installation
from wizard_edge.service.taking import How

FILES = ["NOTICE", "mine.F32.gguf", "mine.F32.gguf.chunks", "mine.F32.gguf.json"]


def place_of_mine(installation: Installation) -> Path:
    folder = installation.home.models / "mine"
    folder.mkdir(parents=True)
    return folder / "mine.F32.gguf"


def test_an_import_leaves_a_file_without_receipt(tmp_path: Path) -> None:
    installation = an_installation(tmp_path)
    mine = place_of_mine(installation)
    mine.write_bytes(b"years of work")
    given = small_llama().write(tmp_path / "mine.gguf")

    with pytest.raises(Refused) as caught:
        import_file(installation, given)

    assert caught.value.message == (
        f"{mine} is there without a receipt, and may be your own"
    )
    assert caught.value.hint == f"move it away, or 'wizard-edge import {mine}'"
    assert mine.read_bytes() == b"years of work"
    assert tree(installation.home.root) == ["models/mine/mine.F32.gguf"]


def test_a_conversion_leaves_a_file_without_receipt(tmp_path: Path) -> None:
    installation = an_installation(tmp_path)
    mine = place_of_mine(installation)
    mine.write_bytes(b"years of work")
    convert = SmallConvert()
    request = a_request(f"{a_checkpoint(tmp_path / 'mine')}/", "F32")

    with pytest.raises(Refused, match="without a receipt"):
        convert_to_store(
            installation, request, convert=convert, consent=lambda terms: ()
        )

    assert convert.calls == []
    assert mine.read_bytes() == b"years of work"


@pytest.mark.parametrize("how", [How.COPY, How.LINK, How.HARDLINK])
@pytest.mark.parametrize("linked", ["no", "hard", "symbolic"])
def test_a_file_in_its_own_place_comes_in_there(
    linked: str, how: How, tmp_path: Path
) -> None:
    installation = an_installation(tmp_path)
    content = small_llama().build()
    mine = place_of_mine(installation)
    other = tmp_path / "other.gguf"
    if linked == "no":
        mine.write_bytes(content)
    else:
        other.write_bytes(content)
        (mine.hardlink_to if linked == "hard" else mine.symlink_to)(other)
    before = mine.stat().st_ino

    stored = import_file(installation, mine, how=how)

    assert stored.path == mine
    assert mine.read_bytes() == content
    assert not mine.is_symlink()
    assert (mine.stat().st_ino == before) == (linked == "no" or how is not How.COPY)
    assert tree(installation.home.root) == [f"models/mine/{name}" for name in FILES]
    [item] = installation.store.installed()
    assert item.problem() is None


@pytest.mark.parametrize("early", [True, False], ids=["asked", "at the commit"])
@pytest.mark.parametrize("name", ["mine", "other"])
def test_no_link_leads_from_the_store_into_it(
    name: str, early: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where the file system has no hard links, and so takes the other kind."""
    installation = an_installation(tmp_path)
    mine = place_of_mine(installation)
    mine.write_bytes(small_llama().build())

    def unsupported(*_: object, **__: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", unsupported)
    with pytest.raises(Refused) as caught:
        import_file(
            installation, mine, name=name, how=How.SYMLINK if early else How.LINK
        )

    assert caught.value.message == (
        f"cannot make a symbolic link to {mine}: it lies in the store"
    )
    assert mine.read_bytes() == small_llama().build()
    assert tree(installation.home.root) == ["models/mine/mine.F32.gguf"]
