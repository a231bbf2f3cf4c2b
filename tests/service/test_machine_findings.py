from __future__ import annotations

import pytest

from wizard_edge.condition import Clock, Power, Swap, Zone
from wizard_edge.hardware import Cores, Memory
from wizard_edge.service.findings import Finding
from wizard_edge.service.machine_findings import (
    judge_clocks,
    judge_cores,
    judge_heat,
    judge_load,
    judge_locks,
    judge_memory,
    judge_power,
    judge_swap,
)

GB = 10**9
PERFORMANCE = (
    "echo performance | sudo tee /sys/devices/system/cpu/cpufreq/policy*/"
    "scaling_governor"
)
COOLER = "a heat sink, a fan, or fewer --threads"
SUPPLY = "take the maker's own supply: 27 W for a Raspberry Pi 5, 15 W for a 4"


@pytest.mark.parametrize(
    ("cores", "threads", "what"),
    [
        (Cores(4, 4, 4), None, "4, 4 used"),
        (Cores(8, 4, 4), 2, "4, 8 hardware threads, 2 used"),
        (Cores(8, 8, 4), None, "8, 4 of them fast, 4 used"),
        (Cores(4, 4, 4, 1.5), None, "4, time for 1.5 of them, 1 used"),
    ],
    ids=["Pi", "hyper-threads", "hybrid", "container"],
)
def test_cores_are_told(cores: Cores, threads: int | None, what: str) -> None:
    assert judge_cores(cores, threads) == Finding("cores", "ok", what)


def test_more_threads_than_cores_are_noted() -> None:
    assert judge_cores(Cores(8, 4, 4), 8) == Finding(
        "cores",
        "note",
        "4, 8 hardware threads, 8 used: more threads than that fight for the "
        "same units",
        "wizard-edge config --unset threads",
    )


@pytest.mark.parametrize(
    ("memory", "installed", "expected"),
    [
        (
            Memory(16 * GB, 12 * GB),
            16 * GB,
            Finding("memory", "ok", "16.0 GB, 12.0 GB free now"),
        ),
        (
            Memory(8 * GB, 6 * GB),
            64 * GB,
            Finding(
                "memory",
                "ok",
                "8.0 GB, 6.0 GB free now; a container's limit, the machine has 64.0 GB",
            ),
        ),
        (
            Memory(2 * GB, 2 * GB),
            2 * GB,
            Finding(
                "memory",
                "note",
                "2.0 GB, 2.0 GB free now",
                "wizard-edge config low-memory yes; wizard-edge fit",
            ),
        ),
        (
            Memory(16 * GB, 3 * GB),
            16 * GB,
            Finding(
                "memory",
                "note",
                "16.0 GB, 3.0 GB free now",
                "other programs hold the rest: end some, or take --low-memory",
            ),
        ),
    ],
    ids=["enough", "container", "little", "taken"],
)
def test_memory(memory: Memory, installed: int, expected: Finding) -> None:
    assert judge_memory(memory, installed) == expected


@pytest.mark.parametrize(
    ("swap", "expected"),
    [
        (Swap(0, 0), Finding("swap", "ok", "none")),
        (Swap(2 * GB, 2 * GB), Finding("swap", "ok", "0 B of 2.0 GB used")),
        (
            Swap(4 * GB, GB),
            Finding(
                "swap",
                "note",
                "3.0 GB of 4.0 GB used, more than there is memory free",
                "end other programs, take a smaller quant or --low-memory",
            ),
        ),
    ],
    ids=["none", "idle", "needed"],
)
def test_swap(swap: Swap, expected: Finding) -> None:
    assert judge_swap(swap, Memory(8 * GB, 2 * GB)) == expected


def test_a_limit_of_locks_matters_to_those_who_lock() -> None:
    limit = 8 << 20

    assert judge_locks(None, wanted=True).level == "ok"
    assert judge_locks(limit, wanted=False) == Finding(
        "mlock", "ok", "8.4 MB may be locked into memory"
    )
    assert judge_locks(limit, wanted=True) == Finding(
        "mlock",
        "problem",
        "8.4 MB may be locked into memory, and the setting mlock asks for whole models",
        "ulimit -l unlimited (LimitMEMLOCK=infinity in a systemd unit), or "
        "wizard-edge config --unset mlock",
    )


def test_other_programs_are_noted_from_half_of_the_cores_on() -> None:
    cores = Cores(4, 4, 4)

    assert judge_load(1.9, cores) == Finding(
        "load", "ok", "1.9 of 4 cores were busy in the last minute"
    )
    assert judge_load(2.0, cores) == Finding(
        "load",
        "note",
        "2.0 of 4 cores were busy in the last minute",
        "without the others answers come faster",
    )


@pytest.mark.parametrize(
    ("clocks", "expected"),
    [
        pytest.param(
            [Clock("policy0", "ondemand", "cpufreq-dt", 2400000, 2400000)],
            Finding("clock", "ok", "ondemand"),
            id="follows the load",
        ),
        pytest.param(
            [Clock("policy0", "powersave", "cpufreq-dt")],
            Finding(
                "clock",
                "problem",
                "powersave: the clock stays at its lowest",
                PERFORMANCE,
            ),
            id="lowest",
        ),
        pytest.param(
            [Clock("policy0", "powersave", "intel_pstate", 10, 10)],
            Finding("clock", "ok", "powersave"),
            id="a driver that follows the load itself",
        ),
        pytest.param(
            [
                Clock("policy0", "performance", "x"),
                Clock("policy4", "conservative", "x"),
            ],
            Finding(
                "clock",
                "note",
                "conservative, performance: the clock rises slowly or not at all",
                PERFORMANCE,
            ),
            id="one of two",
        ),
        pytest.param(
            [Clock("policy4", "performance", "cpufreq-dt", 2400000, 1500000)],
            Finding(
                "clock",
                "note",
                "performance, held to 1500 MHz of 2400 MHz",
                "echo 2400000 | sudo tee "
                "/sys/devices/system/cpu/cpufreq/policy4/scaling_max_freq",
            ),
            id="held down",
        ),
    ],
)
def test_clocks(clocks: list[Clock], expected: Finding) -> None:
    assert judge_clocks(clocks) == expected


@pytest.mark.parametrize(
    ("zones", "slowed", "times", "level", "what"),
    [
        ([Zone("cpu", 55.4)], False, 0, "ok", "55 °C (cpu)"),
        (
            [Zone("cpu", 81, 85), Zone("gpu", 60, 85)],
            False,
            0,
            "note",
            "81 °C (cpu): 4 °C below where the processor is slowed down",
        ),
        (
            [Zone("cpu", 85, 85)],
            False,
            0,
            "problem",
            "85 °C (cpu): the processor is slowed down",
        ),
        (
            [Zone("cpu", 70, 85)],
            True,
            0,
            "problem",
            "70 °C (cpu): the processor is slowed down",
        ),
        (
            [],
            False,
            12,
            "note",
            "no thermometer: slowed down 12 times since the start",
        ),
    ],
    ids=["cool", "near", "at the limit", "cooled", "earlier"],
)
def test_heat(
    zones: list[Zone], slowed: bool, times: int, level: str, what: str
) -> None:
    found = judge_heat(zones, slowed=slowed, times_slowed=times)

    assert (found.level, found.what) == (level, what)
    assert found.hint == (None if level == "ok" else COOLER)


@pytest.mark.parametrize(
    ("power", "expected"),
    [
        (Power(False, False, False, False), Finding("power", "ok", "enough")),
        (
            Power(True, True, True, True),
            Finding("power", "problem", "the voltage is too low", SUPPLY),
        ),
        (
            Power(False, True, False, True),
            Finding(
                "power",
                "problem",
                "the firmware slows the processor down: too hot, or too little power",
                f"{SUPPLY}; {COOLER}",
            ),
        ),
        (
            Power(False, False, True, False),
            Finding("power", "note", "the voltage was too low since the start", SUPPLY),
        ),
        (
            Power(False, False, False, True),
            Finding(
                "power",
                "note",
                "the firmware slowed the processor down since the start",
                f"{SUPPLY}; {COOLER}",
            ),
        ),
    ],
    ids=["enough", "too low", "slowed", "was too low", "was slowed"],
)
def test_power(power: Power, expected: Finding) -> None:
    assert judge_power(power) == expected
