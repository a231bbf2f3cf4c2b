"""A Hugging Face hub on loopback: three ports, a log of requests, faults to order.

Drive it as the real one, with HF_ENDPOINT or `endpoint=`. The second port stands for
the CDN that large files come from, so that it is another origin. The third is a web
server that is no hub: files by their path, for addresses that a person types.
"""

from __future__ import annotations

import json
import select
import socket
import socketserver
import ssl
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Condition, Thread
from types import TracebackType
from typing import Self

from tests.hub.content import HostedFile, HostedRepository
from tests.hub.faults import Fault, Faults, Where
from tests.hub.routes import Asked, Hosted, Reply, resized, with_values, zipped
from tests.hub.sending import Sender, reset

_PORTS: tuple[Where, ...] = ("resolve", "cdn", "files")


@dataclass
class Logged:
    """A request as it was answered; `sent` counts the bytes of the body.

    They were handed to the system; with a small `send_buffer` most were received.
    `secret` tells whether a token stood anywhere in the request.
    """

    port: Where
    method: str
    target: str
    byte_range: str | None
    authorized: bool
    host: str
    encoding: str | None
    secret: bool = False
    status: int = 0
    sent: int = 0

    @property
    def path(self) -> str:
        return self.target.partition("?")[0]


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    # Sessions that a test leaves open must not hold up its end.
    block_on_close = False
    # Many programs with many connections each may come at once.
    request_queue_size = 256

    def __init__(
        self, hub: LoopbackHub, tls: ssl.SSLContext | None, port: Where
    ) -> None:
        self.hub = hub
        self.port = port
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
    """The hub: use it as a context manager; `log` and `faults` may change any time.

    `rate` limits each connection, in bytes per second; `files` are those of the third
    port, whose address is `files`.
    """

    def __init__(
        self,
        *repositories: HostedRepository,
        tokens: Iterable[str] = (),
        files: Mapping[str, HostedFile] | None = None,
        rate: int | None = None,
        send_buffer: int | None = None,
        log_file: Path | None = None,
        tls: ssl.SSLContext | None = None,
        cdn_tls: ssl.SSLContext | None = None,
        files_tls: ssl.SSLContext | None = None,
    ) -> None:
        self.hosted = Hosted(
            {r.name: r for r in repositories}, set(tokens), dict(files or {})
        )
        self.rate = rate
        self.faults = Faults()
        self.log: list[Logged] = []
        self.errors: list[str] = []
        self.send_buffer = send_buffer
        self._log_file = log_file
        self._lock = Condition()
        self._running = 0
        self._ending, self._end = socket.socketpair()
        self._servers = [
            _Server(self, context, port)
            for port, context in zip(_PORTS, (tls, cdn_tls, files_tls), strict=True)
        ]
        self.endpoint, self.cdn, self.files = (
            server.address for server in self._servers
        )
        self.hosted.xet_storage = self.cdn
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

    def answer(self, port: Where) -> Callable[[Asked], Reply]:
        """Return what answers on a port."""
        hosted = self.hosted
        if port == "files":
            return hosted.answer_files
        return hosted.answer_cdn if port == "cdn" else hosted.answer_hub

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

    def send_header(self, keyword: str, value: str) -> None:
        """Send a header as it is, whatever stands in it."""
        try:
            super().send_header(keyword, value)
        except UnicodeEncodeError:
            # Headers are bytes; what is no Latin-1 goes out as UTF-8.
            super().send_header(keyword, value.encode().decode("latin-1"))

    def _answer(self) -> None:
        hub = self.server.hub
        authorization = self.headers.get("Authorization")
        where = self.server.port
        if where == "resolve" and self.path.startswith("/api/"):
            where = "api"
        told = [self.path, *self.headers.values()]
        entry = Logged(
            where,
            self.command,
            self.path,
            self.headers.get("Range"),
            authorization is not None,
            self.headers.get("Host", ""),
            self.headers.get("Accept-Encoding"),
            any(token in text for token in hub.hosted.tokens for text in told),
        )
        hub.begin(entry)
        try:
            asked = Asked(
                self.command,
                self.path,
                (authorization or "").removeprefix("Bearer ") or None,
                entry.byte_range,
                self.headers.get("If-Range"),
                self.rfile.read(int(self.headers.get("Content-Length", 0))),
            )
            fault = hub.faults.next(where, self.command, self.path)
            self._send(self._reply(asked, fault), fault, entry)
        finally:
            hub.end(entry)

    def _reply(self, asked: Asked, fault: Fault) -> Reply:
        """Return the answer, with what a fault changes before it is sent."""
        if fault.status is not None:
            return Reply.of(fault.status, fault.body or b"")
        if fault.ignore_range:
            asked = replace(asked, byte_range=None)
        reply = self.server.hub.answer(self.server.port)(asked)
        if fault.rewrite is not None or fault.values:
            value = json.loads(reply.content.read(0, reply.end))
            value = with_values(value, fault.values)
            value = fault.rewrite(value) if fault.rewrite is not None else value
            reply = Reply.of(reply.status, json.dumps(value).encode(), reply.headers)
        if fault.body is not None:
            reply = Reply.of(reply.status, fault.body, reply.headers)
        if fault.resize:
            reply = resized(reply, fault.resize)
        return zipped(reply) if fault.gzip else reply

    def _send(self, reply: Reply, fault: Fault, entry: Logged) -> None:
        if fault.stall_after == -1:
            self._fall_silent()
            return
        headers: dict[str, str | None] = {**reply.headers}
        if fault.weak_etag and "ETag" in reply.headers:
            headers["ETag"] = f"W/{reply.headers['ETag']}"
        if fault.chunked:
            headers["Transfer-Encoding"] = "chunked"
        else:
            headers["Content-Length"] = str(reply.end - reply.start)
        headers |= fault.headers
        entry.status = reply.status
        self.send_response(reply.status)
        for name, text in (*headers.items(), *fault.more_headers):
            if text is not None:
                self.send_header(name.swapcase() if fault.odd_case else name, text)
        self.end_headers()
        if self.command == "HEAD":
            return
        sender = Sender(self.connection, fault, entry, self.server.hub.rate)
        match sender.send(reply):
            case "silent":
                self._fall_silent()
            case "reset":
                self.close_connection = True
                reset(self.connection)
            case "cut" | "closed":
                self.close_connection = True
            case "kept":
                pass

    def _fall_silent(self) -> None:
        self.server.hub.hold(self.connection)
        self.close_connection = True
