"""Importance matrices by llama.cpp's own tool: the golden numbers.

    python -m tests.reference.llama_imatrix --tool PATH             compares anew
    python -m tests.reference.llama_imatrix --tool PATH --write     remakes them

PATH is llama-imatrix, built from llama.cpp's sources (target `llama-imatrix`). Stored
are the counts, some of the sums, and a digest of everything before the tensor data.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import subprocess
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypedDict

import numpy as np

from tests.llama.models import ModelShape, write_random_model
from wizard_edge.gguf import read_header

GOLDEN = Path(__file__).resolve().parent.parent / "golden" / "imatrix.json"
SHAPES = {
    "dense": ModelShape(width=64),
    "experts": ModelShape(width=64, experts=4),
}
CHUNK_SIZE = 64
TEXT_NAME = "text.txt"
# Every 13th sum of a tensor is stored, the first one too.
STRIDE = 13


class Golden(TypedDict):
    """What is stored of one file."""

    header: str
    size: int
    counts: dict[str, list[int]]
    sums: dict[str, list[float]]


def text() -> str:
    """Return a text of some four chunks of the test models' tokens."""
    random = np.random.RandomState(7)
    return "".join(random.choice(list("ab  cde.\nfgh"), 4 * CHUNK_SIZE + 20))


def summary(content: Path) -> Golden:
    """Reduce a file of the GGUF form to what is stored."""
    header = read_header(content)
    data = content.read_bytes()
    values = {
        tensor.name: np.frombuffer(
            data, "<f4", tensor.size // 4, header.data_offset + tensor.offset
        )
        for tensor in header.tensors
    }
    return {
        "header": hashlib.sha256(data[: header.data_offset]).hexdigest(),
        "size": len(data),
        "counts": {
            name: [int(count) for count in numbers]
            for name, numbers in values.items()
            if name.endswith(".counts")
        },
        "sums": {
            name: [float(f"{value:.6g}") for value in numbers[::STRIDE]]
            for name, numbers in values.items()
            if name.endswith(".in_sum2")
        },
    }


def reference(tool: Path, name: str, folder: Path) -> Golden:
    """Run llama.cpp's tool on a test model; one sequence at a time, as we do."""
    write_random_model(folder / "model.gguf", SHAPES[name])
    (folder / TEXT_NAME).write_text(text())
    words = ["-m", "model.gguf", "-f", TEXT_NAME, "-o", "out.gguf", "--no-ppl"]
    words += ["-c", str(CHUNK_SIZE), "-b", str(CHUNK_SIZE), "-t", "2"]
    command = [str(tool.resolve()), *words]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    return summary(folder / "out.gguf")


def load_golden() -> dict[str, Golden]:
    """Return the stored numbers by the name of the shape."""
    stored: dict[str, Golden] = json.loads(GOLDEN.read_text())
    return stored


def main() -> None:
    """Compare with llama.cpp's tool, or store what it gives."""
    parser = argparse.ArgumentParser(description="importance matrices by llama.cpp")
    parser.add_argument("--tool", type=Path, required=True)
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    found = {}
    for name in SHAPES:
        with TemporaryDirectory() as folder:
            found[name] = reference(options.tool, name, Path(folder))
    if options.write:
        GOLDEN.write_text(json.dumps(found, indent=1) + "\n")
    elif found != load_golden():
        raise SystemExit("llama.cpp's tool gives other numbers than those stored")


if __name__ == "__main__":
    main()
