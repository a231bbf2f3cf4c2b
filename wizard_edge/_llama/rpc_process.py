"""RPC in processes of their own: a server that can be ended, a greeting that may fail.

llama.cpp's server never returns, and its client ends the process when a worker is not
there, is no worker or speaks another version (ggml-rpc.cpp, `GGML_ABORT`).
"""

from __future__ import annotations

import errno
import json
import os
import socket
import subprocess
import sys
import time
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass

from wizard_edge._llama.rpc import LentDevice, require_rpc
from wizard_edge.endpoints import Endpoint
from wizard_edge.errors import BackendError, Refused, UsageError

# How long a worker may think before it says who it is, and may be looked for.
PATIENCE_S = 10.0
_REACH_S = 5.0
_POLL_S = 0.02
_END_S = 5.0
# The child sees the modules that we see, and none of the current folder.
_START = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from wizard_edge._llama.rpc_child import main; main(sys.argv[2:])"
)
# Nobody who connects to a worker finds a token in it.
_SECRETS = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")
# Source: llama.cpp 0c1e57098, ggml/src/ggml-rpc/ggml-rpc.cpp.
_CAME, _LEFT = "Accepted client connection", "Client connection closed"
_OTHER_VERSION = "RPC server version mismatch: "

_WORKER_HINT = (
    "'wizard-edge worker' runs there; only with --bind ADDRESS do other machines get in"
)
_VERSION_HINT = "the same version of llama-cpp-python on all machines"


@dataclass(frozen=True, slots=True)
class Lent:
    """A worker that answered; bytes of memory, as llama.cpp counts them there."""

    endpoint: Endpoint
    free: int
    total: int


@dataclass(frozen=True, slots=True)
class Lending:
    """The server waits for clients."""

    endpoint: Endpoint
    devices: tuple[LentDevice, ...]


@dataclass(frozen=True, slots=True)
class Client:
    """A client came, or left."""

    came: bool


@dataclass(frozen=True, slots=True)
class Said:
    """A line of llama.cpp's own."""

    text: str


Event = Lending | Client | Said


def greet(
    endpoints: Sequence[Endpoint], *, patience_s: float = PATIENCE_S
) -> tuple[Lent, ...]:
    """Ask every worker who it is and what memory it has, before a model is loaded.

    `patience_s` is for each of them, in seconds. Raises: BackendError for one that
    cannot be reached, does not answer, or speaks another version.
    """
    require_rpc()
    # The child ends itself, at the first worker that does not answer.
    done = subprocess.run(
        _command("greet", str(patience_s), *map(str, endpoints)),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        env=_environment(),
        check=False,
    )
    found: list[Lent] = []
    for endpoint, line in zip(endpoints, done.stdout.splitlines(), strict=False):
        answer = json.loads(line)
        if "refused" in answer:
            raise explain(endpoint, answer["refused"])
        found.append(Lent(endpoint, answer["free"], answer["total"]))
    if len(found) < len(endpoints):
        said = done.stderr.decode("utf-8", "replace").strip().splitlines()
        raise BackendError(
            f"llama.cpp ended while it asked worker {endpoints[len(found)]}: "
            f"{said[-1] if said else done.returncode}"
        )
    return tuple(found)


def find_unreachable(
    endpoints: Sequence[Endpoint], *, patience_s: float = 1.0
) -> tuple[Endpoint, ...]:
    """Return the workers at whose address nobody listens any more."""
    return tuple(item for item in endpoints if _reach(item, patience_s))


def lend(endpoint: Endpoint, threads: int) -> Generator[Event, None, None]:
    """Serve this machine's devices until the iterator is closed, and tell what happens.

    `Lending` says that clients are answered from now on; one may come and go several
    times while it loads a model. Raises: BackendError where llama.cpp has no RPC or its
    server ends; Refused for a port in use; UsageError for an address of no interface.
    """
    require_rpc()
    check_free(endpoint)
    child = subprocess.Popen(
        _command("serve", str(threads), str(endpoint)),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=_environment(),
        text=True,
        encoding="utf-8",
        errors="replace",
        # Ctrl-C on the terminal is for us alone: we end the server then.
        start_new_session=True,
    )
    try:
        yield from _watch(child, endpoint)
    finally:
        _end(child)


def check_free(endpoint: Endpoint) -> None:
    """Try to listen at an address, which llama.cpp does without giving a reason.

    Raises: Refused where somebody else does; UsageError for another machine's.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as trial:
        # As the server will do it; on Windows it would take the port from another.
        if os.name != "nt":
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            trial.bind((endpoint.host, endpoint.port))
            trial.listen(1)
        except OSError as err:
            if err.errno == errno.EADDRINUSE:
                raise Refused(
                    f"{endpoint} is in use by another program",
                    hint="--port N takes another",
                ) from err
            if err.errno == errno.EADDRNOTAVAIL:
                raise UsageError(
                    f"{endpoint.host} is not an address of this machine"
                ) from err
            raise


def explain(endpoint: Endpoint, reason: str) -> BackendError:
    """Say why a worker is of no use: `reason` is llama.cpp's, "" where none came."""
    unreachable = _reach(endpoint, _REACH_S)
    if unreachable:
        return BackendError(
            f"worker {endpoint} cannot be reached: {unreachable}", hint=_WORKER_HINT
        )
    if not reason:
        return BackendError(
            f"worker {endpoint} does not answer: it works for another program, or is "
            "no worker",
            hint="a worker works for one program at a time",
        )
    _, other, version = reason.partition(_OTHER_VERSION)
    if other:
        return BackendError(
            f"worker {endpoint} speaks version {version} of llama.cpp's RPC, "
            "we another one",
            hint=_VERSION_HINT,
        )
    return BackendError(
        f"{endpoint} is no worker, or one of another version: {reason}",
        hint=_VERSION_HINT,
    )


def _watch(child: subprocess.Popen[str], endpoint: Endpoint) -> Iterator[Event]:
    assert child.stdout is not None
    recent: deque[str] = deque(maxlen=20)
    devices: tuple[LentDevice, ...] = ()
    # The first who connects is our own knock.
    ours = {_CAME, _LEFT}
    for line in map(str.rstrip, child.stdout):
        if line.startswith("[{"):
            devices = tuple(LentDevice(**item) for item in json.loads(line))
            _knock(child, endpoint)
        elif line in ours:
            ours.remove(line)
            if not ours:
                yield Lending(endpoint, devices)
        elif line in (_CAME, _LEFT):
            yield Client(line == _CAME)
        elif line.strip():
            recent.append(line.strip())
            yield Said(line.strip())
    code = child.wait()
    reason = f"signal {-code}" if code < 0 or not recent else recent[-1]
    raise BackendError(f"llama.cpp's RPC server ended: {reason}")


def _knock(child: subprocess.Popen[str], endpoint: Endpoint) -> None:
    """Connect once, as soon as the server listens or has ended."""
    host = "127.0.0.1" if endpoint.host == "0.0.0.0" else endpoint.host
    while child.poll() is None and _reach(Endpoint(host, endpoint.port), _REACH_S):
        time.sleep(_POLL_S)


def _end(child: subprocess.Popen[str]) -> None:
    assert child.stdin is not None
    assert child.stdout is not None
    with suppress(BrokenPipeError):
        child.stdin.close()
    try:
        child.wait(_END_S)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()
    child.stdout.close()


def _reach(endpoint: Endpoint, patience_s: float) -> str:
    """Return why nobody can be reached at an address, or "" where somebody is."""
    try:
        # As llama.cpp looks up a name: IPv4 addresses only.
        address = socket.gethostbyname(endpoint.host)
        socket.create_connection((address, endpoint.port), patience_s).close()
    except TimeoutError:
        return f"no answer in {patience_s:.0f} s"
    except OSError as err:
        return (err.strerror or str(err)).lower()
    return ""


def _command(*words: str) -> list[str]:
    return [sys.executable, "-P", "-c", _START, json.dumps(sys.path), *words]


def _environment() -> dict[str, str]:
    return {name: text for name, text in os.environ.items() if name not in _SECRETS}
