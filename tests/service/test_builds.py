from __future__ import annotations

from collections.abc import Mapping

import pytest

from wizard_edge.service.builds import (
    NATIVE,
    Build,
    Instructions,
    build_line,
    compare_instructions,
)

PIP = (
    "pip install --force-reinstall --no-deps --no-cache-dir --no-binary "
    "llama-cpp-python llama-cpp-python==0.3.36"
)
X86 = {"avx", "avx2", "f16c", "fma", "bmi2", "avx512f"}


def built(*parts: str) -> Build:
    return Build("0.3.36", "0.25.3 (abc)", {name: {} for name in parts}, ())


def on(*names: str) -> dict[str, str]:
    return dict.fromkeys(names, "1")


@pytest.mark.parametrize(
    ("features", "flags", "expected"),
    [
        pytest.param(
            on("AVX", "AVX2", "F16C", "FMA", "BMI2", "AVX512", "LLAMAFILE"),
            X86,
            Instructions(("AVX", "AVX2", "F16C", "FMA", "BMI2", "AVX512"), (), (), ()),
            id="all of it",
        ),
        pytest.param(
            on("AVX", "F16C"),
            X86,
            Instructions(("AVX", "F16C"), ("AVX2", "FMA"), ("BMI2", "AVX512"), ()),
            id="a build for old processors",
        ),
        pytest.param(
            on("NEON"),
            {"asimd", "asimddp", "asimdhp", "i8mm"},
            Instructions(("NEON",), ("DOTPROD",), ("FP16_VA", "MATMUL_INT8"), ()),
            id="ARM without dot products",
        ),
        pytest.param(
            on("AVX", "AVX512"),
            {"avx"},
            Instructions(("AVX", "AVX512"), (), (), ("AVX512",)),
            id="a build for another processor",
        ),
        pytest.param(
            on("AVX2"), set(), Instructions(("AVX2",), (), (), ()), id="nobody says"
        ),
        pytest.param(
            {"AVX2": "0"}, {"avx2"}, Instructions((), ("AVX2",), (), ()), id="no is no"
        ),
    ],
)
def test_instructions_beside_those_of_the_processor(
    features: Mapping[str, str], flags: set[str], expected: Instructions
) -> None:
    assert compare_instructions(features, flags) == expected


@pytest.mark.parametrize(
    ("build", "flags", "platform", "expected"),
    [
        pytest.param(None, (), "linux", "pip install llama-cpp-python", id="first"),
        pytest.param(
            *(None, ("-DGGML_CUDA=on",), "linux"),
            'CMAKE_ARGS="-DGGML_CUDA=on" pip install llama-cpp-python',
            id="first for a card",
        ),
        pytest.param(
            *(built("CPU"), (NATIVE,), "linux"),
            f'CMAKE_ARGS="-DGGML_NATIVE=on" {PIP}',
            id="anew",
        ),
        pytest.param(
            *(built("CPU", "CUDA"), ("-DGGML_RPC=on",), "linux"),
            f'CMAKE_ARGS="-DGGML_CUDA=on -DGGML_RPC=on" {PIP}',
            id="what is built in stays",
        ),
        pytest.param(
            *(built("CPU", "RPC"), ("-DGGML_RPC=on",), "win32"),
            f'$env:CMAKE_ARGS="-DGGML_RPC=on"; {PIP}',
            id="Windows, no flag twice",
        ),
    ],
)
def test_the_line_that_builds_it(
    build: Build | None, flags: tuple[str, ...], platform: str, expected: str
) -> None:
    assert build_line(build, flags, platform) == expected
