"""What a machine's state means for models: memory, cores, clocks, heat, power.

Pure: each function judges what `hardware` and `condition` read.
"""

from __future__ import annotations

from collections.abc import Sequence

from wizard_edge.condition import Clock, Power, Swap, Zone
from wizard_edge.hardware import Cores, Memory
from wizard_edge.service.findings import Finding, listed
from wizard_edge.units import format_bytes

# Below this the smallest of the 7B models has no place.
_LITTLE_MEMORY = 4 << 30
# So near to its limit a processor is slowed down before an answer is complete.
_WARM = 5
_PERFORMANCE = (
    "echo performance | sudo tee /sys/devices/system/cpu/cpufreq/policy*/"
    "scaling_governor"
)
# With these drivers "powersave" follows the load as "ondemand" does elsewhere.
# Source: Linux, Documentation/admin-guide/pm/intel_pstate.rst and amd-pstate.rst.
_SELF_GOVERNED = ("intel_pstate", "amd-pstate-epp")
_COOLER = "a heat sink, a fan, or fewer --threads"
# Source: Raspberry Pi documentation, "Power supplies".
_SUPPLY = "take the maker's own supply: 27 W for a Raspberry Pi 5, 15 W for a 4"


def judge_cores(cores: Cores, threads: int | None) -> Finding:
    """Tell what computes; `threads` is what the settings ask for."""
    parts = [f"{cores.physical}"]
    if cores.logical > cores.physical:
        parts.append(f"{cores.logical} hardware threads")
    if cores.fast < cores.physical:
        parts.append(f"{cores.fast} of them fast")
    if cores.quota is not None:
        parts.append(f"time for {cores.quota:.1f} of them")
    parts.append(f"{threads or cores.threads} used")
    what = ", ".join(parts)
    if threads and threads > cores.threads:
        return Finding(
            "cores",
            "note",
            f"{what}: more threads than that fight for the same units",
            "wizard-edge config --unset threads",
        )
    return Finding("cores", "ok", what)


def judge_memory(memory: Memory, installed: int) -> Finding:
    """Tell what a process may use; `installed` bytes are in the whole machine."""
    what = f"{format_bytes(memory.total)}, {format_bytes(memory.available)} free now"
    if memory.total < installed:
        what += f"; a container's limit, the machine has {format_bytes(installed)}"
    if memory.total < _LITTLE_MEMORY:
        hint = "wizard-edge config low-memory yes; wizard-edge fit"
    elif memory.available < memory.total // 4:
        hint = "other programs hold the rest: end some, or take --low-memory"
    else:
        return Finding("memory", "ok", what)
    return Finding("memory", "note", what, hint)


def judge_swap(swap: Swap, memory: Memory) -> Finding:
    """Tell whether memory is short already."""
    if not swap.total:
        return Finding("swap", "ok", "none")
    used = swap.total - swap.free
    what = f"{format_bytes(used)} of {format_bytes(swap.total)} used"
    if used > memory.available:
        return Finding(
            "swap",
            "note",
            f"{what}, more than there is memory free",
            "end other programs, take a smaller quant or --low-memory",
        )
    return Finding("swap", "ok", what)


def judge_locks(lockable: int | None, *, wanted: bool) -> Finding:
    """Tell how much may be locked; `wanted` says that the settings ask for it."""
    if lockable is None:
        return Finding("mlock", "ok", "any model may be locked into memory")
    what = f"{format_bytes(lockable)} may be locked into memory"
    if wanted:
        return Finding(
            "mlock",
            "problem",
            f"{what}, and the setting mlock asks for whole models",
            "ulimit -l unlimited (LimitMEMLOCK=infinity in a systemd unit), or "
            "wizard-edge config --unset mlock",
        )
    return Finding("mlock", "ok", what)


def judge_load(load: float, cores: Cores) -> Finding:
    """Tell whether other programs take the cores."""
    what = f"{load:.1f} of {cores.physical} cores were busy in the last minute"
    if load >= cores.physical / 2:
        return Finding("load", "note", what, "without the others answers come faster")
    return Finding("load", "ok", what)


def judge_clocks(clocks: Sequence[Clock]) -> Finding:
    """Tell whether the clocks go up under load."""
    names = listed(sorted({clock.governor for clock in clocks}))
    fixed = [item for item in clocks if item.driver not in _SELF_GOVERNED]
    if any(clock.governor == "powersave" for clock in fixed):
        what = f"{names}: the clock stays at its lowest"
        return Finding("clock", "problem", what, _PERFORMANCE)
    if any(clock.governor in ("conservative", "userspace") for clock in fixed):
        what = f"{names}: the clock rises slowly or not at all"
        return Finding("clock", "note", what, _PERFORMANCE)
    for clock in clocks:
        if (clock.allowed_khz or 0) < (clock.highest_khz or 0):
            held = f"held to {_mhz(clock.allowed_khz)} of {_mhz(clock.highest_khz)}"
            folder = f"/sys/devices/system/cpu/cpufreq/{clock.name}"
            return Finding(
                "clock",
                "note",
                f"{names}, {held}",
                f"echo {clock.highest_khz} | sudo tee {folder}/scaling_max_freq",
            )
    return Finding("clock", "ok", names)


def judge_heat(zones: Sequence[Zone], *, slowed: bool, times_slowed: int) -> Finding:
    """Tell whether heat slows the processor down: now, soon, or earlier."""
    hottest = max(zones, key=lambda zone: zone.celsius, default=None)
    what = f"{hottest.celsius:.0f} °C ({hottest.name})" if hottest else "no thermometer"
    margins = [zone.limit - zone.celsius for zone in zones if zone.limit is not None]
    left = min(margins, default=None)
    if slowed or (left is not None and left <= 0):
        what = f"{what}: the processor is slowed down"
        return Finding("heat", "problem", what, _COOLER)
    if left is not None and left <= _WARM:
        what = f"{what}: {left:.0f} °C below where the processor is slowed down"
        return Finding("heat", "note", what, _COOLER)
    if times_slowed:
        what = f"{what}: slowed down {times_slowed} times since the start"
        return Finding("heat", "note", what, _COOLER)
    return Finding("heat", "ok", what)


def judge_power(power: Power) -> Finding:
    """Tell whether a Raspberry Pi gets enough."""
    if power.low_voltage:
        return Finding("power", "problem", "the voltage is too low", _SUPPLY)
    if power.slowed:
        what = "the firmware slows the processor down: too hot, or too little power"
        return Finding("power", "problem", what, f"{_SUPPLY}; {_COOLER}")
    if power.had_low_voltage:
        what = "the voltage was too low since the start"
        return Finding("power", "note", what, _SUPPLY)
    if power.was_slowed:
        what = "the firmware slowed the processor down since the start"
        return Finding("power", "note", what, f"{_SUPPLY}; {_COOLER}")
    return Finding("power", "ok", "enough")


def _mhz(khz: int | None) -> str:
    return f"{(khz or 0) // 1000} MHz"
