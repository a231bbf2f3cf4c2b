"""A process of its own for the two things in RPC that may end or block a process.

Started by `rpc_process` alone: `serve` computes for others until standard input
ends, `greet` asks workers who they are. Speaks JSON lines on standard output.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import threading
from collections.abc import Sequence
from dataclasses import asdict

from wizard_edge._llama import library, rpc
from wizard_edge.endpoints import Endpoint

_FAILED = 1


def main(words: Sequence[str]) -> None:
    """Do what `rpc_process` says in words."""
    role, number, *endpoints = words
    if role == "serve":
        _serve(Endpoint.parse(endpoints[0]), int(number))
    else:
        _greet(list(map(Endpoint.parse, endpoints)), float(number))


def _serve(endpoint: Endpoint, threads: int) -> None:
    _end_with_parent()
    # What llama.cpp's log says of a client that it sends away.
    logger = logging.getLogger("wizard_edge.llama")
    logger.addHandler(logging.StreamHandler())
    devices = rpc.lendable_devices()
    logger.setLevel(logging.DEBUG)
    rpc.on_abort(_leave)
    _tell([asdict(device) for device in devices])
    rpc.serve(endpoint, threads)
    _leave("the server did not start")


def _greet(endpoints: Sequence[Endpoint], patience_s: float) -> None:
    rpc.on_abort(lambda text: _refuse(library.reason() or text))
    for endpoint in endpoints:
        library.forget()
        # A worker that serves somebody else accepts, and then says nothing.
        limit = threading.Timer(patience_s, _refuse, [""])
        limit.daemon = True
        limit.start()
        free, total = rpc.memory_of(endpoint)
        limit.cancel()
        _tell({"free": free, "total": total})


def _end_with_parent() -> None:
    """End when standard input ends, as it does when the parent does, however."""

    def watch() -> None:
        while os.read(0, 1024):
            pass
        os._exit(0)

    threading.Thread(target=watch, daemon=True).start()


def _refuse(reason: str) -> None:
    _tell({"refused": reason})
    os._exit(_FAILED)


def _leave(reason: str) -> None:
    os.write(2, f"{reason}\n".encode())
    os._exit(_FAILED)


def _tell(value: object) -> None:
    os.write(1, json.dumps(value).encode() + b"\n")


if __name__ == "__main__":
    main(sys.argv[1:])
