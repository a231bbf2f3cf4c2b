from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.service.fakes import an_installation
from tests.stores import CONTENT, install, receipt_of, tree
from wizard_edge.locking import exclusive
from wizard_edge.names import ModelName, RelPath
from wizard_edge.part_files import allocated
from wizard_edge.service.installation import Installation
from wizard_edge.service.pruning import Kind, Pruning, plan_pruning, prune

KEY = "ab" * 32
# What kills leave in `partial`, by where they came from.
DOWNLOAD = (f"{KEY}.part", f"{KEY}.journal", f"{KEY}.json", f"{KEY}.lock")
SPLIT = ("cd" * 32 + ".part", "cd" * 32 + ".journal")
CONVERSION = tuple(
    f"{KEY[:32]}.{name}" for name in ("0.part", "1.part", "0.journal", "0.lock")
)
SLOT = ("small.Q8_0.gguf.0a1b2c3d.part", "small.Q8_0.gguf.0a1b2c3d.lock")
IMPORT = (f"import-{KEY}.part", f"import-{KEY}.lock")


@pytest.fixture
def installation(tmp_path: Path) -> Installation:
    return an_installation(tmp_path)


def put(folder: Path, *names: str) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).write_bytes(b"left")
    return [folder / name for name in names]


def found(plan: Pruning, root: Path) -> dict[str, str]:
    return {
        item.path.relative_to(root).as_posix(): item.kind.value
        for item in plan.leftovers
    }


def pruned(installation: Installation, *, models: bool = False) -> list[str]:
    """Prune and return what is left in the whole home, locks and all."""
    prune(installation, plan_pruning(installation), models=models)
    return tree(installation.home.root)


@contextlib.contextmanager
def at_work(*locks: Path) -> Iterator[None]:
    """Hold locks as another process would."""
    with contextlib.ExitStack() as held:
        for lock in locks:
            lock.parent.mkdir(parents=True, exist_ok=True)
            held.enter_context(exclusive(lock))
        yield


def test_a_store_that_is_not_there_has_nothing_left_over(
    installation: Installation, tmp_path: Path
) -> None:
    plan = plan_pruning(installation)

    assert plan == Pruning(())
    assert prune(installation, plan, models=True).removed == ()
    assert list(tmp_path.iterdir()) == []


def test_installed_models_lose_nothing(installation: Installation) -> None:
    store = installation.store
    receipt = receipt_of()
    item = install(store, receipt)
    install(store, receipt_of(quant="F16"), sums=False)
    store.mark_used(item, 1000.0)
    put(item.folder, "NOTICE", "LICENSE.txt", "notes.md")
    before = tree(installation.home.root)

    assert plan_pruning(installation).leftovers == ()
    assert pruned(installation, models=True) == before


@pytest.mark.parametrize(
    "names",
    [DOWNLOAD, SPLIT, CONVERSION, SLOT, IMPORT, ("whatever",)],
    ids=["download", "second file", "conversion", "slot", "import", "unknown"],
)
def test_what_a_kill_left_is_removed(
    installation: Installation, names: tuple[str, ...]
) -> None:
    put(installation.home.partial, *names)

    plan = plan_pruning(installation)

    assert found(plan, installation.home.partial) == dict.fromkeys(
        sorted(names), "unfinished"
    )
    done = prune(installation, plan, models=False)
    assert (len(done.removed), done.kept) == (len(names), ())
    assert tree(installation.home.root) == []


@pytest.mark.parametrize(
    ("names", "lock"),
    [
        (DOWNLOAD, f"{KEY}.lock"),
        (CONVERSION, f"{KEY[:32]}.0.lock"),
        (SLOT, SLOT[1]),
        (IMPORT, IMPORT[1]),
    ],
    ids=["download", "conversion", "slot", "import"],
)
def test_what_somebody_works_at_stays(
    installation: Installation, names: tuple[str, ...], lock: str
) -> None:
    partial = installation.home.partial
    put(partial, *(name for name in names if name != lock))
    put(partial, "old.part", "old.lock")

    with at_work(partial / lock):
        plan = plan_pruning(installation)

        assert plan.busy == (partial / lock,)
        assert found(plan, partial) == {
            "old.part": "unfinished",
            "old.lock": "unfinished",
        }
        prune(installation, plan, models=True)
        assert tree(partial) == sorted({*names, lock})


def test_who_comes_between_the_look_and_the_removal_is_not_hurt(
    installation: Installation,
) -> None:
    partial = installation.home.partial
    put(partial, *DOWNLOAD, *CONVERSION)
    plan = plan_pruning(installation)

    with at_work(partial / f"{KEY}.lock", partial / f"{KEY[:32]}.0.lock"):
        done = prune(installation, plan, models=True)

        assert (done.removed, len(done.kept)) == ((), len(DOWNLOAD + CONVERSION))
        assert tree(partial) == sorted(DOWNLOAD + CONVERSION)


def test_a_lockless_file_may_belong_to_whoever_is_at_work(
    installation: Installation,
) -> None:
    """The second file of a split model is fetched under the lock of the first."""
    partial = installation.home.partial
    put(partial, *SPLIT)

    with at_work(partial / f"{KEY}.lock"):
        assert plan_pruning(installation).leftovers == ()
    plan = plan_pruning(installation)
    assert len(plan.leftovers) == 2
    with at_work(partial / f"{KEY}.lock"):
        assert prune(installation, plan, models=True).removed == ()


def test_a_slot_that_is_being_filled_stays(installation: Installation) -> None:
    name, file = ModelName("small"), RelPath("small.Q8_0.gguf")
    with installation.store.open_slot(name, file) as slot:
        slot.temp.write_bytes(b"half")
        before = tree(installation.home.partial)

        assert pruned(installation) == [f"partial/{name}" for name in before]


def test_looking_changes_nothing(installation: Installation, tmp_path: Path) -> None:
    put(installation.home.partial, *DOWNLOAD)
    put(installation.home.run, "small.lock")
    put(installation.home.models / "small", "x.gguf", "x.gguf.json.0a1b2c3d.tmp")
    before = tree(tmp_path)

    plan_pruning(installation)

    assert tree(tmp_path) == before


def test_half_written_files_are_removed(installation: Installation) -> None:
    item = install(installation.store, receipt_of())
    put(item.folder, "small.Q8_0.gguf.json.0a1b2c3d.tmp", "NOTICE.0a1b2c3d.tmp")
    put(installation.home.licenses, "accepted.json", "accepted.json.0a1b2c3d.tmp")
    put(installation.home.licenses, "accepted.json.lock")
    put(installation.home.models, "x.0a1b2c3d.tmp")

    assert pruned(installation) == [
        "licenses/accepted.json",
        "models/small/small.Q8_0.gguf",
        "models/small/small.Q8_0.gguf.chunks",
        "models/small/small.Q8_0.gguf.json",
    ]


def test_what_only_sounds_half_written_stays(installation: Installation) -> None:
    home = installation.home
    item = install(installation.store, receipt_of())
    for folder in (item.folder, home.models, home.licenses):
        put(folder, "notes.tmp", "notes.0a1b2c3.tmp", "notes.0A1B2C3D.tmp")
        put(folder / "work.tmp", "mine")
        put(folder / "work.0a1b2c3d.tmp", "mine")

    assert plan_pruning(installation).leftovers == ()


def test_what_is_being_written_stays(installation: Installation) -> None:
    home = installation.home
    put(home.models / "small", "small.Q8_0.gguf.json.0a1b2c3d.tmp", "x.gguf")
    put(home.licenses, "accepted.json.0a1b2c3d.tmp")
    locks = (home.run / "small.lock", home.licenses / "accepted.json.lock")

    with at_work(*locks):
        plan = plan_pruning(installation)

        assert (plan.leftovers, plan.busy) == ((), (locks[0],))
    later = plan_pruning(installation)
    with at_work(*locks):
        assert prune(installation, later, models=True).removed == ()
    assert len(later.leftovers) == 3


def test_models_without_a_receipt_are_asked_for(installation: Installation) -> None:
    models = installation.home.models
    put(models / "lost", "lost.gguf", "lost.gguf.chunks", "lost.gguf.used", "NOTICE")
    put(models, "mine.gguf")
    item = install(installation.store, receipt_of())
    put(item.folder, "old.gguf")

    plan = plan_pruning(installation)

    assert found(plan, models) == dict.fromkeys(
        [
            *("lost/lost.gguf", "lost/lost.gguf.chunks", "lost/lost.gguf.used"),
            *("lost/NOTICE", "mine.gguf", "small/old.gguf"),
        ],
        "model",
    )
    before = tree(installation.home.root)
    assert pruned(installation) == before
    assert pruned(installation, models=True) == [
        "models/small/small.Q8_0.gguf",
        "models/small/small.Q8_0.gguf.chunks",
        "models/small/small.Q8_0.gguf.json",
    ]
    assert not (models / "lost").exists()


def test_what_a_model_left_behind_is_removed_unasked(
    installation: Installation,
) -> None:
    models = installation.home.models
    put(models / "gone", "gone.gguf.chunks", "gone.gguf.used", "gone.gguf.verdict")
    put(models / "gone", "LICENSE", "NOTICE")
    (models / "empty").mkdir()
    put(models / "notes", "notes.md")

    plan = plan_pruning(installation)

    assert found(plan, models) == {
        "empty": "folder",
        **dict.fromkeys(
            [
                *("gone/gone.gguf.chunks", "gone/gone.gguf.used"),
                "gone/gone.gguf.verdict",
                *("gone/LICENSE", "gone/NOTICE"),
            ],
            "beside",
        ),
    }
    assert pruned(installation) == ["models/notes/notes.md"]
    assert [path.name for path in models.iterdir()] == ["notes"]


def test_beside_a_damaged_receipt_nothing_is_taken_for_an_orphan(
    installation: Installation,
) -> None:
    item = install(installation.store, receipt_of())
    put(item.folder, "other.gguf", "x.0a1b2c3d.tmp")
    item.receipt_path.write_bytes(b"{")

    plan = plan_pruning(installation)

    assert found(plan, item.folder) == {"x.0a1b2c3d.tmp": "temporary"}


def test_locks_of_the_dead_are_removed(installation: Installation) -> None:
    run = installation.home.run
    put(run, "small.lock", "server.sock")

    with at_work(run / "other.lock"):
        assert pruned(installation) == ["run/other.lock", "run/server.sock"]


def test_folders_that_are_no_models_are_left_alone(installation: Installation) -> None:
    models = installation.home.models
    put(models / "Has Space.gguf", "x.gguf", "x.0a1b2c3d.tmp")

    assert plan_pruning(installation).leftovers == ()


def test_a_link_is_removed_and_not_followed(
    installation: Installation, tmp_path: Path
) -> None:
    [mine] = put(tmp_path / "mine", "mine.gguf")
    folder = installation.home.models / "linked"
    folder.mkdir(parents=True)
    (folder / "a.gguf").symlink_to(mine)
    (folder / "b.gguf").symlink_to(tmp_path / "nowhere")
    (installation.home.models / "other").symlink_to(mine.parent)

    pruned(installation, models=True)

    assert mine.exists()
    assert not folder.exists()


def test_bytes_are_those_on_the_disk(installation: Installation) -> None:
    [path] = put(installation.home.partial, f"{KEY}.part")
    with path.open("wb") as file:
        file.write(CONTENT)
        file.truncate(1 << 30)

    plan = plan_pruning(installation)
    done = prune(installation, plan, models=False)

    assert plan.leftovers[0].kind is Kind.UNFINISHED
    assert plan.size == done.freed < 1 << 30
    assert allocated(path) == 0


def test_what_a_killed_engine_parked_is_removed(installation: Installation) -> None:
    run = installation.home.run
    folder = run / "parked-0a1b2c3d4e5f6a7b"
    put(folder / "000001", "000001.kv")
    put(folder, "parked.lock")

    assert found(plan_pruning(installation), run) == {
        "parked-0a1b2c3d4e5f6a7b/000001/000001.kv": "unfinished",
        "parked-0a1b2c3d4e5f6a7b/000001": "unfinished",
        "parked-0a1b2c3d4e5f6a7b": "folder",
    }
    assert pruned(installation) == []


def test_what_a_living_engine_parked_stays(installation: Installation) -> None:
    folder = installation.home.run / "parked-0a1b2c3d4e5f6a7b"
    put(folder / "000001", "000001.kv")

    with at_work(folder / "parked.lock"):
        assert plan_pruning(installation).leftovers == ()
