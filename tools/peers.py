"""Build llama.cpp's own programs, to compare with and to measure beside.

From the sources that `make sources` fetched, with the options the installed
llama-cpp-python was built with; CMAKE_ARGS counts for both. A second run finds the
programs there and does nothing.

    python -m tools.peers [--build DIR] [PROGRAM ...]
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

from tools.setup import ROOT, follow, say, shown, usable_cores
from tools.sources import SOURCES

BUILD = SOURCES / "build"
BENCH = ("llama-bench", "llama-batched-bench", "llama-completion")
REFERENCE = ("llama-perplexity", "llama-gguf-split", "llama-imatrix", "llama-server")
# Release is scikit-build-core's default, and so the installed library's; the rest,
# native kernels, OpenMP and llamafile's, are ggml's own defaults there and here.
# Source: llama-cpp-python 0.3.36, CMakeLists.txt and pyproject.toml.
OPTIONS = (
    "-DCMAKE_BUILD_TYPE=Release",
    "-DLLAMA_BUILD_TESTS=OFF",
    "-DLLAMA_BUILD_EXAMPLES=OFF",
    "-DLLAMA_BUILD_SERVER=ON",
    "-DLLAMA_BUILD_UI=OFF",
    "-DLLAMA_OPENSSL=OFF",
)
_LIBRARIES = ("libllama.so", "libllama.dylib")


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--build", type=Path, default=BUILD, help="where to build")
    parser.add_argument("programs", nargs="*", default=[*BENCH, *REFERENCE])
    arguments = parser.parse_args()
    build: Path = arguments.build.absolute()
    release = version("llama-cpp-python")
    source = SOURCES / f"llama_cpp_python-{release}" / "vendor" / "llama.cpp"
    options = [*OPTIONS, *shlex.split(os.environ.get("CMAKE_ARGS", ""))]
    if not is_built(build, arguments.programs, release, options):
        problem = missing(source)
        if problem:
            print(f"error: {problem}", file=sys.stderr)
            return 3
        if not make(source, build, arguments.programs, options):
            return 1
        stamp(build).write_text(made_from(release, options))
    warn_of_other_kernels(build)
    say(f"llama.cpp's programs are in {shown(build / 'bin')}")
    return 0


def is_built(
    build: Path, programs: Sequence[str], release: str, options: Sequence[str]
) -> bool:
    """Tell whether the programs are there, of this release and these options."""
    found = stamp(build)
    return (
        all((build / "bin" / program).exists() for program in programs)
        and found.exists()
        and found.read_text() == made_from(release, options)
    )


def stamp(build: Path) -> Path:
    return build / "wizard-edge-peers.json"


def made_from(release: str, options: Sequence[str]) -> str:
    return json.dumps({"llama-cpp-python": release, "options": list(options)})


def missing(source: Path) -> str | None:
    """Return what is not there to build with, or None."""
    if not (source / "CMakeLists.txt").exists():
        return f"no sources of llama.cpp at {shown(source)}: run `make sources`"
    if shutil.which("cmake") is None:
        return "no cmake on PATH: install it (Debian: apt install cmake)"
    return None


def make(
    source: Path, build: Path, programs: Sequence[str], options: Sequence[str]
) -> bool:
    """Configure and compile, saying how far it is; tell whether that worked."""
    build.mkdir(parents=True, exist_ok=True)
    cores = usable_cores()
    say(
        f"compiling {', '.join(programs)} on {cores} cores; llama.cpp comes first, "
        "which takes 4 minutes on 2"
    )
    configure = ["cmake", "-S", str(source), "-B", str(build), *options]
    compiling = ["cmake", "--build", str(build), "--parallel", str(cores), "--target"]
    return run(configure, build / "configure.log") and run(
        [*compiling, *programs], build / "compile.log"
    )


def run(command: list[str], log: Path) -> bool:
    """Run a command, its talk in a log file; show the end of it where it fails."""
    begun = time.monotonic()
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    ) as process:
        follow(process, log, begun)
    if process.returncode != 0:
        print("\n".join(log.read_text(errors="replace").splitlines()[-30:]))
        print(f"error: cmake failed; its whole log: {shown(log)}", file=sys.stderr)
    return process.returncode == 0


def warn_of_other_kernels(build: Path) -> None:
    """Say where the programs and the installed library were built differently."""
    theirs, ours = system_info(build / "bin"), installed_system_info()
    if theirs != ours:
        say(
            f"built differently than llama-cpp-python, so speeds do not compare:\n"
            f"   programs  {theirs}\n   installed {ours}\n"
            "   set CMAKE_ARGS to what llama-cpp-python was installed with"
        )


def installed_system_info() -> str:
    """Return what the installed llama-cpp-python says of its kernels."""
    command = "import llama_cpp; print(llama_cpp.llama_print_system_info().decode())"
    return said_by([command])


def system_info(folder: Path) -> str:
    """Return what the libllama in a folder says of its kernels.

    Asked in a child: two builds of one library in a process disturb each other.
    """
    for name in _LIBRARIES:
        if (folder / name).exists():
            command = (
                "import sys; from tools.peers import print_system_info; "
                "print_system_info(sys.argv[1])"
            )
            return said_by([command, str(folder / name)])
    return "unknown: no libllama beside them"


def said_by(words: list[str]) -> str:
    command = [sys.executable, "-c", *words]
    done = subprocess.run(
        command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True
    )
    return done.stdout.strip()


def print_system_info(library: str) -> None:
    ask = ctypes.CDLL(library).llama_print_system_info
    ask.restype = ctypes.c_char_p
    print(ask().decode())


if __name__ == "__main__":
    sys.exit(main())
