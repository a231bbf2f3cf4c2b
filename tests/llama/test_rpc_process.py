"""What is said of a worker that is of no use; `test_rpc` asks real ones."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from tests.rpc_builds import free_port
from wizard_edge._llama.rpc_process import check_free, explain, find_unreachable
from wizard_edge.endpoints import Endpoint
from wizard_edge.errors import Refused, UsageError

VERSION_HINT = "the same version of llama-cpp-python on all machines"


@pytest.fixture
def listening() -> Iterator[Endpoint]:
    """An address at which somebody listens, who never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield Endpoint("127.0.0.1", server.getsockname()[1])


def test_nobody_listens_there() -> None:
    endpoint = Endpoint("127.0.0.1", free_port())

    error = explain(endpoint, "Failed to connect to 127.0.0.1:1")

    assert error.message == f"worker {endpoint} cannot be reached: connection refused"
    assert error.hint is not None
    assert "--bind" in error.hint


@pytest.mark.parametrize(
    ("reason", "message", "hint"),
    [
        (
            "",
            "worker {0} does not answer: it works for another program, or is no worker",
            "a worker works for one program at a time",
        ),
        (
            "RPC server version mismatch: 6.0.1",
            "worker {0} speaks version 6.0.1 of llama.cpp's RPC, we another one",
            VERSION_HINT,
        ),
        (
            "Remote RPC server crashed or returned malformed response",
            "{0} is no worker, or one of another version: Remote RPC server crashed or "
            "returned malformed response",
            VERSION_HINT,
        ),
    ],
    ids=["silent", "version", "nonsense"],
)
def test_somebody_listens_who_is_of_no_use(
    listening: Endpoint, reason: str, message: str, hint: str
) -> None:
    error = explain(listening, reason)

    assert (error.message, error.hint) == (message.format(listening), hint)


def test_workers_that_are_gone_are_named(listening: Endpoint) -> None:
    gone = Endpoint("127.0.0.1", free_port())

    assert find_unreachable([listening, gone]) == (gone,)


def test_a_port_in_use_is_refused(listening: Endpoint) -> None:
    with pytest.raises(Refused) as caught:
        check_free(listening)

    assert caught.value.message == f"{listening} is in use by another program"
    assert caught.value.hint == "--port N takes another"


def test_a_port_that_was_just_in_use_is_free() -> None:
    """What a closed connection leaves behind for a minute stands in nobody's way."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        endpoint = Endpoint("127.0.0.1", server.getsockname()[1])
        with socket.create_connection((endpoint.host, endpoint.port)) as client:
            server.accept()[0].close()
            assert client.recv(1) == b""

    check_free(endpoint)


def test_another_machines_address_is_refused() -> None:
    # Source: RFC 5737: nobody has an address of TEST-NET-1.
    with pytest.raises(UsageError, match="is not an address of this machine"):
        check_free(Endpoint("192.0.2.1", free_port()))
