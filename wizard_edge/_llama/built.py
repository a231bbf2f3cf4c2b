"""What the installed llama.cpp was built with, told from its files: nothing is loaded.

For `--help` and the like, which must not wait for llama.cpp.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

# The library of the RPC backend, whatever the system calls its libraries.
_RPC = ("libggml-rpc.", "ggml-rpc.")


def has_rpc(environ: Mapping[str, str] = os.environ) -> bool:
    """Whether a library of the RPC backend lies where the binding loads from."""
    folder = library_folder(environ)
    try:
        return folder is not None and any(
            item.name.startswith(_RPC) for item in folder.iterdir()
        )
    except OSError:
        return False


def library_folder(environ: Mapping[str, str] = os.environ) -> Path | None:
    """Return where llama-cpp-python loads from, None where it is not installed.

    Source: llama-cpp-python 0.3.36, llama_cpp/llama_cpp.py, `_base_path`.
    """
    spec = find_spec("llama_cpp")
    if spec is None or not spec.submodule_search_locations:
        return None
    override = environ.get("LLAMA_CPP_LIB_PATH")
    if override is not None:
        return Path(override)
    return Path(spec.submodule_search_locations[0]) / "lib"
