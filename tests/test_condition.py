"""What is read of a machine's state, from the files of a machine that is made up."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.machines import plant
from wizard_edge.condition import (
    Clock,
    Power,
    Swap,
    Zone,
    count_slowed,
    find_board,
    find_cards,
    find_clocks,
    find_flags,
    find_installed_memory,
    find_lock_limit,
    find_power,
    find_swap,
    find_zones,
    is_slowed,
)

CPU = "sys/devices/system/cpu"
THERMAL = "sys/class/thermal"
FIRMWARE = "sys/devices/platform/soc/soc:firmware/get_throttled"


def test_a_machine_that_shows_nothing_has_nothing(tmp_path: Path) -> None:
    found = (
        find_flags(root=tmp_path, platform="linux"),
        find_board(root=tmp_path),
        find_clocks(root=tmp_path),
        find_zones(root=tmp_path),
        is_slowed(root=tmp_path),
        count_slowed(root=tmp_path),
        find_power(root=tmp_path),
        find_swap(root=tmp_path),
        find_installed_memory(root=tmp_path),
        find_cards(root=tmp_path, platform="linux"),
    )

    assert found == (frozenset(), "", (), (), False, 0, None, None, None, ())


@pytest.mark.parametrize(
    "line", ["flags\t\t: fpu avx2 fma", "Features\t: fpu avx2 fma"], ids=["x86", "ARM"]
)
def test_what_a_processor_can_do(tmp_path: Path, line: str) -> None:
    root = plant(tmp_path, {"proc/cpuinfo": f"processor\t: 0\n{line}\nbugs\t: none"})

    assert find_flags(root=root, platform="linux") == {"fpu", "avx2", "fma"}


def test_macos_is_asked_for_each_of_them() -> None:
    answers = {
        "hw.optional.arm.FEAT_DotProd": 1,
        "hw.optional.arm.FEAT_I8MM": 0,
        "hw.optional.AdvSIMD": 1,
    }

    found = find_flags(platform="darwin", sysctl=answers.get)

    assert found == {"asimd", "asimddp"}


def test_a_board_says_its_name(tmp_path: Path) -> None:
    root = plant(tmp_path, {"proc/device-tree/model": ""})
    (root / "proc/device-tree/model").write_bytes(b"Raspberry Pi 5 Model B Rev 1.0\0")

    assert find_board(root=root) == "Raspberry Pi 5 Model B Rev 1.0"


def test_clocks_by_group_of_cores(tmp_path: Path) -> None:
    root = plant(
        tmp_path,
        {
            f"{CPU}/cpufreq/policy0/scaling_governor": "ondemand",
            f"{CPU}/cpufreq/policy0/scaling_driver": "cpufreq-dt",
            f"{CPU}/cpufreq/policy0/cpuinfo_max_freq": 2400000,
            f"{CPU}/cpufreq/policy0/scaling_max_freq": 1500000,
            f"{CPU}/cpufreq/policy4/scaling_governor": "powersave",
            f"{CPU}/cpufreq/boost": 1,
        },
    )

    assert find_clocks(root=root) == (
        Clock("policy0", "ondemand", "cpufreq-dt", 2400000, 1500000),
        Clock("policy4", "powersave", ""),
    )


def zone(number: int, **files: object) -> dict[str, object]:
    return {
        f"{THERMAL}/thermal_zone{number}/{name}": text for name, text in files.items()
    }


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        pytest.param(
            zone(0, type="cpu-thermal", temp=61300),
            [Zone("cpu-thermal", 61.3)],
            id="Pi",
        ),
        pytest.param(
            zone(
                *(0,),
                type="soc",
                temp=80000,
                trip_point_0_type="active",
                trip_point_0_temp=60000,
                trip_point_1_type="critical",
                trip_point_1_temp=110000,
                trip_point_2_type="passive",
                trip_point_2_temp=85000,
            ),
            [Zone("soc", 80.0, 85.0)],
            id="the first limit that slows it",
        ),
        pytest.param(
            zone(
                *(0,),
                type="acpitz",
                temp=27800,
                trip_point_0_type="passive",
                trip_point_0_temp=20800,
            ),
            [Zone("acpitz", 27.8)],
            id="a limit that is none",
        ),
        pytest.param(zone(0, type="off", temp=-274000), [], id="switched off"),
        pytest.param(zone(0, type="mute"), [], id="says nothing"),
        pytest.param(zone(3, temp=50000), [Zone("thermal_zone3", 50.0)], id="nameless"),
    ],
)
def test_thermometers(
    tmp_path: Path, files: Mapping[str, object], expected: list[Zone]
) -> None:
    assert list(find_zones(root=plant(tmp_path, files))) == expected


@pytest.mark.parametrize(
    ("kind", "state", "expected"),
    [
        ("cpufreq-cpu0", 2, True),
        ("Processor", 1, True),
        ("cpufreq-cpu0", 0, False),
        ("pwm-fan", 3, False),
    ],
)
def test_a_cooled_processor_is_slowed(
    tmp_path: Path, kind: str, state: int, expected: bool
) -> None:
    folder = f"{THERMAL}/cooling_device0"
    root = plant(tmp_path, {f"{folder}/type": kind, f"{folder}/cur_state": state})

    assert is_slowed(root=root) is expected


def test_slowing_down_is_counted_once_for_all_cores(tmp_path: Path) -> None:
    name = "thermal_throttle/package_throttle_count"
    root = plant(tmp_path, {f"{CPU}/cpu0/{name}": 7, f"{CPU}/cpu1/{name}": 7})

    assert count_slowed(root=root) == 7


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("0", Power(False, False, False, False)),
        ("1", Power(True, False, False, False)),
        ("50005", Power(True, True, True, True)),
        ("8", Power(False, True, False, False)),
        ("10000", Power(False, False, True, False)),
        ("e0000", Power(False, False, False, True)),
    ],
)
def test_the_firmware_of_a_pi(tmp_path: Path, word: str, expected: Power) -> None:
    assert find_power(root=plant(tmp_path, {FIRMWARE: word})) == expected


def test_a_word_that_is_no_number_says_nothing(tmp_path: Path) -> None:
    assert find_power(root=plant(tmp_path, {FIRMWARE: "throttled=0x0"})) is None


@pytest.mark.parametrize("low", [True, False])
def test_the_sensor_of_a_pi(tmp_path: Path, low: bool) -> None:
    root = plant(
        tmp_path,
        {
            "sys/class/hwmon/hwmon0/name": "cpu_thermal",
            "sys/class/hwmon/hwmon1/name": "rpi_volt",
            "sys/class/hwmon/hwmon1/in0_lcrit_alarm": int(low),
        },
    )

    assert find_power(root=root) == Power(low, False, low, False)


def test_memory_and_swap_are_counted_in_bytes(tmp_path: Path) -> None:
    text = (
        "MemTotal:  8000000 kB\nSwapCached: 1 kB\nSwapTotal: 2048 kB\nSwapFree: 24 kB"
    )
    root = plant(tmp_path, {"proc/meminfo": text})

    assert find_swap(root=root) == Swap(2048 * 1024, 24 * 1024)
    assert find_installed_memory(root=root) == 8_192_000_000


def card(number: int, kind: str, vendor: str) -> dict[str, object]:
    folder = f"sys/bus/pci/devices/0000:0{number}:00.0"
    return {f"{folder}/class": kind, f"{folder}/vendor": vendor}


def test_cards_by_their_makers_each_once(tmp_path: Path) -> None:
    files = {
        **card(0, "0x030000", "0x8086"),
        **card(1, "0x030200", "0x10de"),
        **card(2, "0x030000", "0x10de"),
        **card(3, "0x030000", "0x1234"),
        **card(4, "0x020000", "0x1002"),
    }

    found = find_cards(root=plant(tmp_path, files), platform="linux")

    assert found == ("Intel", "NVIDIA")


@pytest.mark.parametrize(
    ("machine", "expected"), [("arm64", ("Apple",)), ("x86_64", ())]
)
def test_an_apple_has_its_card_inside(machine: str, expected: tuple[str, ...]) -> None:
    assert find_cards(platform="darwin", machine=machine) == expected


@pytest.mark.skipif(sys.platform == "win32", reason="locks without a limit")
def test_memory_that_may_be_locked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import resource

    def limited(to: int) -> int | None:
        monkeypatch.setattr(resource, "getrlimit", lambda _: (to, to))
        return find_lock_limit(root=tmp_path)

    assert limited(8 << 20) == 8 << 20
    assert limited(resource.RLIM_INFINITY) is None
    plant(tmp_path, {"proc/self/status": "Name:\tx\nCapEff:\t0000000000008001"})
    assert limited(8 << 20) == 8 << 20
    plant(tmp_path, {"proc/self/status": "Name:\tx\nCapEff:\t0000000000004000"})
    assert limited(8 << 20) is None
