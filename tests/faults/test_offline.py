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
# Two waits of 3 s together at most, and a busy machine; it is there for what hangs.
MOST_SECONDS = 20.0


def dead_endpoint() -> str:
    """Return an address at which nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}"


NETWORKS: Mapping[str, Mapping[str, str]] = {
    "HF_HUB_OFFLINE": {"HF_HUB_OFFLINE": "1"},
    "a dead endpoint": {"HF_ENDPOINT": dead_endpoint(), "NO_PROXY": "127.0.0.1"},
}
LOCAL = (
    *("list", "list --all", "show apprentice", "show wizardlm-13b-v1.2"),
    *("verify", "licenses", "fit apprentice", "prune --dry-run", "config"),
    *("pull apprentice", "run apprentice hello -n 4"),
)
# Enough to see that no hub is asked.
LOCAL_TOO = ("list", "run apprentice hello -n 4")
REMOTE = (
    "pull wizardlm-13b-v1.2:Q4_K_M --accept-license llama2",
    "pull hf:somebody/Model:Q4_K_M",
    "pull hf:somebody/Model/model.gguf",
    "pull hf:somebody/Model --dry-run",
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home in which the bundled model was installed without a network."""
    folder = tmp_path_factory.mktemp("offline")
    done = run(folder, "HF_HUB_OFFLINE", "pull", "apprentice", "--json")
    assert done.returncode == 0, done.stderr
    return folder


def run(folder: Path, network: str, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        program("", *words),
        env=environment(folder, **NETWORKS[network]),
        cwd=folder,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(
    ("network", "words"),
    [
        *(("HF_HUB_OFFLINE", words) for words in LOCAL),
        *(("a dead endpoint", words) for words in LOCAL_TOO),
    ],
)
def test_what_needs_no_network_works(folder: Path, network: str, words: str) -> None:
    done = run(folder, network, *words.split())

    assert done.returncode == 0, done.stderr


def test_a_model_goes_out_and_comes_in_without_a_network(folder: Path) -> None:
    out = run(folder, "HF_HUB_OFFLINE", "export", "apprentice", "out")
    [file] = (folder / "out").rglob("*.gguf")
    back = run(folder, "HF_HUB_OFFLINE", "import", str(file), "--name", "other")

    assert (out.returncode, back.returncode) == (0, 0), out.stderr + back.stderr


@pytest.mark.parametrize(
    ("network", "words"),
    [
        *(("HF_HUB_OFFLINE", words) for words in REMOTE),
        # Really waits between its attempts.
        ("a dead endpoint", REMOTE[0]),
    ],
)
def test_what_needs_a_network_says_so_soon(
    folder: Path, network: str, words: str
) -> None:
    begun = time.monotonic()
    done = run(folder, network, *words.split(), "--json")
    seconds = time.monotonic() - begun

    last = json.loads(done.stderr.splitlines()[-1])
    assert done.returncode == 4, done.stderr
    assert last["error"]["kind"] == "hub"
    assert last["error"]["hint"]
    assert seconds < MOST_SECONDS


@pytest.mark.parametrize("network", NETWORKS)
def test_a_plain_address_needs_a_network_too(folder: Path, network: str) -> None:
    address = f"{dead_endpoint()}/model.Q4_K_M.gguf"

    done = run(folder, network, "pull", address, "--json")

    assert done.returncode == 4, done.stderr
