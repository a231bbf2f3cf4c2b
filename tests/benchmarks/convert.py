"""The converter against the two-step way, in one run.

    make sources
    python -m tests.benchmarks.convert --python ORACLE [--rounds 3] [--folder DIR]

ORACLE is a Python that has torch, transformers and gguf for llama.cpp's converter
(`pip install torch==2.13.0 transformers gguf sentencepiece`); the quantizer of the
second step is that of the library in use. A 0.94 B fp16 checkpoint in two `.bin`
shards, to Q4_K_M and to Q8_0, the two ways in turn; medians. Then peak memory at three
sizes. Takes some minutes and 6 GB of disk.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from statistics import median

from tests.benchmarks.models import B0_9, Shape, make_checkpoint
from tests.benchmarks.processes import Usage, watch
from tests.converters.comparison import tensor_differences
from tests.reference.llama_cpp_digests import find_converter

QUANTS = ("Q4_K_M", "Q8_0")
SIZES = (replace(B0_9, layers=4), replace(B0_9, layers=8), B0_9)
SHARDS = 2
_QUANTIZE = """
import sys
from tests.converters.quantizing import quantize_theirs
from pathlib import Path
quantize_theirs(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--python", default=sys.executable, help="a Python with torch")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="where to work (default: /tmp)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder = Path(name)
        (folder / "out").mkdir()
        compare(folder, options.python, options.rounds)
        measure_sizes(folder)


def compare(folder: Path, python: str, rounds: int) -> None:
    """Convert one checkpoint both ways in turn and print the ratios."""
    source = checkpoint(folder, B0_9)
    size = sum(path.stat().st_size for path in source.glob("*.bin"))
    print(f"{B0_9.parameters / 1e9:.2f} B, {size / 1e9:.2f} GB in {SHARDS} .bin shards")
    for quant in QUANTS:
        ours, theirs = [], []
        for _ in range(rounds):
            ours.append(one_pass(folder, source, quant))
            theirs.append(two_steps(folder, source, quant, python))
            made, expected = (folder / f"{way}.gguf" for way in ("ours", "theirs"))
            assert tensor_differences(made, expected) == []
            output = made.stat().st_size
        report(quant, ours, theirs, output)


def report(quant: str, ours: list[Usage], theirs: list[Usage], output: int) -> None:
    seconds = [median(use.seconds for use in way) for way in (ours, theirs)]
    memory = [max(use.memory for use in way) for way in (ours, theirs)]
    disk = [max(use.disk for use in way) for way in (ours, theirs)]
    print(
        f"{quant:7} {seconds[0]:6.1f} s = {seconds[0] / seconds[1]:.2f} of two steps "
        f"({seconds[1]:.1f} s); memory {memory[0] / 1e6:.0f} MB, theirs "
        f"{memory[1] / 1e6:.0f} MB; disk {(disk[0] - output) / 1e6:+.2f} MB beside the "
        f"output of {output / 1e6:.0f} MB, theirs {(disk[1] - output) / 1e6:+.0f} MB",
        flush=True,
    )


def measure_sizes(folder: Path) -> None:
    """Print the peak memory of three sizes, which should not grow with them."""
    for shape in SIZES:
        source = checkpoint(folder, shape)
        peaks = [one_pass(folder, source, quant).memory for quant in QUANTS]
        shown = ", ".join(
            f"{quant} {peak / 1e6:.0f} MB"
            for quant, peak in zip(QUANTS, peaks, strict=True)
        )
        print(f"memory at {shape.parameters / 1e9:.2f} B: {shown}", flush=True)


def one_pass(folder: Path, source: Path, quant: str) -> Usage:
    target = folder / "out" / "ours.gguf"
    command = [sys.executable, "-m", "wizard_edge", "--quiet", "convert", str(source)]
    use = watch([*command, "-q", quant, "-o", target], folder / "out")
    target.replace(folder / "ours.gguf")
    return use


def two_steps(folder: Path, source: Path, quant: str, python: str) -> Usage:
    converter = find_converter()
    if converter is None:
        sys.exit("no sources of llama.cpp: run 'make sources'")
    between, target = folder / "out" / "between.gguf", folder / "out" / "theirs.gguf"
    first = watch(
        [python, converter, source, "--outfile", between, "--outtype", "f16"],
        folder / "out",
    )
    step: list[str | Path] = [sys.executable, "-c", _QUANTIZE]
    step += [between, target, quant]
    second = watch(step, folder / "out")
    # While the second step runs, the file of the first lies there too.
    disk = max(first.disk, second.disk + between.stat().st_size)
    between.unlink()
    target.replace(folder / "theirs.gguf")
    return Usage(first.seconds + second.seconds, max(first.memory, second.memory), disk)


def checkpoint(folder: Path, shape: Shape) -> Path:
    """Return an fp16 checkpoint in two pickles, written once."""
    source = folder / f"{shape.parameters // 10**6}M"
    if not source.exists():
        make_checkpoint(source, shape, shards=SHARDS)
        # So that no round pays for what the one before left to be written.
        subprocess.run(["sync"], check=True)
    return source


if __name__ == "__main__":
    main()
