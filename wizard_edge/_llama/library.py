"""llama.cpp, loaded once, with its log kept instead of printed.

llama.cpp explains a refusal only in its log, and takes one log callback for the
whole process: the lines go to a short memory from which errors quote, to whoever
is listening through `listen`, and to `logging` at debug level.
"""

from __future__ import annotations

import ctypes
import logging
import os
import tempfile
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from types import ModuleType

from wizard_edge.errors import BackendError

# ggml_log_level of ggml.h: none, debug, info, warn, error, and 5 = "the line goes on".
_WARN = 3
_CONTINUE = 5
_OVERHEARD_SIZE = 1 << 16

_logger = logging.getLogger("wizard_edge.llama")
_recent: deque[tuple[int, str]] = deque(maxlen=200)
_listeners: list[list[str]] = []
_keep_alive: list[object] = []
# The process has one standard error: two who redirect it would lose it.
_overhearing = threading.Lock()
_pending: list[BaseException] = []


@cache
def load() -> ModuleType:
    """Import llama_cpp, initialise the backends and take over the log.

    Raises: BackendError when llama-cpp-python is not installed or does not load.
    """
    try:
        import llama_cpp
    except (ImportError, OSError, RuntimeError) as err:
        raise BackendError(
            f"llama.cpp cannot be loaded: {err}",
            hint="pip install llama-cpp-python (it compiles for some minutes)",
        ) from err
    callback = llama_cpp.llama_log_callback(_on_line)
    llama_cpp.llama_log_set(callback, ctypes.c_void_p(0))
    _keep_alive.append(callback)
    llama_cpp.llama_backend_init()
    module: ModuleType = llama_cpp
    return module


@cache
def identity() -> str:
    """Return what tells builds of llama.cpp apart that may round differently.

    Raises: BackendError.
    """
    library = load()
    features: bytes = library.llama_print_system_info()
    return f"{library.__version__} {features.decode('utf-8', 'replace')}"


@contextmanager
def listen() -> Iterator[list[str]]:
    """Collect the log lines that llama.cpp writes meanwhile, in order."""
    lines: list[str] = []
    _listeners.append(lines)
    try:
        yield lines
    finally:
        # Not by `remove`, for which all empty lists are one.
        _listeners[:] = [other for other in _listeners if other is not lines]


@contextmanager
def overhear() -> Iterator[list[str]]:
    """Collect what native code writes to standard error itself, past every log.

    llama.cpp's grammar parser does that. The whole process has one standard error,
    so keep what runs inside short.
    """
    lines: list[str] = []
    with _overhearing, tempfile.TemporaryFile() as file:
        kept = os.dup(2)
        os.dup2(file.fileno(), 2)
        try:
            yield lines
        finally:
            os.dup2(kept, 2)
            os.close(kept)
            file.seek(0)
            text = file.read(_OVERHEARD_SIZE).decode("utf-8", "replace")
            lines += [line.strip() for line in text.splitlines() if line.strip()]


def forget() -> None:
    """Empty the memory of recent lines, before a call whose reason may be asked."""
    _recent.clear()


def reason() -> str:
    """Return llama.cpp's first error since `forget`, else its first warning, or ""."""
    complaints = [text for level, text in _recent if level >= _WARN]
    errors = [text for level, text in _recent if level > _WARN]
    for lines in (errors, complaints):
        if lines:
            return lines[0].strip()
    return ""


def raise_pending() -> None:
    """Raise what was raised inside a callback, such as Ctrl-C; call it afterwards."""
    if _pending:
        raise _pending.pop()


def keep(err: BaseException) -> None:
    """Keep an exception that cannot cross native code, for `raise_pending`."""
    _pending[:] = [err]


def _on_line(level: int, text: bytes, user_data: object) -> None:
    try:
        _record(level, text)
    except BaseException as err:  # noqa: BLE001 - raised again by raise_pending
        keep(err)


def _record(level: int, text: bytes) -> None:
    line = text.decode("utf-8", "replace")
    if level == _CONTINUE and _recent:
        known, head = _recent.pop()
        _recent.append((known, head + line))
    else:
        _recent.append((level, line))
    for lines in _listeners:
        if level == _CONTINUE and lines:
            lines[-1] += line
        else:
            lines.append(line)
    _logger.debug("%s", line.rstrip("\n"))
