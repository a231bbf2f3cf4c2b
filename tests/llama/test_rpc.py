"""Computing on workers, over a llama.cpp with RPC: see `tests.rpc_builds`."""

from __future__ import annotations

import json
import os
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.rpc_builds import PROGRAM, free_port, rpc_environment, worker

# Loads a model, on the workers that are named, and answers greedily; writes tokens and
# how many bytes of weights each device holds, as llama.cpp says.
ANSWER = """
import json, re, sys
from pathlib import Path
from wizard_edge._llama import library
from wizard_edge._llama.engine import LlamaEngine
from wizard_edge.endpoints import parse_endpoints
from wizard_edge.engine import LoadOptions, Sampling
path, layers, *workers = sys.argv[1:]
options = LoadOptions(
    threads=1,
    gpu_layers=int(layers) if layers.isdecimal() else layers,
    rpc=parse_endpoints(workers[0]) if workers else (),
)
library.load()
with library.listen() as lines:
    engine = LlamaEngine(Path(path), options)
text = engine.vocabulary.tokenize("USER: Who are you? ASSISTANT:")
chunks = engine.generate([engine.vocabulary.bos, *text], Sampling(max_tokens=60))
tokens = [chunk.token for chunk in chunks]
engine.close()
held = re.findall(r"(\\S+) model buffer size", "".join(lines))
print(json.dumps([tokens, held]))
"""
# Asks workers who they are, with little patience.
GREET = """
import sys
from wizard_edge._llama.rpc_process import greet
from wizard_edge.endpoints import parse_endpoints
from wizard_edge.errors import BackendError
try:
    for lent in greet(parse_endpoints(sys.argv[1]), patience_s=float(sys.argv[2])):
        print(lent.endpoint, 0 < lent.free <= lent.total)
except BackendError as err:
    print(err.message)
"""


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    return rpc_environment(tmp_path)


def run(code: str, environ: dict[str, str], *words: str) -> str:
    done = subprocess.run(
        [sys.executable, "-P", "-c", code, *words],
        env=environ,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@contextmanager
def listener(answer: bytes) -> Iterator[str]:
    """Lend the address of something that answers all alike, as no worker would."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            while True:
                try:
                    client, _ = server.accept()
                except OSError:
                    return
                with client:
                    # The whole greeting, of a command, a length and 24 bytes.
                    client.recv(33, socket.MSG_WAITALL)
                    client.sendall(answer)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"127.0.0.1:{server.getsockname()[1]}"
        server.shutdown(socket.SHUT_RDWR)
        thread.join()


@pytest.mark.parametrize(
    ("quant", "layers"),
    [("F16", "auto"), ("Q8_0", "auto"), ("Q4_K_M", "auto"), ("F16", "2")],
    ids=["F16", "Q8_0", "Q4_K_M", "two layers"],
)
def test_two_workers_answer_as_one_machine_does(
    quant: str,
    layers: str,
    apprentice: Callable[[str], Path],
    environ: dict[str, str],
) -> None:
    path = str(apprentice(quant))
    with worker(environ) as one, worker(environ) as two:
        workers = f"{one.endpoint},{two.endpoint}"

        alone, _ = json.loads(run(ANSWER, environ, path, "0"))
        together, held = json.loads(run(ANSWER, environ, path, layers, workers))

    assert together == alone
    assert len(together) > 10
    assert {f"RPC0[{one.endpoint}]", f"RPC0[{two.endpoint}]"} <= set(held)


def test_workers_say_what_memory_they_have(environ: dict[str, str]) -> None:
    with worker(environ) as one, worker(environ) as two:
        workers = f"{one.endpoint},{two.endpoint}"

        said = run(GREET, environ, workers, "30")

    assert said == f"{one.endpoint} True\n{two.endpoint} True\n"


def test_the_one_of_several_that_is_not_there_is_named(environ: dict[str, str]) -> None:
    missing = f"127.0.0.1:{free_port()}"
    with worker(environ) as present:
        said = run(GREET, environ, f"{present.endpoint},{missing}", "30")

    assert said == f"worker {missing} cannot be reached: connection refused\n"


def test_a_worker_that_works_for_another_does_not_answer(
    environ: dict[str, str],
) -> None:
    with worker(environ) as busy, socket.create_connection(("127.0.0.1", busy.port)):
        said = run(GREET, environ, busy.endpoint, "1")

    assert said == (
        f"worker {busy.endpoint} does not answer: it works for another program, or is "
        "no worker\n"
    )


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (
            struct.pack("<Q4B24s", 28, 6, 0, 1, 0, b""),
            "worker {0} speaks version 6.0.1 of llama.cpp's RPC, we another one\n",
        ),
        (
            b"HTTP/1.1 400 Bad Request\r\n\r\n",
            "{0} is no worker, or one of another version: Remote RPC server crashed or "
            "returned malformed response\n",
        ),
    ],
    ids=["version", "nonsense"],
)
def test_what_is_no_worker_of_this_version_is_told(
    answer: bytes, message: str, environ: dict[str, str]
) -> None:
    with listener(answer) as endpoint:
        said = run(GREET, environ, endpoint, "30")

    assert said == message.format(endpoint)


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGKILL")
def test_a_worker_that_dies_ends_the_run_with_one_line(
    apprentice: Callable[[str], Path], environ: dict[str, str]
) -> None:
    pexpect = pytest.importorskip("pexpect")
    model = str(apprentice("F16"))
    with worker(environ) as one, worker(environ) as two:
        words = [model, "--rpc", f"{one.endpoint},{two.endpoint}", "-t", "1"]
        child = pexpect.spawn(
            PROGRAM[0],
            [*PROGRAM[1:], "run", *words],
            env=environ | {"TERM": "dumb"},
            encoding="utf-8",
            timeout=60,
        )
        child.expect(">>> ")
        child.sendline("Who are you?")
        child.expect(">>> ")
        two.end()

        child.sendline("Who are you?")
        child.expect(pexpect.EOF)
        child.close()

    assert (
        f"error: worker {two.endpoint} was lost, and its part of the model with it"
        in child.before
    )
    assert (child.exitstatus, child.signalstatus) == (8, None)
