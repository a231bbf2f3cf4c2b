"""llama.cpp's RPC backend: computing on other machines, and lending this one.

Exists only where llama-cpp-python was built with it. llama.cpp ends the process when
a worker cannot be reached or is lost: `rpc_process.greet` asks in another process
before, `on_abort` gets the last word.
"""

from __future__ import annotations

import ctypes
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import import_module

# What ctypes takes for the type of a result or an argument has no common base.
from typing import Any

from wizard_edge._llama import library
from wizard_edge.endpoints import Endpoint
from wizard_edge.errors import BackendError

BUILD_LINE = (
    'CMAKE_ARGS="-DGGML_RPC=ON" pip install --force-reinstall '
    "--no-binary llama-cpp-python llama-cpp-python"
)

_POINTER, _SIZE = ctypes.c_void_p, ctypes.c_size_t
_SIZES = ctypes.POINTER(_SIZE)
_ABORT = ctypes.CFUNCTYPE(None, ctypes.c_char_p)
# Source: llama.cpp 0c1e57098, ggml/include/ggml-backend.h and ggml.h.
_FUNCTIONS: dict[str, tuple[Any, Sequence[Any]]] = {
    "ggml_backend_reg_by_name": (_POINTER, [ctypes.c_char_p]),
    "ggml_backend_reg_get_proc_address": (_POINTER, [_POINTER, ctypes.c_char_p]),
    "ggml_backend_reg_dev_count": (_SIZE, [_POINTER]),
    "ggml_backend_reg_dev_get": (_POINTER, [_POINTER, _SIZE]),
    "ggml_backend_dev_count": (_SIZE, []),
    "ggml_backend_dev_get": (_POINTER, [_SIZE]),
    "ggml_backend_dev_type": (ctypes.c_int, [_POINTER]),
    "ggml_backend_dev_name": (ctypes.c_char_p, [_POINTER]),
    "ggml_backend_dev_description": (ctypes.c_char_p, [_POINTER]),
    "ggml_backend_dev_memory": (None, [_POINTER, _SIZES, _SIZES]),
    "ggml_set_abort_callback": (_POINTER, [_ABORT]),
}
# Source: llama.cpp 0c1e57098, ggml/include/ggml-rpc.h.
_ADD_SERVER = ctypes.CFUNCTYPE(_POINTER, ctypes.c_char_p)
_START_SERVER = ctypes.CFUNCTYPE(
    None, ctypes.c_char_p, ctypes.c_char_p, _SIZE, _SIZE, ctypes.POINTER(_POINTER)
)
# ggml_backend_dev_type of ggml-backend.h.
_CPU, _GPU, _INTEGRATED = 0, 1, 2
# ggml_abort writes FILE:LINE before what it says.
_PLACE = re.compile(r"^.*?:\d+: ")
_keep_alive: list[object] = []


@dataclass(frozen=True, slots=True)
class LentDevice:
    """What a worker computes with; memory in bytes, as llama.cpp counts it.

    Of a processor llama.cpp calls all of it free.
    """

    name: str
    description: str
    free: int
    total: int
    is_processor: bool


def find_rpc() -> bool:
    """Whether this llama.cpp was built with RPC.

    Raises: BackendError where there is no llama.cpp at all.
    """
    found: bool = library.load().llama_supports_rpc()
    return found


def require_rpc() -> None:
    """Raise BackendError, with the way to build it, where there is no RPC."""
    if not find_rpc():
        raise BackendError("llama.cpp was built without RPC", hint=BUILD_LINE)


def lendable_devices() -> tuple[LentDevice, ...]:
    """Describe what a worker lends: its graphics cards, or else its processor.

    Raises: BackendError.
    """
    return tuple(map(_describe, _lendable()))


def memory_of(endpoint: Endpoint) -> tuple[int, int]:
    """Ask a worker for its free memory and all of it, in bytes.

    Ends the process where there is no worker: `rpc_process.greet` asks safely.
    Raises: BackendError.
    """
    devices = [_describe(device) for device in _devices_of(endpoint)]
    return sum(item.free for item in devices), sum(item.total for item in devices)


def device_list(endpoints: Sequence[Endpoint]) -> Any:
    """Return the array for `llama_model_params.devices`: workers, then our own GPUs.

    Keep it until the model is loaded. Ends the process where a worker is not there.
    Raises: BackendError.
    """
    remote = [device for endpoint in endpoints for device in _devices_of(endpoint)]
    devices = remote + _own_gpus()
    # NULL ends the list.
    return (_POINTER * (len(devices) + 1))(*devices)


def serve(endpoint: Endpoint, threads: int) -> None:
    """Compute for whoever connects, one client after the other; returns on failure.

    Writes lines to standard output and errors to standard error. Raises: BackendError.
    """
    devices = _lendable()
    array = (_POINTER * len(devices))(*devices)
    start = _START_SERVER(_procedure(b"ggml_backend_rpc_start_server"))
    start(str(endpoint).encode(), None, threads, len(devices), array)


def on_abort(told: Callable[[str], None]) -> None:
    """Call `told` with llama.cpp's reason when it is about to end the process.

    It may come on any thread, and the process ends as soon as it returns.
    """

    def abort(text: bytes) -> None:
        told(_PLACE.sub("", text.decode("utf-8", "replace")).strip())

    callback = _ABORT(abort)
    _library().ggml_set_abort_callback(callback)
    _keep_alive.append(callback)


@cache
def _library() -> ctypes.CDLL:
    """Return the library that llama.cpp itself found its backends in."""
    library.load()
    # Not llama_cpp._ggml: that one ignores LLAMA_CPP_LIB_PATH. Windows looks into one
    # library only and so needs it all the same.
    ours = import_module("llama_cpp.llama_cpp")._lib
    if not hasattr(ours, "ggml_backend_reg_by_name"):
        ours = import_module("llama_cpp._ggml").libggml
    found: ctypes.CDLL = ours
    try:
        for name, (result, arguments) in _FUNCTIONS.items():
            function = getattr(found, name)
            function.restype = result
            function.argtypes = arguments
    except AttributeError as err:
        raise BackendError(f"this llama.cpp does not export {err}") from err
    return found


def _procedure(name: bytes) -> int:
    """Return the address of a function of the RPC backend."""
    require_rpc()
    backend = _library().ggml_backend_reg_by_name(b"RPC")
    address: int | None = _library().ggml_backend_reg_get_proc_address(backend, name)
    if not address:
        raise BackendError(f"this llama.cpp's RPC has no {name.decode()}")
    return address


def _devices_of(endpoint: Endpoint) -> list[int]:
    add = _ADD_SERVER(_procedure(b"ggml_backend_rpc_add_server"))
    server = add(str(endpoint).encode())
    if not server:
        raise BackendError(f"worker {endpoint} lends no device")
    count = _library().ggml_backend_reg_dev_count(server)
    return [_library().ggml_backend_reg_dev_get(server, at) for at in range(count)]


def _lendable() -> list[int]:
    # As llama.cpp's own rpc-server chooses: tools/rpc/rpc-server.cpp, `get_devices`.
    return _of_types(_GPU, _INTEGRATED) or _of_types(_CPU)


def _own_gpus() -> list[int]:
    return _of_types(_GPU) or _of_types(_INTEGRATED)


def _of_types(*types: int) -> list[int]:
    ggml = _library()
    every = map(ggml.ggml_backend_dev_get, range(ggml.ggml_backend_dev_count()))
    return [device for device in every if ggml.ggml_backend_dev_type(device) in types]


def _describe(device: int) -> LentDevice:
    free, total = _SIZE(), _SIZE()
    ggml = _library()
    ggml.ggml_backend_dev_memory(device, ctypes.byref(free), ctypes.byref(total))
    return LentDevice(
        _text(ggml.ggml_backend_dev_name(device)),
        _text(ggml.ggml_backend_dev_description(device)),
        free.value,
        total.value,
        ggml.ggml_backend_dev_type(device) == _CPU,
    )


def _text(name: bytes) -> str:
    return name.decode("utf-8", "replace").strip()
