"""A linked model takes no room, and what it leads to stays somebody else's."""

from __future__ import annotations

import errno
import os
import zlib
from pathlib import Path

import pytest

from tests.gguf_files import small_llama
from tests.service.fakes import an_installation, tree
from tests.service.test_imports import COMMIT, digest, knowing
from tests.test_gguf_parts import LETTERED, NUMBERED, cut, parts, write_parts
from wizard_edge.chunks import read_chunks
from wizard_edge.errors import Corrupt, Refused, UsageError
from wizard_edge.names import CommitId, RelPath, RepoId
from wizard_edge.progress import ProgressEvent
from wizard_edge.receipts import Piece
from wizard_edge.service.imports import import_file
from wizard_edge.service.models import list_installed, plan_removal, remove
from wizard_edge.service.pruning import plan_pruning
from wizard_edge.service.taking import How
from wizard_edge.service.verification import verify

CONTENT = small_llama().build()
REPO = RepoId.parse("quants/Wizard-7B-GGUF")


@pytest.mark.parametrize("how", [How.LINK, How.HARDLINK, How.SYMLINK])
def test_a_link_has_the_receipt_of_a_copy(how: How, tmp_path: Path) -> None:
    path = small_llama().write(tmp_path / "m.gguf")
    copied = import_file(an_installation(tmp_path / "other"), path)

    linked = import_file(an_installation(tmp_path), path, how=how)

    assert linked.receipt == copied.receipt
    assert linked.path.samefile(path)
    assert linked.path.is_symlink() == (how is How.SYMLINK)
    assert not copied.path.samefile(path)


@pytest.mark.parametrize("how", [How.HARDLINK, How.SYMLINK])
def test_removing_a_link_leaves_the_file(how: How, tmp_path: Path) -> None:
    installation = an_installation(tmp_path)
    path = small_llama().write(tmp_path / "m.gguf")
    before = path.read_bytes(), path.stat().st_mode, path.stat().st_mtime_ns
    import_file(installation, path, how=how)

    remove(installation, plan_removal(installation, ["m"]))

    assert (path.read_bytes(), path.stat().st_mode, path.stat().st_mtime_ns) == before
    assert tree(installation.home.root) == []


def test_a_link_to_a_link_leads_to_the_file(tmp_path: Path) -> None:
    path = small_llama().write(tmp_path / "blob")
    (tmp_path / "m.gguf").symlink_to(path)

    linked = import_file(
        an_installation(tmp_path), tmp_path / "m.gguf", how=How.SYMLINK
    )
    (tmp_path / "m.gguf").unlink()

    assert linked.path.readlink() == path.resolve()


def test_every_part_is_linked(tmp_path: Path) -> None:
    given = write_parts(tmp_path, parts())

    linked = import_file(an_installation(tmp_path), given[0], how=How.SYMLINK)

    stored = [linked.path.parent / str(file.name) for file in linked.receipt.files]
    assert [path.readlink() for path in stored] == given


@pytest.mark.parametrize("names", [LETTERED, NUMBERED], ids=["a", "1of3"])
def test_pieces_cannot_be_linked(names: list[str], tmp_path: Path) -> None:
    installation = an_installation(tmp_path)
    given = cut(tmp_path, names)

    with pytest.raises(UsageError) as caught:
        import_file(installation, given[0], how=How.LINK)

    assert caught.value.message == "3 pieces are joined: they can only be copied"
    assert tree(installation.home.root) == []


def test_another_file_system_takes_a_symbolic_link(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = small_llama().write(tmp_path / "m.gguf")

    def refuse(*names: object) -> None:
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", refuse)
    linked = import_file(an_installation(tmp_path), path, how=How.LINK)

    assert linked.path.is_symlink()
    with pytest.raises(Refused) as caught:
        import_file(an_installation(tmp_path), path, how=How.HARDLINK, name="hard")
    assert (caught.value.hint or "") == "--how symlink"


def test_a_file_that_is_written_meanwhile_is_not_believed(tmp_path: Path) -> None:
    installation = an_installation(tmp_path)
    path = small_llama().write(tmp_path / "m.gguf")

    def change(event: ProgressEvent) -> None:
        os.utime(path, (1, 1))

    with pytest.raises(Corrupt, match="changed while it was read"):
        import_file(installation, path, how=How.SYMLINK, progress=change)

    assert tree(installation.home.root) == []


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (Path.unlink, "m.F32.gguf is a link to {}: No such file or directory"),
        (
            lambda path: path.write_bytes(b"short"),
            f"m.F32.gguf has 5 bytes instead of {len(CONTENT)}",
        ),
    ],
    ids=["gone", "changed"],
)
def test_a_file_that_goes_away_later_is_a_problem(
    change: object, problem: str, tmp_path: Path
) -> None:
    installation = an_installation(tmp_path)
    path = small_llama().write(tmp_path / "m.gguf")
    import_file(installation, path, how=How.SYMLINK)

    assert callable(change)
    change(path)

    [model] = list_installed(installation)
    assert model.problem == problem.format(path)
    [found] = verify(installation)
    assert (found.name, found.error is None) == ("m", False)
    remove(installation, plan_removal(installation, ["m"]))
    assert tree(installation.home.root) == []


@pytest.mark.parametrize("how", [How.COPY, How.HARDLINK, How.SYMLINK])
def test_damage_of_the_same_size_is_found_where_it_lies(
    how: How, tmp_path: Path
) -> None:
    installation = an_installation(tmp_path)
    path = small_llama().write(tmp_path / "m.gguf")
    result = import_file(installation, path, how=how)
    assert [item.error for item in verify(installation)] == [None]

    with result.path.open("rb+") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"?")

    [found] = verify(installation)
    assert isinstance(found.error, Corrupt)
    assert [(item.chunk, item.offset) for item in found.damaged] == [(0, 0)]


@pytest.mark.parametrize("how", [How.HARDLINK, How.SYMLINK])
def test_a_link_frees_nothing_and_is_no_leftover(how: How, tmp_path: Path) -> None:
    installation = an_installation(tmp_path)
    path = small_llama().write(tmp_path / "m.gguf")
    import_file(installation, path, how=how)

    assert plan_pruning(installation).leftovers == ()
    removal = plan_removal(installation, ["m"])
    assert removal.size < len(CONTENT) / 2
    assert remove(installation, removal) == removal.size


@pytest.mark.parametrize("how", [How.COPY, How.HARDLINK])
def test_the_sums_of_the_chunks_lie_beside(how: How, tmp_path: Path) -> None:
    path = small_llama().write(tmp_path / "m.gguf")
    content = path.read_bytes()

    result = import_file(an_installation(tmp_path), path, how=how)

    chunks = read_chunks(result.path.with_name(f"{result.path.name}.chunks"))
    assert (chunks.sha256, chunks.grid.sizes) == (digest(content), (len(content),))
    assert list(chunks.sums) == [zlib.crc32(content)]


def test_what_the_registry_knows_can_be_fetched_again(tmp_path: Path) -> None:
    content = small_llama().build()
    installation = knowing(tmp_path, f'Q4_0 = {{ sha256 = "{digest(content)}" }}')
    path = tmp_path / "m.gguf"
    path.write_bytes(content)

    receipt = import_file(installation, path).receipt

    assert receipt.files[0].pieces == (
        Piece(
            size=len(content),
            sha256=digest(content),
            repo=REPO,
            revision=CommitId.parse(COMMIT),
            path=RelPath.parse("w.Q4_0.gguf"),
        ),
    )


def test_pieces_that_the_registry_knows_are_fetched_as_pieces(tmp_path: Path) -> None:
    given = cut(tmp_path, LETTERED)
    contents = [path.read_bytes() for path in given]
    files = ", ".join(
        f'{{ file = "w-{n}", sha256 = "{digest(content)}" }}'
        for n, content in enumerate(contents)
    )
    installation = knowing(
        tmp_path, f'Q6_K = {{ joined = "bytes", parts = [{files}] }}'
    )

    result = import_file(installation, given[0])

    sizes = [len(content) for content in contents]
    [file] = result.receipt.files
    assert [(piece.path, piece.size, piece.sha256) for piece in file.pieces] == [
        (f"w-{n}", len(content), digest(content)) for n, content in enumerate(contents)
    ]
    chunks = read_chunks(result.path.with_name(f"{result.path.name}.chunks"))
    assert list(chunks.grid.sizes) == sizes
