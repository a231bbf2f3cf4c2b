"""Machines that decisions are tested on: a board, a laptop, a workstation."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from wizard_edge.fitting import Machine
from wizard_edge.hardware import Cores, Memory


def machine(
    ram: float, *, free_disk: int = 10**12, bandwidth: float | None = None
) -> Machine:
    """Return a machine of `ram` GB, of which nothing is taken."""
    memory = Memory(total=int(ram * 1e9), available=int(ram * 1e9))
    return Machine(Cores(4, 4, 4), memory, free_disk, bandwidth)


# A Raspberry Pi 5 of 8 GB, a laptop of 16 GB and a workstation of 64 GB with four
# memory channels, as the kernel counts their memory.
PI = machine(8.4, bandwidth=11e9)
LAPTOP = machine(16.5, bandwidth=38e9)
WORKSTATION = machine(67, bandwidth=150e9)


def plant(root: Path, files: Mapping[str, object]) -> Path:
    """Write files as the kernel shows them, each with a line break at its end."""
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{content}\n")
    return root
