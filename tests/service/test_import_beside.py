"""What lies beside a file is used, checked, and enough to go on after a kill."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.child import environment
from tests.gguf_files import small_llama
from tests.service.fakes import an_installation, tree
from tests.service.test_imports import digest, knowing
from tests.test_gguf_parts import NUMBERED, cut
from wizard_edge.errors import Corrupt, Interrupted, MissingFile, UsageError
from wizard_edge.names import ModelName, RelPath, RepoId
from wizard_edge.progress import ProgressEvent
from wizard_edge.receipts import Acceptance, Origin, Piece, Receipt, StoredFile
from wizard_edge.service.imports import import_file
from wizard_edge.service.pruning import plan_pruning, prune
from wizard_edge.service.taking import How

CONTENT = small_llama().build()
WHOLE = digest(CONTENT)


def a_receipt(size: int = len(CONTENT), **more: object) -> Receipt:
    fields: dict[str, object] = {
        "model": ModelName.parse("carried"),
        "quant": "Q4_0",
        "files": (
            StoredFile(
                RelPath.parse("m.gguf"),
                size,
                WHOLE,
                (
                    Piece(100, None, url="https://example.org/m.1"),
                    Piece(size - 100, None, url="https://example.org/m.2"),
                ),
            ),
        ),
        "origin": Origin("hub", RepoId.parse("some/where")),
        "licenses": ("llama2", "own"),
        "template": "alpaca",
        "architecture": "llama",
        "context": 64,
        "parameters": 1,
        "tool": "wizard-edge 0",
        "created": "2020-01-01T00:00:00Z",
        "accepted": (Acceptance("llama2", WHOLE, "2020-01-01T00:00:00Z"),),
        "quality": {"perplexity": 7.5},
        **more,
    }
    return Receipt(**fields)  # type: ignore[arg-type]  # the fields above


def exported(folder: Path, receipt: Receipt | None = None) -> list[Path]:
    """Write three pieces with their hashes, as `export` does."""
    folder.mkdir(exist_ok=True)
    paths = cut(folder, NUMBERED)
    lines = [f"{digest(path.read_bytes())}  {path.name}" for path in paths]
    lines.append(f"# {WHOLE}  m.gguf")
    if receipt is not None:
        (folder / "m.gguf.json").write_bytes(receipt.to_bytes())
        lines.append(f"{digest(receipt.to_bytes())}  m.gguf.json")
    (folder / "SHA256SUMS").write_text("\n".join(lines) + "\n")
    return paths


@pytest.mark.parametrize("given", ["", *NUMBERED], ids=["folder", "1", "2", "3"])
def test_the_receipt_beside_is_carried_over(given: str, tmp_path: Path) -> None:
    receipt = a_receipt()
    exported(tmp_path / "stick", receipt)

    result = import_file(an_installation(tmp_path), tmp_path / "stick" / given)

    found = result.receipt
    assert result.path.read_bytes() == CONTENT
    assert (found.model, found.quant, found.template) == ("carried", "Q4_0", "alpaca")
    assert found.origin == receipt.origin
    assert found.licenses == receipt.licenses
    assert found.files[0].pieces == receipt.files[0].pieces
    assert found.quality == {"perplexity": 7.5}
    assert found.accepted == ()
    assert found.created == "2026-01-02T03:04:05Z"


def test_licence_texts_are_carried_over_and_checked(tmp_path: Path) -> None:
    stick = tmp_path / "stick"
    exported(stick, a_receipt())
    (stick / "LICENSE.txt").write_text("licence")
    (stick / "NOTICE").write_text("of another machine")

    result = import_file(an_installation(tmp_path), stick)

    folder = result.path.parent
    assert (folder / "LICENSE.txt").read_text() == "licence"
    assert (folder / "NOTICE").read_text() != "of another machine"
    with (stick / "SHA256SUMS").open("a") as sums:
        sums.write(f"{digest(b'other')}  LICENSE.txt\n")
    with pytest.raises(Corrupt) as caught:
        import_file(an_installation(tmp_path / "other"), stick)
    assert caught.value.path == str(stick / "LICENSE.txt")


def test_a_registered_model_keeps_its_licences(tmp_path: Path) -> None:
    """Whatever receipt somebody put beside it."""
    model = ModelName.parse("wizard-7b")
    exported(tmp_path / "stick", a_receipt(model=model, licenses=("mit",)))

    receipt = import_file(knowing(tmp_path), tmp_path / "stick").receipt

    assert (receipt.model, receipt.licenses) == ("wizard-7b", ("llama2", "mit"))


def test_options_go_over_the_receipt(tmp_path: Path) -> None:
    exported(tmp_path / "stick", a_receipt())

    receipt = import_file(
        an_installation(tmp_path),
        tmp_path / "stick",
        name="mine",
        template="vicuna",
        licenses=["mit"],
    ).receipt

    assert (receipt.model, receipt.template) == ("mine", "vicuna")
    assert receipt.licenses == ("mit",)


@pytest.mark.parametrize("number", range(3))
def test_a_damaged_piece_is_named(number: int, tmp_path: Path) -> None:
    installation = an_installation(tmp_path)
    paths = exported(tmp_path / "stick", a_receipt())
    content = bytearray(paths[number].read_bytes())
    content[-1] ^= 1
    paths[number].write_bytes(content)

    with pytest.raises(Corrupt) as caught:
        import_file(installation, tmp_path / "stick")

    assert caught.value.path == str(paths[number])
    assert digest(bytes(content)) in caught.value.problem
    assert not tree(installation.home.models)


def test_a_piece_put_right_is_all_that_is_read_again(tmp_path: Path) -> None:
    installation = an_installation(tmp_path)
    paths = exported(tmp_path / "stick")
    right = paths[2].read_bytes()
    paths[2].write_bytes(b"?" * len(right))
    with pytest.raises(Corrupt):
        import_file(installation, paths[0])
    kept = installation.home.partial / f"import-{WHOLE}.part"
    assert kept.read_bytes() == CONTENT[: -len(right)]

    paths[2].write_bytes(right)
    # That nothing more is read of the first is seen by what it says now.
    paths[0].write_bytes(paths[0].read_bytes()[:-1] + b"?")
    result = import_file(installation, paths[0])

    assert result.path.read_bytes() == CONTENT
    assert tree(installation.home.partial) == []


@pytest.mark.parametrize("kept", [1, 200, len(CONTENT) - 60, len(CONTENT), 100_000])
@pytest.mark.parametrize("sums", [True, False], ids=["sums", "receipt"])
def test_what_was_kept_is_believed_as_far_as_it_is_right(
    sums: bool, kept: int, tmp_path: Path
) -> None:
    installation = an_installation(tmp_path)
    exported(tmp_path / "stick", a_receipt())
    if not sums:
        (tmp_path / "stick/SHA256SUMS").unlink()
    partial = installation.home.partial / f"import-{WHOLE}.part"
    partial.parent.mkdir(parents=True)
    partial.write_bytes((CONTENT + bytes(100_000))[: kept - 1] + b"?")

    result = import_file(installation, tmp_path / "stick")

    assert result.path.read_bytes() == CONTENT
    assert tree(installation.home.partial) == []


def test_a_missing_piece_is_named_and_nothing_is_touched(tmp_path: Path) -> None:
    paths = exported(tmp_path / "stick", a_receipt())
    paths[1].unlink()

    with pytest.raises(MissingFile) as caught:
        import_file(an_installation(tmp_path), tmp_path / "stick")

    assert caught.value.path == str(paths[1])
    assert not (tmp_path / "home").exists()


@pytest.mark.parametrize("how", [How.COPY, How.SYMLINK])
def test_a_file_that_is_not_what_its_sums_say_is_refused(
    how: How, tmp_path: Path
) -> None:
    installation = an_installation(tmp_path)
    path = small_llama().write(tmp_path / "m.gguf")
    (tmp_path / "SHA256SUMS").write_text(f"{'a' * 64}  m.gguf\n")

    with pytest.raises(Corrupt, match=f"its SHA-256 is {WHOLE} instead of aaaa"):
        import_file(installation, path, how=how)

    assert tree(installation.home.models) == []


def test_a_receipt_that_is_not_what_the_sums_say_is_refused(tmp_path: Path) -> None:
    exported(tmp_path / "stick", a_receipt())
    receipt = tmp_path / "stick/m.gguf.json"
    receipt.write_bytes(receipt.read_bytes().replace(b"llama2", b"llama3"))

    with pytest.raises(Corrupt) as caught:
        import_file(an_installation(tmp_path), tmp_path / "stick")

    assert caught.value.path == str(receipt)


STRANGE: dict[str, Callable[[Path], object]] = {
    "no receipt": lambda path: path.write_text("{}"),
    "not JSON": lambda path: path.write_bytes(b"\xff\x00"),
    "from the future": lambda path: path.write_text(json.dumps({"schema": 99})),
    "of another file": lambda path: path.write_bytes(
        a_receipt(
            files=(StoredFile(RelPath.parse("n.gguf"), len(CONTENT), WHOLE),)
        ).to_bytes()
    ),
    "deep": lambda path: path.write_text("[" * 100_000),
}


@pytest.mark.parametrize("name", STRANGE)
def test_what_is_no_receipt_of_it_is_left_alone(name: str, tmp_path: Path) -> None:
    path = small_llama().write(tmp_path / "m.gguf")
    STRANGE[name](tmp_path / "m.gguf.json")

    receipt = import_file(an_installation(tmp_path), path).receipt

    assert (receipt.model, receipt.quant, receipt.licenses) == ("m", "F32", ())


def test_a_receipt_of_another_size_is_damage(tmp_path: Path) -> None:
    path = small_llama().write(tmp_path / "m.gguf")
    receipt = a_receipt(len(CONTENT) + 1)
    (tmp_path / "m.gguf.json").write_bytes(receipt.to_bytes())

    with pytest.raises(Corrupt, match="which its receipt says"):
        import_file(an_installation(tmp_path), path)


def test_a_folder_of_two_models_needs_a_choice(tmp_path: Path) -> None:
    exported(tmp_path / "stick")
    small_llama().write(tmp_path / "stick/n.gguf")
    (tmp_path / "stick/._m.gguf").write_bytes(b"macOS")

    with pytest.raises(UsageError) as caught:
        import_file(an_installation(tmp_path), tmp_path / "stick")

    assert caught.value.message == f"2 models in {tmp_path / 'stick'}"
    assert caught.value.hint == "m.gguf, n.gguf"


def test_an_interruption_says_that_it_can_go_on(tmp_path: Path) -> None:
    installation = an_installation(tmp_path)
    exported(tmp_path / "stick")

    def interrupt(event: ProgressEvent) -> None:
        raise KeyboardInterrupt

    with pytest.raises(Interrupted) as caught:
        import_file(installation, tmp_path / "stick", progress=interrupt)

    assert caught.value.hint == "the same command goes on where this one ended"


# Stops for good when so many bytes were written.
STOP = """
import os, sys
from pathlib import Path
from wizard_edge.service.imports import import_file
from wizard_edge.service.installation import open_installation
def stop(event):
    if event.done >= int(sys.argv[2]):
        print("there", flush=True)
        sys.stdin.read()
import_file(open_installation(os.environ), Path(sys.argv[1]), progress=stop)
"""


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGKILL")
@pytest.mark.parametrize("sums", [True, False], ids=["sums", "no sums"])
def test_a_kill_leaves_nothing_that_looks_installed(sums: bool, tmp_path: Path) -> None:
    installation = an_installation(tmp_path)
    paths = exported(tmp_path / "stick")
    if not sums:
        (tmp_path / "stick/SHA256SUMS").unlink()
    first, second = (path.stat().st_size for path in paths[:2])
    process = subprocess.Popen(
        [sys.executable, "-c", STOP, str(paths[0]), str(first + second)],
        env=environment(tmp_path),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"there\n"
        process.send_signal(signal.SIGKILL)

    assert tree(installation.home.models) == []
    assert installation.store.installed() == []
    result = import_file(installation, paths[0])
    assert (result.already, result.path.read_bytes()) == (False, CONTENT)
    left = tree(installation.home.partial)
    # Of one whose hash nobody knew the bytes and the lock are left for 'prune'.
    assert len(left) == (0 if sums else 1)
    prune(installation, plan_pruning(installation), models=False)
    assert list(installation.home.partial.iterdir()) == []


@pytest.mark.parametrize("sums", [True, False], ids=["sums", "no sums"])
def test_several_processes_import_it_once(sums: bool, tmp_path: Path) -> None:
    installation = an_installation(tmp_path)
    exported(tmp_path / "stick", a_receipt() if sums else None)
    if not sums:
        (tmp_path / "stick/SHA256SUMS").unlink()
    command = [sys.executable, "-m", "wizard_edge", "import", "stick", "--json"]
    processes = [
        subprocess.Popen(
            command,
            cwd=tmp_path,
            env=environment(tmp_path),
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        for _ in range(5)
    ]

    said = [json.loads(process.communicate()[0]) for process in processes]

    assert [process.returncode for process in processes] == [0] * 5
    assert sorted(one["already"] for one in said) == [False] + [True] * 4
    [found] = installation.store.installed()
    assert found.path.read_bytes() == CONTENT
    assert tree(installation.home.partial) == []
