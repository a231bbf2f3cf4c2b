"""Collects what `doctor` judges. Writes nothing, and loads no model."""

from __future__ import annotations

import os
import platform
import sys
from dataclasses import dataclass
from pathlib import Path

from wizard_edge import __version__
from wizard_edge.condition import (
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
from wizard_edge.config import Settings
from wizard_edge.errors import BackendError, WizardEdgeError
from wizard_edge.hardware import ROOT, find_cores, find_load, find_memory, free_disk
from wizard_edge.service.builds import Build
from wizard_edge.service.doctor import Facts, Place, diagnose
from wizard_edge.service.findings import Finding
from wizard_edge.service.installation import USER_REGISTRY, Installation


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """What `doctor` tells: how many problems there are, each finding, all facts."""

    problems: int
    findings: tuple[Finding, ...]
    facts: Facts


def examine(installation: Installation, *, root: Path = ROOT) -> Diagnosis:
    """Look at an installation and its machine, and judge them.

    Settings or a registry that make no sense are findings here.
    """
    facts = _collect(installation, root)
    findings = diagnose(facts)
    problems = sum(finding.level == "problem" for finding in findings)
    return Diagnosis(problems, findings, facts)


def _collect(installation: Installation, root: Path) -> Facts:
    settings, settings_file = _read_settings(installation)
    build, fault = _find_build()
    memory = find_memory(root=root)
    return Facts(
        version=__version__,
        python=platform.python_version(),
        platform=sys.platform,
        machine=platform.machine(),
        cores=find_cores(root=root),
        memory=memory,
        installed_memory=find_installed_memory(root=root) or memory.total,
        free_disk=free_disk(installation.home.models),
        store=_store(installation.home.root),
        settings_file=settings_file,
        registry_file=_read_registry(installation),
        settings=settings,
        build=build,
        fault=fault,
        board=find_board(root=root),
        flags=tuple(sorted(find_flags(root=root))),
        cards=find_cards(root=root, machine=platform.machine()),
        load=find_load(),
        swap=find_swap(root=root),
        lockable=find_lock_limit(root=root),
        clocks=find_clocks(root=root),
        zones=find_zones(root=root),
        slowed=is_slowed(root=root),
        times_slowed=count_slowed(root=root),
        power=find_power(root=root),
    )


def _find_build() -> tuple[Build | None, str]:
    """Ask llama.cpp about itself; without it, why it does not load."""
    from wizard_edge._llama import devices, library

    try:
        version: str = library.load().__version__
        parts = {part.name: part.features for part in devices.find_backends()}
        found = devices.find_devices()
        return Build(version, devices.build_identity(), parts, found), ""
    except BackendError as err:
        return None, err.message


def _read_settings(installation: Installation) -> tuple[Settings, Place]:
    path = installation.settings_file
    try:
        return installation.settings, Place(path)
    except WizardEdgeError as err:
        return Settings(), Place(path, fault=err.message, hint=err.hint)


def _read_registry(installation: Installation) -> Place:
    path = installation.config_dir / USER_REGISTRY
    try:
        len(installation.registry)
    except WizardEdgeError as err:
        return Place(path, fault=err.message, hint=err.hint)
    return Place(path)


def _store(path: Path) -> Place:
    """Tell whether a store can be written, or made where there is none yet."""
    for place in (path, *path.parents):
        if place.is_dir():
            return Place(path, writable=os.access(place, os.W_OK | os.X_OK))
        if place.exists() or place.is_symlink():
            return Place(path, fault=f"{place} is no folder")
    return Place(path, writable=False)
