"""The hub over a loopback one: what is listed, fetched, streamed and refused."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import socket
import ssl
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.hub.client import HubClient, client_environment
from tests.hub.content import HostedRepository, random_bytes, repository
from tests.hub.faults import Fault, random_cuts
from tests.hub.server import LoopbackHub
from wizard_edge.errors import (
    ConfigError,
    Corrupt,
    HubError,
    NotFound,
    Refused,
    UsageError,
    WizardEdgeError,
)
from wizard_edge.hub import Hub, Patience, RemoteFileInfo, Repository
from wizard_edge.hub import _http as http
from wizard_edge.names import BlobId, CommitId, RelPath, RepoId, Sha256
from wizard_edge.receipts import Piece

ROOT = Path(__file__).resolve().parent.parent
REPO = RepoId.parse("a/model")
CONFIG, WEIGHTS = RelPath("config.json"), RelPath("model.bin")
SMALL = b'{"model_type": "llama"}'
LARGE = random_bytes(3, 1_000_000)
ODD = "sub/a file #1 50%\u00e9.txt"
TOKEN = "hf_secret"


@pytest.fixture
def model() -> HostedRepository:
    return repository(
        "a/model",
        {CONFIG: SMALL, WEIGHTS: LARGE, "empty.txt": b"", ODD: b"odd"},
    )


@pytest.fixture
def loopback(model: HostedRepository) -> Iterator[LoopbackHub]:
    with LoopbackHub(model, tokens=(TOKEN,)) as hub:
        yield hub


class Waits(list[float]):
    """The waits that were asked for, none of them spent."""

    def patience(self, **more: Any) -> Patience:
        return Patience(
            **{
                "timeout_s": 5.0,
                "sleep": self.append,
                "random": lambda: 1.0,
                "clock": lambda: 0.0,
                **more,
            }
        )


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reach loopback from behind a proxy, too."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")


@pytest.fixture
def waits() -> Waits:
    return Waits()


def environment(endpoint: str, **more: str) -> dict[str, str]:
    return {
        "HF_ENDPOINT": endpoint,
        "HF_HUB_DISABLE_IMPLICIT_TOKEN": "" if "HF_TOKEN" in more else "1",
        **more,
    }


@pytest.fixture
def hub(loopback: LoopbackHub, waits: Waits) -> Hub:
    return Hub.from_environment(
        environment(loopback.endpoint), patience=waits.patience()
    )


@pytest.fixture
def found(hub: Hub, loopback: LoopbackHub) -> Repository:
    """The repository as the hub describes it, with an empty log."""
    found = hub.repository(REPO)
    loopback.forget()
    return found


def ranges(loopback: LoopbackHub) -> list[str | None]:
    """Return the ranges asked of the CDN."""
    return [e.byte_range for e in loopback.requests() if e.port == "cdn"]


# What a repository holds.


def test_a_repository_is_listed_with_one_request(
    hub: Hub, loopback: LoopbackHub, model: HostedRepository
) -> None:
    found = hub.repository(REPO)

    small = RemoteFileInfo(CONFIG, len(SMALL), blob=BlobId(model.files[CONFIG].blob))
    large = RemoteFileInfo(
        WEIGHTS, len(LARGE), sha256=Sha256(model.files[WEIGHTS].sha256)
    )
    assert (found.repo, found.revision) == (REPO, CommitId(model.head))
    assert found.files[CONFIG] == small
    assert found.files[WEIGHTS] == large
    assert set(found.files) == set(model.files)
    assert loopback.lines() == ["GET api /api/models/a/model?blobs=true"]


def test_a_branch_is_quoted(hub: Hub, loopback: LoopbackHub) -> None:
    with pytest.raises(NotFound, match=r"a/model has no revision 'a/b c\?'"):
        hub.repository(REPO, "a/b c?")

    assert loopback.lines() == [
        "GET api /api/models/a/model/revision/a%2Fb%20c%3F?blobs=true"
    ]


def test_an_earlier_commit_is_still_there(hub: Hub, model: HostedRepository) -> None:
    first = model.head
    model.push({})

    assert hub.repository(REPO).files == {}
    assert hub.repository(REPO, first).revision == first
    assert hub.fetch(hub.repository(REPO, first), CONFIG, 100) == SMALL


@pytest.mark.parametrize("revision", ["", "a\nb", "\x1b[2J"], ids=ascii)
def test_a_revision_that_is_none_is_refused(hub: Hub, revision: str) -> None:
    with pytest.raises(UsageError):
        hub.repository(REPO, revision)


def test_the_listing_is_that_of_huggingface_hub(
    hub: Hub, loopback: LoopbackHub, tmp_path: Path
) -> None:
    ours = hub.repository(REPO)
    with HubClient(loopback.endpoint, tmp_path) as client:
        theirs = client.call("model_info", repo_id=REPO, files_metadata=True)

    assert ours.revision == theirs["sha"]
    assert {(f.path, f.size, f.sha256) for f in ours.files.values()} == {
        (s["rfilename"], s["size"], s["lfs"] and s["lfs"]["sha256"])
        for s in theirs["siblings"]
    }


def test_every_file_is_that_of_huggingface_hub(
    hub: Hub, found: Repository, loopback: LoopbackHub, tmp_path: Path
) -> None:
    with HubClient(loopback.endpoint, tmp_path) as client:
        theirs = {
            path: client.call(
                "hf_hub_download", repo_id=REPO, filename=path, revision=found.revision
            )
            for path in found.files
        }

    for path in found.files:
        assert hub.fetch(found, path, 1 << 20) == Path(theirs[path]).read_bytes()


HOSTILE = [
    *("", ".", "..", "../x", "a/../b", "/abs", "a//b", "C:\\x", "\\\\h\\s"),
    *("a\0b", "a\nb", "x" * 1000, ".hidden", "-rf", "con", "\x1b[2J", "\u202ea"),
    *("a\\b", "\ud800", "%2e%2e/../x", "~/../../x"),
]


@pytest.mark.parametrize("name", [*HOSTILE, None, 7, [], {}], ids=ascii)
def test_a_hostile_file_name_is_left_out(
    hub: Hub,
    loopback: LoopbackHub,
    name: object,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def rename(model: dict[str, Any]) -> dict[str, Any]:
        model["siblings"][0]["rfilename"] = name
        return model

    loopback.faults.add(Fault(where="api", rewrite=rename))

    with caplog.at_level(logging.INFO, "wizard_edge.hub"):
        found = hub.repository(REPO)

    assert set(found.files) == {WEIGHTS, "empty.txt", ODD}
    assert caplog.messages == ["hub files left out: repo=a/model count=1"]


@pytest.mark.parametrize("digest", [*HOSTILE, None, 7, [], "A" * 64], ids=ascii)
def test_a_hostile_digest_is_none(
    hub: Hub, loopback: LoopbackHub, digest: object
) -> None:
    def change(model: dict[str, Any]) -> dict[str, Any]:
        model["siblings"][0]["blobId"] = digest
        model["siblings"][1]["lfs"]["sha256"] = digest
        return model

    loopback.faults.add(Fault(where="api", rewrite=change))
    found = hub.repository(REPO)

    assert found.files[CONFIG] == RemoteFileInfo(CONFIG, len(SMALL))
    assert found.files[WEIGHTS] == RemoteFileInfo(WEIGHTS, len(LARGE))
    with pytest.raises(HubError, match=r"states no digest of config\.json"):
        hub.fetch(found, CONFIG, 100)


def _without(model: dict[str, Any], name: str) -> dict[str, Any]:
    for sibling in model["siblings"]:
        del sibling[name]
    return model


UNCLEAR: dict[str, Callable[[dict[str, Any]], object]] = {
    "a list": lambda model: [model],
    "null": lambda model: None,
    "no commit": lambda model: model | {"sha": None},
    "a commit to climb with": lambda model: model | {"sha": "../../../../etc/passwd"},
    "a short commit": lambda model: model | {"sha": "abc"},
    "no files": lambda model: model | {"siblings": None},
    "files by name": lambda model: model | {"siblings": {"a": 1}},
    "a file twice": lambda model: model | {"siblings": model["siblings"] * 2},
    "no sizes": lambda model: _without(model, "size"),
}


@pytest.mark.parametrize("change", UNCLEAR.values(), ids=UNCLEAR.keys())
def test_an_unclear_description_is_an_error(
    hub: Hub, loopback: LoopbackHub, change: Callable[[Any], object]
) -> None:
    loopback.faults.add(Fault(where="api", rewrite=change))

    with pytest.raises(HubError, match=r"the answer of 127\.0\.0\.1:\d+ "):
        hub.repository(REPO)


@pytest.mark.parametrize("size", [None, -1, 1.5, "7", True, 1 << 63, []], ids=repr)
def test_a_file_without_a_usable_size_is_left_out(
    hub: Hub, loopback: LoopbackHub, size: object
) -> None:
    def change(model: dict[str, Any]) -> dict[str, Any]:
        model["siblings"][1]["size"] = size
        return model

    loopback.faults.add(Fault(where="api", rewrite=change))

    assert WEIGHTS not in hub.repository(REPO).files


@pytest.mark.parametrize(
    "body",
    [b"", b"\xff", b"{", b"[" * 100_000, b'{"sha": 1e999}'],
    ids=["nothing", "no text", "half", "a deep nest", "a number"],
)
def test_a_description_that_is_no_json_is_an_error(
    hub: Hub, loopback: LoopbackHub, body: bytes
) -> None:
    loopback.faults.add(Fault(where="api", body=body))

    with pytest.raises(HubError):
        hub.repository(REPO)


def test_a_description_without_an_end_is_cut_off(
    hub: Hub, loopback: LoopbackHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("wizard_edge.hub._hub._MAX_LISTING", 1000)
    loopback.faults.add(Fault(where="api", body=b" " * 5000))

    with pytest.raises(HubError, match="without an end"):
        hub.repository(REPO)


def test_a_description_that_is_cut_is_asked_for_again(
    hub: Hub, loopback: LoopbackHub, waits: Waits
) -> None:
    loopback.faults.add(Fault(where="api", cut_after=20))

    assert hub.repository(REPO).files
    assert waits == [1.0]


def test_a_description_is_not_unpacked(hub: Hub, loopback: LoopbackHub) -> None:
    """Compressed bytes could be a thousand times as many as they seem."""
    packed = {"Content-Encoding": "gzip"}
    loopback.faults.add(Fault(where="api", headers=packed))

    with pytest.raises(HubError, match="answers compressed"):
        hub.repository(REPO)


def test_a_commit_that_was_named_is_the_one_described(
    hub: Hub, loopback: LoopbackHub, model: HostedRepository
) -> None:
    loopback.faults.add(Fault(where="api", rewrite=lambda m: m | {"sha": "0" * 40}))

    with pytest.raises(HubError, match="another commit"):
        hub.repository(REPO, model.head)


def test_a_renamed_repository_is_followed(hub: Hub, loopback: LoopbackHub) -> None:
    loopback.add(repository("a/old", {})).moved_to = "a/model"
    old = hub.repository(RepoId.parse("a/old"))

    assert hub.fetch(old, WEIGHTS, len(LARGE)) == LARGE


# Small files and ranges.


@pytest.mark.parametrize("path", [CONFIG, WEIGHTS, "empty.txt", ODD])
def test_a_file_is_fetched_whole(
    hub: Hub, found: Repository, model: HostedRepository, path: str
) -> None:
    data = hub.fetch(found, RelPath(path), 1 << 20)

    assert hashlib.sha256(data).hexdigest() == model.files[path].sha256


@pytest.mark.parametrize("path", [CONFIG, WEIGHTS])
def test_a_flipped_byte_is_damage(
    hub: Hub, found: Repository, loopback: LoopbackHub, path: RelPath
) -> None:
    loopback.faults.add(Fault(flip=11, times=2))

    with pytest.raises(Corrupt, match=f"{path} is damaged"):
        hub.fetch(found, path, 1 << 20)


def test_a_file_beyond_the_limit_is_not_asked_for(
    hub: Hub, found: Repository, loopback: LoopbackHub
) -> None:
    with pytest.raises(HubError, match="more than"):
        hub.fetch(found, WEIGHTS, len(LARGE) - 1)

    assert loopback.lines() == []


def test_a_file_that_is_not_listed_is_not_asked_for(
    hub: Hub, found: Repository, loopback: LoopbackHub
) -> None:
    with pytest.raises(NotFound, match=r"no file x\.bin in a/model"):
        hub.open_stream(found, RelPath("x.bin"))

    assert loopback.lines() == []


@pytest.mark.parametrize(
    ("offset", "size"),
    [(0, 1), (0, 1000), (999_999, 1), (5, 0), (1_000_000, 0), (0, 1_000_000)],
)
def test_a_range_is_read(
    hub: Hub, found: Repository, loopback: LoopbackHub, offset: int, size: int
) -> None:
    assert hub.read_range(found, WEIGHTS, offset, size) == LARGE[offset:][:size]
    assert loopback.sent("cdn") == size


@pytest.mark.parametrize(("offset", "size"), [(-1, 5), (0, 1_000_001), (5, -1)])
def test_a_range_outside_the_file_is_refused(
    hub: Hub, found: Repository, loopback: LoopbackHub, offset: int, size: int
) -> None:
    with pytest.raises(UsageError):
        hub.read_range(found, WEIGHTS, offset, size)

    assert loopback.lines() == []


def test_a_range_deep_in_a_file_is_not_paid_with_the_whole(
    hub: Hub,
    found: Repository,
    loopback: LoopbackHub,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("wizard_edge.hub._hub._SPARE_FOR_RANGE", 1000)
    loopback.faults.add(Fault(where="cdn", ignore_range=True, times=2))

    assert hub.read_range(found, WEIGHTS, 1000, 10) == LARGE[1000:1010]
    with pytest.raises(HubError, match=r"cannot send part of model\.bin"):
        hub.read_range(found, WEIGHTS, 1001, 10)


# The stream.


def test_a_stream_gives_what_was_asked_until_the_end(
    hub: Hub, found: Repository, loopback: LoopbackHub
) -> None:
    with hub.open_stream(found, WEIGHTS) as stream:
        pieces = [stream.read(300_000) for _ in range(5)]
        places = (stream.offset, stream.size, stream.fetched)

    assert [len(p) for p in pieces] == [300_000, 300_000, 300_000, 100_000, 0]
    assert b"".join(pieces) == LARGE
    assert places == (1_000_000, 1_000_000, 1_000_000)
    assert ranges(loopback) == [None]
    assert [e.encoding for e in loopback.requests()] == ["identity", "identity"]


def test_a_stream_begins_anywhere(
    hub: Hub, found: Repository, loopback: LoopbackHub
) -> None:
    with hub.open_stream(found, WEIGHTS, 999_000) as stream:
        assert stream.read(1 << 30) == LARGE[999_000:]

    assert ranges(loopback) == ["bytes=999000-999999"]


@pytest.mark.parametrize("path", [WEIGHTS, RelPath("empty.txt")])
def test_a_stream_at_the_end_asks_nothing(
    hub: Hub, found: Repository, loopback: LoopbackHub, path: RelPath
) -> None:
    with hub.open_stream(found, path, found.files[path].size) as stream:
        assert stream.read(10) == b""

    assert loopback.lines() == []


@pytest.mark.parametrize("reset", [False, True], ids=["FIN", "RST"])
def test_a_cut_is_taken_up_at_the_byte(
    hub: Hub, found: Repository, loopback: LoopbackHub, waits: Waits, reset: bool
) -> None:
    loopback.faults.add(Fault(where="cdn", cut_after=400_001, reset=reset))

    with hub.open_stream(found, WEIGHTS) as stream:
        data = stream.read(1 << 30)
        fetched = stream.fetched

    assert data == LARGE
    # What RST overtakes in the receiver's buffer is lost, and no more than that.
    again = len(LARGE) - int((ranges(loopback)[1] or "")[6:].split("-")[0])
    assert fetched == len(LARGE)
    assert again == 599_999 or (reset and again > 599_999)
    assert waits == [0.05]


@settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    seed=st.integers(0, 1 << 32),
    offset=st.integers(0, len(LARGE)),
    size=st.integers(50_000, 400_000),
)
def test_any_cuts_leave_every_byte_in_its_place(
    hub: Hub,
    found: Repository,
    loopback: LoopbackHub,
    seed: int,
    offset: int,
    size: int,
) -> None:
    loopback.faults.clear()
    loopback.faults.add(*random_cuts(seed, 8, 200_000, "/"))
    data = b""

    with hub.open_stream(found, WEIGHTS, offset) as stream:
        while piece := stream.read(size):
            data += piece

    assert data == LARGE[offset:]


def test_a_cut_every_few_bytes_still_ends(
    hub: Hub, found: Repository, loopback: LoopbackHub, waits: Waits
) -> None:
    """The tries are counted anew whenever something came."""
    loopback.faults.add(Fault(where="cdn", cut_after=25_000, times=1000))

    with hub.open_stream(found, WEIGHTS) as stream:
        assert stream.read(1 << 30) == LARGE

    assert len(ranges(loopback)) == 40
    assert set(waits) == {0.05}


def test_a_cut_without_progress_is_given_up(
    hub: Hub, found: Repository, loopback: LoopbackHub, waits: Waits
) -> None:
    loopback.faults.add(
        Fault(where="cdn", cut_after=500_000),
        Fault(where="cdn", cut_after=0, times=100),
    )

    with (
        hub.open_stream(found, WEIGHTS) as stream,
        pytest.raises(HubError, match=r"127\.0\.0\.1:\d+: the connection was cut") as e,
    ):
        stream.read(1 << 30)

    assert "Signature" not in f"{e.value} {e.value.hint}"
    assert e.value.hint == "check the network, then try again"
    # The cut that ended the progress, then nine that brought nothing.
    assert waits == [0.05, 2, 4, 8, 16, 30, 30, 30, 30]
    assert len(ranges(loopback)) == 10


def test_a_stream_that_gave_up_can_be_read_again(
    hub: Hub, found: Repository, loopback: LoopbackHub
) -> None:
    """All of the piece that failed comes again, and all tries are there again."""
    loopback.faults.add(
        Fault(where="cdn", cut_after=500_000),
        Fault(where="cdn", status=503, times=9 + 5),
    )

    with hub.open_stream(found, WEIGHTS) as stream:
        first = stream.read(400_000)
        with pytest.raises(HubError):
            stream.read(400_000)
        rest = stream.read(1 << 30)

    assert first + rest == LARGE


@pytest.mark.parametrize("where", ["resolve", "cdn"])
@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
def test_a_status_that_passes_is_waited_out(
    hub: Hub,
    found: Repository,
    loopback: LoopbackHub,
    waits: Waits,
    where: Any,
    status: int,
) -> None:
    loopback.faults.add(Fault(where=where, status=status, times=2))

    with hub.open_stream(found, WEIGHTS) as stream:
        assert stream.read(1 << 30) == LARGE

    assert waits == [1.0, 2.0]


def test_a_hub_that_is_down_is_given_up_soon(
    hub: Hub, loopback: LoopbackHub, waits: Waits
) -> None:
    loopback.faults.add(Fault(where="api", status=503, times=100))

    with pytest.raises(HubError, match="answers 503, 3 times"):
        hub.repository(REPO)

    assert waits == [1.0, 2.0]


ASKED_TO_WAIT = {
    "seconds": ({"Retry-After": "55"}, [55.0]),
    "a date": ({"Retry-After": "Thu, 01 Jan 1970 00:01:40 GMT"}, [100.0]),
    "a date gone by": ({"Retry-After": "Mon, 01 Jan 1900 00:00:00 GMT"}, [1.0]),
    "less than our own": ({"Retry-After": "0"}, [1.0]),
    "nonsense": ({"Retry-After": "soon"}, [1.0]),
    "a huge number": ({"Retry-After": "9" * 400}, [1.0]),
    "a rate limit": ({"RateLimit": '"api";r=0;t=42'}, [42.0]),
    "a rate limit not reached": ({"RateLimit": '"api";r=7;t=42'}, [1.0]),
}


@pytest.mark.parametrize(
    ("headers", "waited"), ASKED_TO_WAIT.values(), ids=ASKED_TO_WAIT.keys()
)
def test_the_hub_is_given_the_time_it_asks(
    hub: Hub,
    loopback: LoopbackHub,
    waits: Waits,
    headers: dict[str, str],
    waited: list[float],
) -> None:
    loopback.faults.add(Fault(where="api", status=429, headers=headers))

    hub.repository(REPO)

    assert waits == waited


def test_a_hub_that_asks_for_an_hour_is_not_waited_for(
    hub: Hub, loopback: LoopbackHub, waits: Waits
) -> None:
    loopback.faults.add(Fault(status=429, headers={"Retry-After": "3600"}))

    with pytest.raises(HubError, match="asks to wait 3600 s"):
        hub.repository(REPO)

    assert waits == []


@pytest.mark.parametrize("where", ["api", "resolve", "cdn"])
@pytest.mark.parametrize("after", [-1, 0, 10])
def test_silence_is_left_and_asked_again(
    loopback: LoopbackHub, waits: Waits, where: Any, after: int
) -> None:
    path = CONFIG if where == "resolve" else WEIGHTS
    hub = Hub.from_environment(
        environment(loopback.endpoint), patience=waits.patience(timeout_s=0.1)
    )
    loopback.faults.add(Fault(where=where, stall_after=after))

    data = hub.fetch(hub.repository(REPO), path, 1 << 20)

    assert data == (SMALL if path == CONFIG else LARGE)
    in_its_midst = after > 0 and where != "api"
    assert waits == [0.05 if in_its_midst else 1.0]


def test_a_drip_arrives_whole(
    hub: Hub, found: Repository, loopback: LoopbackHub
) -> None:
    loopback.faults.add(Fault(drip=1))

    assert hub.fetch(found, CONFIG, 100) == SMALL


def test_an_ignored_range_is_read_past(
    hub: Hub, found: Repository, loopback: LoopbackHub
) -> None:
    loopback.faults.add(Fault(where="cdn", ignore_range=True))

    with hub.open_stream(found, WEIGHTS, 600_000) as stream:
        data = stream.read(1 << 30)
        fetched = stream.fetched

    assert data == LARGE[600_000:]
    assert fetched == len(LARGE)


def test_reading_past_is_no_progress(
    hub: Hub, found: Repository, loopback: LoopbackHub
) -> None:
    loopback.faults.add(
        Fault(where="cdn", ignore_range=True, cut_after=500_000, times=100)
    )

    with pytest.raises(HubError, match="the connection was cut, 3 times"):
        hub.open_stream(found, WEIGHTS, 600_000)


def test_chunks_are_put_together(
    hub: Hub, found: Repository, loopback: LoopbackHub
) -> None:
    loopback.faults.add(
        Fault(chunked=True, cut_after=300_000, where="cdn"),
        Fault(chunked=True, where="cdn"),
    )

    assert hub.fetch(found, WEIGHTS, len(LARGE)) == LARGE


def test_a_surplus_is_not_read(
    hub: Hub, found: Repository, loopback: LoopbackHub
) -> None:
    loopback.faults.add(Fault(surplus=b"more", where="cdn"))

    assert hub.fetch(found, WEIGHTS, len(LARGE)) == LARGE


def test_odd_case_and_weak_tags_are_understood(
    hub: Hub, found: Repository, loopback: LoopbackHub, model: HostedRepository
) -> None:
    digest = model.files[WEIGHTS].sha256
    headers = {"X-Linked-ETag": None, "x-lInKeD-eTaG": f'W/"{digest}"'}
    loopback.faults.add(Fault(where="resolve", headers=headers))

    assert hub.fetch(found, WEIGHTS, len(LARGE)) == LARGE


CHANGED: dict[str, tuple[RelPath, Fault]] = {
    "another commit": (WEIGHTS, Fault(headers={"X-Repo-Commit": "0" * 40})),
    "a commit to climb with": (CONFIG, Fault(headers={"X-Repo-Commit": "../../x"})),
    "another sha256": (WEIGHTS, Fault(headers={"X-Linked-ETag": f'"{"0" * 64}"'})),
    "another blob": (CONFIG, Fault(headers={"ETag": f'W/"{"0" * 40}"'})),
    "another linked size": (WEIGHTS, Fault(headers={"X-Linked-Size": "7"})),
    "a linked size of words": (WEIGHTS, Fault(headers={"X-Linked-Size": "big"})),
    "another length": (CONFIG, Fault(headers={"Content-Length": "7"})),
    "a length of words": (CONFIG, Fault(headers={"Content-Length": "many"})),
    "a longer body": (CONFIG, Fault(body=SMALL + b" ")),
    "a shorter body": (CONFIG, Fault(body=SMALL[1:])),
    "compressed": (CONFIG, Fault(headers={"Content-Encoding": "gzip"})),
}


@pytest.mark.parametrize(("path", "fault"), CHANGED.values(), ids=CHANGED.keys())
def test_a_file_that_is_not_what_was_said_is_refused(
    hub: Hub, found: Repository, loopback: LoopbackHub, path: RelPath, fault: Fault
) -> None:
    loopback.faults.add(fault)

    with pytest.raises(HubError) as caught:
        hub.open_stream(found, path)

    assert caught.value.hint is not None


@pytest.mark.parametrize(
    "text",
    [
        "bytes 0-999999/1000000",
        "bytes 500-999999/1000001",
        "bytes 500-999998/1000000",
        "bytes 500-999999/*",
        "bytes */1000000",
        "nonsense",
        None,
    ],
)
def test_a_wrong_content_range_is_refused(
    hub: Hub, found: Repository, loopback: LoopbackHub, text: str | None
) -> None:
    loopback.faults.add(Fault(where="cdn", headers={"Content-Range": text}))

    with pytest.raises(HubError, match=r"sends other bytes of model\.bin"):
        hub.open_stream(found, WEIGHTS, 500)


def test_a_file_that_shrank_is_refused(
    hub: Hub, found: Repository, loopback: LoopbackHub
) -> None:
    loopback.faults.add(Fault(where="resolve", status=416))

    with pytest.raises(HubError, match=r"fewer bytes of model\.bin than it said"):
        hub.open_stream(found, WEIGHTS, 500)


def test_a_moved_branch_does_not_move_the_file(
    hub: Hub, found: Repository, model: HostedRepository
) -> None:
    model.push({CONFIG: model.files[WEIGHTS]})

    assert hub.fetch(found, CONFIG, 100) == SMALL


@pytest.mark.parametrize("where", ["api", "resolve", "cdn"])
def test_a_login_page_is_named(
    hub: Hub, found: Repository, loopback: LoopbackHub, where: Any
) -> None:
    page = {"Content-Type": "text/html; charset=utf-8"}
    loopback.faults.add(
        Fault(where=where, status=200, body=b"<html>Hello", headers=page)
    )

    with pytest.raises(HubError, match="answers with a web page instead of data"):
        hub.fetch(hub.repository(REPO), WEIGHTS, len(LARGE))


# Redirects and the token.


def redirect(location: str | None, **more: Any) -> Fault:
    return Fault(status=302, headers={"Location": location}, **more)


def test_the_token_goes_to_the_hub_alone(loopback: LoopbackHub, waits: Waits) -> None:
    hub = Hub.from_environment(
        environment(loopback.endpoint, HF_TOKEN=TOKEN), patience=waits.patience()
    )

    hub.fetch(hub.repository(REPO), WEIGHTS, len(LARGE))

    assert [(e.port, e.authorized) for e in loopback.requests()] == [
        ("api", True),
        ("resolve", True),
        ("cdn", False),
    ]
    assert TOKEN not in repr(hub)


def test_a_redirect_within_the_hub_keeps_token_and_range(
    loopback: LoopbackHub, waits: Waits
) -> None:
    loopback.add(repository("a/old", {})).moved_to = "a/model"
    hub = Hub.from_environment(
        environment(loopback.endpoint, HF_TOKEN=TOKEN), patience=waits.patience()
    )
    old = hub.repository(RepoId.parse("a/old"))
    loopback.forget()

    hub.read_range(old, WEIGHTS, 5, 5)

    assert [(e.port, e.authorized, e.byte_range) for e in loopback.requests()] == [
        ("resolve", True, "bytes=5-9"),
        ("resolve", True, "bytes=5-9"),
        ("cdn", False, "bytes=5-9"),
    ]


def test_a_circle_of_redirects_ends(
    hub: Hub, found: Repository, loopback: LoopbackHub
) -> None:
    loopback.faults.add(redirect("?again", times=1000))

    with pytest.raises(HubError, match="redirects in a circle"):
        hub.open_stream(found, WEIGHTS)

    assert len(loopback.requests()) == 20


@pytest.mark.parametrize(
    "location",
    [
        None,
        "",
        "file:///etc/passwd",
        "ftp://127.0.0.1/x",
        "http://[::1",
        "http://127.0.0.1:99999/x",
        "http://127.0.0.1:port/x",
        "http://user:secret@127.0.0.1/x",
        "http://127.0.0.1/a b",
        "http://127.0.0.1/\x1b[2J",
        "javascript:alert(1)",
    ],
    ids=ascii,
)
def test_a_redirect_to_nowhere_is_refused(
    hub: Hub, found: Repository, loopback: LoopbackHub, location: str | None
) -> None:
    loopback.faults.add(redirect(location))

    with pytest.raises(HubError, match="redirects to no address"):
        hub.open_stream(found, WEIGHTS)

    assert len(loopback.requests()) == 1


def test_a_redirect_to_a_host_without_end_is_refused(
    hub: Hub, found: Repository, loopback: LoopbackHub
) -> None:
    loopback.faults.add(redirect(f"http://{'a' * 70}/x"))

    with pytest.raises(HubError, match="not a host name"):
        hub.open_stream(found, WEIGHTS)


def test_a_word_of_the_other_host_on_the_file_means_nothing(
    hub: Hub, found: Repository, loopback: LoopbackHub
) -> None:
    words = {
        "X-Repo-Commit": "0" * 40,
        "X-Linked-Size": "7",
        "X-Linked-ETag": f'"{"0" * 64}"',
    }
    loopback.faults.add(Fault(where="cdn", headers=words))

    assert hub.fetch(found, WEIGHTS, len(LARGE)) == LARGE


# Certificates.


@pytest.fixture
def tls(
    tmp_path: Path, no_proxy: None, monkeypatch: pytest.MonkeyPatch
) -> Iterator[ssl.SSLContext]:
    """A certificate for 127.0.0.1, trusted as SSL_CERT_FILE says."""
    program = shutil.which("openssl")
    if program is None:
        pytest.skip("no openssl program to make a certificate with")
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    subprocess.run(
        [
            *(program, "req", "-x509", "-newkey", "ec", "-nodes", "-days", "2"),
            *("-pkeyopt", "ec_paramgen_curve:prime256v1", "-subj", "/CN=loopback"),
            *("-addext", "subjectAltName=IP:127.0.0.1"),
            *("-keyout", str(key), "-out", str(certificate)),
        ],
        check=True,
        capture_output=True,
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    http._opener.cache_clear()
    yield context
    http._opener.cache_clear()


def test_https_is_spoken(
    tls: ssl.SSLContext, model: HostedRepository, waits: Waits
) -> None:
    with LoopbackHub(model, tls=tls, cdn_tls=tls) as loopback:
        loopback.faults.add(Fault(where="cdn", cut_after=400_000))
        hub = Hub.from_environment(
            environment(loopback.endpoint), patience=waits.patience()
        )

        assert hub.fetch(hub.repository(REPO), WEIGHTS, len(LARGE)) == LARGE

    assert waits == [0.05]


def test_https_does_not_lead_to_http(
    tls: ssl.SSLContext, model: HostedRepository
) -> None:
    with LoopbackHub(model, tls=tls) as loopback:
        hub = Hub.from_environment(environment(loopback.endpoint))
        found = hub.repository(REPO)

        with pytest.raises(HubError, match="redirects from https to http"):
            hub.open_stream(found, WEIGHTS)

        assert ranges(loopback) == []


def test_a_certificate_that_nobody_trusts_is_refused(
    tls: ssl.SSLContext,
    model: HostedRepository,
    waits: Waits,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("SSL_CERT_FILE")
    with LoopbackHub(model, tls=tls, cdn_tls=tls) as loopback:
        hub = Hub.from_environment(
            environment(loopback.endpoint), patience=waits.patience()
        )

        with pytest.raises(HubError, match="is not trusted: self-signed") as caught:
            hub.repository(REPO)

    assert "SSL_CERT_FILE" in str(caught.value.hint)
    assert waits == []


# Refusals.


def gate(model: HostedRepository) -> None:
    model.gated = True


def hide(model: HostedRepository) -> None:
    model.private = True


def close(model: HostedRepository) -> None:
    model.disabled = True


def forget(model: HostedRepository) -> None:
    model.commits.clear()


def empty(model: HostedRepository) -> None:
    model.commits[model.head] = {}


REFUSALS: dict[str, tuple[Callable[[HostedRepository], None], str, Any, str]] = {
    "gated": (gate, "", Refused, "accept them at http://127.0.0.1"),
    "gated, with token": (gate, TOKEN, Refused, "accept them at http://127.0.0.1"),
    "private": (hide, "", NotFound, "'hf auth login' or set HF_TOKEN"),
    "private, with token": (hide, TOKEN, NotFound, "the rights of the token"),
    "closed": (close, "", Refused, ""),
    "unknown token": (gate, "hf_unknown", HubError, "HF_TOKEN goes before it"),
    "commit gone": (forget, "", NotFound, "/a/model/refs"),
    "file gone": (empty, "", NotFound, "/a/model/tree/main"),
}


@pytest.mark.parametrize(
    ("change", "token", "kind", "hint"), REFUSALS.values(), ids=REFUSALS.keys()
)
def test_a_refusal_says_what_to_do_next(
    loopback: LoopbackHub,
    model: HostedRepository,
    found: Repository,
    waits: Waits,
    change: Callable[[HostedRepository], None],
    token: str,
    kind: type[WizardEdgeError],
    hint: str,
) -> None:
    more = {"HF_TOKEN": token} if token else {}
    hub = Hub.from_environment(
        environment(loopback.endpoint, **more), patience=waits.patience()
    )
    change(model)

    with pytest.raises(kind) as caught:
        hub.fetch(found, CONFIG, 100)

    assert type(caught.value) is kind
    assert hint in (caught.value.hint or "")
    assert waits == []


def test_an_unknown_repository_is_not_found(hub: Hub) -> None:
    with pytest.raises(NotFound, match="shows no repository a/none"):
        hub.repository(RepoId.parse("a/none"))


@pytest.mark.parametrize(("status", "kind"), [(401, NotFound), (403, HubError)])
def test_a_refusal_without_a_code(
    hub: Hub, loopback: LoopbackHub, status: int, kind: type[WizardEdgeError]
) -> None:
    loopback.faults.add(Fault(status=status))

    with pytest.raises(kind):
        hub.repository(REPO)


def test_the_words_of_a_refusal_are_not_repeated(
    hub: Hub, loopback: LoopbackHub
) -> None:
    words = {"X-Error-Message": "\x1b[2Jpay here", "X-Error-Code": "\x9b2J"}
    loopback.faults.add(Fault(status=400, headers=words))

    with pytest.raises(HubError) as caught:
        hub.repository(REPO)

    assert f"{caught.value.message}{caught.value.hint or ''}".isprintable()
    assert "pay" not in str(caught.value)


def test_a_code_of_the_other_host_means_nothing(
    hub: Hub, found: Repository, loopback: LoopbackHub
) -> None:
    gated = {"X-Error-Code": "GatedRepo"}
    loopback.faults.add(Fault(where="cdn", status=403, headers=gated))

    with pytest.raises(HubError, match="answers 403"):
        hub.open_stream(found, WEIGHTS)


# The environment.


def test_offline_nothing_is_asked(loopback: LoopbackHub, found: Repository) -> None:
    hub = Hub.from_environment(environment(loopback.endpoint, HF_HUB_OFFLINE="yes"))

    for ask in (
        lambda: hub.repository(REPO),
        lambda: hub.fetch(found, CONFIG, 100),
        lambda: hub.read_range(found, CONFIG, 0, 1),
        lambda: hub.open_stream(found, CONFIG),
    ):
        with pytest.raises(HubError, match="HF_HUB_OFFLINE is set"):
            ask()

    assert loopback.lines() == []


def test_offline_no_token_is_looked_for() -> None:
    hub = Hub.from_environment({"HF_HUB_OFFLINE": "1", "HF_TOKEN": TOKEN})

    assert hub.transport.token is None


@pytest.mark.parametrize(
    "endpoint",
    [
        "hub",
        "ftp://x",
        "https://",
        "https://u:secret@x",
        "http://x:y",
        "http://a b",
        "https://x?secret",
        "https://x/#secret",
    ],
)
def test_an_endpoint_that_is_none_is_refused(endpoint: str) -> None:
    with pytest.raises(ConfigError, match="HF_ENDPOINT is") as caught:
        Hub.from_environment(environment(endpoint))

    assert "secret" not in str(caught.value)


def test_an_endpoint_may_have_a_path_and_a_slash() -> None:
    hub = Hub.from_environment(environment("https://mirror.org/hf/"))

    assert hub.transport.endpoint == "https://mirror.org/hf"


def test_the_default_is_the_public_hub() -> None:
    hub = Hub.from_environment(
        {"HF_HUB_DISABLE_IMPLICIT_TOKEN": "1", "HF_ENDPOINT": ""}
    )

    assert hub.transport.endpoint == "https://huggingface.co"


def test_a_token_that_is_none_is_refused() -> None:
    with pytest.raises(ConfigError, match="token"):
        Hub.from_environment({"HF_TOKEN": "hf_a\nInjected: x"})


def test_the_token_of_a_login_is_used(tmp_path: Path, loopback: LoopbackHub) -> None:
    """The library finds it; a process of its own, as it reads its home once."""
    (tmp_path / "token").write_text(f"{TOKEN}\n")
    code = (
        "import os; from wizard_edge.hub import Hub;"
        "print(Hub.from_environment(os.environ).transport.token)"
    )
    environ = client_environment(loopback.endpoint, tmp_path)
    del environ["HF_HUB_DISABLE_IMPLICIT_TOKEN"]

    run = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env=environ,
        check=True,
        capture_output=True,
        text=True,
    )

    assert run.stdout.strip() == TOKEN


def test_a_dead_endpoint_is_named(waits: Waits) -> None:
    with closing(socket.socket()) as free:
        free.bind(("127.0.0.1", 0))
        endpoint = f"http://127.0.0.1:{free.getsockname()[1]}"
        hub = Hub.from_environment(environment(endpoint), patience=waits.patience())

        with pytest.raises(HubError, match=r"127\.0\.0\.1:\d+: connection refused"):
            hub.repository(REPO)

    assert waits == [1.0, 2.0]


@pytest.fixture
def proxies(
    no_proxy: None, monkeypatch: pytest.MonkeyPatch
) -> Iterator[pytest.MonkeyPatch]:
    """Forget what proxies there are, in this test and after it."""
    for name in (*os.environ,):
        if name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    http._opener.cache_clear()
    yield monkeypatch
    http._opener.cache_clear()


def test_a_proxy_of_the_environment_is_used(
    proxies: pytest.MonkeyPatch, loopback: LoopbackHub, waits: Waits
) -> None:
    """The loopback hub stands for the proxy: it is asked for an absolute address."""
    proxies.setenv("http_proxy", loopback.endpoint)
    hub = Hub.from_environment(
        environment("http://hub.invalid"), patience=waits.patience()
    )

    with pytest.raises(NotFound):
        hub.repository(REPO)

    [asked] = loopback.requests()
    assert asked.target.startswith("http://hub.invalid/api/models/")
    assert asked.host == "hub.invalid"


def test_a_proxy_without_a_kind_speaks_http(
    proxies: pytest.MonkeyPatch, loopback: LoopbackHub, waits: Waits
) -> None:
    proxies.setenv("http_proxy", loopback.endpoint.removeprefix("http://"))
    hub = Hub.from_environment(
        environment("http://hub.invalid"), patience=waits.patience()
    )

    with pytest.raises(NotFound):
        hub.repository(REPO)

    assert len(loopback.requests()) == 1


def test_a_proxy_of_another_kind_is_refused(
    proxies: pytest.MonkeyPatch, hub: Hub
) -> None:
    proxies.setenv("ALL_PROXY", "socks5://user:secret@127.0.0.1:1")

    with pytest.raises(ConfigError, match="kind 'socks5'") as caught:
        hub.repository(REPO)

    assert "secret" not in str(caught.value)


def test_the_hub_in_a_process_of_its_own(tmp_path: Path, waits: Waits) -> None:
    """As it serves the tests that kill programs: faults in, requests out as files."""
    files, faults = tmp_path / "hub" / "a" / "model", tmp_path / "faults.json"
    files.mkdir(parents=True)
    (files / WEIGHTS).write_bytes(LARGE)
    faults.write_text(json.dumps([{"where": "cdn", "cut_after": 400_000}]))
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.hub", "hub", "--faults", "faults.json"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    endpoint = process.stdout.readline().strip()
    hub = Hub.from_environment(environment(endpoint), patience=waits.patience())

    data = hub.fetch(hub.repository(REPO), WEIGHTS, len(LARGE))
    process.communicate()

    lines = (tmp_path / "hub" / "requests.jsonl").read_text().splitlines()
    log = [json.loads(line) for line in lines]
    assert data == LARGE
    assert [e["sent"] for e in log if e["port"] == "cdn"] == [400_000, 600_000]
    assert process.returncode == 0


def test_nothing_of_the_hub_is_imported_to_import_it() -> None:
    code = (
        "import sys, wizard_edge.hub;"
        "sys.exit(bool({'huggingface_hub', 'httpx2', 'httpx'} & set(sys.modules)))"
    )

    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


# Pieces, mirrors and addresses that are no hub's.


def piece_of(model: HostedRepository, **known: Any) -> Piece:
    return Piece(
        len(LARGE),
        Sha256(model.files[WEIGHTS].sha256),
        REPO,
        CommitId(model.head),
        WEIGHTS,
        **known,
    )


def test_a_piece_is_read_as_a_part_of_its_file(
    hub: Hub, loopback: LoopbackHub, model: HostedRepository
) -> None:
    with hub.open_piece(piece_of(model), 100, 300) as stream:
        first = stream.read_some(50)
        rest = stream.read(1000)

    assert first + rest == LARGE[100:300]
    assert 1 <= len(first) <= 50
    assert stream.in_parts
    assert ranges(loopback) == ["bytes=100-299"]


def test_an_address_serves_a_piece_without_the_token(
    loopback: LoopbackHub, model: HostedRepository, waits: Waits
) -> None:
    hub = Hub.from_environment(
        environment(loopback.endpoint, HF_TOKEN=TOKEN), patience=waits.patience()
    )
    url = f"{loopback.cdn}/{model.files[WEIGHTS].sha256}"

    stated = hub.probe(url)
    piece = Piece(stated.size, url=url, etag=stated.etag)
    with hub.open_piece(piece, 0, 10) as stream:
        data = stream.read(10)

    assert (stated.size, stated.in_parts, data) == (len(LARGE), True, LARGE[:10])
    assert stated.etag is not None
    assert not any(entry.authorized for entry in loopback.requests())


@pytest.mark.parametrize(
    "tag", ["x\ty", "\x1b[31m", "\u202e", '"' + "x" * 300 + '"', ""]
)
def test_a_tag_that_no_receipt_can_hold_is_none(
    hub: Hub, loopback: LoopbackHub, model: HostedRepository, tag: str
) -> None:
    """A receipt with it could not be read: the model was installed and not listed."""
    loopback.faults.add(Fault(where="cdn", headers={"ETag": tag}))

    stated = hub.probe(f"{loopback.cdn}/{model.files[WEIGHTS].sha256}")

    assert stated.etag is None


def test_an_address_whose_file_changed_is_noticed(
    hub: Hub, loopback: LoopbackHub, model: HostedRepository
) -> None:
    url = f"{loopback.cdn}/{model.files[WEIGHTS].sha256}"
    piece = Piece(len(LARGE), url=url, etag='"another"')

    with (
        hub.open_piece(piece, 0, 10) as stream,
        pytest.raises(HubError, match=r"is not what 127\.0\.0\.1:\d+ said"),
    ):
        stream.read(10)


@pytest.mark.parametrize("form", ["{cdn}/{{sha256}}", "{endpoint}", "{endpoint}/"])
def test_a_mirror_is_asked_for_bytes_alone(
    loopback: LoopbackHub, model: HostedRepository, waits: Waits, form: str
) -> None:
    """Its other words are not believed, and it gets no token."""
    hub = Hub.from_environment(
        environment("http://127.0.0.1:9", HF_TOKEN=TOKEN), patience=waits.patience()
    )
    loopback.faults.add(Fault(where="resolve", headers={"X-Repo-Commit": "f" * 40}))
    mirror = form.format(cdn=loopback.cdn, endpoint=loopback.endpoint)

    with hub.open_mirror(mirror, piece_of(model), 5, 25) as stream:
        data = stream.read(20)

    assert data == LARGE[5:25]
    assert not any(entry.authorized for entry in loopback.requests())


def test_an_address_that_says_no_more_which_file_it_is_is_refused(
    hub: Hub, loopback: LoopbackHub, model: HostedRepository
) -> None:
    url = f"{loopback.cdn}/{model.files[WEIGHTS].sha256}"
    piece = Piece(len(LARGE), url=url, etag=hub.probe(url).etag)
    loopback.faults.add(
        Fault(where="cdn", headers={"ETag": None, "Last-Modified": None})
    )

    with (
        hub.open_piece(piece, 0, 10) as stream,
        pytest.raises(HubError, match="is not what"),
    ):
        stream.read(10)


def test_a_mirror_that_cannot_name_a_file_is_not_asked(hub: Hub) -> None:
    piece = Piece(5, url="https://example.org/a.gguf")

    with pytest.raises(HubError, match="cannot be asked"):
        hub.open_mirror("https://mirror.example.org", piece, 0, 5)


@pytest.mark.parametrize(
    ("status", "error", "message"),
    [
        (404, NotFound, "has no file"),
        (410, NotFound, "has no file"),
        (403, HubError, "forbids access to"),
        (416, HubError, "has fewer bytes of"),
        (418, HubError, "answers 418"),
    ],
)
def test_the_refusal_of_an_address(
    hub: Hub, loopback: LoopbackHub, status: int, error: Any, message: str
) -> None:
    loopback.faults.add(Fault(where="cdn", status=status))

    with pytest.raises(error, match=message):
        hub.probe(f"{loopback.cdn}/file.gguf")


def test_an_address_without_a_size_is_told(
    hub: Hub, loopback: LoopbackHub, model: HostedRepository
) -> None:
    loopback.faults.add(Fault(where="cdn", ignore_range=True, chunked=True))

    with pytest.raises(HubError, match="does not say how large"):
        hub.probe(f"{loopback.cdn}/{model.files[WEIGHTS].sha256}")


def test_what_is_no_address_is_not_asked(hub: Hub) -> None:
    with pytest.raises(UsageError, match="not an http"):
        hub.probe("ftp://example.org/a.gguf")
