"""What goes out is the model, whole and checked, and comes in again as it was."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import pytest

from tests.child import environment
from tests.gguf_files import small_llama
from tests.service.fakes import an_installation, tree
from tests.service.test_import_beside import a_receipt
from tests.service.test_imports import digest
from tests.test_gguf_parts import parts, write_parts
from wizard_edge.checksums import read_checksums
from wizard_edge.errors import (
    Corrupt,
    Interrupted,
    MissingFile,
    NotEnough,
    NotFound,
    Refused,
    UnknownModel,
    UsageError,
    WizardEdgeError,
)
from wizard_edge.gguf import DEFAULT_ALIGNMENT, align
from wizard_edge.locking import Busy, exclusive
from wizard_edge.progress import ProgressEvent
from wizard_edge.receipts import Origin, Piece
from wizard_edge.service.exports import export_model
from wizard_edge.service.imports import import_file
from wizard_edge.service.installation import Installation
from wizard_edge.service.taking import How

CONTENT = small_llama().build()
SIZE = len(CONTENT)
NAME = "carried.Q4_0.gguf"
PIECES = [f"{NAME}.part{number}of3" for number in (1, 2, 3)]
THIRD = -(-SIZE // 3)
# Up to the data of the tensors.
HEADER = align(len(small_llama().header()[0]), DEFAULT_ALIGNMENT)


def a_model(tmp_path: Path, how: How = How.COPY) -> Installation:
    """Install a model with a full receipt and two texts beside it."""
    stick = tmp_path / "origin"
    stick.mkdir()
    small_llama().write(stick / "m.gguf")
    (stick / "m.gguf.json").write_bytes(a_receipt().to_bytes())
    installation = an_installation(tmp_path)
    folder = import_file(installation, stick, how=how).path.parent
    (folder / "NOTICE").write_text("notice\n")
    (folder / "LICENSE.txt").write_text("licence\n")
    return installation


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def hashes(folder: Path) -> dict[str, str]:
    return {
        path.name: sha256(path.read_bytes()).hexdigest()
        for path in folder.iterdir()
        if path.name != "SHA256SUMS"
    }


@pytest.mark.parametrize("split", [None, THIRD], ids=["whole", "split"])
def test_everything_lies_in_the_folder(split: int | None, tmp_path: Path) -> None:
    installation = a_model(tmp_path)
    events: list[ProgressEvent] = []

    exported = export_model(
        installation, "carried", tmp_path / "a/b", split=split, progress=events.append
    )

    files = PIECES if split else [NAME]
    names = [*files, "LICENSE.txt", "NOTICE", f"{NAME}.json"]
    assert [file.name for file in exported.files] == names
    assert tree(exported.folder) == sorted([*names, "SHA256SUMS"])
    assert b"".join((exported.folder / name).read_bytes() for name in files) == CONTENT
    sums = read_checksums(exported.folder)
    assert sums.files == hashes(exported.folder)
    assert sums.whole(NAME) == digest(CONTENT)
    assert events[-1] == ProgressEvent("export", SIZE, SIZE)


@pytest.mark.skipif(shutil.which("sha256sum") is None, reason="no sha256sum here")
def test_sha256sum_finds_it_right(tmp_path: Path) -> None:
    folder = export_model(
        a_model(tmp_path), "carried", tmp_path / "d", split=THIRD
    ).folder

    subprocess.run(
        ["sha256sum", "--strict", "--quiet", "-c", "SHA256SUMS"], cwd=folder, check=True
    )


@pytest.mark.parametrize("split", [None, THIRD, HEADER], ids=["whole", "3", "header"])
def test_it_comes_in_again_as_it_was(split: int | None, tmp_path: Path) -> None:
    installation = a_model(tmp_path)
    before = installation.store.installed()[0]
    folder = tmp_path / "stick"
    export_model(installation, "carried:Q4_0", folder, split=split)

    other = an_installation(tmp_path / "other")
    result = import_file(other, folder)

    assert result.path.read_bytes() == CONTENT
    assert result.receipt == before.receipt
    sums = before.sums_path(before.receipt.files[0])
    assert (result.path.parent / sums.name).read_bytes() == sums.read_bytes()


def test_a_signed_link_stays_here(tmp_path: Path) -> None:
    """Neither the receipt nor the NOTICE hands a token out."""
    signed = "https://example.org/m.gguf?X-Amz-Signature=secret#secret"
    stick = tmp_path / "origin"
    stick.mkdir()
    small_llama().write(stick / "m.gguf")
    [file] = a_receipt().files
    receipt = a_receipt(
        files=(replace(file, pieces=(Piece(SIZE, url=signed),)),),
        origin=Origin("url", url=signed),
    )
    (stick / "m.gguf.json").write_bytes(receipt.to_bytes())
    installation = an_installation(tmp_path)
    before = import_file(installation, stick).receipt

    folder = export_model(installation, "carried", tmp_path / "stick").folder

    assert not any(b"secret" in text for text in content(folder).values())
    assert b"from https://example.org/m.gguf\n" in content(folder)["NOTICE"]
    after = import_file(an_installation(tmp_path / "other"), folder).receipt
    assert after.origin == Origin("url", url="https://example.org/m.gguf")
    assert after.files[0].pieces[0].url == "https://example.org/m.gguf"
    # What is here can still be fetched again.
    assert before.files[0].pieces[0].url == signed


def test_texts_come_in_again_and_the_notice_is_written_anew(tmp_path: Path) -> None:
    """A NOTICE of theirs has another name by then, and SHA256SUMS has both."""
    installation = a_model(tmp_path)
    beside = installation.store.installed()[0].folder
    (beside / "NOTICE.original").write_text("theirs\n")
    folder = export_model(installation, "carried", tmp_path / "stick").folder

    result = import_file(an_installation(tmp_path / "other"), folder)

    there = result.path.parent
    assert (there / "NOTICE.original").read_text() == "theirs\n"
    assert (there / "LICENSE.txt").read_text() == "licence\n"
    assert (there / "NOTICE").read_text().startswith("carried\n")


@pytest.mark.parametrize("name", ["LICENSE.txt", "NOTICE.original"])
def test_a_text_that_is_another_by_now_is_refused(name: str, tmp_path: Path) -> None:
    installation = a_model(tmp_path)
    beside = installation.store.installed()[0].folder
    (beside / "NOTICE.original").write_text("theirs\n")
    folder = export_model(installation, "carried", tmp_path / "stick").folder
    (folder / name).write_text("forged\n")

    with pytest.raises(Corrupt) as caught:
        import_file(an_installation(tmp_path / "other"), folder)

    assert caught.value.message.startswith(f"{folder / name} is damaged: ")


def test_pieces_smaller_than_the_header_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        export_model(a_model(tmp_path), "carried", tmp_path / "stick", split=HEADER - 1)

    assert caught.value.hint == f"--split {HEADER} or more"
    assert not (tmp_path / "stick").exists()


def test_parts_of_a_split_model_are_cut_as_well(tmp_path: Path) -> None:
    installation = an_installation(tmp_path)
    given = write_parts(tmp_path, parts())
    before = import_file(installation, given[0])
    largest = max(file.size for file in before.receipt.files)
    folder = tmp_path / "stick"
    # The header of a model must lie in its first piece.
    export_model(installation, "model", folder, split=largest - 1)

    result = import_file(an_installation(tmp_path / "other"), folder)

    assert len(list(folder.glob("*part*"))) == 2
    assert result.receipt == before.receipt


def test_a_linked_model_goes_out_with_its_bytes(tmp_path: Path) -> None:
    installation = a_model(tmp_path, How.SYMLINK)

    exported = export_model(installation, "carried", tmp_path / "stick")

    path = exported.folder / NAME
    assert (path.is_symlink(), path.read_bytes()) == (False, CONTENT)


def test_a_second_run_keeps_what_is_there(tmp_path: Path) -> None:
    installation = a_model(tmp_path)
    folder = tmp_path / "stick"
    export_model(installation, "carried", folder, split=THIRD)
    times = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}

    again = export_model(installation, "carried", folder, split=THIRD)

    assert all(file.kept for file in again.files)
    assert {path.name: path.stat().st_mtime_ns for path in folder.iterdir()} == times


def test_an_interrupted_export_goes_on(tmp_path: Path) -> None:
    installation = a_model(tmp_path)
    folder = tmp_path / "stick"

    def interrupt(event: ProgressEvent) -> None:
        if event.done > THIRD:
            raise KeyboardInterrupt

    with pytest.raises(Interrupted) as caught:
        export_model(installation, "carried", folder, split=THIRD, progress=interrupt)

    assert caught.value.hint == "the same command goes on where this one ended"
    assert tree(folder) == [PIECES[0]]
    again = export_model(installation, "carried", folder, split=THIRD)
    assert [file.kept for file in again.files[:3]] == [True, False, False]


@pytest.mark.parametrize("split", [None, THIRD], ids=["whole", "split"])
def test_of_a_damaged_model_nothing_is_left(split: int | None, tmp_path: Path) -> None:
    installation = a_model(tmp_path)
    path = installation.store.installed()[0].path
    path.write_bytes(CONTENT[:-1] + b"?")

    with pytest.raises(Corrupt) as caught:
        export_model(installation, "carried", tmp_path / "stick", split=split)

    assert digest(CONTENT) in caught.value.problem
    assert caught.value.hint == "wizard-edge verify carried:Q4_0 --repair"
    assert not (tmp_path / "stick").exists()


def test_a_damaged_model_replaces_nothing(tmp_path: Path) -> None:
    """A right copy on a stick outlives a wrong one here, even with --overwrite."""
    installation = a_model(tmp_path)
    folder = tmp_path / "stick"
    export_model(installation, "carried", folder, split=THIRD)
    before = content(folder)
    path = installation.store.installed()[0].path
    path.write_bytes(CONTENT[:-1] + b"?")

    with pytest.raises(Corrupt):
        export_model(installation, "carried", folder, split=THIRD, overwrite=True)

    assert content(folder) == before


@pytest.mark.parametrize("how", [How.COPY, How.SYMLINK])
def test_a_model_whose_file_is_gone_is_told(how: How, tmp_path: Path) -> None:
    installation = a_model(tmp_path, how)
    path = installation.store.installed()[0].path
    path.resolve().unlink()

    with pytest.raises((Corrupt, MissingFile)):
        export_model(installation, "carried", tmp_path / "stick")

    assert not (tmp_path / "stick").exists()


@pytest.mark.parametrize("name", [NAME, f"{NAME}.json", "NOTICE"])
@pytest.mark.parametrize("same_size", [True, False], ids=["same size", "other size"])
def test_other_files_are_refused_and_then_replaced(
    same_size: bool, name: str, tmp_path: Path
) -> None:
    installation = a_model(tmp_path)
    folder = tmp_path / "stick"
    export_model(installation, "carried", folder)
    right = content(folder)
    other = right[name][:-1] + b"?" + (b"" if same_size else b"?")
    (folder / name).write_bytes(other)
    before = content(folder)

    with pytest.raises(UsageError) as caught:
        export_model(installation, "carried", folder)

    assert caught.value.message == f"{folder / name} is there and something else"
    assert content(folder) == before
    export_model(installation, "carried", folder, overwrite=True)
    assert content(folder) == right


def test_a_link_on_the_stick_is_not_written_through(tmp_path: Path) -> None:
    installation = a_model(tmp_path)
    folder = tmp_path / "stick"
    folder.mkdir()
    victim = tmp_path / "victim"
    victim.write_bytes(b"theirs")
    for name in (NAME, f"{NAME}.tmp", f"{NAME}.json", "NOTICE", "SHA256SUMS"):
        (folder / name).symlink_to(victim)

    export_model(installation, "carried", folder, overwrite=True)

    assert victim.read_bytes() == b"theirs"
    assert (folder / NAME).read_bytes() == CONTENT
    assert not any(path.is_symlink() for path in folder.iterdir())


def test_two_quants_share_a_folder(tmp_path: Path) -> None:
    installation = a_model(tmp_path)
    small_llama(width=16).write(tmp_path / "other.gguf")
    import_file(installation, tmp_path / "other.gguf", name="carried")
    folder = tmp_path / "stick"

    export_model(installation, "carried:Q4_0", folder, split=THIRD)
    export_model(installation, "carried:F32", folder)

    sums = read_checksums(folder)
    assert sums.files == hashes(folder)
    assert sums.joined == {NAME: digest(CONTENT)}
    home = an_installation(tmp_path / "other")
    assert import_file(home, folder / PIECES[1]).receipt.quant == "Q4_0"
    assert import_file(home, folder / "carried.F32.gguf").receipt.quant == "F32"


def test_texts_that_changed_since_another_quant_are_written_again(
    tmp_path: Path,
) -> None:
    installation = a_model(tmp_path)
    folder = tmp_path / "stick"
    export_model(installation, "carried", folder)
    # An import adds its variant to the NOTICE.
    small_llama(width=16).write(tmp_path / "other.gguf")
    second = import_file(installation, tmp_path / "other.gguf", name="carried")
    (second.path.parent / "LICENSE.txt").write_text("a longer licence\n")

    export_model(installation, "carried:F32", folder)

    assert (folder / "NOTICE").read_text() != "notice\n"
    assert (folder / "LICENSE.txt").read_text() == "a longer licence\n"
    sums = read_checksums(folder).files
    assert sums == hashes(folder)
    assert {NAME, "carried.F32.gguf"} < set(sums)


def test_another_model_needs_a_folder_of_its_own(tmp_path: Path) -> None:
    """Each has a NOTICE, and neither speaks for the other."""
    installation = a_model(tmp_path)
    small_llama(width=16).write(tmp_path / "other.gguf")
    import_file(installation, tmp_path / "other.gguf")
    folder = tmp_path / "stick"
    export_model(installation, "carried", folder)
    before = content(folder)

    with pytest.raises(UsageError) as caught:
        export_model(installation, "other", folder)

    assert caught.value.message == f"{folder / 'NOTICE'} is there and something else"
    assert content(folder) == before


def test_sums_of_files_that_went_away_are_dropped(tmp_path: Path) -> None:
    installation = a_model(tmp_path)
    folder = tmp_path / "stick"
    export_model(installation, "carried", folder, split=THIRD)
    for name in PIECES:
        (folder / name).unlink()

    export_model(installation, "carried", folder)

    sums = read_checksums(folder)
    assert (sums.files, sums.joined) == (hashes(folder), {})


def test_a_disk_that_is_full_is_told_before_the_first_byte(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installation = a_model(tmp_path)
    monkeypatch.setattr("wizard_edge.part_files.free_disk", lambda path: SIZE)

    with pytest.raises(NotEnough):
        export_model(installation, "carried", tmp_path / "stick")

    assert not (tmp_path / "stick").exists()


def test_a_failed_export_takes_away_the_folders_it_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installation = a_model(tmp_path)
    (tmp_path / "mine").mkdir()
    monkeypatch.setattr("wizard_edge.part_files.free_disk", lambda path: SIZE)

    for folder in (tmp_path / "mine", tmp_path / "mine" / "new" / "deep"):
        with pytest.raises(NotEnough):
            export_model(installation, "carried", folder)

    assert list((tmp_path / "mine").iterdir()) == []


def test_one_export_at_a_time_into_a_folder(tmp_path: Path) -> None:
    installation = a_model(tmp_path)
    folder = tmp_path / "stick"
    folder.mkdir()

    with (
        exclusive(folder / "wizard-edge-export.lock"),
        pytest.raises(Busy),
    ):
        export_model(installation, "carried", folder)

    assert tree(folder) == []


def test_only_texts_that_are_files_go_along(tmp_path: Path) -> None:
    installation = a_model(tmp_path)
    [item] = installation.store.installed()
    (item.folder / "LICENSES").mkdir()
    (item.folder / "NOTICE.old").symlink_to(tmp_path / "nowhere")

    done = export_model(installation, "carried", tmp_path / "stick")

    assert [file.name for file in done.files] == [
        *(NAME, "LICENSE.txt", "NOTICE", f"{NAME}.json")
    ]


def test_what_is_not_installed_cannot_go_out(tmp_path: Path) -> None:
    installation = a_model(tmp_path)

    refs: dict[str, type[WizardEdgeError]] = {
        "nobody": UnknownModel,
        "carried:Q8_0": NotFound,
        "apprentice": NotFound,
        "./m.gguf": UsageError,
        "hf:a/b": UsageError,
    }
    for ref, error in refs.items():
        with pytest.raises(error):
            export_model(installation, ref, tmp_path / "stick")
    assert not (tmp_path / "stick").exists()


@pytest.mark.parametrize("by", ["option", "setting"])
def test_what_is_not_free_for_commercial_use_stays_here(
    by: str, tmp_path: Path
) -> None:
    a_model(tmp_path)
    environ = {"WIZARD_EDGE_COMMERCIAL": "yes"} if by == "setting" else {}
    option = True if by == "option" else None
    installation = an_installation(tmp_path, **environ)

    with pytest.raises(Refused) as caught:
        export_model(installation, "carried", tmp_path / "stick", commercial=option)

    assert caught.value.message == "own: commercial use unclear, take it as no"
    assert not (tmp_path / "stick").exists()


# Stops for good when so many bytes were written.
STOP = """
import os, sys
from pathlib import Path
from wizard_edge.service.exports import export_model
from wizard_edge.service.installation import open_installation
def stop(event):
    if event.done >= int(sys.argv[1]):
        print("there", flush=True)
        sys.stdin.read()
split = int(sys.argv[2])
export_model(open_installation(os.environ), "carried", Path("stick"), split=split,
             progress=stop)
"""


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGKILL")
@pytest.mark.parametrize("at", [1, THIRD + 1, 2 * THIRD + 1])
def test_a_killed_export_goes_on(at: int, tmp_path: Path) -> None:
    installation = a_model(tmp_path)
    folder = tmp_path / "stick"
    process = subprocess.Popen(
        [sys.executable, "-c", STOP, str(at), str(THIRD)],
        cwd=tmp_path,
        env=environment(tmp_path),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"there\n"
        process.send_signal(signal.SIGKILL)
    whole = [name for name in PIECES if (folder / name).exists()]
    assert whole == PIECES[: at // THIRD]

    again = export_model(installation, "carried", folder, split=THIRD)

    assert [file.name for file in again.files if file.kept] == whole
    assert read_checksums(folder).files == hashes(folder)
    # Nothing is left of the file that was being written.
    assert len(tree(folder)) == len(PIECES) + 4


LIMITED = """
import resource, runpy, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]),) * 2)
sys.argv[:2] = ["wizard-edge"]
runpy.run_module("wizard_edge", run_name="__main__")
"""


@pytest.mark.skipif(os.name == "nt", reason="Windows has no limits of this kind")
def test_a_file_system_with_small_files_is_told_how(tmp_path: Path) -> None:
    """As FAT32 refuses a file of 4 GiB."""
    a_model(tmp_path)

    def run(*more: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", LIMITED, str(THIRD), "export", "carried"]
        return subprocess.run(
            [*command, "stick", *more],
            cwd=tmp_path,
            env=environment(tmp_path),
            check=False,
            capture_output=True,
            text=True,
        )

    whole, split = run(), run("--split", str(THIRD))

    assert whole.returncode == 7
    assert "hint: --split 4G cuts the model for FAT32" in whole.stderr
    assert split.returncode == 0
    assert (
        import_file(
            an_installation(tmp_path / "other"), tmp_path / "stick"
        ).path.read_bytes()
        == CONTENT
    )
