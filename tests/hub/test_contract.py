"""The loopback hub is one to plain huggingface_hub: results, errors, requests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.hub.client import ClientError, HubClient
from tests.hub.content import HostedRepository, random_bytes, repository
from tests.hub.faults import (
    ALWAYS,
    Fault,
    captive_portal,
    rate_limited,
    redirected,
)
from tests.hub.server import LoopbackHub

CONFIG = b'{"model_type": "llama"}'
WEIGHTS = random_bytes(1, 300_000)
ODD = "sub/a file #1 50%\u00e9.txt"
MEMBER, STRANGER = "hf_member", "hf_stranger"


@pytest.fixture(scope="module")
def hub() -> Iterator[LoopbackHub]:
    closed = repository("a/disabled", {"config.json": CONFIG})
    closed.disabled = True
    gated = repository("a/gated", {"config.json": CONFIG})
    gated.gated, gated.members = True, frozenset({MEMBER})
    private = repository("a/private", {"config.json": CONFIG})
    private.private, private.members = True, frozenset({MEMBER})
    renamed = repository("a/old", {})
    renamed.moved_to = "a/model"
    chunked = repository("a/xet", {"config.json": CONFIG, "model.bin": WEIGHTS})
    chunked.xet = True
    many = {f"{n:04}.txt": b"%d" % n for n in range(1001)}
    with LoopbackHub(
        repository(
            "a/model",
            {
                "config.json": CONFIG,
                "model.bin": WEIGHTS,
                "same.bin": WEIGHTS,
                "empty.txt": b"",
                ODD: b"odd",
            },
        ),
        closed,
        gated,
        private,
        renamed,
        chunked,
        repository("a/many", many),
        tokens=(MEMBER, STRANGER),
    ) as hub:
        yield hub


@pytest.fixture(scope="module")
def client(
    hub: LoopbackHub, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[HubClient]:
    with HubClient(hub.endpoint, tmp_path_factory.mktemp("home")) as client:
        yield client


@pytest.fixture(autouse=True)
def fresh(hub: LoopbackHub) -> None:
    hub.forget()
    hub.faults.clear()


@pytest.fixture
def model(hub: LoopbackHub) -> HostedRepository:
    return hub.hosted.repositories["a/model"]


def download(
    client: HubClient, folder: Path, filename: str, **more: object
) -> tuple[Path, bytes]:
    more = {"repo_id": "a/model"} | more
    path = Path(
        client.call("hf_hub_download", filename=filename, cache_dir=str(folder), **more)
    )
    return path, path.read_bytes()


def test_model_info(
    hub: LoopbackHub, client: HubClient, model: HostedRepository
) -> None:
    info = client.call("model_info", repo_id="a/model")

    assert (info["id"], info["sha"], info["gated"]) == ("a/model", model.head, False)
    assert [s["rfilename"] for s in info["siblings"]] == list(model.files)
    assert hub.lines() == ["GET api /api/models/a/model"]


def test_model_info_with_the_files(
    hub: LoopbackHub, client: HubClient, model: HostedRepository
) -> None:
    info = client.call(
        "model_info", repo_id="a/model", revision="main", files_metadata=True
    )

    files = {s["rfilename"]: s for s in info["siblings"]}
    small, large = files["config.json"], files["model.bin"]
    assert (small["size"], small["lfs"]) == (len(CONFIG), None)
    assert small["blob_id"] == model.files["config.json"].blob
    assert large["size"] == large["lfs"]["size"] == len(WEIGHTS)
    assert large["lfs"]["sha256"] == model.files["model.bin"].sha256
    assert hub.lines() == ["GET api /api/models/a/model/revision/main?blobs=true"]


def test_model_info_at_a_commit(client: HubClient, model: HostedRepository) -> None:
    info = client.call("model_info", repo_id="a/model", revision=model.head)

    assert info["sha"] == model.head


def test_a_renamed_repository(hub: LoopbackHub, client: HubClient) -> None:
    assert client.call("model_info", repo_id="a/old")["id"] == "a/model"
    assert hub.lines() == ["GET api /api/models/a/old", "GET api /api/models/a/model"]


def test_what_exists(client: HubClient) -> None:
    there = {"repo_id": "a/model", "filename": "config.json"}

    assert client.call("repo_exists", repo_id="a/model") is True
    assert client.call("repo_exists", repo_id="a/none") is False
    assert client.call("file_exists", **there) is True
    assert client.call("file_exists", **there | {"filename": "x"}) is False
    assert client.call("revision_exists", repo_id="a/model", revision="x") is False


def test_the_branches(client: HubClient, model: HostedRepository) -> None:
    refs = client.call("list_repo_refs", repo_id="a/model")

    assert [b["target_commit"] for b in refs["branches"]] == [model.head]


def test_the_tree(client: HubClient, model: HostedRepository) -> None:
    tree = client.call("list_repo_tree", repo_id="a/model", recursive=True)

    found = {e["path"]: (e["size"], e["lfs"] and e["lfs"]["sha256"]) for e in tree}
    assert found == {
        path: (c.size, c.sha256 if path.endswith(".bin") else None)
        for path, c in model.files.items()
    }


def test_a_tree_of_two_pages(hub: LoopbackHub, client: HubClient) -> None:
    files = client.call("list_repo_files", repo_id="a/many")

    assert len(files) == 1001
    assert [e.target.rpartition("cursor=")[2] for e in hub.requests("cursor")] == [
        "1000"
    ]


def test_single_paths(client: HubClient) -> None:
    found = client.call(
        "get_paths_info", repo_id="a/model", paths=["model.bin", "none.txt"]
    )

    assert [(e["path"], e["size"]) for e in found] == [("model.bin", len(WEIGHTS))]


def test_a_small_file(hub: LoopbackHub, client: HubClient, tmp_path: Path) -> None:
    _, data = download(client, tmp_path, "config.json")

    assert data == CONFIG
    assert hub.lines() == [
        "HEAD resolve /a/model/resolve/main/config.json",
        "GET resolve /a/model/resolve/main/config.json",
    ]


def test_a_small_file_is_kept_under_its_blob(
    client: HubClient, model: HostedRepository, tmp_path: Path
) -> None:
    path, _ = download(client, tmp_path, "config.json")

    assert path.resolve().name == model.files["config.json"].blob
    assert path.parent.name == model.head


def test_a_large_file_comes_from_the_other_port(
    hub: LoopbackHub, client: HubClient, model: HostedRepository, tmp_path: Path
) -> None:
    digest = model.files["model.bin"].sha256
    path, data = download(client, tmp_path, "model.bin", token=MEMBER)

    assert data == WEIGHTS
    assert path.resolve().name == digest
    assert hub.lines() == [
        "HEAD resolve /a/model/resolve/main/model.bin",
        f"GET cdn /{digest}?Signature=a/model",
    ]
    assert [e.authorized for e in hub.requests()] == [True, False]
    assert hub.sent("cdn") == len(WEIGHTS)


def test_a_second_time_asks_once(
    hub: LoopbackHub, client: HubClient, tmp_path: Path
) -> None:
    download(client, tmp_path, "model.bin")
    hub.forget()
    download(client, tmp_path, "model.bin")

    assert hub.lines() == ["HEAD resolve /a/model/resolve/main/model.bin"]


def test_an_empty_file(client: HubClient, tmp_path: Path) -> None:
    assert download(client, tmp_path, "empty.txt")[1] == b""


def test_a_file_with_an_odd_name(client: HubClient, tmp_path: Path) -> None:
    assert download(client, tmp_path, ODD)[1] == b"odd"


def test_a_file_of_a_renamed_repository(client: HubClient, tmp_path: Path) -> None:
    assert download(client, tmp_path, "model.bin", repo_id="a/old")[1] == WEIGHTS


def test_a_whole_snapshot(hub: LoopbackHub, client: HubClient, tmp_path: Path) -> None:
    folder = Path(
        client.call("snapshot_download", repo_id="a/model", cache_dir=str(tmp_path))
    )

    assert (folder / "same.bin").read_bytes() == WEIGHTS
    listing = [e.target for e in hub.requests() if e.port == "api"]
    assert listing[0] == "/api/models/a/model/revision/main"
    assert listing[1].startswith(f"/api/models/a/model/tree/{folder.name}?")


def test_a_push_moves_the_branch(hub: LoopbackHub, client: HubClient) -> None:
    moving = hub.add(repository("a/moving", {"config.json": CONFIG}))
    first = client.call("model_info", repo_id="a/moving")["sha"]
    second = moving.push(moving.files)

    assert client.call("model_info", repo_id="a/moving")["sha"] == second != first
    old = client.call("model_info", repo_id="a/moving", revision=first)
    assert old["sha"] == first


def test_a_file_in_xet_says_so(
    hub: LoopbackHub, client: HubClient, model: HostedRepository
) -> None:
    hosted = hub.hosted.repositories["a/xet"]
    url = f"{hub.endpoint}/a/xet/resolve/main/model.bin"
    route = f"{hub.endpoint}/api/models/a/xet/xet-read-token"
    found = client.call("get_hf_file_metadata", url=url)
    tree = client.call("list_repo_tree", repo_id="a/xet")

    xet_hash = hosted.files["model.bin"].xet_hash
    assert found["xet_file_data"] == {
        "file_hash": xet_hash,
        "refresh_route": f"{route}/{hosted.head}",
    }
    assert found["etag"] == model.files["model.bin"].sha256
    assert [entry.get("xet_hash") for entry in tree] == [None, xet_hash]


def test_a_token_for_xet(hub: LoopbackHub, client: HubClient) -> None:
    head = hub.hosted.repositories["a/xet"].head
    route = f"{hub.endpoint}/api/models/a/xet/xet-read-token/{head}"
    found = client.call("xet_connection", route=route)

    assert found["endpoint"] == hub.cdn
    assert found["access_token"].startswith("xet_")
    assert found["expiration_unix_epoch"] > 0
    with pytest.raises(ClientError) as caught:
        client.call("xet_connection", route=route.replace("a/xet", "a/model"))
    assert caught.value.kind != "ValueError"


def test_a_file_in_xet_comes_without_it_too(client: HubClient, tmp_path: Path) -> None:
    assert download(client, tmp_path, "model.bin", repo_id="a/xet")[1] == WEIGHTS


REFUSALS: list[tuple[str, dict[str, object], str]] = [
    ("a/none", {}, "RepositoryNotFoundError"),
    ("a/none", {"token": MEMBER}, "RepositoryNotFoundError"),
    ("a/private", {}, "RepositoryNotFoundError"),
    ("a/private", {"token": STRANGER}, "RepositoryNotFoundError"),
    ("a/gated", {}, "GatedRepoError"),
    ("a/gated", {"token": STRANGER}, "GatedRepoError"),
    ("a/model", {"token": "hf_unknown"}, "HfHubHTTPError"),
    ("a/model", {"revision": "none"}, "RevisionNotFoundError"),
    ("a/model", {"filename": "none.txt"}, "RemoteEntryNotFoundError"),
]


@pytest.mark.parametrize(("repo", "more", "error"), REFUSALS, ids=str)
def test_a_refusal_of_a_file(
    client: HubClient, tmp_path: Path, repo: str, more: dict[str, object], error: str
) -> None:
    arguments = {"filename": "config.json", "repo_id": repo} | more

    with pytest.raises(ClientError) as caught:
        client.call("hf_hub_download", cache_dir=str(tmp_path), **arguments)

    assert caught.value.kind == error


def test_a_disabled_repository(client: HubClient) -> None:
    with pytest.raises(ClientError) as caught:
        client.call("model_info", repo_id="a/disabled")

    assert caught.value.kind == "DisabledRepoError"


@pytest.mark.parametrize("repo", ["a/private", "a/gated"])
def test_a_member_is_let_in(client: HubClient, tmp_path: Path, repo: str) -> None:
    data = download(client, tmp_path, "config.json", repo_id=repo, token=MEMBER)[1]

    assert data == CONFIG


def test_a_gated_repository_is_described_to_everybody(client: HubClient) -> None:
    assert client.call("model_info", repo_id="a/gated")["gated"] == "manual"


def test_access_can_be_asked_for(client: HubClient) -> None:
    client.call("auth_check", repo_id="a/gated", token=MEMBER)
    with pytest.raises(ClientError) as caught:
        client.call("auth_check", repo_id="a/gated")

    assert caught.value.kind == "GatedRepoError"


# Faults as the client meets them.


def test_a_flipped_byte_is_accepted_by_the_client(
    hub: LoopbackHub, client: HubClient, tmp_path: Path
) -> None:
    """Why wizard-edge checks digests itself."""
    hub.faults.add(Fault(where="cdn", flip=7))

    data = download(client, tmp_path, "model.bin")[1]

    assert [i for i in range(len(data)) if data[i] != WEIGHTS[i]] == [7]


def test_a_cut_body_is_asked_for_again_from_the_start(
    hub: LoopbackHub, client: HubClient, tmp_path: Path
) -> None:
    hub.faults.add(Fault(where="cdn", cut_after=100_000))

    data = download(client, tmp_path, "model.bin")[1]

    assert data == WEIGHTS
    asked = [e.byte_range for e in hub.requests() if e.port == "cdn"]
    assert asked == [None, None]
    assert hub.sent("cdn") == 100_000 + len(WEIGHTS)


def test_a_rate_limit_is_waited_out(
    hub: LoopbackHub, client: HubClient, tmp_path: Path
) -> None:
    limit = Fault(where="cdn", status=429, headers={"Retry-After": "0"})
    hub.faults.add(limit)

    assert download(client, tmp_path, "model.bin")[1] == WEIGHTS
    assert [e.status for e in hub.requests() if e.port == "cdn"] == [429, 200]


def test_the_other_headers_of_a_rate_limit(
    hub: LoopbackHub, client: HubClient, tmp_path: Path
) -> None:
    hub.faults.add(rate_limited(0, draft=True, where="cdn"))

    assert download(client, tmp_path, "model.bin")[1] == WEIGHTS
    assert [e.status for e in hub.requests() if e.port == "cdn"] == [429, 200]


def test_a_small_file_may_come_compressed(
    hub: LoopbackHub, client: HubClient, tmp_path: Path
) -> None:
    hub.faults.add(Fault(where="resolve", path="config.json", gzip=True))

    assert download(client, tmp_path, "config.json")[1] == CONFIG
    # 20 bytes of head and tail, for a text of 23.
    assert hub.sent("resolve") > len(CONFIG)


def test_headers_in_another_case_and_weak_tags_are_understood(
    hub: LoopbackHub, client: HubClient, model: HostedRepository, tmp_path: Path
) -> None:
    hub.faults.add(
        Fault(method=None, times=ALWAYS, odd_case=True, weak_etag=True),
    )

    path, data = download(client, tmp_path, "config.json")

    assert data == CONFIG
    assert path.resolve().name == model.files["config.json"].blob


@pytest.mark.parametrize("more", [-1, 1], ids=["short", "long"])
def test_a_body_of_another_size_is_refused_though_its_length_is_right(
    hub: LoopbackHub, client: HubClient, tmp_path: Path, more: int
) -> None:
    hub.faults.add(Fault(where="cdn", times=ALWAYS, resize=more))

    with pytest.raises(ClientError, match="size"):
        download(client, tmp_path, "model.bin")


def test_a_circle_of_redirects_is_left(
    hub: LoopbackHub, client: HubClient, tmp_path: Path
) -> None:
    there = "/a/model/resolve/main/config.json"
    hub.faults.add(redirected(there, where="resolve"))

    with pytest.raises(ClientError):
        download(client, tmp_path, "config.json")

    assert len(hub.requests()) > 10


def test_a_relative_redirect_is_followed(
    hub: LoopbackHub, client: HubClient, tmp_path: Path
) -> None:
    hub.faults.add(
        redirected(
            "../../../model/resolve/main/config.json", 307, where="resolve", times=1
        )
    )

    assert download(client, tmp_path, "config.json")[1] == CONFIG


def test_a_login_page_is_no_file(
    hub: LoopbackHub, client: HubClient, tmp_path: Path
) -> None:
    hub.faults.add(captive_portal(where="resolve"))

    with pytest.raises(ClientError) as caught:
        download(client, tmp_path, "config.json")

    assert caught.value.kind == "LocalEntryNotFoundError"


def test_an_etag_of_another_content_is_another_file(
    hub: LoopbackHub, client: HubClient, tmp_path: Path
) -> None:
    etag = {"ETag": f'"{"0" * 40}"'}
    hub.faults.add(Fault(where="resolve", method="HEAD", headers=etag))

    path, _ = download(client, tmp_path, "config.json")

    assert path.resolve().name == "0" * 40


def test_an_answer_without_a_commit_is_no_hub(
    hub: LoopbackHub, client: HubClient, tmp_path: Path
) -> None:
    hub.faults.add(
        Fault(where="resolve", method="HEAD", headers={"X-Repo-Commit": None})
    )

    with pytest.raises(ClientError) as caught:
        download(client, tmp_path, "config.json")

    assert caught.value.kind in ("FileMetadataError", "LocalEntryNotFoundError")


def test_a_login_page_is_no_json(hub: LoopbackHub, client: HubClient) -> None:
    page = {"Content-Type": "text/html"}
    hub.faults.add(Fault(where="api", body=b"<html>Welcome", headers=page))

    with pytest.raises(ClientError) as caught:
        client.call("model_info", repo_id="a/model")

    assert caught.value.kind == "JSONDecodeError"


def test_offline_asks_nothing(hub: LoopbackHub, tmp_path: Path) -> None:
    with (
        HubClient(hub.endpoint, tmp_path, HF_HUB_OFFLINE="1") as offline,
        pytest.raises(ClientError) as caught,
    ):
        download(offline, tmp_path, "config.json")

    assert caught.value.kind == "LocalEntryNotFoundError"
    assert hub.lines() == []
