"""Several machines: lend this one to others, and notice when one of them is lost."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import replace

from wizard_edge._llama import rpc
from wizard_edge._llama.rpc_process import (
    Client,
    Event,
    Lending,
    Said,
    find_unreachable,
)
from wizard_edge._llama.rpc_process import lend as serve
from wizard_edge.endpoints import Endpoint, is_loopback, parse_listener
from wizard_edge.engine import LoadOptions
from wizard_edge.errors import BackendError
from wizard_edge.hardware import find_cores, find_memory

__all__ = ["Client", "Event", "Lending", "Said", "lend", "on_loss", "trust_needed"]

# What llama.cpp's client says when a worker stops in the middle of a sentence.
# Source: llama.cpp 0c1e57098, ggml/src/ggml-rpc/ggml-rpc.cpp, RPC_STATUS_ASSERT.
_LOST = "Remote RPC server crashed or returned malformed response"


def lend(
    address: str, port: int, threads: int | None = None
) -> Generator[Event, None, None]:
    """Compute for programs on other machines until the iterator is closed.

    `threads` None takes the physical cores. Memory of the processor is what is free
    now, which llama.cpp does not tell.
    Raises: UsageError for an address nobody can listen at; BackendError where
    llama.cpp was built without RPC or its server ends; Refused for a port in use.
    """
    if threads is None:
        threads = find_cores().threads
    # A number that loading a model would not take is none here.
    LoadOptions(threads=threads)
    endpoint = parse_listener(address, port)
    with closing(serve(endpoint, threads)) as events:
        for event in events:
            yield _measured(event) if isinstance(event, Lending) else event


def trust_needed(endpoint: Endpoint) -> str:
    """Say who can do what they like with a worker: the protocol asks nobody."""
    who = (
        "every program on this machine"
        if is_loopback(endpoint)
        else f"everybody who reaches {endpoint}"
    )
    return (
        "for trusted networks only: llama.cpp's RPC has no authentication and no "
        f"encryption, and {who} may use this worker or break into it"
    )


def on_loss(
    endpoints: Sequence[Endpoint], leave: Callable[[BackendError], None]
) -> None:
    """Call `leave` when a worker is lost: the process ends as soon as it returns.

    llama.cpp ends the process then, and nothing can keep it from that. `leave` may be
    called on any thread.
    """

    def tell(reason: str) -> None:
        leave(_explain(endpoints, reason))

    rpc.on_abort(tell)


def _explain(endpoints: Sequence[Endpoint], reason: str) -> BackendError:
    if reason != _LOST:
        return BackendError(f"llama.cpp gave up: {reason}")
    gone = ", ".join(map(str, find_unreachable(endpoints)))
    named = gone or f"one of {', '.join(map(str, endpoints))}"
    return BackendError(
        f"worker {named} was lost, and its part of the model with it",
        hint="its own terminal may say why; start it again, then this",
    )


def _measured(lending: Lending) -> Lending:
    memory = find_memory()
    devices = tuple(
        replace(item, free=memory.available, total=memory.total)
        if item.is_processor
        else item
        for item in lending.devices
    )
    return replace(lending, devices=devices)
