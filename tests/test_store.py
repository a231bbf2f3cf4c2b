from __future__ import annotations

import logging
import mmap
import stat
import sys
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from threading import Barrier

import pytest

from wizard_edge import store as store_module
from wizard_edge.chunks import Chunks, Grid
from wizard_edge.errors import (
    ConfigError,
    Corrupt,
    NotFound,
    Refused,
    UnknownModel,
)
from wizard_edge.files import delete, sync_file
from wizard_edge.locking import Busy, is_held
from wizard_edge.names import ModelName, RelPath, Sha256
from wizard_edge.paths import Home
from wizard_edge.receipts import Origin, Receipt, StoredFile
from wizard_edge.store import Damaged, Installed, Store

NAME = ModelName.parse("small")


def a_store(tmp_path: Path) -> Store:
    return Store(Home(tmp_path / "home"))


def receipt_for(
    content: bytes,
    *,
    name: str = "small",
    quant: str = "Q8_0",
    file: str | None = None,
    created: str = "2026-01-02T03:04:05Z",
) -> Receipt:
    stored = StoredFile(
        RelPath.parse(file or f"{name}.{quant}.gguf"),
        len(content),
        Sha256.parse(sha256(content).hexdigest()),
    )
    return Receipt(
        model=ModelName.parse(name),
        quant=quant,
        files=(stored,),
        origin=Origin("bundled"),
        licenses=("apache-2.0",),
        template="vicuna",
        architecture="llama",
        context=512,
        parameters=1000,
        tool="wizard-edge 0.1.0",
        created=created,
    )


def put(store: Store, receipt: Receipt, content: bytes) -> Installed:
    with store.open_slot(receipt.model, receipt.files[0].name) as slot:
        slot.temp.write_bytes(content)
        return store.commit(receipt, [slot])


def tree(folder: Path) -> list[str]:
    """List the files below a folder; locks stay for whoever comes next."""
    return sorted(
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.is_file() and path.suffix != ".lock"
    )


def test_reading_a_store_that_is_not_there_creates_nothing(tmp_path: Path) -> None:
    store = a_store(tmp_path)

    assert store.installed() == []
    assert not store.knows(NAME)
    with pytest.raises(UnknownModel):
        store.find(NAME)
    assert list(tmp_path.iterdir()) == []


def test_an_installed_model_is_a_plain_file_with_a_receipt(tmp_path: Path) -> None:
    store = a_store(tmp_path)
    receipt = receipt_for(b"weights")

    installed = put(store, receipt, b"weights")

    assert installed.path == tmp_path / "home/models/small/small.Q8_0.gguf"
    assert installed.path.read_bytes() == b"weights"
    assert store.installed() == [installed]
    assert store.find(NAME).receipt == receipt
    assert installed.problem() is None
    assert tree(tmp_path) == [
        "home/models/small/small.Q8_0.gguf",
        "home/models/small/small.Q8_0.gguf.json",
    ]


def test_sums_and_texts_lie_beside_the_model_and_go_with_it(tmp_path: Path) -> None:
    store = a_store(tmp_path)
    receipt = receipt_for(b"weights")
    sums = Chunks(Grid([7]), receipt.sha256, [5])

    with store.open_slot(NAME, receipt.files[0].name) as slot:
        slot.temp.write_bytes(b"weights")
        installed = store.commit(
            receipt,
            [replace(slot, chunks=sums)],
            texts={RelPath.parse("NOTICE"): b"notice"},
        )

    assert tree(tmp_path) == [
        "home/models/small/NOTICE",
        "home/models/small/small.Q8_0.gguf",
        "home/models/small/small.Q8_0.gguf.chunks",
        "home/models/small/small.Q8_0.gguf.json",
    ]
    store.remove(installed)
    assert tree(tmp_path) == []


def test_a_slot_that_is_not_committed_leaves_nothing(tmp_path: Path) -> None:
    store = a_store(tmp_path)

    with store.open_slot(NAME, RelPath.parse("f[1].gguf")) as slot:
        slot.temp.write_bytes(b"half")
        slot.temp.with_name(slot.temp.name + ".part").write_bytes(b"a writer's own")

    assert tree(tmp_path) == []


def test_the_longest_name_of_a_file_has_its_slot(tmp_path: Path) -> None:
    with a_store(tmp_path).open_slot(NAME, RelPath.parse("f" * 200)) as slot:
        slot.temp.write_bytes(b"")


def test_two_slots_for_the_same_file_do_not_meet(tmp_path: Path) -> None:
    store = a_store(tmp_path)
    file = RelPath.parse("f")

    with store.open_slot(NAME, file) as one, store.open_slot(NAME, file) as two:
        assert one.temp != two.temp


def test_the_receipt_gets_its_name_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = a_store(tmp_path)
    seen: list[list[str]] = []
    replace = Path.replace

    def spy(self: Path, target: Path) -> Path:
        seen.append([path for path in tree(target.parent) if path[-4:] != ".tmp"])
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", spy)
    put(store, receipt_for(b"weights"), b"weights")

    assert seen == [[], ["small.Q8_0.gguf"]]


def test_an_old_receipt_never_stands_beside_a_new_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = a_store(tmp_path)
    put(store, receipt_for(b"old"), b"old")
    seen: list[list[str]] = []
    replace = Path.replace

    def spy(self: Path, target: Path) -> Path:
        done = replace(self, target)
        seen.append([path for path in tree(target.parent) if path[-4:] != ".tmp"])
        return done

    monkeypatch.setattr(Path, "replace", spy)
    put(store, receipt_for(b"new!"), b"new!")

    file, receipt = "small.Q8_0.gguf", "small.Q8_0.gguf.json"
    assert seen == [[file], [], [file], [file, receipt]]
    assert store.find(NAME).receipt.size == 4


def test_a_file_of_the_wrong_size_is_not_installed(tmp_path: Path) -> None:
    store = a_store(tmp_path)

    with pytest.raises(Corrupt, match="4 bytes instead of 7"):
        put(store, receipt_for(b"weights"), b"half")

    assert tree(tmp_path) == []


def test_another_file_of_the_same_quant_is_replaced(tmp_path: Path) -> None:
    store = a_store(tmp_path)
    old = put(store, receipt_for(b"old", file="Small-q8.gguf"), b"old")
    for suffix in (".chunks", ".verdict"):
        old.path.with_name(old.path.name + suffix).write_bytes(b"")

    new = put(store, receipt_for(b"new"), b"new")

    assert store.installed() == [new]
    assert tree(new.folder) == ["small.Q8_0.gguf", "small.Q8_0.gguf.json"]


@pytest.mark.parametrize("suffix", [".chunks", ".verdict"])
def test_what_was_found_of_the_old_file_does_not_outlive_it(
    suffix: str, tmp_path: Path
) -> None:
    store = a_store(tmp_path)
    old = put(store, receipt_for(b"old"), b"old")
    old.path.with_name(old.path.name + suffix).write_bytes(b"")

    new = put(store, receipt_for(b"new!"), b"new!")

    assert tree(new.folder) == ["small.Q8_0.gguf", "small.Q8_0.gguf.json"]


def test_a_split_model_comes_and_goes_as_one(tmp_path: Path) -> None:
    store = a_store(tmp_path)
    one = receipt_for(b"one", file="s-00001-of-00002.gguf")
    two = receipt_for(b"two!", file="s-00002-of-00002.gguf")
    receipt = replace(one, files=(*one.files, *two.files))

    with (
        store.open_slot(NAME, one.files[0].name) as first,
        store.open_slot(NAME, two.files[0].name) as second,
    ):
        first.temp.write_bytes(b"one")
        second.temp.write_bytes(b"two!")
        installed = store.commit(receipt, [first, second])

    assert installed.path.name == "s-00001-of-00002.gguf"
    assert installed.receipt.size == 7
    store.remove(installed)
    assert tree(tmp_path) == []


def test_models_are_listed_by_name_then_quant(tmp_path: Path) -> None:
    store = a_store(tmp_path)
    for name, quant in (("b", "Q8_0"), ("a", "Q8_0"), ("b", "F16")):
        put(store, receipt_for(b"x", name=name, quant=quant), b"x")

    found = [(item.receipt.model, item.receipt.quant) for item in store.installed()]

    assert found == [("a", "Q8_0"), ("b", "F16"), ("b", "Q8_0")]


def test_without_a_quant_the_one_installed_last_is_found(tmp_path: Path) -> None:
    store = a_store(tmp_path)
    put(store, receipt_for(b"x", quant="F16", created="2026-02-01T00:00:00Z"), b"x")
    put(store, receipt_for(b"x", quant="Q8_0", created="2026-01-01T00:00:00Z"), b"x")

    assert store.find(NAME).receipt.quant == "F16"
    assert store.find(NAME, "Q8_0").receipt.quant == "Q8_0"


def test_a_quant_that_is_not_there_names_those_that_are(tmp_path: Path) -> None:
    store = a_store(tmp_path)
    put(store, receipt_for(b"x"), b"x")

    with pytest.raises(NotFound) as caught:
        store.find(NAME, "F16")

    assert caught.value.message == "small:F16 is not installed"
    assert caught.value.hint == "installed: Q8_0; 'pull' or 'convert' brings in others"


def test_a_damaged_receipt_is_told_and_the_others_are_listed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = a_store(tmp_path)
    good = put(store, receipt_for(b"x"), b"x")
    bad = put(store, receipt_for(b"x", name="bad"), b"x")
    bad.receipt_path.write_bytes(b"{")

    with caplog.at_level(logging.WARNING):
        assert store.installed() == [good]

    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert str(bad.receipt_path) in caplog.text
    assert store.knows(ModelName.parse("bad"))
    with pytest.raises(Corrupt) as caught:
        store.find(ModelName.parse("bad"))
    assert caught.value.hint == "wizard-edge rm bad"


def test_a_whole_variant_is_found_beside_a_damaged_one(tmp_path: Path) -> None:
    store = a_store(tmp_path)
    put(store, receipt_for(b"x"), b"x")
    bad = put(store, receipt_for(b"x", quant="F16"), b"x")
    bad.receipt_path.write_bytes(b"")

    assert store.find(NAME).receipt.quant == "Q8_0"
    with pytest.raises(Corrupt):
        store.find(NAME, "F16")


def test_a_receipt_from_the_future_is_refused_by_name(tmp_path: Path) -> None:
    store = a_store(tmp_path)
    installed = put(store, receipt_for(b"x"), b"x")
    text = installed.receipt_path.read_text()
    installed.receipt_path.write_text(text.replace('"schema": 1', '"schema": 2'))

    assert store.installed() == []
    with pytest.raises(ConfigError) as caught:
        store.find(NAME)

    assert caught.value.hint == "upgrade with: pip install --upgrade wizard-edge"


def test_a_receipt_copied_to_another_model_is_damage(tmp_path: Path) -> None:
    store = a_store(tmp_path)
    installed = put(store, receipt_for(b"x"), b"x")
    installed.folder.rename(installed.folder.with_name("other"))

    with pytest.raises(Corrupt, match="belongs to model 'small'"):
        store.find(ModelName.parse("other"))


def test_a_receipt_for_another_file_is_damage(tmp_path: Path) -> None:
    store = a_store(tmp_path)
    installed = put(store, receipt_for(b"x"), b"x")
    installed.receipt_path.rename(installed.folder / "other.gguf.json")

    with pytest.raises(Corrupt, match=r"belongs to file 'small\.Q8_0\.gguf'"):
        store.find(NAME)


def test_folders_that_are_no_models_are_left_alone(tmp_path: Path) -> None:
    store = a_store(tmp_path)
    for name in (".trash", "Has Space", "com1"):
        (store.home.models / name).mkdir(parents=True)
        (store.home.models / name / "x.json").write_text("{}")
    (store.home.models / "file").write_text("")

    assert store.installed() == []


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (None, "small.Q8_0.gguf: No such file or directory"),
        (b"half", "small.Q8_0.gguf has 4 bytes instead of 7"),
    ],
    ids=["gone", "cut"],
)
def test_a_lost_or_cut_file_is_a_problem(
    tmp_path: Path, content: bytes | None, problem: str
) -> None:
    installed = put(a_store(tmp_path), receipt_for(b"weights"), b"weights")
    installed.path.unlink()
    if content is not None:
        installed.path.write_bytes(content)

    assert installed.problem() == problem


def test_removing_the_last_variant_takes_its_licence_and_folder(
    tmp_path: Path,
) -> None:
    store = a_store(tmp_path)
    first = put(store, receipt_for(b"123"), b"123")
    second = put(store, receipt_for(b"12", quant="F16"), b"12")
    (first.folder / "LICENSE.txt").write_text("text")
    (first.folder / "NOTICE").write_text("text")
    kept = first.receipt_path.stat().st_size

    assert store.remove(first) == 3 + kept
    assert tree(first.folder) == [
        "LICENSE.txt",
        "NOTICE",
        "small.F16.gguf",
        "small.F16.gguf.json",
    ]

    store.remove(second)
    assert not first.folder.exists()


def test_a_file_that_is_not_ours_stays(tmp_path: Path) -> None:
    store = a_store(tmp_path)
    installed = put(store, receipt_for(b"x"), b"x")
    (installed.folder / "notes.md").write_text("mine")

    store.remove(installed)

    assert tree(installed.folder) == ["notes.md"]


def test_folders_called_like_texts_are_not_ours(tmp_path: Path) -> None:
    store = a_store(tmp_path)
    installed = put(store, receipt_for(b"x"), b"x")
    for name in ("LICENSES", "notices.0a1b2c3d.tmp"):
        (installed.folder / name).mkdir()
        (installed.folder / name / "mine").write_text("mine")
    (installed.folder / "notes.tmp").write_text("mine")
    (installed.folder / "LICENSE").symlink_to(tmp_path / "nowhere")
    (installed.folder / "NOTICE.0a1b2c3d.tmp").write_text("half")

    store.remove(installed)

    assert tree(installed.folder) == [
        *("LICENSES/mine", "notes.tmp", "notices.0a1b2c3d.tmp/mine")
    ]
    assert not (installed.folder / "LICENSE").is_symlink()


def test_the_receipt_goes_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = a_store(tmp_path)
    installed = put(store, receipt_for(b"x"), b"x")
    deleted: list[str] = []

    def crash_after_one(path: Path) -> int:
        if deleted:
            raise KeyboardInterrupt
        deleted.append(path.name)
        return delete(path)

    monkeypatch.setattr("wizard_edge.store.delete", crash_after_one)
    with pytest.raises(KeyboardInterrupt):
        store.remove(installed)

    assert deleted == ["small.Q8_0.gguf.json"]
    assert store.installed() == []


def test_removing_what_is_half_gone_is_no_error(tmp_path: Path) -> None:
    store = a_store(tmp_path)
    installed = put(store, receipt_for(b"x"), b"x")
    installed.path.unlink()

    assert store.files(installed) == [installed.receipt_path]
    store.remove(installed)

    assert tree(tmp_path) == []


def test_a_damaged_variant_goes_with_the_file_it_is_named_after(
    tmp_path: Path,
) -> None:
    store = a_store(tmp_path)
    whole = put(store, receipt_for(b"x"), b"x")
    bad = put(store, receipt_for(b"xyz", quant="F16"), b"xyz")
    bad.receipt_path.write_bytes(b"{")

    [damaged] = [item for item in store.contents(NAME) if isinstance(item, Damaged)]

    assert store.files(damaged) == [bad.receipt_path, bad.path]
    assert store.remove(damaged) == 4
    assert tree(whole.folder) == ["small.Q8_0.gguf", "small.Q8_0.gguf.json"]
    store.remove(whole)
    assert not whole.folder.exists()


def test_installers_of_one_variant_leave_a_receipt_that_is_true(
    tmp_path: Path,
) -> None:
    store = a_store(tmp_path)
    contents = [b"one", b"another"] * 10
    filled = Barrier(len(contents))

    def install(content: bytes) -> None:
        receipt = receipt_for(content)
        with store.open_slot(NAME, receipt.files[0].name) as slot:
            slot.temp.write_bytes(content)
            filled.wait()
            store.commit(receipt, [slot])

    with ThreadPoolExecutor(len(contents)) as pool:
        list(pool.map(install, contents))

    installed = store.find(NAME)
    digest = sha256(installed.path.read_bytes()).hexdigest()
    assert installed.receipt.sha256 == digest


def test_amending_rewrites_the_receipt_and_leaves_the_file(tmp_path: Path) -> None:
    store = a_store(tmp_path)
    installed = put(store, receipt_for(b"weights"), b"weights")

    amended = store.amend(installed, lambda r: replace(r, quality={"error": 0.5}))

    assert amended.receipt == replace(installed.receipt, quality={"error": 0.5})
    assert store.find(NAME) == amended
    assert installed.path.read_bytes() == b"weights"
    assert tree(installed.folder) == ["small.Q8_0.gguf", "small.Q8_0.gguf.json"]


def test_amending_builds_on_what_the_receipt_says_by_now(tmp_path: Path) -> None:
    store = a_store(tmp_path)
    installed = put(store, receipt_for(b"x"), b"x")

    def add(name: str) -> None:
        store.amend(
            installed, lambda r: replace(r, quality={**(r.quality or {}), name: 1})
        )

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(add, "abcdefgh"))

    assert set(store.find(NAME).receipt.quality or {}) == set("abcdefgh")


@pytest.mark.parametrize("content", [None, b"other"], ids=["removed", "replaced"])
def test_figures_of_a_file_that_is_gone_are_not_written(
    tmp_path: Path, content: bytes | None
) -> None:
    store = a_store(tmp_path)
    old = put(store, receipt_for(b"x"), b"x")
    if content is None:
        store.remove(old)
    else:
        put(store, receipt_for(content), content)

    with pytest.raises(NotFound) as caught:
        store.amend(old, lambda r: replace(r, quality={"error": 0.5}))

    assert caught.value.message == "small:Q8_0 was removed or replaced meanwhile"
    assert [item.receipt.quality for item in store.installed()] == [None] * bool(
        content
    )


def test_amending_makes_no_other_model_of_it(tmp_path: Path) -> None:
    store = a_store(tmp_path)
    installed = put(store, receipt_for(b"x"), b"x")

    with pytest.raises(ValueError, match="another model of small"):
        store.amend(installed, lambda r: replace(r, quant="F16"))

    assert store.find(NAME) == installed


def test_removing_waits_for_an_installer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = a_store(tmp_path)
    installed = put(store, receipt_for(b"old"), b"old")
    locks = []
    sync = sync_file

    with ThreadPoolExecutor(1) as pool:

        def remove_meanwhile(path: Path) -> None:
            removal = pool.submit(store.remove, installed)
            locks.append((removal, wait([removal], timeout=0.2).done))
            sync(path)

        monkeypatch.setattr(store_module, "sync_file", remove_meanwhile)
        put(store, receipt_for(b"new"), b"new")

    [(removal, done)] = locks
    assert done == set()
    with pytest.raises(NotFound, match="small:Q8_0 was removed or replaced meanwhile"):
        removal.result()
    assert tree(installed.folder) == ["small.Q8_0.gguf", "small.Q8_0.gguf.json"]
    assert store.find(NAME).receipt == receipt_for(b"new")


def test_a_damaged_variant_that_was_mended_meanwhile_stays(tmp_path: Path) -> None:
    store = a_store(tmp_path)
    item = put(store, receipt_for(b"x"), b"x")
    item.receipt_path.write_bytes(b"{")
    [damaged] = store.contents(NAME)
    put(store, receipt_for(b"x"), b"x")

    with pytest.raises(NotFound) as caught:
        store.remove(damaged)

    assert caught.value.message == (
        "small.Q8_0.gguf.json was removed or replaced meanwhile"
    )
    assert store.installed() == [item]


def test_what_was_measured_meanwhile_keeps_nobody_from_removing(
    tmp_path: Path,
) -> None:
    store = a_store(tmp_path)
    item = put(store, receipt_for(b"x"), b"x")
    store.amend(item, lambda r: replace(r, quality={"error": 0.5}))

    store.remove(item)

    assert tree(tmp_path) == []


@pytest.mark.skipif(sys.platform == "win32", reason="no such permissions")
def test_locks_lie_where_only_their_owner_looks(tmp_path: Path) -> None:
    store = a_store(tmp_path)

    with store.changing(NAME):
        assert [path.name for path in store.home.run.iterdir()] == ["small.lock"]
        with pytest.raises(Busy), store.changing(NAME, wait=False):
            pass

    assert list(store.home.run.iterdir()) == []
    assert stat.S_IMODE(store.home.run.stat().st_mode) == 0o700


def test_a_slot_says_that_somebody_is_at_it(tmp_path: Path) -> None:
    store = a_store(tmp_path)

    with store.open_slot(NAME, RelPath.parse("f.gguf")) as slot:
        assert is_held(slot.temp.with_suffix(".lock"))

    assert list(store.home.partial.iterdir()) == []


def test_a_model_that_is_open_can_be_removed_and_read_on(tmp_path: Path) -> None:
    store = a_store(tmp_path)
    content = b"weights" * 10_000
    installed = put(store, receipt_for(content), content)

    with (
        installed.path.open("rb") as file,
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped,
    ):
        store.remove(installed)

        assert not installed.path.exists()
        assert mapped[:] == content


def test_a_file_the_system_will_not_delete_is_out_of_the_list(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As Windows refuses it for a file that is open."""
    store = a_store(tmp_path)
    installed = put(store, receipt_for(b"x"), b"x")
    unlink = Path.unlink

    def in_use(self: Path, missing_ok: bool = False) -> None:
        if self.suffix == ".gguf":
            raise PermissionError(13, "in use by another process")
        unlink(self, missing_ok)

    monkeypatch.setattr(Path, "unlink", in_use)
    with pytest.raises(Refused) as caught:
        store.remove(installed)

    assert caught.value.message == (
        f"cannot delete {installed.path}: in use by another process"
    )
    assert caught.value.hint == (
        "it is out of the list; close what has the file open, then 'wizard-edge prune'"
    )
    assert store.installed() == []


def test_the_last_use_is_noted_beside_the_model_and_goes_with_it(
    tmp_path: Path,
) -> None:
    store = a_store(tmp_path)
    installed = put(store, receipt_for(b"x"), b"x")
    before = installed.last_used()

    store.mark_used(installed, 1000.0)
    store.mark_used(installed, 2000.0)

    assert (before, installed.last_used()) == (None, 2000.0)
    assert tree(installed.folder) == [
        *("small.Q8_0.gguf", "small.Q8_0.gguf.json", "small.Q8_0.gguf.used")
    ]
    other = put(store, receipt_for(b"x", quant="F16"), b"x")
    store.remove(installed)
    store.mark_used(installed, 3000.0)
    assert tree(other.folder) == ["small.F16.gguf", "small.F16.gguf.json"]


def test_a_right_copy_takes_the_place_of_a_damaged_file(tmp_path: Path) -> None:
    store = a_store(tmp_path)
    installed = put(store, receipt_for(b"weights"), b"weights")
    [file] = installed.receipt.files
    installed.path.write_bytes(b"wei_hts")

    with installed.path.open("rb") as reader:
        with store.open_slot(NAME, file.name) as slot:
            slot.temp.write_bytes(b"weights")
            store.replace(installed, file, slot.temp)

        assert reader.read() == b"wei_hts"
    assert installed.path.read_bytes() == b"weights"
    assert store.find(NAME) == installed


def test_a_copy_of_a_model_that_was_replaced_is_not_put_in_place(
    tmp_path: Path,
) -> None:
    store = a_store(tmp_path)
    old = put(store, receipt_for(b"old"), b"old")
    new = put(store, receipt_for(b"new!"), b"new!")
    [file] = old.receipt.files
    sums = Chunks(Grid([3]), file.sha256, [5])

    with store.open_slot(NAME, file.name) as slot:
        slot.temp.write_bytes(b"old")
        with pytest.raises(NotFound):
            store.replace(old, file, slot.temp)
    with pytest.raises(NotFound):
        store.write_sums(old, file, sums)

    assert new.path.read_bytes() == b"new!"
    assert tree(new.folder) == ["small.Q8_0.gguf", "small.Q8_0.gguf.json"]


def test_everything_has_what_is_damaged_too(tmp_path: Path) -> None:
    store = a_store(tmp_path)
    whole = put(store, receipt_for(b"x", name="b"), b"x")
    bad = put(store, receipt_for(b"x", name="a"), b"x")
    bad.receipt_path.write_bytes(b"{")

    found = store.everything()

    assert [item.receipt_path for item in found] == [
        *(bad.receipt_path, whole.receipt_path)
    ]
    assert isinstance(found[0], Damaged)


def test_a_file_where_the_store_should_be_refuses(tmp_path: Path) -> None:
    (tmp_path / "home").write_text("")

    with (
        pytest.raises(Refused, match="cannot use"),
        a_store(tmp_path).open_slot(NAME, RelPath.parse("f")),
    ):
        pass


@pytest.mark.skipif(sys.platform == "win32", reason="no such permissions")
def test_a_store_that_may_not_be_written_refuses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = a_store(tmp_path)

    # Root may write anywhere, so the refusal is played.
    def closed(self: Path, *_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "mkdir", closed)
    with (
        pytest.raises(Refused, match="Permission denied"),
        store.open_slot(NAME, RelPath.parse("f")),
    ):
        pass
