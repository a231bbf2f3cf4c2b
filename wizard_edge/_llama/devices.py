"""What llama.cpp can compute with on this machine."""

from __future__ import annotations

import ctypes

from wizard_edge._llama import ggml

# Source: llama.cpp 0c1e57098, ggml/include/ggml-backend.h.
_FUNCTIONS: ggml.Functions = {
    "ggml_backend_dev_count": (ctypes.c_size_t, []),
    "ggml_backend_dev_get": (ctypes.c_void_p, [ctypes.c_size_t]),
    "ggml_backend_dev_name": (ctypes.c_char_p, [ctypes.c_void_p]),
    "ggml_backend_dev_description": (ctypes.c_char_p, [ctypes.c_void_p]),
}


def list_devices() -> tuple[str, ...]:
    """Name every device with what it is, such as `CPU (AMD EPYC)`.

    Raises: BackendError.
    """
    library = ggml.open_library(_FUNCTIONS)
    devices = map(library.ggml_backend_dev_get, range(library.ggml_backend_dev_count()))
    return tuple(
        f"{_text(library.ggml_backend_dev_name(device))} "
        f"({_text(library.ggml_backend_dev_description(device))})"
        for device in devices
    )


def _text(name: bytes) -> str:
    return name.decode("utf-8", "replace").strip()
