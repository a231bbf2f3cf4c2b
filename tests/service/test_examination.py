"""What is collected of a real installation on a machine that is made up."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

from tests.machines import plant
from tests.service.fakes import an_installation, tree
from wizard_edge import __version__
from wizard_edge.condition import Clock, Zone
from wizard_edge.errors import BackendError
from wizard_edge.service.examination import examine
from wizard_edge.service.installation import Installation
from wizard_edge.service.models import as_json

CPU = "sys/devices/system/cpu/cpufreq/policy0"
HOT_PI = {
    "proc/meminfo": "MemTotal: 4000000 kB\nMemAvailable: 3500000 kB\nSwapTotal: 0 kB",
    "proc/device-tree/model": "Raspberry Pi 4 Model B",
    f"{CPU}/scaling_governor": "powersave",
    f"{CPU}/scaling_driver": "cpufreq-dt",
    "sys/class/thermal/thermal_zone0/type": "cpu-thermal",
    "sys/class/thermal/thermal_zone0/temp": "84000",
    "sys/devices/platform/soc/soc:firmware/get_throttled": "50005",
}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return plant(tmp_path / "root", HOT_PI)


@pytest.fixture
def installation(tmp_path: Path) -> Installation:
    return an_installation(tmp_path)


@pytest.mark.skipif(sys.platform != "linux", reason="reads files of a Linux kernel")
def test_a_machine_is_read_from_its_files(
    installation: Installation, root: Path
) -> None:
    diagnosis = examine(installation, root=root)

    facts = diagnosis.facts
    assert (facts.board, facts.installed_memory) == (
        "Raspberry Pi 4 Model B",
        4_096_000_000,
    )
    assert facts.clocks == (Clock("policy0", "powersave", "cpufreq-dt"),)
    assert facts.zones == (Zone("cpu-thermal", 84.0),)
    bad = {item.about for item in diagnosis.findings if item.level == "problem"}
    assert bad == {"clock", "power"}
    assert diagnosis.problems == 2


def test_this_llama_cpp_tells_of_itself(installation: Installation) -> None:
    facts = examine(installation).facts

    assert facts.version == __version__
    assert facts.build is not None
    assert facts.build.version.count(".") == 2
    assert facts.build.parts["CPU"]
    assert "cpu" in {item.kind for item in facts.build.devices}


def test_nothing_is_written(
    installation: Installation, root: Path, tmp_path: Path
) -> None:
    before = tree(tmp_path)

    examine(installation, root=root)

    assert tree(tmp_path) == before


def test_without_llama_cpp_the_reason_is_told(
    installation: Installation, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing() -> None:
        raise BackendError("llama.cpp cannot be loaded: no module")

    monkeypatch.setattr("wizard_edge._llama.library.load", missing)

    facts = examine(installation, root=root).facts

    assert facts.build is None
    assert facts.fault == "llama.cpp cannot be loaded: no module"


@pytest.mark.parametrize(
    ("file", "about"), [("config.toml", "settings"), ("models.toml", "registry")]
)
def test_a_file_that_makes_no_sense_is_a_finding(
    installation: Installation, root: Path, file: str, about: str
) -> None:
    installation.config_dir.mkdir(parents=True)
    (installation.config_dir / file).write_text("= nonsense")

    findings = {item.about: item for item in examine(installation, root=root).findings}

    assert findings[about].level == "problem"
    assert str(installation.config_dir / file) in findings[about].what


def test_a_store_that_is_a_file_is_a_finding(
    installation: Installation, root: Path
) -> None:
    installation.home.root.parent.mkdir(parents=True, exist_ok=True)
    installation.home.root.write_text("")

    store = examine(installation, root=root).facts.store

    assert store.fault == f"{installation.home.root} is no folder"


def test_a_store_that_may_not_be_written_is_a_finding(
    installation: Installation, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Permissions do not bind whoever runs tests as root.
    monkeypatch.setattr(os, "access", lambda path, mode: False)

    assert examine(installation, root=root).facts.store.writable is False


def test_all_of_it_is_json(installation: Installation, root: Path) -> None:
    written = json.dumps(as_json(examine(installation, root=root)))

    assert (
        json.loads(written)["facts"]["board"]
        == examine(installation, root=root).facts.board
    )
