"""How llama.cpp was built here, against what this machine has, and how to build it.

Source: llama.cpp 0c1e57098, ggml/CMakeLists.txt (the flags), ggml/src/ggml-cpu/
ggml-cpu.cpp, `ggml_backend_cpu_get_features` (the features).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from wizard_edge.offload import Device

PACKAGE = "llama-cpp-python"


@dataclass(frozen=True, slots=True)
class Part:
    """A part of llama.cpp that can be built in, as `name` in its own list.

    `makes` are the makers of the cards it is the best for, `needs` what has to be
    installed to build it.
    """

    label: str
    name: str
    flag: str
    platforms: tuple[str, ...]
    needs: str = ""
    makes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Build:
    """The llama.cpp that is installed: versions, parts with their features, devices."""

    version: str
    identity: str
    parts: Mapping[str, Mapping[str, str]]
    devices: tuple[Device, ...]


PARTS = (
    Part(
        *("CUDA", "CUDA", "-DGGML_CUDA=on", ("linux", "win32")),
        needs="the CUDA toolkit",
        makes=("NVIDIA",),
    ),
    Part("Metal", "MTL", "-DGGML_METAL=on", ("darwin",), makes=("Apple",)),
    Part(
        *("Vulkan", "Vulkan", "-DGGML_VULKAN=on", ("linux", "win32")),
        needs="the Vulkan headers and glslc",
        makes=("AMD",),
    ),
    Part("RPC", "RPC", "-DGGML_RPC=on", ("linux", "darwin", "win32")),
)
NATIVE = "-DGGML_NATIVE=on"
# llama.cpp's name of a feature -> Linux's name of what the processor needs for it.
# Without the first ones everything is several times slower.
_ESSENTIAL: Mapping[str, str] = {
    "AVX": "avx",
    "AVX2": "avx2",
    "F16C": "f16c",
    "FMA": "fma",
    "NEON": "asimd",
    "DOTPROD": "asimddp",
}
_USEFUL: Mapping[str, str] = {
    "AVX_VNNI": "avx_vnni",
    "BMI2": "bmi2",
    "AVX512": "avx512f",
    "AVX512_VBMI": "avx512vbmi",
    "AVX512_VNNI": "avx512_vnni",
    "AVX512_BF16": "avx512_bf16",
    "AMX_INT8": "amx_int8",
    "FP16_VA": "asimdhp",
    "MATMUL_INT8": "i8mm",
    "SVE": "sve",
}


@dataclass(frozen=True, slots=True)
class Instructions:
    """Features of the processor by llama.cpp's names.

    `compiled` are those that it uses, `slow` and `unused` those that it lacks although
    the processor has them: the ones that matter, and the others. `foreign` are
    compiled in although the processor lacks them.
    """

    compiled: tuple[str, ...]
    slow: tuple[str, ...]
    unused: tuple[str, ...]
    foreign: tuple[str, ...]


def compare_instructions(
    features: Mapping[str, str], flags: Collection[str]
) -> Instructions:
    """Compare what was compiled in with what the processor has; no flags: unknown."""
    every = {**_ESSENTIAL, **_USEFUL}
    compiled = tuple(name for name in every if features.get(name, "0") != "0")

    def lacks(names: Mapping[str, str]) -> tuple[str, ...]:
        return tuple(
            name for name in names if names[name] in flags and name not in compiled
        )

    foreign = tuple(name for name in compiled if flags and every[name] not in flags)
    return Instructions(compiled, lacks(_ESSENTIAL), lacks(_USEFUL), foreign)


def build_line(build: Build | None, flags: Sequence[str], platform: str) -> str:
    """Return the command that builds llama.cpp anew with some flags.

    What is built in now stays in, and the version stays what it is.
    """
    kept = [
        part.flag for part in PARTS if build is not None and part.name in build.parts
    ]
    arguments = " ".join(dict.fromkeys((*kept, *flags)))
    command = f"pip install {PACKAGE}"
    if build is not None:
        command = (
            "pip install --force-reinstall --no-deps --no-cache-dir --no-binary "
            f"{PACKAGE} {PACKAGE}=={build.version}"
        )
    if not arguments:
        return command
    if platform == "win32":
        return f'$env:CMAKE_ARGS="{arguments}"; {command}'
    return f'CMAKE_ARGS="{arguments}" {command}'
