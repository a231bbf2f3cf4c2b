"""What is found is named so that only equal bytes go by one name."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.gguf_files import small_llama
from tests.hub.content import repository
from tests.hub.faults import Fault
from tests.hub.server import LoopbackHub
from tests.service.fakes import an_installation
from wizard_edge.hub import Hub
from wizard_edge.refs import UrlRef
from wizard_edge.service.ready import find_at_address

GGUF = small_llama().build()


@pytest.fixture
def loopback() -> Iterator[LoopbackHub]:
    with LoopbackHub(repository("a/b", {"m.Q8_0.gguf": GGUF})) as hub:
        yield hub


def key(tmp_path: Path, loopback: LoopbackHub) -> str:
    installation = an_installation(tmp_path, HF_ENDPOINT=loopback.endpoint)
    hub = Hub.from_environment(installation.environ)
    url = f"{loopback.endpoint}/a/b/resolve/main/m.Q8_0.gguf"
    return find_at_address(installation, hub, UrlRef(url)).files[0].key


def test_the_same_state_of_an_address_is_the_same_download(
    tmp_path: Path, loopback: LoopbackHub
) -> None:
    assert key(tmp_path, loopback) == key(tmp_path, loopback)


def test_another_state_is_another_download(
    tmp_path: Path, loopback: LoopbackHub
) -> None:
    before = key(tmp_path, loopback)
    loopback.faults.add(Fault(where="cdn", headers={"ETag": '"another"'}))

    assert key(tmp_path, loopback) != before


def test_what_nothing_tells_from_another_state_is_begun_anew(
    tmp_path: Path, loopback: LoopbackHub
) -> None:
    loopback.faults.add(
        Fault(where="cdn", headers={"ETag": None, "Last-Modified": None}, times=2)
    )

    assert key(tmp_path, loopback) != key(tmp_path, loopback)
