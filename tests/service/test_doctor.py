"""Whole pages of a diagnosis, and each way in which it may go wrong."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from wizard_edge.condition import Clock, Power, Swap, Zone
from wizard_edge.config import Settings
from wizard_edge.hardware import Cores, Memory
from wizard_edge.offload import Device
from wizard_edge.service.builds import Build
from wizard_edge.service.doctor import Facts, Place, diagnose
from wizard_edge.service.findings import Finding

GB = 10**9
PIP = (
    "pip install --force-reinstall --no-deps --no-cache-dir --no-binary "
    "llama-cpp-python llama-cpp-python==0.3.36"
)
PROCESSOR = Device("CPU", "Cortex-A76", "cpu", "CPU", 8 * GB, 8 * GB)
CARD = Device("CUDA0", "RTX 3060", "gpu", "CUDA", 12 * GB, 11 * GB)
# A Raspberry Pi 5 on which nothing is wrong.
PI = Facts(
    version="1.0",
    python="3.11.2",
    platform="linux",
    machine="aarch64",
    cores=Cores(4, 4, 4),
    memory=Memory(8 * GB, 7 * GB),
    installed_memory=8 * GB,
    free_disk=50 * GB,
    store=Place(Path("/home/pi/store")),
    settings_file=Place(Path("/home/pi/config.toml")),
    registry_file=Place(Path("/home/pi/models.toml")),
    build=Build(
        "0.3.36",
        "0.25.3 (abc)",
        {"CPU": {"NEON": "1", "DOTPROD": "1", "FP16_VA": "1"}},
        (PROCESSOR,),
    ),
    board="Raspberry Pi 5",
    flags=("asimd", "asimddp", "asimdhp"),
    load=0.2,
    swap=Swap(0, 0),
    lockable=None,
    clocks=(Clock("policy0", "ondemand", "cpufreq-dt"),),
    zones=(Zone("cpu-thermal", 55),),
    power=Power(False, False, False, False),
)


def about(facts: Facts, what: str) -> Finding:
    [found] = [item for item in diagnose(facts) if item.about == what]
    return found


def built(*parts: str, devices: tuple[Device, ...] = (PROCESSOR,)) -> Build:
    return Build("0.3.36", "0.25.3 (abc)", {name: {} for name in parts}, devices)


def test_a_machine_on_which_all_is_well() -> None:
    assert diagnose(PI) == (
        Finding("wizard-edge", "ok", "1.0, Python 3.11.2, linux aarch64"),
        Finding("llama.cpp", "ok", "llama-cpp-python 0.3.36, ggml 0.25.3 (abc)"),
        Finding("settings", "ok", "/home/pi/config.toml"),
        Finding("store", "ok", "/home/pi/store"),
        Finding("disk", "ok", "50.0 GB free where the store is"),
        Finding("cores", "ok", "4, 4 used"),
        Finding("memory", "ok", "8.0 GB, 7.0 GB free now"),
        Finding("swap", "ok", "none"),
        Finding("mlock", "ok", "any model may be locked into memory"),
        Finding(
            "processor", "ok", "Raspberry Pi 5: compiled for NEON, DOTPROD, FP16_VA"
        ),
        Finding(
            "CUDA",
            "ok",
            "not built in",
            f'CMAKE_ARGS="-DGGML_CUDA=on" {PIP} (needs the CUDA toolkit)',
        ),
        Finding(
            "Vulkan",
            "ok",
            "not built in",
            f'CMAKE_ARGS="-DGGML_VULKAN=on" {PIP} (needs the Vulkan headers and glslc)',
        ),
        Finding("RPC", "ok", "not built in", f'CMAKE_ARGS="-DGGML_RPC=on" {PIP}'),
        Finding("load", "ok", "0.2 of 4 cores were busy in the last minute"),
        Finding("clock", "ok", "ondemand"),
        Finding("heat", "ok", "55 °C (cpu-thermal)"),
        Finding("power", "ok", "enough"),
    )


def test_without_llama_cpp_all_else_is_told() -> None:
    facts = replace(PI, build=None, fault="llama.cpp cannot be loaded: no module")

    found = {item.about: item for item in diagnose(facts)}

    assert found["llama.cpp"] == Finding(
        "llama.cpp",
        "problem",
        "llama.cpp cannot be loaded: no module: no model can be loaded, all else works",
        "pip install llama-cpp-python",
    )
    assert found["RPC"].hint == (
        'CMAKE_ARGS="-DGGML_RPC=on" pip install llama-cpp-python'
    )
    assert "processor" not in found
    assert found["heat"].level == "ok"


def test_what_a_system_does_not_show_is_not_told() -> None:
    facts = replace(PI, load=None, swap=None, clocks=(), zones=(), power=None)

    found = {item.about for item in diagnose(facts)}

    assert found.isdisjoint({"load", "swap", "clock", "heat", "power"})


def test_a_mac_has_metal_and_no_cuda() -> None:
    metal = Device("MTL0", "Apple M2", "gpu", "MTL", 12 * GB, 11 * GB)
    facts = replace(
        PI,
        platform="darwin",
        cards=("Apple",),
        build=built("CPU", "MTL", devices=(PROCESSOR, metal)),
    )

    found = {item.about: item for item in diagnose(facts)}

    assert found["Metal"] == Finding(
        "Metal", "ok", "built in: MTL0 (Apple M2), 11.0 GB of 12.0 GB free"
    )
    assert found.keys().isdisjoint({"CUDA", "Vulkan"})


@pytest.mark.parametrize(
    ("build", "cards", "expected"),
    [
        pytest.param(
            built("CPU", "CUDA", devices=(CARD, PROCESSOR)),
            ("NVIDIA",),
            Finding(
                "CUDA", "ok", "built in: CUDA0 (RTX 3060), 11.0 GB of 12.0 GB free"
            ),
            id="in use",
        ),
        pytest.param(
            built("CPU"),
            ("Intel", "NVIDIA"),
            Finding(
                "CUDA",
                "note",
                "not built in, and there is a card of NVIDIA: the processor does its "
                "work",
                f'CMAKE_ARGS="-DGGML_CUDA=on" {PIP} (needs the CUDA toolkit)',
            ),
            id="a card that is not used",
        ),
        pytest.param(
            built(
                *("CPU", "Vulkan"),
                devices=(replace(CARD, name="Vulkan0", backend="Vulkan"),),
            ),
            ("NVIDIA",),
            Finding(
                "CUDA",
                "ok",
                "not built in",
                f'CMAKE_ARGS="-DGGML_VULKAN=on -DGGML_CUDA=on" {PIP} '
                "(needs the CUDA toolkit)",
            ),
            id="a card that another part uses",
        ),
        pytest.param(
            built("CPU", "CUDA"),
            ("NVIDIA",),
            Finding(
                "CUDA",
                "problem",
                "built in, and finds no device",
                "look whether the driver is installed and this user may use the device",
            ),
            id="a card without a driver",
        ),
        pytest.param(
            built("CPU", "CUDA"),
            (),
            Finding(
                "CUDA",
                "note",
                "built in, and finds no device",
                "look whether the driver is installed and this user may use the device",
            ),
            id="no card",
        ),
    ],
)
def test_a_card(build: Build, cards: tuple[str, ...], expected: Finding) -> None:
    assert about(replace(PI, build=build, cards=cards), "CUDA") == expected


def test_a_card_of_amd_is_for_vulkan() -> None:
    found = about(replace(PI, cards=("AMD",)), "Vulkan")

    assert found.level == "note"
    assert about(replace(PI, cards=("AMD",)), "CUDA").level == "ok"


def test_rpc_needs_no_device_of_its_own() -> None:
    assert about(replace(PI, build=built("CPU", "RPC")), "RPC") == Finding(
        "RPC", "ok", "built in: other machines can take layers"
    )


@pytest.mark.parametrize(
    ("features", "level", "told"),
    [
        (
            ("NEON", "FP16_VA"),
            "problem",
            "compiled for NEON, FP16_VA; without DOTPROD, which the processor has, it "
            "is several times slower",
        ),
        (
            ("NEON", "DOTPROD"),
            "note",
            "compiled for NEON, DOTPROD; the processor has FP16_VA too",
        ),
        (
            ("NEON", "DOTPROD", "FP16_VA", "SVE"),
            "problem",
            "compiled for NEON, DOTPROD, FP16_VA, SVE; the processor lacks SVE: it may "
            "end with 'illegal instruction'",
        ),
        (
            (),
            "problem",
            "compiled for nothing in particular; without NEON, DOTPROD, which the "
            "processor has, it is several times slower",
        ),
    ],
    ids=["slow", "unused", "foreign", "plain"],
)
def test_a_build_that_does_not_suit_the_processor(
    features: tuple[str, ...], level: str, told: str
) -> None:
    build = Build("0.3.36", "x", {"CPU": dict.fromkeys(features, "1")}, (PROCESSOR,))

    found = about(replace(PI, build=build, board=""), "processor")

    assert (found.level, found.what) == (level, f"CPU (Cortex-A76): {told}")
    assert found.hint == f'CMAKE_ARGS="-DGGML_NATIVE=on" {PIP}'


def test_settings_that_make_no_sense_are_a_problem() -> None:
    place = Place(
        Path("/c.toml"), fault="/c.toml: unknown setting 'x'", hint="known: y"
    )

    assert about(replace(PI, settings_file=place), "settings") == Finding(
        "settings", "problem", "/c.toml: unknown setting 'x'", "known: y"
    )
    assert about(replace(PI, registry_file=place), "registry").level == "problem"


@pytest.mark.parametrize(
    ("place", "what"),
    [
        (Place(Path("/s"), writable=False), "/s cannot be written"),
        (Place(Path("/s"), fault="/s is no folder"), "/s is no folder"),
    ],
)
def test_a_store_that_cannot_be_written_is_a_problem(place: Place, what: str) -> None:
    assert about(replace(PI, store=place), "store") == Finding(
        "store",
        "problem",
        what,
        "models can be run, not pulled: give another folder with --home",
    )


def test_a_disk_that_is_nearly_full_is_noted() -> None:
    assert about(replace(PI, free_disk=GB), "disk") == Finding(
        "disk",
        "note",
        "1.0 GB free where the store is: a 7B model takes about 4 GB",
        "wizard-edge list; wizard-edge rm MODEL",
    )


def test_settings_are_judged_with_the_machine() -> None:
    facts = replace(PI, settings=Settings(threads=8, mlock=True), lockable=1 << 20)

    assert about(facts, "cores").level == "note"
    assert about(facts, "mlock").level == "problem"


@pytest.mark.parametrize(
    "facts",
    [replace(PI, slowed=True, zones=()), replace(PI, times_slowed=3, zones=())],
    ids=["now", "earlier"],
)
def test_heat_is_told_of_without_a_thermometer(facts: Facts) -> None:
    assert about(facts, "heat").level != "ok"
