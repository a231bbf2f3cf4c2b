"""Fetch llama.cpp's sources as llama-cpp-python ships them, into `.sources/`.

They hold what the tests compare with: the real vocabularies of the golden prompts
(`models/ggml-vocab-*.gguf`) and llama.cpp's own converter. `--if-needed` does
nothing where the vocabularies are found already, and lets the tests say what is
missing where the package index cannot be reached.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tarfile
import tempfile
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SOURCES = ROOT / ".sources"
SHARED_DATA = ROOT.parent / "shared" / "data"
VOCABULARIES = ("llama-spm-vocab.gguf", "starcoder-vocab.gguf")


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--if-needed", action="store_true")
    arguments = parser.parse_args()
    if arguments.if_needed and all((SHARED_DATA / v).exists() for v in VOCABULARIES):
        return 0
    release = version("llama-cpp-python")
    target = SOURCES / f"llama_cpp_python-{release}"
    if target.exists():
        return 0
    fetched = fetch(f"llama-cpp-python=={release}", target)
    return 0 if fetched or arguments.if_needed else 4


def fetch(requirement: str, target: Path) -> bool:
    """Download and unpack the sdist as `target`, whole; tell whether that worked."""
    print(f"== fetching the sources of {requirement}", flush=True)
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
    # Of this package only: pip obeys it for what the build needs as well.
    command += ["--no-binary", "llama-cpp-python", "--disable-pip-version-check"]
    SOURCES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=SOURCES) as folder:
        status = subprocess.run([*command, "-d", folder, requirement], check=False)
        archives = list(Path(folder).glob("*.tar.gz"))
        if status.returncode != 0 or not archives:
            print(f"error: pip could not fetch {requirement}", file=sys.stderr)
            return False
        with tarfile.open(archives[0]) as archive:
            # Python 3.11.3 and older have no extraction filters.
            if hasattr(tarfile, "data_filter"):
                archive.extraction_filter = tarfile.data_filter
            archive.extractall(Path(folder, "unpacked"))
        [unpacked] = Path(folder, "unpacked").iterdir()
        unpacked.replace(target)
    return True


if __name__ == "__main__":
    sys.exit(main())
