"""What is shipped: the wheel runs on its own, the sdist builds the same wheel."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
CHECKPOINT = {
    "config.json",
    "generation_config.json",
    "pytorch_model-00001-of-00002.bin",
    "pytorch_model-00002-of-00002.bin",
    "pytorch_model.bin.index.json",
    "special_tokens_map.json",
    "tokenizer.model",
    "tokenizer_config.json",
}
MAX_CHECKPOINT_SIZE = 15_000_000


def build(source: Path, target: str, folder: Path) -> Path:
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", target, "-d", str(folder)],
        cwd=source,
        check=True,
        capture_output=True,
    )
    return next(folder.iterdir())


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(ROOT, "wheel", tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(ROOT, "sdist", tmp_path_factory.mktemp("sdist"))


def names(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def test_the_wheel_holds_the_packages_and_nothing_else(wheel: Path) -> None:
    tops = {name.split("/")[0] for name in names(wheel)}

    assert {top for top in tops if not top.endswith(".dist-info")} == {
        "wizard_edge",
        "wizard_edge_converters",
    }


def test_the_wheel_holds_the_registry_and_the_typing_marks(wheel: Path) -> None:
    assert {
        "wizard_edge/models.toml",
        "wizard_edge/py.typed",
        "wizard_edge_converters/py.typed",
    } <= names(wheel)


def test_the_wheel_holds_the_bundled_checkpoint(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        sizes = {
            item.filename.removeprefix("wizard_edge/apprentice/"): item.file_size
            for item in archive.infolist()
            if item.filename.startswith("wizard_edge/apprentice/")
        }

    assert set(sizes) >= CHECKPOINT
    assert sum(sizes.values()) <= MAX_CHECKPOINT_SIZE


def test_the_wheel_carries_every_module_of_the_checkout(wheel: Path) -> None:
    modules = {
        path.relative_to(root).as_posix()
        for root, package in ((ROOT, "wizard_edge"), (ROOT / "converters", "."))
        for path in (root / package).rglob("*.py")
    }

    assert modules - names(wheel) == set()


def test_the_sdist_holds_the_checkpoint_and_the_tests(sdist: Path) -> None:
    with tarfile.open(sdist) as archive:
        held = {name.partition("/")[2] for name in archive.getnames()}

    assert {f"wizard_edge/apprentice/{name}" for name in CHECKPOINT} <= held
    assert {"models.toml", "tests/test_wheel.py", "tools/setup.py", "Makefile"} <= held


def test_the_sdist_builds_the_same_wheel(
    sdist: Path, wheel: Path, tmp_path: Path
) -> None:
    with tarfile.open(sdist) as archive:
        # Python 3.11.3 and older have no extraction filters.
        if hasattr(tarfile, "data_filter"):
            archive.extraction_filter = tarfile.data_filter
        archive.extractall(tmp_path)
    source = next(tmp_path.iterdir())

    again = build(source, "wheel", tmp_path / "wheel")

    assert names(again) == names(wheel)


def test_the_wheel_runs_without_the_checkout(wheel: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    environ = os.environ | {
        "PYTHONPATH": str(tmp_path / "site"),
        "WIZARD_EDGE_HOME": str(tmp_path / "home"),
        "WIZARD_EDGE_CONFIG": str(tmp_path / "config"),
    }

    shown = subprocess.run(
        [sys.executable, "-m", "wizard_edge", "list", "--all"],
        cwd=tmp_path,
        env=environ,
        check=True,
        capture_output=True,
        text=True,
    )

    assert "wizardlm-13b-v1.2" in shown.stdout
