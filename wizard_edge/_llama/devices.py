"""What llama.cpp can compute with on this machine, and how it was built."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping
from dataclasses import dataclass

from wizard_edge._llama import ggml
from wizard_edge.offload import Device, DeviceKind

_POINTER = ctypes.c_void_p
_SIZE = ctypes.c_size_t
# Newer versions may append fields: room that they would write into.
_SPARE = 256


class _Properties(ctypes.Structure):
    """Source: llama.cpp 0c1e57098, ggml/include/ggml-backend.h, `_dev_props`."""

    _fields_ = (
        ("name", ctypes.c_char_p),
        ("description", ctypes.c_char_p),
        ("free", _SIZE),
        ("total", _SIZE),
        ("type", ctypes.c_int),
        ("device_id", ctypes.c_char_p),
        ("capabilities", ctypes.c_bool * 5),
        ("spare", ctypes.c_char * _SPARE),
    )


class _Feature(ctypes.Structure):
    """Source: as above, `struct ggml_backend_feature`."""

    _fields_ = (("name", ctypes.c_char_p), ("value", ctypes.c_char_p))


_GET_FEATURES = ctypes.CFUNCTYPE(ctypes.POINTER(_Feature), _POINTER)
# Source: llama.cpp 0c1e57098, ggml/include/ggml-backend.h and ggml.h.
_FUNCTIONS: ggml.Functions = {
    "ggml_backend_dev_count": (_SIZE, []),
    "ggml_backend_dev_get": (_POINTER, [_SIZE]),
    "ggml_backend_dev_name": (ctypes.c_char_p, [_POINTER]),
    "ggml_backend_dev_description": (ctypes.c_char_p, [_POINTER]),
    "ggml_backend_dev_type": (ctypes.c_int, [_POINTER]),
    "ggml_backend_dev_memory": (None, [_POINTER, *[ctypes.POINTER(_SIZE)] * 2]),
    "ggml_backend_dev_get_props": (None, [_POINTER, ctypes.POINTER(_Properties)]),
    "ggml_backend_dev_backend_reg": (_POINTER, [_POINTER]),
    "ggml_backend_reg_count": (_SIZE, []),
    "ggml_backend_reg_get": (_POINTER, [_SIZE]),
    "ggml_backend_reg_name": (ctypes.c_char_p, [_POINTER]),
    "ggml_backend_reg_get_proc_address": (_POINTER, [_POINTER, ctypes.c_char_p]),
    "ggml_version": (ctypes.c_char_p, []),
    "ggml_commit": (ctypes.c_char_p, []),
}
# In the order of `enum ggml_backend_dev_type`.
_KINDS: tuple[DeviceKind, ...] = ("cpu", "gpu", "igpu", "accelerator", "meta")


@dataclass(frozen=True, slots=True)
class Backend:
    """A part of llama.cpp that was built in, such as CPU, CUDA or RPC.

    `features` are what it was compiled with, such as AVX2 = 1.
    """

    name: str
    features: Mapping[str, str]


def find_devices() -> tuple[Device, ...]:
    """Return every device with its kind and the memory it has now.

    Raises: BackendError.
    """
    library = ggml.open_library(_FUNCTIONS)
    return tuple(
        describe_device(library.ggml_backend_dev_get(index))
        for index in range(library.ggml_backend_dev_count())
    )


def describe_device(device: int) -> Device:
    """Ask a `ggml_backend_dev_t` about itself, such as a worker's.

    Raises: BackendError.
    """
    library = ggml.open_library(_FUNCTIONS)
    free, total = _SIZE(), _SIZE()
    library.ggml_backend_dev_memory(device, ctypes.byref(free), ctypes.byref(total))
    kind = library.ggml_backend_dev_type(device)
    part = library.ggml_backend_dev_backend_reg(device)
    return Device(
        name=_text(library.ggml_backend_dev_name(device)),
        description=_text(library.ggml_backend_dev_description(device)),
        # A kind that is newer than this program gets no layers.
        kind=_KINDS[kind] if kind < len(_KINDS) else "meta",
        backend=_text(library.ggml_backend_reg_name(part)),
        total=total.value,
        free=free.value,
        id=_find_id(library, device, kind),
    )


def list_devices() -> tuple[str, ...]:
    """Name every device with what it is, such as `CPU (AMD EPYC)`.

    Raises: BackendError.
    """
    return tuple(map(str, find_devices()))


def find_backends() -> tuple[Backend, ...]:
    """Return the parts of llama.cpp that were built in and could be loaded.

    Raises: BackendError.
    """
    library = ggml.open_library(_FUNCTIONS)
    parts = map(library.ggml_backend_reg_get, range(library.ggml_backend_reg_count()))
    return tuple(
        Backend(_text(library.ggml_backend_reg_name(part)), _features(library, part))
        for part in parts
    )


def build_identity() -> str:
    """Return ggml's version and the commit it was built from.

    Raises: BackendError.
    """
    library = ggml.open_library(_FUNCTIONS)
    return f"{_text(library.ggml_version())} ({_text(library.ggml_commit())})"


def _find_id(library: ctypes.CDLL, device: int, kind: int) -> str | None:
    """Return the place of a device on its bus, None where it names none."""
    properties = _Properties()
    library.ggml_backend_dev_get_props(device, ctypes.byref(properties))
    # A sign that the structure is the one we know.
    if properties.type != kind or not properties.device_id:
        return None
    return _text(properties.device_id)


def _features(library: ctypes.CDLL, part: int) -> dict[str, str]:
    address = library.ggml_backend_reg_get_proc_address(
        part, b"ggml_backend_get_features"
    )
    if not address:
        return {}
    features = _GET_FEATURES(address)(part)
    found: dict[str, str] = {}
    for index in range(_SPARE):
        feature = features[index]
        if not feature.name:
            break
        found[_text(feature.name)] = _text(feature.value)
    return found


def _text(name: bytes) -> str:
    return name.decode("utf-8", "replace").strip()
