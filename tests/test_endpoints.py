from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wizard_edge.endpoints import (
    Endpoint,
    is_loopback,
    parse_endpoints,
    parse_listener,
)
from wizard_edge.errors import UsageError

HINT = "HOST:PORT, such as 192.168.1.20:50052"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("192.168.1.20:50052", Endpoint("192.168.1.20", 50052)),
        ("pi5.local:1", Endpoint("pi5.local", 1)),
        ("big_box:65535", Endpoint("big_box", 65535)),
        (" pi5:50052 ", Endpoint("pi5", 50052)),
    ],
)
def test_a_worker_is_a_host_and_a_port(text: str, expected: Endpoint) -> None:
    endpoint = Endpoint.parse(text)

    assert endpoint == expected
    assert str(endpoint) == text.strip()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "a worker without a port: ''"),
        ("pi5", "a worker without a port: 'pi5'"),
        ("192.168.1.20", "a worker without a port: '192.168.1.20'"),
        (":50052", "':50052' names no host"),
        ("pi 5:50052", "'pi 5:50052' names no host"),
        ("-pi5:50052", "'-pi5:50052' names no host"),
        ("1.2.3:50052", "'1.2.3:50052' names no host"),
        ("192.168.1.256:50052", "'192.168.1.256:50052' names no host"),
        ("http://pi5:50052", "'http://pi5:50052' names no host"),
        ("pi5:", "the port must be from 1 to 65535: 'pi5:'"),
        ("pi5:0", "the port must be from 1 to 65535: 'pi5:0'"),
        ("pi5:65536", "the port must be from 1 to 65535: 'pi5:65536'"),
        ("pi5:+80", "the port must be from 1 to 65535: 'pi5:+80'"),
        ("pi5:٥", "the port must be from 1 to 65535: 'pi5:٥'"),
        ("pi5:50052x", "the port must be from 1 to 65535: 'pi5:50052x'"),
    ],
)
def test_what_is_no_worker_is_refused(text: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        Endpoint.parse(text)

    assert (caught.value.message, caught.value.hint) == (message, HINT)


@pytest.mark.parametrize("text", ["[::1]:50052", "[fe80::1]:1", "::1:50052"])
def test_an_ipv6_address_is_known_and_refused(text: str) -> None:
    """llama.cpp would end the process over it."""
    with pytest.raises(UsageError, match="over IPv4 only") as caught:
        Endpoint.parse(text)

    assert caught.value.message.endswith(repr(text))


def test_several_workers_keep_their_order() -> None:
    assert parse_endpoints("b:2,a:1, 10.0.0.1:3") == (
        Endpoint("b", 2),
        Endpoint("a", 1),
        Endpoint("10.0.0.1", 3),
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a:1,", "a worker without a port: ''"),
        ("a:1,b:2,a:1", "a:1 is named twice"),
        (
            ",".join(f"a:{port}" for port in range(1, 18)),
            "17 workers, llama.cpp takes 16 at most",
        ),
    ],
    ids=["empty", "twice", "too many"],
)
def test_a_list_that_makes_no_sense_is_refused(text: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_endpoints(text)

    assert caught.value.message == message


@given(st.text(max_size=40))
def test_any_text_is_parsed_or_refused(text: str) -> None:
    try:
        found = parse_endpoints(text)
    except UsageError:
        return

    assert parse_endpoints(",".join(map(str, found))) == found


@pytest.mark.parametrize(
    ("address", "host", "private"),
    [
        ("127.0.0.1", "127.0.0.1", True),
        ("127.8.9.1", "127.8.9.1", True),
        ("localhost", "127.0.0.1", True),
        ("0.0.0.0", "0.0.0.0", False),
        ("192.168.1.20", "192.168.1.20", False),
    ],
)
def test_a_worker_listens_at_an_address(address: str, host: str, private: bool) -> None:
    endpoint = parse_listener(address, 50052)

    assert endpoint == Endpoint(host, 50052)
    assert is_loopback(endpoint) is private


@pytest.mark.parametrize(
    ("address", "port", "message"),
    [
        ("pi5", 50052, "'pi5' is not an IPv4 address"),
        ("", 50052, "'' is not an IPv4 address"),
        ("::", 50052, "llama.cpp reaches workers over IPv4 only: '::'"),
        ("127.0.0.1", 0, "the port must be from 1 to 65535: '0'"),
        ("127.0.0.1", -1, "the port must be from 1 to 65535: '-1'"),
        ("127.0.0.1", 65536, "the port must be from 1 to 65535: '65536'"),
    ],
)
def test_where_nobody_can_listen_is_refused(
    address: str, port: int, message: str
) -> None:
    with pytest.raises(UsageError) as caught:
        parse_listener(address, port)

    assert caught.value.message == message
