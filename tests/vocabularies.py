"""Finds the real vocabularies that the golden prompts are checked against.

They are not ours to ship: `../shared/data` beside a checkout holds them, or
llama.cpp's sources as llama-cpp-python's sdist has them (`make sources` fetches
those; LLAMA_CPP_SOURCES names another copy). Byte-identical in both places.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SHARED = ROOT.parent / "shared"
_NAMES = {
    "llama-spm": ("llama-spm-vocab.gguf", "ggml-vocab-llama-spm.gguf"),
    "starcoder-bpe": ("starcoder-vocab.gguf", "ggml-vocab-starcoder.gguf"),
}


def find_vocabulary(name: str) -> Path:
    """Return the file, or skip the test; where CI runs a skip is a failure."""
    shared, source = _NAMES[name]
    for path in (SHARED / "data" / shared, *(d / source for d in _models())):
        if path.exists():
            return path
    reason = f"vocabulary {name} not found: 'make sources' fetches it"
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


def llama_cpp_sources() -> Path | None:
    """Return the folder of llama.cpp's sources, None where there are none."""
    named = os.environ.get("LLAMA_CPP_SOURCES")
    if named:
        return Path(named)
    return next(
        iter((ROOT / ".sources").glob("llama_cpp_python-*/vendor/llama.cpp")), None
    )


def _models() -> list[Path]:
    sources = llama_cpp_sources()
    return [] if sources is None else [sources / "models"]
