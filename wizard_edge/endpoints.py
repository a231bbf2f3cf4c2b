"""Where a worker listens: `host:port` as text, parsed once.

llama.cpp's RPC knows IPv4 addresses and names only (docs/several-machines.md), and
ends the process over anything else, so nothing else gets past here.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import AddressValueError, IPv4Address, IPv6Address
from typing import Self

from wizard_edge.errors import UsageError

# What llama.cpp's own rpc-server takes. Source: 0c1e57098, tools/rpc/rpc-server.cpp.
DEFAULT_PORT = 50052
# Source: llama.cpp 0c1e57098, ggml/include/ggml-rpc.h, GGML_RPC_MAX_SERVERS.
MAX_WORKERS = 16

_HINT = "HOST:PORT, such as 192.168.1.20:50052"
_LONGEST_NAME = 253
# RFC 1123, and the underscore that people use all the same.
_LABEL = r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_NAME = re.compile(rf"{_LABEL}(?:\.{_LABEL})*\.?")
_NUMBERS = re.compile(r"[0-9.]+")
_PORT = re.compile(r"[0-9]{1,5}")


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A host name or IPv4 address, and a port from 1 to 65535."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse `HOST:PORT`. Raises: UsageError."""
        host, colon, port = text.strip().rpartition(":")
        if not colon:
            raise UsageError(f"a worker without a port: {text!r}", hint=_HINT)
        return cls(_parse_host(host, text), _parse_port(port, text))

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


def parse_endpoints(text: str) -> tuple[Endpoint, ...]:
    """Parse `HOST:PORT,HOST:PORT,…`: each worker once, 16 at most.

    Raises: UsageError.
    """
    found = tuple(map(Endpoint.parse, text.split(",")))
    for endpoint in found:
        if found.count(endpoint) > 1:
            raise UsageError(f"{endpoint} is named twice")
    if len(found) > MAX_WORKERS:
        raise UsageError(f"{len(found)} workers, llama.cpp takes {MAX_WORKERS} at most")
    return found


def parse_listener(address: str, port: int) -> Endpoint:
    """Parse the address and port that a worker listens at. Raises: UsageError."""
    host = "127.0.0.1" if address == "localhost" else address
    if _is_ipv6(host):
        raise _no_ipv6(address)
    if not _is_ipv4(host):
        raise UsageError(
            f"{address!r} is not an IPv4 address",
            hint="127.0.0.1 for this machine alone, or the machine's own address in "
            "a network you trust",
        )
    return Endpoint(host, _parse_port(str(port), str(port)))


def is_loopback(endpoint: Endpoint) -> bool:
    """Whether nobody outside this machine can reach an endpoint of `parse_listener`."""
    return IPv4Address(endpoint.host).is_loopback


def _parse_host(host: str, text: str) -> str:
    if _is_ipv6(host):
        raise _no_ipv6(text)
    if _is_ipv4(host):
        return host
    is_name = len(host) <= _LONGEST_NAME and _NAME.fullmatch(host)
    # What looks like an address and is none is not looked up as a name.
    if not is_name or _NUMBERS.fullmatch(host):
        raise UsageError(f"{text!r} names no host", hint=_HINT)
    return host


def _parse_port(port: str, text: str) -> int:
    if not _PORT.fullmatch(port) or not 1 <= int(port) <= 65535:
        raise UsageError(f"the port must be from 1 to 65535: {text!r}", hint=_HINT)
    return int(port)


def _no_ipv6(text: str) -> UsageError:
    return UsageError(
        f"llama.cpp reaches workers over IPv4 only: {text!r}",
        hint="take the machine's IPv4 address or its name",
    )


def _is_ipv4(text: str) -> bool:
    try:
        IPv4Address(text)
    except AddressValueError:
        return False
    return True


def _is_ipv6(text: str) -> bool:
    try:
        IPv6Address(text.removeprefix("[").removesuffix("]"))
    except AddressValueError:
        return False
    return True
