"""What is well with this installation and its machine, and what is not.

Pure: `diagnose` judges facts that `examination` collects.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from wizard_edge.condition import Clock, Power, Swap, Zone
from wizard_edge.config import Settings
from wizard_edge.hardware import Cores, Memory
from wizard_edge.service.builds import (
    NATIVE,
    PACKAGE,
    PARTS,
    Build,
    Part,
    build_line,
    compare_instructions,
)
from wizard_edge.service.findings import Finding, listed
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
from wizard_edge.units import format_bytes

# Less than the smallest of the 7B models that is of use, and its parts meanwhile.
_LITTLE_DISK = 5 << 30


@dataclass(frozen=True, slots=True)
class Place:
    """A folder or file, whether it can be written, and why it cannot be used."""

    path: Path
    writable: bool = True
    fault: str | None = None
    hint: str | None = None


@dataclass(frozen=True, slots=True)
class Facts:
    """All that a diagnosis rests on; sizes in bytes.

    `build` is None where llama.cpp does not load, for the reason in `fault`.
    `installed_memory` is that of the whole machine, of which a container may give
    less. `load` counts cores' worth of work, `lockable` None means any number.
    """

    version: str
    python: str
    platform: str
    machine: str
    cores: Cores
    memory: Memory
    installed_memory: int
    free_disk: int
    store: Place
    settings_file: Place
    registry_file: Place
    settings: Settings = field(default_factory=Settings)
    build: Build | None = None
    fault: str = ""
    board: str = ""
    flags: tuple[str, ...] = ()
    cards: tuple[str, ...] = ()
    load: float | None = None
    swap: Swap | None = None
    lockable: int | None = None
    clocks: tuple[Clock, ...] = ()
    zones: tuple[Zone, ...] = ()
    slowed: bool = False
    times_slowed: int = 0
    power: Power | None = None


def diagnose(facts: Facts) -> tuple[Finding, ...]:
    """Judge the facts, in the order of a page: program, machine, devices, state."""
    return tuple(_findings(facts))


def _findings(facts: Facts) -> Iterator[Finding]:
    system = f"{facts.platform} {facts.machine}"
    yield Finding(
        "wizard-edge", "ok", f"{facts.version}, Python {facts.python}, {system}"
    )
    yield _llama(facts)
    yield _settings(facts.settings_file)
    if facts.registry_file.fault:
        yield _settings(facts.registry_file, "registry")
    yield _store(facts)
    yield _disk(facts)
    yield judge_cores(facts.cores, facts.settings.threads)
    yield judge_memory(facts.memory, facts.installed_memory)
    if facts.swap is not None:
        yield judge_swap(facts.swap, facts.memory)
    yield judge_locks(facts.lockable, wanted=bool(facts.settings.mlock))
    if facts.build is not None:
        yield _instructions(facts, facts.build)
    for part in PARTS:
        if facts.platform in part.platforms:
            yield _part(facts, part)
    if facts.load is not None:
        yield judge_load(facts.load, facts.cores)
    if facts.clocks:
        yield judge_clocks(facts.clocks)
    if facts.zones or facts.slowed or facts.times_slowed:
        yield judge_heat(
            facts.zones, slowed=facts.slowed, times_slowed=facts.times_slowed
        )
    if facts.power is not None:
        yield judge_power(facts.power)


def _llama(facts: Facts) -> Finding:
    if facts.build is None:
        return Finding(
            "llama.cpp",
            "problem",
            f"{facts.fault}: no model can be loaded, all else works",
            build_line(None, (), facts.platform),
        )
    build = facts.build
    return Finding(
        "llama.cpp", "ok", f"{PACKAGE} {build.version}, ggml {build.identity}"
    )


def _settings(place: Place, about: str = "settings") -> Finding:
    if place.fault:
        return Finding(about, "problem", place.fault, place.hint)
    return Finding(about, "ok", str(place.path))


def _store(facts: Facts) -> Finding:
    place = facts.store
    if place.fault or not place.writable:
        return Finding(
            "store",
            "problem",
            place.fault or f"{place.path} cannot be written",
            "models can be run, not pulled: give another folder with --home",
        )
    return Finding("store", "ok", str(place.path))


def _disk(facts: Facts) -> Finding:
    free = f"{format_bytes(facts.free_disk)} free where the store is"
    if facts.free_disk < _LITTLE_DISK:
        return Finding(
            "disk",
            "note",
            f"{free}: a 7B model takes about 4 GB",
            "wizard-edge list; wizard-edge rm MODEL",
        )
    return Finding("disk", "ok", free)


def _instructions(facts: Facts, build: Build) -> Finding:
    found = compare_instructions(build.parts.get("CPU", {}), facts.flags)
    line = build_line(build, (NATIVE,), facts.platform)
    names = [str(item) for item in build.devices if item.kind == "cpu"]
    what = f"{facts.board or ', '.join(names)}: compiled for {listed(found.compiled)}"
    if found.foreign:
        return Finding(
            "processor",
            "problem",
            f"{what}; the processor lacks {listed(found.foreign)}: it may end with "
            "'illegal instruction'",
            line,
        )
    if found.slow:
        return Finding(
            "processor",
            "problem",
            f"{what}; without {listed(found.slow)}, which the processor has, it is "
            "several times slower",
            line,
        )
    if found.unused:
        return Finding(
            "processor",
            "note",
            f"{what}; the processor has {listed(found.unused)} too",
            line,
        )
    return Finding("processor", "ok", what)


def _part(facts: Facts, part: Part) -> Finding:
    build = facts.build
    makers = [maker for maker in part.makes if maker in facts.cards]
    if build is not None and part.name in build.parts:
        devices = [item for item in build.devices if item.backend == part.name]
        if devices:
            told = [
                f"{item}, {format_bytes(item.free)} of {format_bytes(item.total)} free"
                for item in devices
            ]
            return Finding(part.label, "ok", f"built in: {'; '.join(told)}")
        if part.name == "RPC":
            return Finding(part.label, "ok", "built in: other machines can take layers")
        return Finding(
            part.label,
            "problem" if makers else "note",
            "built in, and finds no device",
            "look whether the driver is installed and this user may use the device",
        )
    what = "not built in"
    line = build_line(build, (part.flag,), facts.platform)
    hint = f"{line} (needs {part.needs})" if part.needs else line
    if makers and not _has_card(build):
        return Finding(
            part.label,
            "note",
            f"{what}, and there is a card of {listed(makers)}: the processor does its "
            "work",
            hint,
        )
    return Finding(part.label, "ok", what, hint)


def _has_card(build: Build | None) -> bool:
    return build is not None and any(
        item.kind in ("gpu", "igpu") for item in build.devices
    )
