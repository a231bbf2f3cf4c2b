from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from wizard_edge.hardware import (
    Cores,
    Memory,
    find_cores,
    find_load,
    find_memory,
    find_peak_memory,
    find_processor,
    measure_bandwidth,
)

GB = 1_000_000_000


def build(root: Path, files: Mapping[str, object]) -> Path:
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{content}\n")
    return root


def cpu(number: int, **topology: object) -> dict[str, object]:
    folder = f"sys/devices/system/cpu/cpu{number}"
    return {
        f"{folder}/{'' if name == 'cpu_capacity' else 'topology/'}{name}": value
        for name, value in topology.items()
    }


def cpus(*rows: Mapping[str, object]) -> dict[str, object]:
    return {key: value for row in rows for key, value in row.items()}


def cores(root: Path, allowed: int | set[int]) -> Cores:
    threads = allowed if isinstance(allowed, set) else set(range(allowed))
    return find_cores(root=root, platform="linux", allowed=threads)


# A Raspberry Pi 4: four cores without threads, all in one cluster.
PI = cpus(*(cpu(n, core_cpus_list=n, core_id=n, cpu_capacity=1024) for n in range(4)))
# Four cores with two threads each, numbered as Linux does on a PC.
LAPTOP = cpus(*(cpu(n, core_cpus_list=f"{n % 4},{n % 4 + 4}") for n in range(8)))
# An RK3588: the numbers of the cores begin anew in every cluster.
RK3588 = cpus(
    *(cpu(n, core_id=n, core_cpus_list=n, cpu_capacity=530) for n in range(4)),
    *(
        cpu(n, core_id=(n - 4) % 2, core_cpus_list=n, cpu_capacity=capacity)
        for n, capacity in zip(range(4, 8), (1010, 1010, 1024, 1024), strict=True)
    ),
)
# Two performance cores with two threads each, four efficiency cores.
INTEL = {
    **cpus(
        *(cpu(n, core_cpus_list=f"{n // 2 * 2}-{n // 2 * 2 + 1}") for n in range(4))
    ),
    **cpus(*(cpu(n, core_cpus_list=n) for n in range(4, 8))),
    "sys/devices/cpu_core/cpus": "0-3",
    "sys/devices/cpu_atom/cpus": "4-7",
}


@pytest.mark.parametrize(
    ("machine", "allowed", "expected"),
    [
        pytest.param(PI, 4, Cores(4, 4, 4), id="Pi"),
        pytest.param(LAPTOP, 8, Cores(8, 4, 4), id="hyper-threads"),
        pytest.param(LAPTOP, {0, 4}, Cores(2, 1, 1), id="both threads of one core"),
        pytest.param(LAPTOP, {0, 5}, Cores(2, 2, 2), id="threads of two cores"),
        pytest.param(RK3588, 8, Cores(8, 8, 4), id="big.LITTLE"),
        pytest.param(RK3588, {0, 1}, Cores(2, 2, 2), id="little cores only"),
        pytest.param(INTEL, 8, Cores(8, 6, 2), id="hybrid"),
        pytest.param(INTEL, {4, 5}, Cores(2, 2, 2), id="efficiency cores only"),
        pytest.param({}, 3, Cores(3, 3, 3), id="no topology at all"),
    ],
)
def test_cores_available_to_the_process(
    tmp_path: Path,
    machine: Mapping[str, object],
    allowed: int | set[int],
    expected: Cores,
) -> None:
    assert cores(build(tmp_path, machine), allowed) == expected


def test_old_kernels_name_the_siblings_otherwise(tmp_path: Path) -> None:
    machine = cpus(
        *(cpu(n, thread_siblings_list=f"{n % 2},{n % 2 + 2}") for n in range(4))
    )

    assert cores(build(tmp_path, machine), 4).physical == 2


def test_without_siblings_package_and_core_tell(tmp_path: Path) -> None:
    machine = cpus(
        *(cpu(n, physical_package_id=n // 4, core_id=n % 2) for n in range(8))
    )

    assert cores(build(tmp_path, machine), 8).physical == 4


QUOTAS = {
    "none": ({}, None, 4),
    "v2": (
        {
            "proc/self/cgroup": "0::/user/job",
            "sys/fs/cgroup/user/job/cpu.max": "200000 100000",
        },
        2.0,
        2,
    ),
    "v2 unlimited": (
        {"proc/self/cgroup": "0::/job", "sys/fs/cgroup/job/cpu.max": "max 100000"},
        None,
        4,
    ),
    "v2 nested: the tightest of all levels": (
        {
            "proc/self/cgroup": "0::/a/b/c",
            "sys/fs/cgroup/a/cpu.max": "150000 100000",
            "sys/fs/cgroup/a/b/cpu.max": "max 100000",
            "sys/fs/cgroup/a/b/c/cpu.max": "300000 100000",
        },
        1.5,
        1,
    ),
    "v2 container that sees the host's path": (
        {
            "proc/self/cgroup": "0::/docker/0123",
            "sys/fs/cgroup/cpu.max": "300000 100000",
        },
        3.0,
        3,
    ),
    "v2 namespace above the mount": (
        {
            "proc/self/cgroup": "0::/../../x",
            "sys/fs/cgroup/cpu.max": "100000 100000",
            "sys/x/cpu.max": "50000 100000",
        },
        1.0,
        1,
    ),
    "less than a core": (
        {"proc/self/cgroup": "0::/", "sys/fs/cgroup/cpu.max": "25000 100000"},
        0.25,
        1,
    ),
    "v1": (
        {
            "proc/self/cgroup": "9:name=systemd:/\n4:cpu,cpuacct:/job\n0::/",
            "sys/fs/cgroup/cpu,cpuacct/job/cpu.cfs_quota_us": "200000",
            "sys/fs/cgroup/cpu,cpuacct/job/cpu.cfs_period_us": "100000",
        },
        2.0,
        2,
    ),
    "v1 nested": (
        {
            "proc/self/cgroup": "1:cpu:/out/in",
            "sys/fs/cgroup/cpu/out/cpu.cfs_quota_us": "300000",
            "sys/fs/cgroup/cpu/out/cpu.cfs_period_us": "100000",
            "sys/fs/cgroup/cpu/out/in/cpu.cfs_quota_us": "-1",
            "sys/fs/cgroup/cpu/out/in/cpu.cfs_period_us": "100000",
        },
        3.0,
        3,
    ),
}


@pytest.mark.parametrize(
    ("limits", "quota", "threads"), QUOTAS.values(), ids=QUOTAS.keys()
)
def test_threads_stay_within_the_quota(
    tmp_path: Path, limits: Mapping[str, object], quota: float | None, threads: int
) -> None:
    found = cores(build(tmp_path, {**PI, **limits}), 4)

    assert found == Cores(4, 4, 4, quota)
    assert found.threads == threads


MEMINFO = "MemTotal:  8000000 kB\nMemFree: 1000000 kB\nMemAvailable: 6000000 kB\n"


@pytest.mark.parametrize(
    ("limits", "expected"),
    [
        pytest.param({}, Memory(8_192_000_000, 6_144_000_000), id="no cgroup"),
        pytest.param(
            {
                "proc/self/cgroup": "0::/job",
                "sys/fs/cgroup/job/memory.max": 4 * GB,
                "sys/fs/cgroup/job/memory.current": 3 * GB,
                "sys/fs/cgroup/job/memory.stat": f"anon 5\ninactive_file {GB}",
            },
            Memory(4 * GB, 2 * GB),
            id="v2, idle file pages give way",
        ),
        pytest.param(
            {
                "proc/self/cgroup": "0::/a/b",
                "sys/fs/cgroup/a/memory.max": 2 * GB,
                "sys/fs/cgroup/a/memory.current": GB,
                "sys/fs/cgroup/a/b/memory.max": "max",
                "sys/fs/cgroup/a/b/memory.high": 3 * GB,
                "sys/fs/cgroup/a/b/memory.current": 100,
            },
            Memory(2 * GB, GB),
            id="v2 nested",
        ),
        pytest.param(
            {
                "proc/self/cgroup": "4:memory:/job",
                "sys/fs/cgroup/memory/memory.limit_in_bytes": 9223372036854771712,
                "sys/fs/cgroup/memory/memory.usage_in_bytes": 7 * GB,
                "sys/fs/cgroup/memory/job/memory.limit_in_bytes": 3 * GB,
                "sys/fs/cgroup/memory/job/memory.usage_in_bytes": 2 * GB,
                "sys/fs/cgroup/memory/job/memory.stat": "total_inactive_file 1000",
            },
            Memory(3 * GB, GB + 1000),
            id="v1",
        ),
        pytest.param(
            {
                "proc/self/cgroup": "0::/",
                "sys/fs/cgroup/memory.max": GB,
                "sys/fs/cgroup/memory.current": 2 * GB,
            },
            Memory(GB, 0),
            id="over the limit",
        ),
    ],
)
def test_memory_is_what_the_cgroup_allows(
    tmp_path: Path, limits: Mapping[str, object], expected: Memory
) -> None:
    root = build(tmp_path, {"proc/meminfo": MEMINFO, **limits})

    assert find_memory(root=root, platform="linux") == expected


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        ({"hw.logicalcpu": 8, "hw.physicalcpu": 4}, Cores(8, 4, 4)),
        (
            {
                "hw.logicalcpu": 10,
                "hw.physicalcpu": 10,
                "hw.perflevel0.physicalcpu": 4,
            },
            Cores(10, 10, 4),
        ),
    ],
    ids=["Intel", "Apple silicon"],
)
def test_macos_is_asked_by_name(answers: dict[str, int], expected: Cores) -> None:
    assert find_cores(platform="darwin", sysctl=answers.get) == expected


def test_macos_memory_is_a_share_of_all() -> None:
    answers = {"hw.memsize": 16 * GB, "kern.memorystatus_level": 25}

    assert find_memory(platform="darwin", sysctl=answers.get) == Memory(16 * GB, 4 * GB)


def test_an_unknown_system_counts_what_python_counts() -> None:
    count = os.cpu_count() or 1

    assert find_cores(platform="win32") == Cores(count, count, count)


@pytest.mark.skipif(sys.platform != "linux", reason="reads this machine's own /proc")
def test_this_machine_makes_sense() -> None:
    found, memory = find_cores(), find_memory()

    assert 1 <= found.threads <= found.physical <= found.logical
    assert 0 < memory.available <= memory.total


@pytest.mark.skipif(sys.platform == "win32", reason="counts no load")
def test_the_load_is_that_of_the_last_minute() -> None:
    assert find_load() == os.getloadavg()[0]


def test_the_peak_of_memory_is_that_of_this_program(tmp_path: Path) -> None:
    root = build(tmp_path, {"proc/self/status": "VmPeak: 900 kB\nVmHWM:   700 kB"})

    assert find_peak_memory(root=root, platform="linux") == 700 * 1024
    assert find_peak_memory(root=tmp_path / "none", platform="linux") is None
    assert find_peak_memory(platform="win32") is None


@pytest.mark.skipif(sys.platform == "win32", reason="Windows is not asked")
def test_the_peak_of_this_process_is_some_memory() -> None:
    peak = find_peak_memory()

    assert peak is not None
    assert 5_000_000 < peak < find_memory().total


def test_the_bandwidth_is_that_of_some_memory() -> None:
    measured = measure_bandwidth(0.01, threads=1)

    # A bus of the nineties gave less, and no machine that runs this gives more.
    assert 1e8 < measured < 1e13


@pytest.mark.parametrize(
    ("cpuinfo", "expected"),
    [
        (
            "processor\t: 0\nmodel\t\t: 17\nmodel name\t: AMD  EPYC\n"
            "processor\t: 1\nmodel name\t: AMD  EPYC",
            "AMD EPYC",
        ),
        (
            "CPU implementer\t: 0x41\nCPU part\t: 0xd0b\n"
            "Model\t\t: Raspberry Pi 5 Model B Rev 1.0",
            "0x41, 0xd0b, Raspberry Pi 5 Model B Rev 1.0",
        ),
        ("", ""),
    ],
    ids=["PC", "Pi", "nothing"],
)
def test_what_a_processor_calls_itself(
    tmp_path: Path, cpuinfo: str, expected: str
) -> None:
    root = build(tmp_path, {"proc/cpuinfo": cpuinfo})

    assert find_processor(root=root, platform="linux") == expected


def test_a_mac_tells_the_family_of_its_processor() -> None:
    asked = {"hw.cpufamily": 458787763}

    assert find_processor(platform="darwin", sysctl=asked.get) == "458787763"
