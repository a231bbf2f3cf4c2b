"""Remakes `tests/converters/digests.json` with llama.cpp's own converter.

    python tools/sources.py
    python -m tests.reference.llama_cpp_digests [NAME...]

The first command unpacks the sources that llama-cpp-python carries into `.sources`;
LLAMA_CPP_SOURCES may name another folder that holds `convert_hf_to_gguf.py`. Needs
the extra `reference` (torch, transformers); takes about two minutes on two cores,
ten seconds for one NAME, such as `apprentice` after it was trained anew.
What is stored per checkpoint and type: a digest over all tensors, and the metadata
that the converter wrote, with its keys in their order.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.conftest import CHECKPOINT, ROOT
from tests.converters.checkpoints import SHAPES, write_checkpoint
from tests.converters.comparison import MOVED, is_compared, read_metadata, tensor_digest

VARIABLE = "LLAMA_CPP_SOURCES"
STORE = ROOT / "tests" / "converters" / "digests.json"
TYPES = ("F16", "F32", "BF16")
APPRENTICE = "apprentice"
NAME = "Test Model"


def find_converter() -> Path | None:
    """Return llama.cpp's converter, from where the environment says or `.sources`."""
    named = os.environ.get(VARIABLE)
    folders = [Path(named)] if named else sorted((ROOT / ".sources").glob("*"))
    for folder in folders:
        for path in (folder, folder / "vendor" / "llama.cpp"):
            if (path / "convert_hf_to_gguf.py").is_file():
                return path / "convert_hf_to_gguf.py"
    return None


def convert_theirs(
    converter: Path, source: Path, output: Path, kind: str, pre: str | None = None
) -> None:
    """Run llama.cpp's converter in a process of its own.

    `pre` stands in for its look-up of a BPE vocabulary, as `llama_cpp_convert` says.
    """
    program = [str(converter)]
    if pre is not None:
        program = ["-m", "tests.reference.llama_cpp_convert", str(converter), pre]
    command = [sys.executable, *program, str(source), "--outfile", str(output)]
    command += ["--outtype", kind.lower(), "--model-name", NAME]
    result = subprocess.run(
        command, capture_output=True, text=True, check=False, cwd=ROOT
    )
    if result.returncode:
        raise RuntimeError(f"{source.name} to {kind}: {result.stderr[-2000:]}")


def names() -> list[str]:
    """List the checkpoints: the random ones, and the bundled one where it is."""
    bundled = (CHECKPOINT / "config.json").is_file()
    return [*SHAPES, *([APPRENTICE] if bundled else [])]


def write(name: str, folder: Path) -> Path:
    """Return the directory of a checkpoint, written into `folder` if need be."""
    if name == APPRENTICE:
        return CHECKPOINT
    return write_checkpoint(folder / name, SHAPES[name])


def record(converter: Path, source: Path, folder: Path) -> dict[str, object]:
    """Convert one checkpoint to every type and note what came out."""
    pre = SHAPES[source.name].pre if source.name in SHAPES else None
    tensors = {}
    metadata: dict[str, object] = {}
    for kind in TYPES:
        output = folder / f"{source.name}.{kind}.gguf"
        convert_theirs(converter, source, output, kind, pre)
        tensors[kind] = tensor_digest(output)
        metadata = read_metadata(output)
        output.unlink()
    kept = {key: value for key, value in metadata.items() if is_compared(key)}
    order = [key for key in kept if key != MOVED]
    return {"tensors": tensors, "metadata": kept, "keys": order}


def main() -> None:
    converter = find_converter()
    if converter is None:
        sys.exit("no sources of llama.cpp: run tools/sources.py")
    digests = json.loads(STORE.read_text()) if STORE.exists() else {}
    for name in sys.argv[1:] or names():
        with TemporaryDirectory() as folder:
            source = write(name, Path(folder))
            digests[name] = record(converter, source, Path(folder))
    STORE.write_text(json.dumps(digests, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
