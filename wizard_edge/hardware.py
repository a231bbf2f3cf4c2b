"""What this machine gives this process: cores, memory, disk.

Not what it was sold with: affinity, cgroup limits and hyper-threads are taken into
account. Everything is read from files under `root` or asked through a parameter,
so that a test can build a machine. Knows no GPU: llama.cpp tells of those. numpy is
imported where it measures: `list` counts memory too.
"""

from __future__ import annotations

import ctypes
import os
import sys
import time
from collections.abc import Callable, Set
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from wizard_edge.files import free_disk

__all__ = [
    "Cores",
    "Memory",
    "ask_sysctl",
    "find_cores",
    "find_load",
    "find_memory",
    "find_peak_memory",
    "find_processor",
    "free_disk",
    "measure_bandwidth",
]

Sysctl = Callable[[str], int | None]

ROOT = Path("/")

_CPUS = "sys/devices/system/cpu"
_CGROUPS = "sys/fs/cgroup"
# Lines of /proc/cpuinfo: of a PC, of an ARM core, and the name of a board.
_PROCESSOR_NAMES = ("model name", "CPU implementer", "CPU part", "Model")
# An efficiency core of an RK3588 has 530 of 1024, of a Snapdragon 8 Gen 2 about 330,
# its middle cores 850. Source: capacity-dmips-mhz in the kernel's device trees.
_FAST_SHARE = 0.7
# What each thread reads in a round: more than the caches of a core give.
_READ = 64 << 20


@dataclass(frozen=True, slots=True)
class Cores:
    """What may be used: hardware threads, physical cores, the fast ones of these.

    `fast` is smaller than `physical` on a hybrid processor only. `quota` is how many
    cores' worth of time a cgroup allows, None for no limit.
    """

    logical: int
    physical: int
    fast: int
    quota: float | None = None

    @property
    def threads(self) -> int:
        """How many threads to compute with: fast cores, within the quota, at least 1.

        A layer is done when its slowest thread is: a slow core, or a thread that the
        quota puts to sleep, holds up all others. llama.cpp leaves slow cores out too.
        Source: llama.cpp 0c1e57098, common/common.cpp, common_cpu_get_num_math.
        """
        return max(1, min(self.fast, int(self.quota or self.fast)))


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes of RAM: all this process may ever use, and what it could take now."""

    total: int
    available: int


def find_cores(
    *,
    root: Path = ROOT,
    platform: str = sys.platform,
    allowed: Set[int] | None = None,
    sysctl: Sysctl | None = None,
) -> Cores:
    """Count the cores this process may run on.

    `allowed` are the hardware threads of its affinity, None to ask the system.
    """
    if platform == "darwin":
        return _darwin_cores(sysctl or ask_sysctl)
    if platform != "linux":
        count = os.cpu_count() or 1
        return Cores(logical=count, physical=count, fast=count)
    threads = set(allowed if allowed is not None else os.sched_getaffinity(0))
    cores = {_core(root, thread): thread for thread in sorted(threads, reverse=True)}
    return Cores(
        logical=len(threads),
        physical=len(cores),
        fast=_count_fast(root, set(cores.values())),
        quota=_quota(root),
    )


def find_memory(
    *, root: Path = ROOT, platform: str = sys.platform, sysctl: Sysctl | None = None
) -> Memory:
    """Measure the memory of this machine, or of the container it lends us."""
    if platform == "darwin":
        return _darwin_memory(sysctl or ask_sysctl)
    if platform == "win32":
        return _windows_memory()
    table = _table(root / "proc/meminfo")
    total = 1024 * table.get("MemTotal:", 0)
    # Kernels before 3.14 have no MemAvailable.
    free = 1024 * table.get("MemAvailable:", table.get("MemFree:", 0))
    for limit, left in _memory_limits(root):
        total = min(total, limit)
        free = min(free, left)
    return Memory(total=total, available=max(0, free))


def find_processor(
    *, root: Path = ROOT, platform: str = sys.platform, sysctl: Sysctl | None = None
) -> str:
    """Return what the processor calls itself, "" where nobody says.

    To tell machines apart, not to be read: an ARM processor gives the numbers of its
    kinds of cores, a Mac that of its family.
    """
    if platform == "darwin":
        return str((sysctl or ask_sysctl)("hw.cpufamily") or "")
    names = {
        " ".join(line.partition(":")[2].split())
        for line in _text(root / "proc/cpuinfo").splitlines()
        if line.partition(":")[0].strip() in _PROCESSOR_NAMES
    }
    return ", ".join(sorted(names))


def find_load() -> float | None:
    """Return how many cores' worth of work there was in the last minute.

    None where the system does not count that.
    """
    if sys.platform == "win32":
        return None
    return os.getloadavg()[0]


def find_peak_memory(*, root: Path = ROOT, platform: str = sys.platform) -> int | None:
    """Return the most bytes this process had resident, None where nobody counts."""
    if platform == "linux":
        # Not ru_maxrss, which begins with what whoever started this process had.
        # Source: getrusage(2); proc_pid_status(5), VmHWM.
        peak = _table(root / "proc/self/status").get("VmHWM:")
        return None if peak is None else 1024 * peak
    if platform != "darwin":
        return None
    # A module that Windows has not.
    import resource

    # In bytes there. Source: macOS, getrusage(2).
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def measure_bandwidth(seconds: float = 1.0, *, threads: int) -> float:
    """Return how many bytes/s of memory some threads read together.

    Reading alone, as a model's weights are read: each thread adds up a part of its
    own, in rounds of which the fastest quarter counts. What else the machine does
    makes rounds longer, none shorter.
    """
    from concurrent.futures import ThreadPoolExecutor

    import numpy as np

    parts = [np.ones(_READ // 8, dtype=np.uint64) for _ in range(threads)]
    spent: list[float] = []
    with ThreadPoolExecutor(threads) as pool:
        # The first round brings the threads up.
        list(pool.map(np.sum, parts))
        end = time.perf_counter() + seconds
        while not spent or time.perf_counter() < end:
            begun = time.perf_counter()
            list(pool.map(np.sum, parts))
            spent.append(time.perf_counter() - begun)
    return threads * _READ / sorted(spent)[len(spent) // 4]


def _core(root: Path, thread: int) -> str:
    """Name the physical core of a hardware thread: the list of its threads.

    Numbers of cores repeat in every cluster of an ARM processor, so (package, core)
    is only the second choice. Source: Linux, Documentation/ABI/stable/
    sysfs-devices-system-cpu, core_cpus_list (thread_siblings_list before 5.3).
    """
    topology = root / _CPUS / f"cpu{thread}/topology"
    siblings = _text(topology / "core_cpus_list") or _text(
        topology / "thread_siblings_list"
    )
    if siblings:
        return siblings
    place = [
        _text(topology / name) for name in ("physical_package_id", "die_id", "core_id")
    ]
    return "/".join(place) if place[-1] else f"thread {thread}"


def _count_fast(root: Path, threads: Set[int]) -> int:
    """Count the fast ones of some cores, each given by one of its threads."""
    # Intel names the fast kind; ARM rates every core.
    named = _cpu_list(_text(root / "sys/devices/cpu_core/cpus")) & threads
    if named:
        return len(named)
    ratings = [_number(root / _CPUS / f"cpu{item}/cpu_capacity") for item in threads]
    rated = [rating for rating in ratings if rating]
    if len(rated) < len(threads):
        return len(threads)
    return sum(rating >= _FAST_SHARE * max(rated) for rating in rated)


def _quota(root: Path) -> float | None:
    """Return the tightest CPU limit of the cgroups around this process, in cores.

    Source: Linux, Documentation/admin-guide/cgroup-v2.rst, cpu.max;
    Documentation/scheduler/sched-bwc.rst for version 1.
    """
    quotas: list[float] = []
    for folder in _cgroups(root, "cpu"):
        quota, _, period = _text(folder / "cpu.max").partition(" ")
        if quota.isdigit() and period.isdigit() and int(period):
            quotas.append(int(quota) / int(period))
        spent = _number(folder / "cpu.cfs_quota_us")
        length = _number(folder / "cpu.cfs_period_us")
        if spent and length and spent > 0:
            quotas.append(spent / length)
    return min(quotas, default=None)


def _memory_limits(root: Path) -> list[tuple[int, int]]:
    """Return limit and room of every cgroup around this process that has a limit.

    File pages that were not used lately give way, so they count as room.
    Source: Linux, Documentation/admin-guide/cgroup-v2.rst and cgroup-v1/memory.rst.
    """
    limits: list[tuple[int, int]] = []
    for folder in _cgroups(root, "memory"):
        stat = _table(folder / "memory.stat")
        for limit_name, usage_name, idle_name in (
            ("memory.max", "memory.current", "inactive_file"),
            ("memory.high", "memory.current", "inactive_file"),
            (
                "memory.limit_in_bytes",
                "memory.usage_in_bytes",
                "total_inactive_file",
            ),
        ):
            limit = _number(folder / limit_name)
            # Version 1 writes "no limit" as a huge number, which bounds nothing.
            if limit is not None:
                used = _number(folder / usage_name) or 0
                limits.append((limit, limit - used + stat.get(idle_name, 0)))
    return limits


def _cgroups(root: Path, controller: str) -> list[Path]:
    """Return the folders of a controller's cgroups, this process's and all above.

    Inside a container the path may be that of the host: folders that are not there
    are simply without limits, and the mount itself is always looked at.
    Source: cgroups(7), /proc/pid/cgroup.
    """
    folders: list[Path] = []
    for line in _text(root / "proc/self/cgroup").splitlines():
        number, _, rest = line.partition(":")
        names, _, path = rest.partition(":")
        if number == "0" and not names:
            mounts = [root / _CGROUPS]
        elif controller in names.split(","):
            mounts = [root / _CGROUPS / names, root / _CGROUPS / controller]
        else:
            continue
        inside = PurePosixPath(path.lstrip("/"))
        if ".." in inside.parts:
            inside = PurePosixPath()
        folders += [
            mount / level for mount in mounts for level in (inside, *inside.parents)
        ]
    return folders


def _darwin_cores(sysctl: Sysctl) -> Cores:
    logical = sysctl("hw.logicalcpu") or os.cpu_count() or 1
    physical = sysctl("hw.physicalcpu") or logical
    fast = sysctl("hw.perflevel0.physicalcpu") or physical
    return Cores(logical=logical, physical=physical, fast=min(fast, physical))


def _darwin_memory(sysctl: Sysctl) -> Memory:
    total = sysctl("hw.memsize") or 0
    # The percentage that `memory_pressure` prints: what the system could free.
    share = sysctl("kern.memorystatus_level")
    return Memory(total, total if share is None else total * min(share, 100) // 100)


def ask_sysctl(name: str) -> int | None:
    """Ask macOS for a whole number; None where it knows no such name."""
    libc = ctypes.CDLL(None)
    value = ctypes.c_int64(0)
    size = ctypes.c_size_t(ctypes.sizeof(value))
    failed = libc.sysctlbyname(
        name.encode(), ctypes.byref(value), ctypes.byref(size), None, ctypes.c_size_t(0)
    )
    # A 32-bit answer fills the low half: every Mac is little endian.
    return None if failed else value.value


class _MemoryStatus(ctypes.Structure):
    # Source: Windows SDK, sysinfoapi.h, MEMORYSTATUSEX.
    _fields_ = (
        ("length", ctypes.c_uint32),
        ("load", ctypes.c_uint32),
        ("total", ctypes.c_uint64),
        ("available", ctypes.c_uint64),
        ("others", ctypes.c_uint64 * 5),
    )


def _windows_memory() -> Memory:
    status = _MemoryStatus(length=ctypes.sizeof(_MemoryStatus))
    if sys.platform == "win32":
        ctypes.windll.kernel32.GlobalMemoryStatusEx(ctypes.byref(status))
    return Memory(status.total, status.available)


def _text(path: Path) -> str:
    """Return what a file of the kernel says, "" where it is not there."""
    try:
        return path.read_text(encoding="ascii", errors="replace").strip()
    except OSError:
        return ""


def _number(path: Path) -> int | None:
    text = _text(path)
    return int(text) if text.removeprefix("-").isdecimal() else None


def _table(path: Path) -> dict[str, int]:
    """Read lines that begin with a name and a number."""
    rows = (line.split() for line in _text(path).splitlines())
    return {row[0]: int(row[1]) for row in rows if len(row) > 1 and row[1].isdecimal()}


def _cpu_list(text: str) -> set[int]:
    """Read a list such as `0-3,8`."""
    found: set[int] = set()
    for part in text.split(","):
        first, _, last = part.partition("-")
        if first.isdecimal() and (last or first).isdecimal():
            found |= set(range(int(first), int(last or first) + 1))
    return found
