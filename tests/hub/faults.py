"""What a loopback hub can be told to do wrong, request by request."""

from __future__ import annotations

import random
import struct
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from threading import Lock
from typing import Any, Literal

Where = Literal["api", "resolve", "cdn", "files"]

# More often than any test asks.
ALWAYS = 1 << 30
_BLOCK = 1 << 20


@dataclass(frozen=True)
class Fault:
    """One thing to do wrong, at the requests it fits.

    Passes the first `skip` requests that fit, then strikes `times` of them. Offsets
    of bytes count in the body sent, but `flip` counts in the file.
    """

    where: Where | None = None
    path: str | None = None
    method: str | None = "GET"
    skip: int = 0
    times: int = 1

    # In place of the answer; `body` too can replace that of a good answer.
    status: int | None = None
    body: bytes | None = None
    # Set, or with None taken away.
    headers: Mapping[str, str | None] = field(default_factory=dict)
    # Sent besides, also where one of the name was sent before.
    more_headers: tuple[tuple[str, str], ...] = ()
    # Names of headers in the case that nobody uses.
    odd_case: bool = False
    weak_etag: bool = False
    # Changes the JSON of an answer of the API; JSON has any form.
    rewrite: Callable[[Any], Any] | None = None
    # The same, as a place in it: `siblings.*.rfilename` is that of each sibling.
    values: Mapping[str, Any] = field(default_factory=dict)
    ignore_range: bool = False
    chunked: bool = False
    gzip: bool = False
    # So many bytes more, or fewer, than there should be; the length stated is right.
    resize: int = 0

    cut_after: int | None = None
    reset: bool = False
    # Falls silent after so many bytes of the body; -1: before the headers.
    stall_after: int | None = None
    # Sends so few bytes at once.
    drip: int | None = None
    flip: int | None = None
    # Bytes that follow the body, beyond its stated length.
    surplus: bytes = b""

    def fits(self, where: Where, method: str, path: str) -> bool:
        return (
            self.where in (None, where)
            and self.method in (None, method)
            and (self.path is None or self.path in path)
        )


def redirected(location: str, status: int = 302, **more: Any) -> Fault:
    """Return a redirect in place of any answer, however often one asks."""
    kept: dict[str, Any] = {"method": None, "times": ALWAYS} | more
    return Fault(status=status, headers={"Location": location}, **kept)


def captive_portal(**more: Any) -> Fault:
    """Return what a network that wants a login first answers to everything."""
    page = b"<!DOCTYPE html><html><body><form>Welcome! Please log in.</form></body>"
    kept: dict[str, Any] = {"method": None, "times": ALWAYS} | more
    return Fault(status=200, body=page, headers={"Content-Type": "text/html"}, **kept)


def rate_limited(wait_s: int, *, draft: bool = False, **more: Any) -> Fault:
    """Return a 429, with Retry-After or with the headers of the IETF's draft."""
    headers = {"Retry-After": str(wait_s)}
    if draft:
        headers = {
            "RateLimit": f'"api";r=0;t={wait_s}',
            "RateLimit-Policy": '"fixed window";"api";q=500;w=300',
        }
    return Fault(status=429, headers=headers, **more)


def bombed(size: int, **more: Any) -> Fault:
    """Return an answer of some kilobytes that is `size` bytes when decompressed."""
    kept: dict[str, Any] = {"times": ALWAYS} | more
    headers = {"Content-Encoding": "gzip"}
    return Fault(status=200, body=gzip_bomb(size), headers=headers, **kept)


@cache
def gzip_bomb(size: int) -> bytes:
    """Return zeros, a multiple of a mebibyte, compressed a thousandfold.

    One block is compressed and repeated. Source: RFC 1951, section 3.2.4 (an empty
    stored block ends each at a byte); RFC 1952, section 2.3.
    """
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    zeros = bytes(_BLOCK)
    block = packer.compress(zeros) + packer.flush(zlib.Z_FULL_FLUSH)
    check = 0
    for _ in range(size // _BLOCK):
        check = zlib.crc32(zeros, check)
    end = struct.pack("<II", check, size % (1 << 32))
    head = b"\x1f\x8b\x08\0\0\0\0\0\x02\xff"
    return head + block * (size // _BLOCK) + b"\x03\0" + end


class Faults:
    """The faults still to come; asked by all threads of a hub."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._planned: list[Fault] = []
        self._seen: dict[int, int] = {}

    def add(self, *faults: Fault) -> None:
        with self._lock:
            self._planned += faults

    def clear(self) -> None:
        with self._lock:
            self._planned.clear()
            self._seen.clear()

    def next(self, where: Where, method: str, path: str) -> Fault:
        """Return the first fault that strikes now; every one that fits counts."""
        with self._lock:
            struck: Fault | None = None
            for number, fault in enumerate(self._planned):
                if not fault.fits(where, method, path):
                    continue
                seen = self._seen.get(number, 0)
                if struck is not None and seen >= fault.skip:
                    # Its turn comes with the next request.
                    continue
                self._seen[number] = seen + 1
                if struck is None and fault.skip <= seen < fault.skip + fault.times:
                    struck = fault
            return struck or Fault()


def random_cuts(seed: int, count: int, longest: int, path: str) -> list[Fault]:
    """Return cuts after 0 to `longest` bytes of the body, half of them resets."""
    dice = random.Random(seed)
    return [
        Fault(path=path, cut_after=dice.randrange(longest), reset=dice.random() < 0.5)
        for _ in range(count)
    ]
