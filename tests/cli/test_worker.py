"""`worker` and `run --rpc`: what every build says, and what one with RPC does."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.conftest import Cli
from tests.rpc_builds import PROGRAM, free_port, rpc_environment, worker
from tests.scripted import ScriptedEngine
from wizard_edge._llama.built import has_rpc
from wizard_edge.store import Installed

BUILD_LINE = (
    'hint: CMAKE_ARGS="-DGGML_RPC=ON" pip install --force-reinstall '
    "--no-binary llama-cpp-python llama-cpp-python\n"
)
without_rpc = pytest.mark.skipif(has_rpc(), reason="this llama.cpp has RPC")


@without_rpc
def test_a_build_without_rpc_lends_nothing(cli: Cli) -> None:
    result = cli("worker")

    assert result.stderr == f"error: llama.cpp was built without RPC\n{BUILD_LINE}"
    assert (result.stdout, result.exit_code) == ("", 8)


@without_rpc
def test_a_build_without_rpc_borrows_nothing(
    cli: Cli, installed: Callable[..., Installed]
) -> None:
    installed("tiny")

    result = cli("run", "tiny", "Hi", "--rpc", "127.0.0.1:50052")

    assert result.stderr == f"error: llama.cpp was built without RPC\n{BUILD_LINE}"
    assert (result.stdout, result.exit_code) == ("", 8)


@pytest.mark.parametrize("built", [True, False], ids=["with", "without"])
def test_both_are_offered_where_rpc_was_built_in(
    built: bool, cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ("libggml-rpc.so" if built else "libggml-cpu.so")).touch()
    monkeypatch.setenv("LLAMA_CPP_LIB_PATH", str(tmp_path))

    assert ("\n  worker " in cli("--help").stdout) is built
    assert ("--rpc HOST:PORT,..." in cli("run", "--help").stdout) is built
    # Asked by name it explains itself.
    assert "--bind ADDRESS" in cli("worker", "--help").stdout


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--bind", "::1"), "llama.cpp reaches workers over IPv4 only: '::1'"),
        (("--bind", "pi5"), "'pi5' is not an IPv4 address"),
        (("--port", "0"), "the port must be from 1 to 65535: '0'"),
        (("--threads", "0"), "threads must be from 1 to 1024, got 0"),
    ],
)
def test_a_worker_that_makes_no_sense_is_refused(
    words: tuple[str, ...], message: str, cli: Cli
) -> None:
    result = cli("worker", *words)

    assert result.stderr.splitlines()[0] == f"error: {message}"
    assert (result.stdout, result.exit_code) == ("", 2)


def test_workers_that_make_no_sense_are_refused_before_anything_is_loaded(
    cli: Cli,
) -> None:
    result = cli("run", "tiny", "Hi", "--rpc", "127.0.0.1")

    assert result.stderr == (
        "error: a worker without a port: '127.0.0.1'\n"
        "hint: HOST:PORT, such as 192.168.1.20:50052\n"
    )
    assert result.exit_code == 2


def test_without_rpc_nobody_is_asked(
    cli: Cli, scripted: Callable[..., ScriptedEngine]
) -> None:
    scripted("Hello.")

    result = cli("run", "tiny", "Hi")

    assert (result.stdout, result.stderr, result.exit_code) == ("Hello.\n", "", 0)


@pytest.mark.skipif(os.name == "nt", reason="Windows ends programs otherwise")
@pytest.mark.parametrize(
    ("number", "said", "code"),
    [
        (signal.SIGINT, "no longer lending\nerror: interrupted\n", 130),
        (signal.SIGTERM, "no longer lending\n", 143),
    ],
    ids=["Ctrl-C", "kill"],
)
def test_a_worker_says_what_it_lends_and_when_it_ends(
    number: int, said: str, code: int, tmp_path: Path
) -> None:
    if signal.getsignal(number) is signal.SIG_IGN:
        pytest.skip("as under nohup, the signal is ignored here")
    environ = rpc_environment(tmp_path)
    with worker(environ) as lent:
        ended = lent.end(number)

        # Nobody is left behind that holds the port.
        with socket.create_server(("127.0.0.1", lent.port)):
            pass

    assert re.sub(r"\d+(\.\d+)? [kMGT]?B", "N", lent.said) == (
        "warning: for trusted networks only: llama.cpp's RPC has no authentication and "
        "no encryption, and every program on this machine may use this worker or break "
        "into it\n" + first_device(lent.said) + f"at {lent.endpoint}; Ctrl-C ends\n"
    )
    assert ended == (said, code)


def first_device(said: str) -> str:
    """Return the line of the device, whose name is the machine's, with N for sizes."""
    line = next(line for line in said.splitlines() if line.startswith("lending "))
    assert re.fullmatch(r"lending \S+ \(.+\), [\d.]+ \w+ of [\d.]+ \w+ free", line)
    return re.sub(r"\d+(\.\d+)? [kMGT]?B", "N", line) + "\n"


def test_a_run_whose_worker_is_not_there_ends_with_one_line(
    apprentice: Callable[[str], Path], tmp_path: Path
) -> None:
    """llama.cpp itself would abort."""
    endpoint = f"127.0.0.1:{free_port()}"
    environ = rpc_environment(tmp_path)

    done = subprocess.run(
        [*PROGRAM, "run", str(apprentice("F16")), "Hi", "--rpc", endpoint],
        env=environ,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )

    assert (done.stdout, done.stderr, done.returncode) == (
        "",
        f"error: worker {endpoint} cannot be reached: connection refused\n"
        "hint: 'wizard-edge worker' runs there; only with --bind ADDRESS do other "
        "machines get in\n",
        8,
    )


def test_an_open_address_is_called_one(tmp_path: Path) -> None:
    with worker(rpc_environment(tmp_path), "--bind", "0.0.0.0") as lent:
        assert f"and everybody who reaches 0.0.0.0:{lent.port} may" in lent.said


@pytest.mark.skipif(os.name == "nt", reason="Windows ends programs otherwise")
def test_a_worker_tells_who_loses_it(tmp_path: Path) -> None:
    environ = rpc_environment(tmp_path)
    with (
        worker(environ, "-v") as lent,
        socket.create_connection(("127.0.0.1", lent.port)),
    ):
        assert lent.process.stderr is not None
        assert "a program connected\n" in iter(lent.process.stderr.readline, "")

        said, _ = lent.end()

    assert said == "no longer lending; a program was connected and ends too\n"


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGKILL")
def test_nothing_is_lent_any_more_after_kill_9(tmp_path: Path) -> None:
    with worker(rpc_environment(tmp_path)) as lent:
        lent.end(signal.SIGKILL)

        assert comes_free(lent.port)


def comes_free(port: int) -> bool:
    """Wait until nobody listens at a port, half a minute at most."""
    until = time.monotonic() + 30
    while time.monotonic() < until:
        try:
            socket.create_server(("127.0.0.1", port)).close()
        except OSError:
            continue
        return True
    return False


def test_a_port_in_use_is_refused(tmp_path: Path) -> None:
    environ = rpc_environment(tmp_path)
    port = free_port()
    with socket.create_server(("127.0.0.1", port)):
        done = subprocess.run(
            [*PROGRAM, "worker", "--port", str(port)],
            env=environ,
            capture_output=True,
            text=True,
            check=False,
        )

    assert (done.stderr, done.returncode) == (
        f"error: 127.0.0.1:{port} is in use by another program\n"
        "hint: --port N takes another\n",
        5,
    )
