"""SHA-256 that can be put down and taken up again, at the speed of hashlib.

hashlib cannot save the state of a hash, but the libcrypto under it can: its
SHA256_CTX is a plain struct. The state is kept as text in a form that belongs to
SHA-256 and not to the library, so another machine may go on with it. Whether all
this works here is found out at the first use; `new_sha256` gives plain hashlib
where it does not.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import hashlib
import re
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Protocol, Self

__all__ = [
    "PlainSha256",
    "ResumableSha256",
    "StreamingSha256",
    "can_resume",
    "new_sha256",
]

_TAG = "sha256-state-1"
_STATE = re.compile(
    rf"{_TAG}:(0|[1-9]\d{{0,18}}):([0-9a-f]{{64}}):((?:[0-9a-f]{{2}}){{0,63}}):([0-9a-f]{{16}})"
)
_BLOCK = 64
# SHA-256 counts bits in 64 of them. Source: FIPS 180-4, section 5.1.1.
_MAX_COUNT = 1 << 61
# Read-only views go through a copy of this many bytes.
_PIECE = 1 << 20
_DIGEST_SIZE = 32


class StreamingSha256(Protocol):
    """A SHA-256 over bytes that come one piece after the other."""

    def update(self, data: bytes | bytearray | memoryview) -> None:
        """Take the next bytes."""

    def hexdigest(self) -> str:
        """Return the digest of all bytes so far; more may follow."""

    def save(self) -> str | None:
        """Return the state for `ResumableSha256.resume`, None where there is none."""


class _Context(ctypes.Structure):
    """SHA256_CTX, the same in OpenSSL 1.1 and 3, LibreSSL and BoringSSL.

    `data` holds the bytes of the block that is not full yet, `num` of them.

    Source: OpenSSL 3.0, include/openssl/sha.h, SHA256state_st.
    """

    _fields_ = (
        ("h", ctypes.c_uint32 * 8),
        ("bits_low", ctypes.c_uint32),
        ("bits_high", ctypes.c_uint32),
        ("data", ctypes.c_uint8 * _BLOCK),
        ("num", ctypes.c_uint),
        ("md_len", ctypes.c_uint),
    )


class ResumableSha256:
    """A SHA-256 whose state can be saved, and resumed in another process.

    Not for two threads at once; other threads run while a piece is hashed.
    """

    __slots__ = ("_context", "_count", "_library")

    def __init__(self) -> None:
        """Raises: ValueError where `can_resume` is false."""
        self._library = _checked_libcrypto()
        self._context = _Context()
        self._count = 0
        self._library.SHA256_Init(ctypes.byref(self._context))

    @classmethod
    def resume(cls, state: str) -> Self:
        """Go on where `save` was called.

        Raises: ValueError for text that `save` did not write, or where `can_resume`
        is false.
        """
        count, words, pending = _parse(state)
        hasher = cls()
        hasher._count = count
        context = hasher._context
        context.h[:] = words
        context.bits_high, context.bits_low = divmod(8 * count, 1 << 32)
        context.data[: len(pending)] = list(pending)
        context.num = len(pending)
        return hasher

    @property
    def count(self) -> int:
        """Return the number of bytes taken so far."""
        return self._count

    def update(self, data: bytes | bytearray | memoryview) -> None:
        """Take the next bytes. A read-only view is copied, 1 MiB at a time."""
        if isinstance(data, bytes):
            self._take(data, len(data))
            return
        view = memoryview(data).cast("B")
        if view.nbytes and not view.readonly:
            self._take((ctypes.c_char * view.nbytes).from_buffer(view), view.nbytes)
            return
        for start in range(0, view.nbytes, _PIECE):
            piece = bytes(view[start : start + _PIECE])
            self._take(piece, len(piece))

    def hexdigest(self) -> str:
        """Return the digest of all bytes so far; more may follow."""
        context = _Context.from_buffer_copy(self._context)
        digest = ctypes.create_string_buffer(_DIGEST_SIZE)
        self._library.SHA256_Final(digest, ctypes.byref(context))
        return digest.raw.hex()

    def save(self) -> str:
        """Return the state as one line of text.

        Tag, bytes taken, the eight words, the bytes of the open block, and 16 digits
        of the SHA-256 of all that, joined by colons.
        """
        words = "".join(f"{word:08x}" for word in self._context.h)
        pending = bytes(self._context.data[: self._context.num])
        text = f"{_TAG}:{self._count}:{words}:{pending.hex()}"
        return f"{text}:{_check(text)}"

    def _take(self, data: bytes | ctypes.Array[ctypes.c_char], size: int) -> None:
        self._library.SHA256_Update(ctypes.byref(self._context), data, size)
        self._count += size


class PlainSha256:
    """A SHA-256 of hashlib, which cannot be saved."""

    __slots__ = ("_hash",)

    def __init__(self) -> None:
        self._hash = hashlib.sha256()

    def update(self, data: bytes | bytearray | memoryview) -> None:
        """Take the next bytes."""
        self._hash.update(data)

    def hexdigest(self) -> str:
        """Return the digest of all bytes so far; more may follow."""
        return self._hash.hexdigest()

    def save(self) -> None:
        """Return None: there is no state to be had."""
        return


def new_sha256() -> StreamingSha256:
    """Return a hash at its beginning: one that can be saved where there is one."""
    return ResumableSha256() if can_resume() else PlainSha256()


def can_resume() -> bool:
    """Tell whether this machine has a libcrypto whose state can be saved."""
    return _libcrypto() is not None


def _parse(state: str) -> tuple[int, list[int], bytes]:
    match = _STATE.fullmatch(state)
    if match is None:
        raise ValueError("not a saved SHA-256 state")
    if _check(state.rpartition(":")[0]) != match[4]:
        raise ValueError("a saved SHA-256 state that was changed")
    count, pending = int(match[1]), bytes.fromhex(match[3])
    if count >= _MAX_COUNT or count % _BLOCK != len(pending):
        raise ValueError("a saved SHA-256 state whose byte count does not fit")
    words = [int(match[2][i : i + 8], 16) for i in range(0, 64, 8)]
    return count, words, pending


def _check(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _checked_libcrypto() -> ctypes.CDLL:
    library = _libcrypto()
    if library is None:
        raise ValueError("no libcrypto here to resume a SHA-256")
    return library


@cache
def _libcrypto() -> ctypes.CDLL | None:
    """Return the first library that passes the test of `_works`."""
    for name in _candidates():
        try:
            library = _declared(ctypes.CDLL(name))
        except (OSError, AttributeError, TypeError):
            # Not a library, without these functions, or (None on Windows) no name.
            continue
        if _works(library):
            return library
    return None


def _candidates() -> Iterator[str | None]:
    """Yield where libcrypto may be: hashlib's own first, then the system's."""
    try:
        import _hashlib
    except ImportError:
        yield from _system()
        return
    module = getattr(_hashlib, "__file__", None)
    if module is None:
        # Built into the interpreter, as its libcrypto is.
        yield None
    elif sys.platform == "win32":
        # A symbol of a DLL's own imports is not found through it.
        yield from map(str, sorted(Path(module).parent.glob("libcrypto-*.dll")))
    else:
        # dlsym looks through what the module was linked against, too.
        yield module
    yield from _system()


def _system() -> Iterator[str]:
    name = ctypes.util.find_library("crypto")
    # macOS ends any process that loads its own, unversioned libcrypto.
    if name is not None and not (
        sys.platform == "darwin" and name.startswith("/usr/lib/")
    ):
        yield name


def _declared(library: ctypes.CDLL) -> ctypes.CDLL:
    context = ctypes.POINTER(_Context)
    library.SHA256_Init.argtypes = (context,)
    library.SHA256_Update.argtypes = (context, ctypes.c_void_p, ctypes.c_size_t)
    library.SHA256_Final.argtypes = (ctypes.c_void_p, context)
    return library


def _works(library: ctypes.CDLL) -> bool:
    """Tell whether the struct is ours: its fields, and a hash in two halves."""
    sample = bytes(range(150))
    first, room = _Context(), (ctypes.c_uint8 * 1024)()
    # A library with a larger struct writes into the room behind ours.
    large = ctypes.cast(room, ctypes.POINTER(_Context))
    library.SHA256_Init(large)
    library.SHA256_Update(large, sample, 100)
    ctypes.memmove(ctypes.byref(first), room, ctypes.sizeof(_Context))
    fits = (
        not any(room[ctypes.sizeof(_Context) :])
        and (first.bits_low, first.bits_high) == (800, 0)
        and (first.num, first.md_len) == (100 % _BLOCK, _DIGEST_SIZE)
        and bytes(first.data[: first.num]) == sample[_BLOCK:100]
    )
    if not fits:
        return False
    digest = ctypes.create_string_buffer(_DIGEST_SIZE)
    library.SHA256_Update(ctypes.byref(first), sample[100:], 50)
    library.SHA256_Final(digest, ctypes.byref(first))
    return digest.raw == hashlib.sha256(sample).digest()
