"""A Hugging Face hub on loopback: two ports, a log of requests, faults to order.

Drive it as the real one, with HF_ENDPOINT or `endpoint=`. The second port stands for
the CDN that large files come from, so that it is another origin.
"""

from __future__ import annotations

import json
import os
import select
import socket
import socketserver
import ssl
import struct
import sys
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Condition, Thread
from types import TracebackType
from typing import Self

from tests.hub.content import Content, HostedRepository
from tests.hub.faults import Fault, Faults, Where
from tests.hub.routes import Asked, Hosted, Reply

_PIECE = 1 << 16


@dataclass
class Logged:
    """A request as it was answered; `sent` counts the bytes of the body.

    They were handed to the system; with a small `send_buffer` most were received.
    """

    port: Where
    method: str
    target: str
    byte_range: str | None
    authorized: bool
    host: str
    encoding: str | None
    status: int = 0
    sent: int = 0

    @property
    def path(self) -> str:
        return self.target.partition("?")[0]


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    # Sessions that a test leaves open must not hold up its end.
    block_on_close = False

    def __init__(
        self, hub: LoopbackHub, tls: ssl.SSLContext | None, *, is_cdn: bool
    ) -> None:
        self.hub = hub
        self.is_cdn = is_cdn
        super().__init__(("127.0.0.1", 0), _Handler)
        if tls is not None:
            self.socket = tls.wrap_socket(self.socket, server_side=True)

    def server_bind(self) -> None:
        """Bind without asking a name server what this machine is called."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = "127.0.0.1", self.server_address[1]

    @property
    def address(self) -> str:
        scheme = "https" if isinstance(self.socket, ssl.SSLSocket) else "http"
        return f"{scheme}://127.0.0.1:{self.server_port}"

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing of clients that went away; other errors fail the test."""
        error = sys.exc_info()[1]
        if not isinstance(error, OSError):
            self.hub.errors.append(repr(error))


class LoopbackHub:
    """The hub: use it as a context manager; `log` and `faults` may change any time."""

    def __init__(
        self,
        *repositories: HostedRepository,
        tokens: Iterable[str] = (),
        send_buffer: int | None = None,
        log_file: Path | None = None,
        tls: ssl.SSLContext | None = None,
        cdn_tls: ssl.SSLContext | None = None,
    ) -> None:
        self.hosted = Hosted({r.name: r for r in repositories}, set(tokens))
        self.faults = Faults()
        self.log: list[Logged] = []
        self.errors: list[str] = []
        self.send_buffer = send_buffer
        self._log_file = log_file
        self._lock = Condition()
        self._running = 0
        self._ending, self._end = socket.socketpair()
        self._servers = [
            _Server(self, tls, is_cdn=False),
            _Server(self, cdn_tls, is_cdn=True),
        ]
        self.endpoint, self.cdn = (server.address for server in self._servers)
        self.hosted.endpoint, self.hosted.cdn = self.endpoint, self.cdn

    def __enter__(self) -> Self:
        for server in self._servers:
            # The default of half a second would be paid at the end of each test.
            Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._end.close()
        for server in self._servers:
            server.shutdown()
            server.server_close()
        self._ending.close()
        assert self.errors == []

    def add(self, repository: HostedRepository) -> HostedRepository:
        self.hosted.repositories[repository.name] = repository
        return repository

    def requests(self, text: str = "") -> list[Logged]:
        """Return the requests whose target holds `text`, in order."""
        with self._lock:
            return [entry for entry in self.log if text in entry.target]

    def lines(self) -> list[str]:
        """Return the log as `GET hub /path`, with the range where one was asked."""
        return [
            " ".join(filter(None, (e.method, e.port, e.target, e.byte_range)))
            for e in self.requests()
        ]

    def forget(self) -> None:
        """Empty the log."""
        with self._lock:
            self.log.clear()

    def sent(self, port: Where) -> int:
        """Return the bytes of all bodies of a port, once no request is under way."""
        with self._lock:
            assert self._lock.wait_for(lambda: not self._running, timeout=10)
            return sum(entry.sent for entry in self.log if entry.port == port)

    def begin(self, entry: Logged) -> None:
        with self._lock:
            self._running += 1
            self.log.append(entry)

    def end(self, entry: Logged) -> None:
        with self._lock:
            self._running -= 1
            self._lock.notify_all()
            if self._log_file is not None:
                with self._log_file.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(asdict(entry)) + "\n")

    def hold(self, connection: socket.socket) -> None:
        """Block until the client or the hub goes away."""
        select.select([connection, self._ending], [], [])


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def setup(self) -> None:
        size = self.server.hub.send_buffer
        if size is not None:
            self.request.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, size)
        # A body is sent in pieces after its head; nothing shall wait for more.
        self.request.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        super().setup()

    def log_message(self, format: str, *args: object) -> None:
        """Write nothing to stderr: the log is a list."""

    def do_GET(self) -> None:
        self._answer()

    def do_HEAD(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def _answer(self) -> None:
        hub = self.server.hub
        authorization = self.headers.get("Authorization")
        where: Where = "cdn" if self.server.is_cdn else "resolve"
        if self.path.startswith("/api/"):
            where = "api"
        entry = Logged(
            where,
            self.command,
            self.path,
            self.headers.get("Range"),
            authorization is not None,
            self.headers.get("Host", ""),
            self.headers.get("Accept-Encoding"),
        )
        hub.begin(entry)
        asked = Asked(
            self.command,
            self.path,
            (authorization or "").removeprefix("Bearer ") or None,
            entry.byte_range,
            self.rfile.read(int(self.headers.get("Content-Length", 0))),
        )
        fault = hub.faults.next(where, self.command, self.path)
        try:
            self._send(self._reply(asked, fault), fault, entry)
        finally:
            hub.end(entry)

    def _reply(self, asked: Asked, fault: Fault) -> Reply:
        """Return the answer, with what a fault changes before it is sent."""
        if fault.status is not None and fault.body is None:
            return Reply.of(fault.status)
        if fault.status is not None:
            return Reply.of(fault.status, fault.body or b"")
        if fault.ignore_range:
            asked = Asked(asked.method, asked.target, asked.token, None)
        hosted = self.server.hub.hosted
        answer = hosted.answer_cdn if self.server.is_cdn else hosted.answer_hub
        reply = answer(asked)
        if fault.rewrite is not None:
            value = json.loads(reply.content.read(0, reply.end))
            body = json.dumps(fault.rewrite(value)).encode()
            reply.content, reply.start, reply.end = Content(body), 0, len(body)
        if fault.body is not None:
            reply.content = Content(fault.body)
            reply.start, reply.end = 0, len(fault.body)
        return reply

    def _send(self, reply: Reply, fault: Fault, entry: Logged) -> None:
        if fault.stall_after == -1:
            self._fall_silent()
            return
        headers: dict[str, str | None] = {**reply.headers}
        if fault.chunked:
            headers["Transfer-Encoding"] = "chunked"
        else:
            headers["Content-Length"] = str(reply.end - reply.start)
        headers |= fault.headers
        entry.status = reply.status
        self.send_response(reply.status)
        for name, text in headers.items():
            if text is not None:
                self.send_header(name, text)
        self.end_headers()
        if self.command != "HEAD":
            self._send_body(reply, fault, entry)

    def _send_body(self, reply: Reply, fault: Fault, entry: Logged) -> None:
        limits = [n for n in (fault.cut_after, fault.stall_after) if n is not None]
        end = min([reply.end, *(reply.start + n for n in limits)])
        place = reply.start
        for piece in reply.content.pieces(place, end, fault.drip or _PIECE):
            sent = _flipped(piece, place, fault.flip)
            self._write(sent, entry, chunked=fault.chunked)
            place += len(piece)
        if fault.stall_after is not None:
            self._fall_silent()
        elif fault.cut_after is not None:
            self._cut(reset=fault.reset)
        elif fault.chunked:
            self.connection.sendall(b"0\r\n\r\n")
        elif fault.surplus:
            self.connection.sendall(fault.surplus)
            self.close_connection = True
        elif fault.headers.get("Content-Length") is not None:
            # No client can tell where the next answer begins.
            self.close_connection = True

    def _write(self, piece: bytes, entry: Logged, *, chunked: bool) -> None:
        if chunked:
            self.connection.sendall(f"{len(piece):x}\r\n".encode())
        view = memoryview(piece)
        while view:
            count = self.connection.send(view)
            entry.sent += count
            view = view[count:]
        if chunked:
            self.connection.sendall(b"\r\n")

    def _fall_silent(self) -> None:
        self.server.hub.hold(self.connection)
        self.close_connection = True

    def _cut(self, *, reset: bool) -> None:
        self.close_connection = True
        if reset:
            # Closing with nothing to linger for sends RST, if no FIN went before:
            # so past the handler's own shutdown.
            linger = struct.pack("ii", 1, 0)
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            os.close(self.connection.detach())


def _flipped(piece: bytes, place: int, at: int | None) -> bytes:
    """Return the piece with all bits of the byte `at` of the file changed."""
    if at is None or not place <= at < place + len(piece):
        return piece
    changed = bytearray(piece)
    changed[at - place] ^= 0xFF
    return bytes(changed)
