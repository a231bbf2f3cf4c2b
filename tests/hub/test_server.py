"""What the loopback hub does on its own: faults on the wire, plain files, its pace."""

from __future__ import annotations

import gzip
import http.client
import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.child import ROOT
from tests.hub.content import Content, HostedFile, random_bytes, repository
from tests.hub.faults import Fault, bombed, gzip_bomb
from tests.hub.hostile import FIELDS, STRINGS
from tests.hub.routes import with_values
from tests.hub.sending import Pace
from tests.hub.server import LoopbackHub

DATA = random_bytes(2, 200_000)


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[LoopbackHub]:
    (tmp_path / "on disk").write_bytes(DATA)
    content = Content(tmp_path / "on disk")
    files = {
        "/model.gguf": HostedFile(content, '"v1"', "Mon, 01 Jan 2024 00:00:00 GMT"),
        "/weak.gguf": HostedFile(content, 'W/"v1"'),
        "/bare.gguf": HostedFile(content, kind=None, ranges=False),
    }
    model = repository("a/model", {"model.gguf": tmp_path / "on disk", "x.txt": b"x"})
    with LoopbackHub(model, files=files, tokens=("hf_secret",)) as hub:
        yield hub


def ask(address: str, **headers: str) -> tuple[int, dict[str, str], bytes]:
    """Return status, headers and body of one answer, none of it interpreted."""
    parts = urlsplit(address)
    assert parts.hostname is not None
    connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=10)
    named = {name.replace("_", "-"): text for name, text in headers.items()}
    connection.request("GET", f"{parts.path}?{parts.query}", headers=named)
    response = connection.getresponse()
    try:
        body = response.read()
    except http.client.IncompleteRead as err:
        body = err.partial
    connection.close()
    return response.status, dict(response.headers), body


def test_a_file_is_served_with_what_is_known_of_it(hub: LoopbackHub) -> None:
    status, headers, body = ask(f"{hub.files}/model.gguf")

    assert (status, body) == (200, DATA)
    assert headers["ETag"] == '"v1"'
    assert headers["Last-Modified"] == "Mon, 01 Jan 2024 00:00:00 GMT"
    assert headers["Accept-Ranges"] == "bytes"


def test_a_bare_server_says_nothing_and_sends_all(hub: LoopbackHub) -> None:
    status, headers, body = ask(f"{hub.files}/bare.gguf", Range="bytes=5-")

    assert (status, body) == (200, DATA)
    assert not {"ETag", "Last-Modified", "Content-Type"} & set(headers)


@pytest.mark.parametrize(
    ("asked", "start", "end"),
    [
        ("bytes=5-9", 5, 10),
        ("bytes=5-", 5, len(DATA)),
        ("bytes=-7", len(DATA) - 7, len(DATA)),
        ("bytes=199990-300000", 199_990, len(DATA)),
    ],
)
def test_a_part(hub: LoopbackHub, asked: str, start: int, end: int) -> None:
    status, headers, body = ask(f"{hub.files}/model.gguf", Range=asked)

    assert (status, body) == (206, DATA[start:end])
    assert headers["Content-Range"] == f"bytes {start}-{end - 1}/{len(DATA)}"


def test_a_part_after_the_end(hub: LoopbackHub) -> None:
    status, headers, _ = ask(f"{hub.files}/model.gguf", Range="bytes=200000-")

    assert (status, headers["Content-Range"]) == (416, "bytes */200000")


@pytest.mark.parametrize(
    ("file", "known", "status"),
    [
        ("model.gguf", '"v1"', 206),
        ("model.gguf", "Mon, 01 Jan 2024 00:00:00 GMT", 206),
        ("model.gguf", '"v0"', 200),
        ("weak.gguf", 'W/"v1"', 200),
    ],
)
def test_a_part_of_what_was_seen_before(
    hub: LoopbackHub, file: str, known: str, status: int
) -> None:
    answer = ask(f"{hub.files}/{file}", Range="bytes=5-9", If_Range=known)

    assert answer[0] == status


def test_no_such_file(hub: LoopbackHub) -> None:
    assert ask(f"{hub.files}/none")[0] == 404


def test_a_token_is_noticed_wherever_it_stands(hub: LoopbackHub) -> None:
    ask(f"{hub.files}/model.gguf", Cookie="session=hf_secret")
    ask(f"{hub.files}/model.gguf?token=hf_secret")
    ask(f"{hub.files}/model.gguf", Authorization="Bearer other")

    assert [e.secret for e in hub.requests()] == [True, True, False]
    assert [e.authorized for e in hub.requests()] == [False, False, True]


@pytest.mark.parametrize(
    ("fault", "body"),
    [
        (Fault(resize=-10), DATA[:-10]),
        (Fault(resize=3), DATA + bytes(3)),
        (Fault(cut_after=1000), DATA[:1000]),
        (Fault(flip=7), DATA[:7] + bytes([DATA[7] ^ 0xFF]) + DATA[8:]),
        (Fault(surplus=b"more"), DATA),
        (Fault(headers={"Content-Length": "100"}), DATA[:100]),
        (Fault(drip=50_000), DATA),
        (Fault(chunked=True), DATA),
    ],
    ids=str,
)
def test_a_spoilt_body(hub: LoopbackHub, fault: Fault, body: bytes) -> None:
    hub.faults.add(fault)

    assert ask(f"{hub.files}/model.gguf")[2] == body


def test_a_compressed_part(hub: LoopbackHub) -> None:
    hub.faults.add(Fault(gzip=True))

    _, headers, body = ask(f"{hub.files}/model.gguf", Range="bytes=5-9")

    assert headers["Content-Encoding"] == "gzip"
    assert gzip.decompress(body) == DATA[5:10]


def test_a_bomb_is_small_and_becomes_large(hub: LoopbackHub) -> None:
    hub.faults.add(bombed(64 << 20))

    body = ask(f"{hub.files}/model.gguf")[2]

    assert body == gzip_bomb(64 << 20)
    assert len(body) * 900 < 64 << 20
    assert gzip.decompress(gzip_bomb(4 << 20)) == bytes(4 << 20)


def test_a_header_can_come_twice_in_odd_case(hub: LoopbackHub) -> None:
    twice = (("ETag", '"v2"'),)
    hub.faults.add(Fault(more_headers=twice, odd_case=True, weak_etag=True))
    parts = urlsplit(hub.files)
    assert parts.hostname is not None

    connection = http.client.HTTPConnection(parts.hostname, parts.port)
    connection.request("GET", "/model.gguf")
    response = connection.getresponse()
    found = [item for item in response.getheaders() if item[0].lower() == "etag"]
    connection.close()

    assert found == [("etAG", 'W/"v1"'), ("etAG", '"v2"')]


def test_values_go_to_their_places() -> None:
    answer = {"a": [{"b": 1}, {"b": 2}, {}], "c": {"d": 3}}

    changed = with_values(answer, {"a.*.b": "x", "a.1.b": "y", "c.d": None, "e": 4})

    assert changed == {"a": [{"b": "x"}, {"b": "y"}, {"b": "x"}], "c": {"d": None}} | {
        "e": 4
    }
    assert with_values([], {"a.b": 1}) == []


def test_there_are_sixty_hostile_strings() -> None:
    assert len(set(STRINGS.values())) >= 60


@pytest.mark.parametrize("field", FIELDS)
def test_every_hostile_string_goes_out_as_it_is(hub: LoopbackHub, field: str) -> None:
    places = (
        (hub.endpoint, "/api/models/a/model?blobs=true"),
        (hub.endpoint, "/api/models/a/model/tree/main"),
        (hub.endpoint, "/a/model/resolve/main/model.gguf"),
        (hub.cdn, f"/{Content(DATA).sha256}"),
    )
    hub.hosted.repositories["a/model"].xet = True
    # A small body, for 70 strings and 4 places.
    hub.hosted.repositories["a/model"].files["model.gguf"] = Content(b"x")
    for text in STRINGS.values():
        hub.faults.clear()
        hub.faults.add(FIELDS[field](text))

        answers = b"".join(raw(*place) for place in places)

        as_json = json.dumps(text)[1:-1].encode()
        assert text.encode() in answers or as_json in answers or latin(text) in answers


def raw(address: str, path: str) -> bytes:
    """Return the bytes of an answer, head and body."""
    parts = urlsplit(address)
    assert parts.hostname is not None
    assert parts.port is not None
    with socket.create_connection((parts.hostname, parts.port), timeout=10) as link:
        link.sendall(f"GET {path} HTTP/1.1\r\nConnection: close\r\n\r\n".encode())
        return b"".join(iter(lambda: link.recv(1 << 16), b""))


def latin(text: str) -> bytes:
    return text.encode("latin-1", errors="replace")


def test_a_pace_is_kept() -> None:
    now = 0.0
    waits = []

    def sleep(seconds: float) -> None:
        nonlocal now
        waits.append(seconds)
        now += seconds

    pace = Pace(1000, 1 << 20, clock=lambda: now, sleep=sleep)
    for _ in range(100):
        pace.wait(pace.piece)

    assert pace.piece == 20
    assert now == pytest.approx(2.0)
    assert len(waits) == 100


def test_a_folder_is_served_by_hand(tmp_path: Path) -> None:
    folder = tmp_path / "hub" / "somebody" / "Model"
    folder.mkdir(parents=True)
    (folder / "model.gguf").write_bytes(DATA)
    (tmp_path / "web").mkdir()
    (tmp_path / "web" / "m.gguf").write_bytes(DATA)
    faults = [{"where": "api", "values": {"sha": "../x"}}]
    (tmp_path / "faults.json").write_text(json.dumps(faults), encoding="utf-8")
    words = ["--root", str(tmp_path / "hub"), "--files", str(tmp_path / "web")]
    words += ["--faults", str(tmp_path / "faults.json"), "--rate", "100000000"]

    with subprocess.Popen(
        [sys.executable, "-m", "tests.hub", *words],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as served:
        assert served.stdout is not None
        hub, _, files = (served.stdout.readline().strip() for _ in range(3))
        info = json.loads(ask(f"{hub}/api/models/somebody/Model")[2])
        moved = ask(f"{hub}/somebody/Model/resolve/main/model.gguf")[1]["Location"]
        whole, plain = ask(moved)[2], ask(f"{files}/m.gguf")[2]
        served.communicate()

    assert info["sha"] == "../x"
    assert (whole, plain) == (DATA, DATA)
    log = (tmp_path / "hub" / "requests.jsonl").read_text(encoding="utf-8")
    assert [json.loads(line)["port"] for line in log.splitlines()] == [
        *("api", "resolve", "cdn", "files")
    ]
