"""The prompt that unmodified llama.cpp makes of our files is the trained one.

Its server is asked for the prompt of a conversation (`/apply-template`): with the
template that a file carries, and for comparison with its own idea of Vicuna.
"""

from __future__ import annotations

import json
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import CHECKPOINT
from tests.converters.running import convert
from tests.reference.llama_cpp_tools import find_tool
from wizard_edge.templates import TEMPLATES, parse_messages
from wizard_edge_converters.options import ConvertOptions

MESSAGES = [
    {"role": "user", "content": "Hi"},
    {"role": "assistant", "content": "Hello."},
    {"role": "user", "content": "Who are you?"},
]


@contextmanager
def serving(model: Path, *words: str) -> Iterator[str]:
    """Run llama.cpp's server on a free port of loopback; give its address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    command: list[str | Path] = [find_tool("llama-server"), "-m", model]
    with subprocess.Popen(
        [*command, "--port", port, "-c", "256", "--threads", "1", *words],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        try:
            address = f"http://127.0.0.1:{port}"
            wait_for(address, process)
            yield address
        finally:
            process.terminate()


def wait_for(address: str, process: subprocess.Popen[bytes]) -> None:
    for _ in range(300):
        try:
            with urllib.request.urlopen(f"{address}/health", timeout=5):
                return
        except OSError:
            assert process.poll() is None
            time.sleep(0.1)
    raise TimeoutError(address)


# Any: decoded JSON.
def prompt_of(address: str, messages: list[dict[str, str]]) -> Any:
    request = urllib.request.Request(
        f"{address}/apply-template",
        json.dumps({"messages": messages}).encode(),
        {"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.load(answer)["prompt"]


@pytest.mark.parametrize("template", TEMPLATES)
def test_llama_cpp_sends_the_trained_prompt(template: str, tmp_path: Path) -> None:
    options = ConvertOptions(quants=("Q8_0",), template=template)
    model = convert(CHECKPOINT, tmp_path / "model.gguf", options).path
    expected = TEMPLATES[template].render(parse_messages(MESSAGES))

    with serving(model) as address:
        found = prompt_of(address, MESSAGES)

    assert found == "".join(piece.text for piece in expected)


def test_llama_cpp_by_itself_does_not(tmp_path: Path) -> None:
    """What the comparison is good for: its own Vicuna puts newlines."""
    model = convert(CHECKPOINT, tmp_path / "m.gguf", ConvertOptions(quants=("Q8_0",)))
    expected = TEMPLATES["vicuna"].render(parse_messages(MESSAGES))

    with serving(model.path, "--no-jinja", "--chat-template", "vicuna") as address:
        found = prompt_of(address, MESSAGES)

    assert found != "".join(piece.text for piece in expected)
