"""What state this machine is in: clocks, heat, power, swap, cards, memory locks.

What slows a model down although the hardware could do better. Read from files under
`root`, so that a test can build a machine; a system that shows none of it, or no
Linux at all, gives empty answers.

Source: Linux, Documentation/admin-guide/pm/cpufreq.rst, ABI/testing/
sysfs-class-thermal, ABI/testing/sysfs-bus-pci.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from wizard_edge.hardware import ROOT, Sysctl, ask_sysctl

# What macOS calls features of a processor -> what Linux calls them.
# Source: Apple, "Determining instruction set characteristics"; llama.cpp 0c1e57098,
# ggml/src/ggml-feats.h.
_DARWIN_FLAGS: Mapping[str, str] = {
    "hw.optional.AdvSIMD": "asimd",
    "hw.optional.arm.FEAT_DotProd": "asimddp",
    "hw.optional.arm.FEAT_FP16": "asimdhp",
    "hw.optional.arm.FEAT_I8MM": "i8mm",
    "hw.optional.avx1_0": "avx",
    "hw.optional.avx2_0": "avx2",
    "hw.optional.f16c": "f16c",
    "hw.optional.fma": "fma",
}
# At these the kernel slows down or switches off; "active" starts a fan.
_LIMITS = ("passive", "hot", "critical")
# Tables of PC firmware have limits of 20 degrees, which are none.
_LEAST_LIMIT = 50_000
# The first byte of a PCI class: display controllers.
_DISPLAY = "0x03"
_VENDORS = {"0x10de": "NVIDIA", "0x1002": "AMD", "0x8086": "Intel"}
# Source: capabilities(7), linux/capability.h.
_CAP_IPC_LOCK = 14


@dataclass(frozen=True, slots=True)
class Clock:
    """How the clock of some cores is chosen, and the most it may be, in kHz."""

    name: str
    governor: str
    driver: str
    highest_khz: int | None = None
    allowed_khz: int | None = None


@dataclass(frozen=True, slots=True)
class Zone:
    """A place with a thermometer, in degrees Celsius; from `limit` on it is slowed."""

    name: str
    celsius: float
    limit: float | None = None


@dataclass(frozen=True, slots=True)
class Power:
    """What a Raspberry Pi's firmware says of now, and of any time since it started."""

    low_voltage: bool
    slowed: bool
    had_low_voltage: bool
    was_slowed: bool


@dataclass(frozen=True, slots=True)
class Swap:
    """Bytes of disk, or of compressed memory, that memory is moved to."""

    total: int
    free: int


def find_flags(
    *,
    root: Path = ROOT,
    platform: str = sys.platform,
    sysctl: Sysctl | None = None,
) -> frozenset[str]:
    """Return what the processor can do by Linux's names, nothing where nobody says."""
    if platform == "darwin":
        ask = sysctl or ask_sysctl
        return frozenset(flag for name, flag in _DARWIN_FLAGS.items() if ask(name))
    for line in _text(root / "proc/cpuinfo").splitlines():
        name, _, value = line.partition(":")
        if name.strip() in ("flags", "Features"):
            return frozenset(value.split())
    return frozenset()


def find_board(*, root: Path = ROOT) -> str:
    """Return what a board such as a Raspberry Pi calls itself, "" for others."""
    return _text(root / "proc/device-tree/model").rstrip("\0")


def find_clocks(*, root: Path = ROOT) -> tuple[Clock, ...]:
    """Return how the clocks are chosen, each group of cores once."""
    return tuple(
        Clock(
            folder.name,
            _text(folder / "scaling_governor"),
            _text(folder / "scaling_driver"),
            _number(folder / "cpuinfo_max_freq"),
            _number(folder / "scaling_max_freq"),
        )
        for folder in _folders(root / "sys/devices/system/cpu/cpufreq", "policy*")
    )


def find_zones(*, root: Path = ROOT) -> tuple[Zone, ...]:
    """Return every thermometer that has something to say."""
    found = []
    for folder in _folders(root / "sys/class/thermal", "thermal_zone*"):
        temperature = _number(folder / "temp")
        # Zones that are switched off read 0 or less.
        if temperature is not None and temperature > 0:
            limit = min(_limits(folder), default=None)
            found.append(
                Zone(_text(folder / "type") or folder.name, temperature / 1000, limit)
            )
    return tuple(found)


def is_slowed(*, root: Path = ROOT) -> bool:
    """Whether the kernel holds the processor's clock down now, to cool it."""
    for folder in _folders(root / "sys/class/thermal", "cooling_device*"):
        kind = _text(folder / "type")
        state = _number(folder / "cur_state") or 0
        if state > 0 and ("cpufreq" in kind or kind == "Processor"):
            return True
    return False


def count_slowed(*, root: Path = ROOT) -> int:
    """Count how often an Intel processor slowed itself down since it started."""
    counts = [
        _number(folder / "thermal_throttle/package_throttle_count") or 0
        for folder in _folders(root / "sys/devices/system/cpu", "cpu[0-9]*")
    ]
    # Every core tells the count of the whole package.
    return max(counts, default=0)


def find_power(*, root: Path = ROOT) -> Power | None:
    """Return what the firmware of a Raspberry Pi says, None on other machines.

    Source: Raspberry Pi documentation, `vcgencmd get_throttled`; Linux,
    drivers/hwmon/raspberrypi-hwmon.c.
    """
    for file in root.glob("sys/devices/platform/soc*/*firmware/get_throttled"):
        text = _text(file)
        if text and all(digit in "0123456789abcdefABCDEF" for digit in text):
            bits = int(text, 16)
            return Power(
                low_voltage=bool(bits & 0x1),
                slowed=bool(bits & 0xE),
                had_low_voltage=bool(bits & 0x10000),
                was_slowed=bool(bits & 0xE0000),
            )
    for folder in _folders(root / "sys/class/hwmon", "hwmon*"):
        if _text(folder / "name") == "rpi_volt":
            low = _number(folder / "in0_lcrit_alarm") == 1
            return Power(low, slowed=False, had_low_voltage=low, was_slowed=False)
    return None


def find_swap(*, root: Path = ROOT) -> Swap | None:
    """Return the swap of a Linux machine, None where the system does not say."""
    table = _meminfo(root)
    if "SwapTotal" not in table:
        return None
    return Swap(table["SwapTotal"], table.get("SwapFree", 0))


def find_installed_memory(*, root: Path = ROOT) -> int | None:
    """Return the bytes of a whole Linux machine, None where the system does not say.

    A container sees it too, and may use less: `hardware.find_memory`.
    """
    return _meminfo(root).get("MemTotal")


def find_cards(
    *, root: Path = ROOT, platform: str = sys.platform, machine: str = ""
) -> tuple[str, ...]:
    """Name the makers of the graphics cards on the bus, each once.

    `machine` is the processor's kind: Apple's own have their card inside.
    """
    if platform == "darwin":
        return ("Apple",) if machine == "arm64" else ()
    makers = [
        _VENDORS.get(_text(folder / "vendor"))
        for folder in _folders(root / "sys/bus/pci/devices", "*")
        if _text(folder / "class").startswith(_DISPLAY)
    ]
    return tuple(dict.fromkeys(maker for maker in makers if maker))


def find_lock_limit(*, root: Path = ROOT) -> int | None:
    """Return the bytes of memory this process may lock, None for any number."""
    if sys.platform == "win32":
        return None
    import resource

    for line in _text(root / "proc/self/status").splitlines():
        name, _, value = line.partition(":")
        if name == "CapEff" and int(value, 16) >> _CAP_IPC_LOCK & 1:
            return None
    limit, _ = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    return None if limit == resource.RLIM_INFINITY else limit


def _meminfo(root: Path) -> dict[str, int]:
    table: dict[str, int] = {}
    for line in _text(root / "proc/meminfo").splitlines():
        name, _, value = line.partition(":")
        number = value.partition("kB")[0].strip()
        if number.isdecimal():
            table[name] = 1024 * int(number)
    return table


def _limits(folder: Path) -> Iterator[float]:
    for kind in folder.glob("trip_point_*_type"):
        if _text(kind) in _LIMITS:
            limit = _number(kind.with_name(kind.name.replace("_type", "_temp")))
            if limit is not None and limit >= _LEAST_LIMIT:
                yield limit / 1000


def _folders(place: Path, pattern: str) -> list[Path]:
    return sorted(folder for folder in place.glob(pattern) if folder.is_dir())


def _text(path: Path) -> str:
    """Return what a file of the kernel says, "" where it is not there."""
    try:
        return path.read_text(encoding="ascii", errors="replace").strip()
    except OSError:
        return ""


def _number(path: Path) -> int | None:
    text = _text(path)
    return int(text) if text.removeprefix("-").isdecimal() else None
