"""Without a network all works that needs none, and `pull` says that there is none."""

from __future__ import annotations

import json
import socket
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.child import environment
from tests.faults.killing import program

# Told of a hub that is not there; a person waits no longer for a first word.
MOST_SECONDS = 5.0


def dead_endpoint() -> str:
    """Return an address at which nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}"


NETWORKS: Mapping[str, Mapping[str, str]] = {
    "HF_HUB_OFFLINE": {"HF_HUB_OFFLINE": "1"},
    "a dead endpoint": {"HF_ENDPOINT": dead_endpoint()},
}


@pytest.fixture(scope="module", params=NETWORKS)
def network(request: pytest.FixtureRequest) -> Mapping[str, str]:
    return {**NETWORKS[request.param], "NO_PROXY": "127.0.0.1"}


@pytest.fixture(scope="module")
def folder(
    tmp_path_factory: pytest.TempPathFactory, network: Mapping[str, str]
) -> Path:
    """A home in which the bundled model was installed without a network."""
    folder = tmp_path_factory.mktemp("offline")
    done = run(folder, network, "pull", "apprentice", "--json")
    assert done.returncode == 0, done.stderr
    return folder


def run(
    folder: Path, network: Mapping[str, str], *words: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        program("", *words),
        env=environment(folder, **network),
        cwd=folder,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(
    "words",
    [
        "list",
        "list --all",
        "show apprentice",
        "show wizardlm-13b-v1.2",
        "verify",
        "verify apprentice",
        "licenses",
        "prune --dry-run",
        "pull apprentice",
        "run apprentice hello -n 4",
        "export apprentice out",
        "import out",
        "config",
    ],
)
def test_what_needs_no_network_works(
    folder: Path, network: Mapping[str, str], words: str
) -> None:
    if words == "import out":
        words = f"import {next((folder / 'out').rglob('*.gguf'))} --name other"

    done = run(folder, network, *words.split())

    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "words",
    [
        "pull wizardlm-13b-v1.2:Q4_K_M --accept-license llama2-community",
        "pull hf:somebody/Model:Q4_K_M",
        "pull hf:somebody/Model/model.gguf",
        "pull hf:somebody/Model --dry-run",
    ],
)
def test_what_needs_a_network_says_so_soon(
    folder: Path, network: Mapping[str, str], words: str
) -> None:
    begun = time.monotonic()
    done = run(folder, network, *words.split(), "--json")
    seconds = time.monotonic() - begun

    last = json.loads(done.stderr.splitlines()[-1])
    assert done.returncode == 4, done.stderr
    assert last["error"]["kind"] == "hub"
    assert last["error"]["hint"]
    assert seconds < MOST_SECONDS


def test_a_plain_address_needs_a_network_too(
    folder: Path, network: Mapping[str, str]
) -> None:
    address = f"{dead_endpoint()}/model.Q4_K_M.gguf"

    done = run(folder, network, "pull", address, "--json")

    assert done.returncode == 4, done.stderr
