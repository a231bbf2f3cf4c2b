"""A GGUF file comes into the store whole, once, and with all that is known of it."""

from __future__ import annotations

from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import pytest

from tests.gguf_files import GgufFile, small_llama, string, u16, u32
from tests.service.fakes import an_installation, tree
from tests.test_gguf_parts import COUNT, LETTERED, NUMBERED, cut, parts, write_parts
from wizard_edge import __version__
from wizard_edge.errors import (
    CannotConvert,
    Corrupt,
    MissingFile,
    NotEnough,
    UnknownQuant,
    UsageError,
    WizardEdgeError,
)
from wizard_edge.gguf import KEY_LICENSES, KEY_TEMPLATE
from wizard_edge.gguf_rules import UnsupportedArchitecture
from wizard_edge.names import CommitId, ModelName, RelPath, RepoId, Sha256
from wizard_edge.progress import ProgressEvent
from wizard_edge.receipts import Origin, Receipt, StoredFile
from wizard_edge.service.consent import record
from wizard_edge.service.imports import import_file
from wizard_edge.service.installation import Installation
from wizard_edge.service.stored import Stored

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def digest(content: bytes) -> Sha256:
    return Sha256.parse(sha256(content).hexdigest())


def knowing(tmp_path: Path, variants: str = "Q2_K = {}") -> Installation:
    """Return an installation whose user added a model, and accepted its licence."""
    installation = an_installation(tmp_path)
    installation.config_dir.mkdir()
    (installation.config_dir / "models.toml").write_text(
        f"""
schema = 1
[models."wizard-7b"]
architecture = "llama"
template = "alpaca"
licenses = ["llama2"]
[models."wizard-7b".shape]
layers = 1
hidden = 8
ffn = 16
heads = 2
kv_heads = 1
vocabulary = 264
[models."wizard-7b".gguf]
repo = "quants/Wizard-7B-GGUF"
revision = "{COMMIT}"
file = "w.{{quant}}.gguf"
[models."wizard-7b".variants]
{variants}
"""
    )
    record(installation, [installation.registry.license("llama2")], "flag")
    return installation


def test_a_file_becomes_a_model_with_its_whole_receipt(tmp_path: Path) -> None:
    installation = an_installation(tmp_path)
    model = small_llama().set(KEY_TEMPLATE, string("vicuna"))
    model.set(KEY_LICENSES, string("llama2 apache-2.0"))
    path = model.set("general.file_type", u32(7)).write(tmp_path / "My Model.Q8_0.gguf")
    content = path.read_bytes()

    result = import_file(installation, path)

    assert result.path == tmp_path / "home/models/my-model/my-model.Q8_0.gguf"
    assert result.path.read_bytes() == path.read_bytes() == content
    assert result.receipt == Receipt(
        model=ModelName.parse("my-model"),
        quant="Q8_0",
        files=(
            StoredFile(
                RelPath.parse("my-model.Q8_0.gguf"), len(content), digest(content)
            ),
        ),
        origin=Origin("local"),
        licenses=("llama2", "apache-2.0"),
        template="vicuna",
        architecture="llama",
        context=64,
        parameters=result.receipt.parameters,
        tool=f"wizard-edge {__version__}",
        created="2026-01-02T03:04:05Z",
    )
    assert installation.store.installed()[0].receipt == result.receipt
    assert tree(installation.home.partial) == []


def test_options_go_over_what_the_file_says(tmp_path: Path) -> None:
    path = small_llama().set(KEY_TEMPLATE, string("vicuna")).write(tmp_path / "m.gguf")

    receipt = import_file(
        an_installation(tmp_path),
        path,
        name="mine",
        template="alpaca",
        licenses=["mit", "own-licence"],
    ).receipt

    assert (receipt.model, receipt.template) == ("mine", "alpaca")
    assert receipt.licenses == ("mit", "own-licence")


def test_without_anybody_saying_nothing_is_made_up(tmp_path: Path) -> None:
    path = small_llama().set(KEY_TEMPLATE, string("strange")).write(tmp_path / "m.gguf")

    receipt = import_file(an_installation(tmp_path), path).receipt

    assert (receipt.template, receipt.licenses, receipt.quant) == (None, (), "F32")


@pytest.mark.parametrize(
    ("name", "model", "quant"),
    [
        ("m.Q4_K_M.gguf", "m", "Q4_K_M"),
        ("M-q5_0.gguf", "m", "Q5_0"),
        ("a b.IQ2_XXS.gguf", "a-b", "IQ2_XXS"),
    ],
)
def test_the_name_says_what_the_header_does_not(
    name: str, model: str, quant: str, tmp_path: Path
) -> None:
    path = small_llama().drop("general.file_type").write(tmp_path / name)

    receipt = import_file(an_installation(tmp_path), path).receipt

    assert (receipt.model, receipt.quant) == (model, quant)


def test_a_file_nobody_knows_the_quant_of_is_refused(tmp_path: Path) -> None:
    path = small_llama().drop("general.file_type").write(tmp_path / "m.gguf")

    with pytest.raises(UsageError, match="does not say which quant it is"):
        import_file(an_installation(tmp_path), path)


def test_the_header_says_the_quant_before_the_name_does(tmp_path: Path) -> None:
    path = small_llama().write(tmp_path / "m.Q4_K_M.gguf")

    receipt = import_file(an_installation(tmp_path), path).receipt

    assert (receipt.model, receipt.quant) == ("m", "F32")


def test_a_file_is_recognised_by_its_hash(tmp_path: Path) -> None:
    content = small_llama().build()
    installation = knowing(tmp_path, f'Q4_0 = {{ sha256 = "{digest(content)}" }}')
    path = tmp_path / "download (3).gguf"
    path.write_bytes(content)

    receipt = import_file(installation, path).receipt

    assert (receipt.model, receipt.quant) == ("wizard-7b", "Q4_0")
    assert (receipt.template, receipt.licenses) == ("alpaca", ("llama2",))
    assert receipt.files[0].name == "wizard-7b.Q4_0.gguf"
    repo = RepoId.parse("quants/Wizard-7B-GGUF")
    assert receipt.origin == Origin("hub", repo, CommitId.parse(COMMIT))


def test_a_recognised_file_keeps_the_name_it_was_given(tmp_path: Path) -> None:
    content = small_llama().build()
    installation = knowing(tmp_path, f'Q4_0 = {{ sha256 = "{digest(content)}" }}')
    path = tmp_path / "m.gguf"
    path.write_bytes(content)

    receipt = import_file(installation, path, name="mine", template="vicuna").receipt

    assert (receipt.model, receipt.quant) == ("mine", "Q4_0")
    assert (receipt.template, receipt.licenses) == ("vicuna", ("llama2",))


def test_a_file_of_a_registered_name_is_taken_for_that_model(tmp_path: Path) -> None:
    path = small_llama().write(tmp_path / "Wizard-7B.F32.gguf")

    receipt = import_file(knowing(tmp_path), path).receipt

    assert (receipt.model, receipt.template) == ("wizard-7b", "alpaca")
    assert (receipt.licenses, receipt.origin) == (("llama2",), Origin("local"))


def test_another_model_of_a_registered_name_is_refused(tmp_path: Path) -> None:
    path = small_llama(blocks=2).write(tmp_path / "wizard-7b.gguf")
    installation = knowing(tmp_path)

    with pytest.raises(CannotConvert, match="its block_count is 2 instead of 1"):
        import_file(installation, path)

    assert import_file(installation, path, name="mine").receipt.model == "mine"


def test_what_is_installed_is_not_replaced(tmp_path: Path) -> None:
    installation = an_installation(tmp_path)
    path = small_llama().write(tmp_path / "m.gguf")
    before = import_file(installation, path)
    small_llama(width=16).write(path)

    with pytest.raises(UsageError) as caught:
        import_file(installation, path)

    assert caught.value.message == "m:F32 is in the store already"
    assert "--name" in (caught.value.hint or "")
    assert digest(before.path.read_bytes()) == before.receipt.sha256
    assert import_file(installation, path, name="other").receipt.model == "other"


def test_what_is_installed_under_its_right_name_is_found_there(
    tmp_path: Path,
) -> None:
    content = small_llama().build()
    installation = knowing(tmp_path, f'F32 = {{ sha256 = "{digest(content)}" }}')
    for name in ("a.gguf", "b.gguf"):
        (tmp_path / name).write_bytes(content)
    first = import_file(installation, tmp_path / "a.gguf")
    before = tree(installation.home.root)

    again = import_file(installation, tmp_path / "b.gguf")

    assert again == Stored(first.receipt, first.path, already=True)
    assert tree(installation.home.root) == before


def test_what_lost_its_file_is_brought_in_again(tmp_path: Path) -> None:
    installation = an_installation(tmp_path)
    path = small_llama().write(tmp_path / "m.gguf")
    first = import_file(installation, path)
    assert import_file(installation, path).already
    first.path.unlink()

    again = import_file(installation, path)

    assert (again.already, again.path.read_bytes()) == (False, path.read_bytes())


def test_parts_stay_parts(tmp_path: Path) -> None:
    installation = an_installation(tmp_path)
    given = write_parts(tmp_path, parts())

    result = import_file(installation, given[0], name="mine")

    names = [f"mine.F32-{number:05d}-of-{COUNT:05d}.gguf" for number in (1, 2, 3)]
    assert [file.name for file in result.receipt.files] == names
    folder = tmp_path / "home/models/mine"
    for name, path in zip(names, given, strict=True):
        assert (folder / name).read_bytes() == path.read_bytes()
    assert [file.sha256 for file in result.receipt.files] == [
        digest(path.read_bytes()) for path in given
    ]
    whole = import_file(installation, small_llama().write(tmp_path / "whole.gguf"))
    assert result.receipt.parameters == whole.receipt.parameters
    assert result.path == folder / names[0]
    assert installation.store.installed()[0].problem() is None


def test_a_missing_part_is_named(tmp_path: Path) -> None:
    given = write_parts(tmp_path, parts())
    given[2].unlink()

    with pytest.raises(MissingFile) as caught:
        import_file(an_installation(tmp_path), given[0])

    assert caught.value.path == str(given[2])


@pytest.mark.parametrize("names", [LETTERED, NUMBERED], ids=["a", "1of3"])
def test_pieces_are_joined(names: list[str], tmp_path: Path) -> None:
    given = cut(tmp_path, names)

    result = import_file(an_installation(tmp_path), given[1])

    content = small_llama().build()
    assert result.path == tmp_path / "home/models/m/m.F32.gguf"
    assert result.path.read_bytes() == content
    assert result.receipt.sha256 == digest(content)


def test_pieces_are_recognised_by_their_hashes(tmp_path: Path) -> None:
    given = cut(tmp_path, LETTERED)
    files = ", ".join(
        f'{{ file = "w-{n}", sha256 = "{digest(path.read_bytes())}" }}'
        for n, path in enumerate(given)
    )
    installation = knowing(
        tmp_path, f'Q6_K = {{ joined = "bytes", parts = [{files}] }}'
    )

    receipt = import_file(installation, given[0]).receipt

    assert (receipt.model, receipt.quant) == ("wizard-7b", "Q6_K")


def test_a_missing_piece_is_named(tmp_path: Path) -> None:
    given = cut(tmp_path, LETTERED)
    given[2].unlink()

    with pytest.raises(MissingFile) as caught:
        import_file(an_installation(tmp_path), given[0])

    assert caught.value.path == str(given[2])
    assert not (tmp_path / "home").exists()


def test_pieces_of_a_part_need_its_name(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf-split-a"
    small_llama().set("split.count", u16(2)).write(path)

    with pytest.raises(UsageError, match="is part 1 of 2, which its name does not say"):
        import_file(an_installation(tmp_path), path)


def write(path: Path, content: bytes) -> None:
    path.write_bytes(content)


BAD: dict[str, tuple[Callable[[Path], object], type[WizardEdgeError]]] = {
    "nothing": (lambda path: None, MissingFile),
    "a folder": (lambda path: path.mkdir(), UsageError),
    "no GGUF": (lambda path: write(path, b"just text"), Corrupt),
    "cut off": (lambda path: write(path, small_llama().build()[:-1]), Corrupt),
    "another architecture": (
        lambda path: (
            small_llama().set("general.architecture", string("mpt")).write(path)
        ),
        UnsupportedArchitecture,
    ),
    "a type for nobody": (
        lambda path: small_llama().set("general.file_type", u32(36)).write(path),
        UnknownQuant,
    ),
    "a vocabulary": (lambda path: GgufFile(small_llama().entries).write(path), Corrupt),
}


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be_run_is_refused(name: str, tmp_path: Path) -> None:
    make, error = BAD[name]
    make(tmp_path / "bad.gguf")

    with pytest.raises(error):
        import_file(an_installation(tmp_path), tmp_path / "bad.gguf")

    assert not (tmp_path / "home").exists()


def test_an_interruption_leaves_nothing(tmp_path: Path) -> None:
    installation = an_installation(tmp_path)
    path = small_llama().write(tmp_path / "m.gguf")

    def interrupt(event: ProgressEvent) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        import_file(installation, path, progress=interrupt)

    assert tree(installation.home.root) == []


def test_progress_counts_all_bytes(tmp_path: Path) -> None:
    events: list[ProgressEvent] = []
    given = write_parts(tmp_path, parts())
    total = sum(path.stat().st_size for path in given)

    import_file(an_installation(tmp_path), given[0], progress=events.append)

    assert events[-1] == ProgressEvent("import", total, total)
    assert {event.stage for event in events} == {"import"}


def test_a_full_disk_is_told_before_the_first_byte(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = small_llama().write(tmp_path / "m.gguf")
    monkeypatch.setattr("wizard_edge.part_files.free_disk", lambda path: 1000)

    with pytest.raises(NotEnough):
        import_file(an_installation(tmp_path), path)

    assert not (tmp_path / "home").exists()
