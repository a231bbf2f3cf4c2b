"""Puts a body on a connection: at a pace, in part, spoilt, or straight from a file."""

from __future__ import annotations

import os
import socket
import ssl
import struct
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol

from tests.hub.faults import Fault
from tests.hub.routes import Reply

try:
    import fcntl
    import termios
except ImportError:
    fcntl = None  # type: ignore[assignment]

_PIECE = 1 << 16
# Handed to the system at once where it copies from the file itself.
_LARGE_PIECE = 4 << 20
# How often a limited connection sends, so that its pace looks even.
_TICKS = 50
# A client that does not read is not waited for longer than a second.
_MOST_DRAINS, _DRAIN_S = 1000, 0.001

End = Literal["kept", "closed", "cut", "reset", "silent"]


class Counted(Protocol):
    """What keeps count of the bytes that were handed to the system."""

    sent: int


@dataclass(slots=True)
class Sender:
    """Sends the body of one answer; `rate` is in bytes per second."""

    connection: socket.socket
    fault: Fault
    entry: Counted
    rate: int | None = None

    def send(self, reply: Reply) -> End:
        """Send what the fault lets pass; return what becomes of the connection."""
        fault = self.fault
        limits = [n for n in (fault.cut_after, fault.stall_after) if n is not None]
        end = min([reply.end, *(reply.start + n for n in limits)])
        if self._is_plain(reply):
            self._send_file(reply, end)
        else:
            self._send_pieces(reply, end)
        if fault.stall_after is not None:
            return "silent"
        if fault.cut_after is not None:
            return "reset" if fault.reset else "cut"
        if fault.chunked:
            self.connection.sendall(b"0\r\n\r\n")
        elif fault.surplus:
            self.connection.sendall(fault.surplus)
            return "closed"
        # With another length stated, no client can tell where the next answer begins.
        stated = fault.headers.get("Content-Length") is not None
        return "closed" if stated else "kept"

    def _is_plain(self, reply: Reply) -> bool:
        """Tell whether the system can send the bytes of a file as they lie there."""
        fault = self.fault
        return (
            reply.content.path is not None
            and hasattr(os, "sendfile")
            and not isinstance(self.connection, ssl.SSLSocket)
            and not fault.chunked
            and fault.flip is None
            and fault.drip is None
        )

    def _send_file(self, reply: Reply, end: int) -> None:
        assert reply.content.path is not None
        pace = Pace(self.rate, _LARGE_PIECE)
        with reply.content.path.open("rb") as file:
            place = reply.start
            while place < end:
                count = os.sendfile(
                    self.connection.fileno(),
                    file.fileno(),
                    place,
                    min(pace.piece, end - place),
                )
                if not count:
                    return
                place += count
                self.entry.sent += count
                pace.wait(count)

    def _send_pieces(self, reply: Reply, end: int) -> None:
        pace = Pace(self.rate, self.fault.drip or _PIECE)
        place = reply.start
        for piece in reply.content.pieces(place, end, pace.piece):
            self._write(_flipped(piece, place, self.fault.flip))
            place += len(piece)
            pace.wait(len(piece))

    def _write(self, piece: bytes) -> None:
        if self.fault.chunked:
            self.connection.sendall(f"{len(piece):x}\r\n".encode())
        view = memoryview(piece)
        while view:
            count = self.connection.send(view)
            self.entry.sent += count
            view = view[count:]
        if self.fault.chunked:
            self.connection.sendall(b"\r\n")


class Pace:
    """Waits so that no more than `rate` bytes a second were sent since the start.

    `piece` is how many to send between two waits, at most what is asked for.
    """

    def __init__(
        self,
        rate: int | None,
        piece: int,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.piece = piece if rate is None else max(1, min(piece, rate // _TICKS))
        self._rate = rate
        self._clock, self._sleep = clock, sleep
        self._begun = clock()
        self._sent = 0

    def wait(self, count: int) -> None:
        if self._rate is None:
            return
        self._sent += count
        ahead = self._sent / self._rate - (self._clock() - self._begun)
        if ahead > 0:
            self._sleep(ahead)


def reset(connection: socket.socket) -> None:
    """Close a connection with RST, when what was sent has arrived."""
    _drain(connection)
    # Closing with nothing to linger for sends RST, if no FIN went before: so past
    # the handler's own shutdown.
    linger = struct.pack("ii", 1, 0)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    os.close(connection.detach())


def _drain(connection: socket.socket) -> None:
    """Wait until the other side has all bytes: with RST the system drops the rest."""
    if fcntl is None:
        return
    for _ in range(_MOST_DRAINS):
        # Source: tcp(7), SIOCOUTQ, which has the number of TIOCOUTQ.
        left = fcntl.ioctl(connection.fileno(), termios.TIOCOUTQ, bytes(4))
        if not int.from_bytes(left, sys.byteorder):
            return
        time.sleep(_DRAIN_S)


def _flipped(piece: bytes, place: int, at: int | None) -> bytes:
    """Return the piece with all bits of the byte `at` of the file changed."""
    if at is None or not place <= at < place + len(piece):
        return piece
    changed = bytearray(piece)
    changed[at - place] ^= 0xFF
    return bytes(changed)
