from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from tests.cli.conftest import Cli
from tests.service.test_doctor import PI
from wizard_edge.condition import Clock
from wizard_edge.service.doctor import Facts, diagnose
from wizard_edge.service.examination import Diagnosis

FAULTY = replace(
    PI,
    platform="other",
    clocks=(Clock("policy0", "powersave", "cpufreq-dt"),),
    load=3.0,
)


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Put a Pi with a lazy clock and busy cores in the place of this machine."""
    examined(monkeypatch, FAULTY)


def examined(monkeypatch: pytest.MonkeyPatch, facts: Facts) -> None:
    findings = diagnose(facts)
    problems = sum(item.level == "problem" for item in findings)
    monkeypatch.setattr(
        "wizard_edge.service.examination.examine",
        lambda installation: Diagnosis(problems, findings, facts),
    )


def test_a_page_and_a_sum(cli: Cli, machine: None) -> None:
    result = cli("doctor")

    assert result.stdout == (
        "wizard-edge  1.0, Python 3.11.2, other aarch64\n"
        "llama.cpp    llama-cpp-python 0.3.36, ggml 0.25.3 (abc)\n"
        "settings     /home/pi/config.toml\n"
        "store        /home/pi/store\n"
        "disk         50.0 GB free where the store is\n"
        "cores        4, 4 used\n"
        "memory       8.0 GB, 7.0 GB free now\n"
        "swap         none\n"
        "mlock        any model may be locked into memory\n"
        "processor    Raspberry Pi 5: compiled for NEON, DOTPROD, FP16_VA\n"
        "load         note: 3.0 of 4 cores were busy in the last minute\n"
        "             hint: without the others answers come faster\n"
        "clock        problem: powersave: the clock stays at its lowest\n"
        "             hint: echo performance | sudo tee "
        "/sys/devices/system/cpu/cpufreq/policy*/scaling_governor\n"
        "heat         55 °C (cpu-thermal)\n"
        "power        enough\n"
    )
    assert result.stderr == "1 problem, 1 note\n"
    assert result.exit_code == 0


def test_nothing_to_mend(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    examined(monkeypatch, PI)

    assert cli("doctor").stderr == "nothing to mend\n"


def test_json_has_findings_and_facts(cli: Cli, machine: None) -> None:
    result = cli("doctor", "--json")

    found = json.loads(result.stdout)
    assert found["problems"] == 1
    [clock] = [item for item in found["findings"] if item["about"] == "clock"]
    assert clock == {
        "about": "clock",
        "level": "problem",
        "what": "powersave: the clock stays at its lowest",
        "hint": "echo performance | sudo tee "
        "/sys/devices/system/cpu/cpufreq/policy*/scaling_governor",
    }
    assert found["facts"]["memory"] == {"total": 8 * 10**9, "available": 7 * 10**9}
    assert (result.stderr, result.exit_code) == ("", 0)


def test_settings_that_make_no_sense_do_not_end_it(cli: Cli) -> None:
    cli("config", "threads", "1")
    with Path("config/config.toml").open("a", encoding="utf-8") as file:
        file.write("nonsense = 1\n")

    result = cli("doctor")

    assert "problem: " in result.stdout
    assert "unknown setting 'nonsense'" in result.stdout
    assert result.exit_code == 0
