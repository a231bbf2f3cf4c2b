"""What a loopback hub can be told to do wrong, request by request."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from threading import Lock
from typing import Any, Literal

Where = Literal["api", "resolve", "cdn"]


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
    # Changes the JSON of an answer of the API; JSON has any form.
    rewrite: Callable[[Any], Any] | None = None
    ignore_range: bool = False
    chunked: bool = False

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
