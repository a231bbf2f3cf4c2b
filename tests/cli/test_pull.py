"""Ready files, as a person asks for them, from a hub on loopback."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.conftest import Cli
from tests.gguf_files import small_llama, string
from tests.hub.content import HostedRepository, repository
from tests.hub.faults import Fault
from tests.hub.server import LoopbackHub
from tests.test_gguf_parts import parts as split_parts
from wizard_edge.chunks import read_chunks
from wizard_edge.gguf_parts import split_name
from wizard_edge.service.choosing import find_machine

REPO = "somebody/Tiny-GGUF"
GGUF = small_llama().build()
TOKEN = "hf_secret"
# A model of one's own in a registry of one's own.
MODELS = """
schema = 1
[models.tiny]
title = "Tiny"
architecture = "llama"
template = "vicuna"
licenses = ["llama2"]
context = 64
[models.tiny.gguf]
repo = "{repo}"
file = "tiny.{{quant}}.gguf"
[models.tiny.variants]
Q8_0 = {{ size = {size}, sha256 = "{sha256}" }}
Q4_K_M = {{ about = 99000000000000 }}
"""


def model(name: str = "tiny") -> bytes:
    return small_llama().set("general.name", string(name)).build()


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def tree(folder: Path) -> list[str]:
    return sorted(
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.is_file()
    )


@pytest.fixture
def hosted() -> HostedRepository:
    return repository(
        REPO,
        {
            "README.md": b"# Tiny",
            "LICENSE": b"do as you please",
            "tiny.Q8_0.gguf": model("q8"),
            "tiny.Q4_K_M.gguf": model("q4"),
        },
    )


@pytest.fixture
def hub(
    hosted: HostedRepository, monkeypatch: pytest.MonkeyPatch
) -> Iterator[LoopbackHub]:
    with LoopbackHub(hosted, tokens=(TOKEN,)) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.endpoint)
        yield hub


@pytest.fixture
def unmeasured(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out the second in which a plan measures this machine."""
    monkeypatch.setattr(
        "wizard_edge.service.fit.measure",
        lambda installation, kinds, **_: find_machine(installation),
    )


@pytest.fixture
def registered(tmp_path: Path, hosted: HostedRepository) -> str:
    """Register a model whose file the hub has."""
    content = hosted.files["tiny.Q8_0.gguf"]
    text = MODELS.format(repo=REPO, size=content.size, sha256=content.sha256)
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "models.toml").write_text(text)
    return "tiny"


def test_a_file_of_the_hub_comes_in(
    cli: Cli, hub: LoopbackHub, hosted: HostedRepository, home: Path
) -> None:
    result = cli("pull", f"hf:{REPO}/tiny.Q8_0.gguf")

    assert result.exit_code == 0
    assert result.stderr == (
        f"installed tiny:Q8_0 ({len(model('q8')) / 1000:.1f} kB)\n"
        "licence: nobody says which; look where it comes from\n"
        'next: wizard-edge run tiny:Q8_0 "Who are you?"\n'
    )
    folder = home / "models" / "tiny"
    assert tree(home / "models") == [
        "tiny/LICENSE",
        "tiny/NOTICE",
        "tiny/tiny.Q8_0.gguf",
        "tiny/tiny.Q8_0.gguf.chunks",
        "tiny/tiny.Q8_0.gguf.json",
    ]
    assert tree(home / "partial") == []
    assert (folder / "tiny.Q8_0.gguf").read_bytes() == model("q8")
    assert (folder / "LICENSE").read_bytes() == b"do as you please"
    receipt = json.loads((folder / "tiny.Q8_0.gguf.json").read_text())
    digest = sha256(model("q8"))
    assert receipt["origin"] == {
        "kind": "hub",
        "repo": REPO,
        "revision": hosted.head,
        "base": None,
        "url": None,
    }
    assert receipt["files"] == [
        {
            "name": "tiny.Q8_0.gguf",
            "size": len(model("q8")),
            "sha256": digest,
            "pieces": [
                {
                    "size": len(model("q8")),
                    "sha256": digest,
                    "repo": REPO,
                    "revision": hosted.head,
                    "path": "tiny.Q8_0.gguf",
                    "url": None,
                    "etag": None,
                }
            ],
        }
    ]
    assert read_chunks(folder / "tiny.Q8_0.gguf.chunks").sha256 == digest


def test_what_is_there_is_not_fetched_again(cli: Cli, hub: LoopbackHub) -> None:
    cli("pull", f"hf:{REPO}:Q8_0")
    hub.forget()

    result = cli("pull", f"hf:{REPO}:q8_0", "--json")

    assert json.loads(result.stdout)["already"] is True
    assert not hub.requests("resolve")


@pytest.mark.usefixtures("unmeasured")
def test_without_a_quant_the_best_that_fits_is_taken(
    cli: Cli, hub: LoopbackHub
) -> None:
    plan = json.loads(cli("pull", f"hf:{REPO}", "--dry-run", "--json").stdout)
    pulled = json.loads(cli("pull", f"hf:{REPO}", "--json").stdout)

    assert plan["quant"] == pulled["quant"]
    assert plan["why"].startswith(f"{plan['quant']} is ")
    [other] = plan["rejected"]
    assert {other["quant"], plan["quant"]} == {"Q8_0", "Q4_K_M"}


def test_the_only_file_is_taken_though_it_is_never_chosen(
    cli: Cli, hub: LoopbackHub
) -> None:
    hub.add(repository(REPO, {"tiny.F32.gguf": GGUF}))

    result = cli("pull", f"hf:{REPO}")

    assert result.exit_code == 0
    assert result.stderr.startswith("installed tiny:F32 ")


def test_quants_that_are_never_chosen_have_to_be_named(
    cli: Cli, hub: LoopbackHub
) -> None:
    hub.add(repository(REPO, {"tiny.F32.gguf": GGUF, "tiny.F16.gguf": GGUF}))

    result = cli("pull", f"hf:{REPO}")

    assert result.exit_code == 3
    assert result.stderr == (
        f"error: {REPO} has no GGUF file in Q4_K_M\nhint: it has F16, F32\n"
    )


def test_a_registered_model_asks_for_its_licence_first(
    cli: Cli, hub: LoopbackHub, registered: str, home: Path
) -> None:
    refused = cli("pull", "tiny:Q8_0")

    assert refused.exit_code == 5
    assert "licence llama2 is not accepted" in refused.stderr
    assert "--accept-license llama2" in refused.stderr
    assert not hub.requests("resolve")
    assert not (home / "models").exists()

    pulled = cli("pull", "tiny:Q8_0", "--accept-license", "llama2", "--json")

    document = json.loads(pulled.stdout)
    assert (document["name"], document["quant"]) == ("tiny", "Q8_0")
    receipt = json.loads(Path(f"{document['path']}.json").read_text())
    assert (receipt["template"], receipt["licenses"]) == ("vicuna", ["llama2"])
    assert receipt["accepted"][0]["license"] == "llama2"
    notice = Path(document["path"]).with_name("NOTICE").read_text()
    assert "Llama 2 is licensed under the LLAMA 2 Community License" in notice


def test_what_the_registry_knows_by_its_hash_goes_by_that_name(
    cli: Cli, hub: LoopbackHub, registered: str
) -> None:
    """Wherever it is fetched from, its licence comes along."""
    digest = sha256(model("q8"))
    url = f"{hub.cdn}/{digest}"

    refused = cli("pull", f"{url}#sha256={digest}")
    done = cli("pull", f"{url}#sha256={digest}", "--accept-license", "llama2", "--json")

    assert refused.exit_code == 5
    assert json.loads(done.stdout)["name"] == "tiny"


def test_a_licence_that_shows_only_at_the_end_is_asked_for_then(
    cli: Cli, hub: LoopbackHub, hosted: HostedRepository, registered: str, home: Path
) -> None:
    """An address without a hash: what it is, its bytes say. None comes twice."""
    hub.add(repository("other/copy", {"x.Q8_0.gguf": model("q8")}))
    url = f"{hub.endpoint}/other/copy/resolve/main/x.Q8_0.gguf"

    refused = cli("pull", url)
    hub.forget()
    done = cli("pull", url, "--accept-license", "llama2", "--json")

    assert refused.exit_code == 5
    assert json.loads(done.stdout)["name"] == "tiny"
    assert [e.byte_range for e in hub.requests() if e.port == "cdn"] == ["bytes=0-0"]


def test_an_address_is_fetched(cli: Cli, hub: LoopbackHub, home: Path) -> None:
    url = f"{hub.endpoint}/{REPO}/resolve/main/tiny.Q4_K_M.gguf"

    result = cli("pull", url)

    assert result.exit_code == 0
    receipt = json.loads((home / "models/tiny/tiny.Q4_K_M.gguf.json").read_text())
    assert receipt["origin"]["kind"] == "url"
    assert receipt["files"][0]["pieces"][0]["url"] == url
    assert not any(entry.authorized for entry in hub.requests())


def test_an_address_that_has_other_bytes_is_refused(
    cli: Cli, hub: LoopbackHub, home: Path
) -> None:
    url = f"{hub.endpoint}/{REPO}/resolve/main/tiny.Q4_K_M.gguf#sha256={'0' * 64}"

    result = cli("pull", url)

    assert result.exit_code == 6
    assert "not those that were described" in result.stderr
    assert tree(home) == []


@pytest.mark.parametrize(
    "names",
    [
        ["big.Q8_0.gguf-split-a", "big.Q8_0.gguf-split-b"],
        ["big.Q8_0.gguf-split-aa", "big.Q8_0.gguf-split-ab"],
        ["sub/big.Q8_0.gguf.part1of2", "sub/big.Q8_0.gguf.part2of2"],
    ],
    ids=["letters", "two letters", "numbers"],
)
def test_pieces_are_joined(cli: Cli, hub: LoopbackHub, names: list[str]) -> None:
    data = model("whole")
    cut = len(data) // 3
    parts = dict(zip(names, (data[:cut], data[cut:]), strict=True))
    hub.add(repository("somebody/Big-GGUF", dict(parts)))

    result = cli("pull", "hf:somebody/Big-GGUF:Q8_0", "--json")

    document = json.loads(result.stdout)
    assert Path(document["path"]).read_bytes() == data
    receipt = json.loads(Path(f"{document['path']}.json").read_text())
    pieces = receipt["files"][0]["pieces"]
    assert [piece["path"] for piece in pieces] == names


def test_a_split_model_stays_split(cli: Cli, hub: LoopbackHub, home: Path) -> None:
    parts = [file.build() for file in split_parts()]
    files = {split_name("s.Q8_0", n, 3): part for n, part in enumerate(parts, start=1)}
    hub.add(repository("somebody/S", dict(files)))

    result = cli("pull", "hf:somebody/S:Q8_0", "--json")

    document = json.loads(result.stdout)
    assert document["size"] == sum(map(len, parts))
    stored = sorted((home / "models" / "s").glob("*.gguf"))
    assert [path.read_bytes() for path in stored] == parts
    assert cli("show", "s").exit_code == 0


def test_parts_of_different_models_are_refused(
    cli: Cli, hub: LoopbackHub, home: Path
) -> None:
    first, second, _ = (file.build() for file in split_parts())
    contents = (first, second, second)
    names = [split_name("s.Q8_0", number, 3) for number in (1, 2, 3)]
    hub.add(repository("somebody/S", dict(zip(names, contents, strict=True))))

    result = cli("pull", "hf:somebody/S:Q8_0")

    assert result.exit_code == 6
    assert "says it is part 2 of 3" in result.stderr
    assert tree(home) == []


def test_a_model_that_misses_a_part_is_not_offered(cli: Cli, hub: LoopbackHub) -> None:
    hub.add(repository("somebody/Half-GGUF", {"h.Q8_0.gguf.part1of2": b"x" * 100}))

    result = cli("pull", "hf:somebody/Half-GGUF:Q8_0")

    assert result.exit_code == 3
    assert "has no GGUF file in Q8_0" in result.stderr


@pytest.mark.parametrize("damage", ["no magic", "cut"])
def test_what_is_no_model_is_refused_and_not_kept(
    cli: Cli, hub: LoopbackHub, home: Path, damage: str
) -> None:
    data = b"x" * 5000 if damage == "no magic" else GGUF[:-7]
    hub.add(repository("somebody/Bad", {"bad.Q8_0.gguf": data}))

    result = cli("pull", "hf:somebody/Bad:Q8_0")

    assert result.exit_code == 6
    assert "bad.Q8_0.gguf is damaged" in result.stderr
    assert tree(home) == []


def test_an_architecture_that_does_not_run_is_not_fetched_to_its_end(
    cli: Cli, hub: LoopbackHub, home: Path
) -> None:
    data = small_llama().set("general.architecture", string("gemma")).build()
    hub.add(repository("somebody/Other", {"o.Q8_0.gguf": data}))

    result = cli("pull", "hf:somebody/Other:Q8_0")

    assert result.exit_code == 8
    assert "o.Q8_0.gguf is of the architecture 'gemma'" in result.stderr
    assert tree(home) == []


def test_a_flipped_byte_is_fetched_again(
    cli: Cli, hub: LoopbackHub, home: Path
) -> None:
    hub.faults.add(Fault(where="cdn", flip=1000))

    result = cli("pull", f"hf:{REPO}:Q8_0")

    assert result.exit_code == 0
    assert "warning: fetched again from the start" in result.stderr
    assert (home / "models/tiny/tiny.Q8_0.gguf").read_bytes() == model("q8")


def test_bytes_that_stay_wrong_are_never_installed(
    cli: Cli, hub: LoopbackHub, home: Path
) -> None:
    hub.faults.add(Fault(where="cdn", flip=1000, times=100))

    result = cli("pull", f"hf:{REPO}:Q8_0")

    assert result.exit_code == 6
    assert tree(home) == []


def test_pieces_without_a_hash_are_taken_from_the_hub_alone(
    cli: Cli, hub: LoopbackHub, hosted: HostedRepository
) -> None:
    """Git holds them itself: what they are, its own name for them says."""
    data = model("whole")
    names = ["big.Q8_0.gguf-split-a", "big.Q8_0.gguf-split-b"]
    contents = (data[:9000], data[9000:])
    big = hub.add(repository("somebody/B", dict(zip(names, contents, strict=True))))
    with LoopbackHub(big) as mirror:
        mirror.faults.add(Fault(where="resolve", path="split-b", flip=9, times=9))
        done = cli("pull", "hf:somebody/B:Q8_0", "--mirror", mirror.endpoint)
        asked = mirror.requests("resolve")
    hub.faults.add(Fault(where="resolve", path="split-b", flip=9, times=9))

    assert (done.exit_code, asked) == (0, [])
    cli("rm", "big", "--yes")
    spoiled = cli("pull", "hf:somebody/B:Q8_0")
    assert spoiled.exit_code == 6
    assert "big.Q8_0.gguf-split-b is damaged" in spoiled.stderr


def test_a_digest_counts_on_the_pages_of_the_hub_too(
    cli: Cli, hub: LoopbackHub, home: Path
) -> None:
    url = f"https://huggingface.co/{REPO}/resolve/main/tiny.Q8_0.gguf"

    wrong = cli("pull", f"{url}#sha256={'0' * 64}")
    right = cli("pull", f"{url}?download=true#sha256={sha256(model('q8'))}")

    assert wrong.exit_code == 6
    assert "the hub says that its sha256 is" in wrong.stderr
    assert right.exit_code == 0


@pytest.mark.parametrize("form", ["hub", "address"])
def test_other_bytes_of_the_same_name_are_not_taken_for_it(
    cli: Cli, hub: LoopbackHub, form: str
) -> None:
    hub.add(repository("other/copy", {"tiny.Q8_0.gguf": model("other")}))
    cli("pull", f"hf:{REPO}:Q8_0")
    url = f"{hub.endpoint}/other/copy/resolve/main/tiny.Q8_0.gguf"

    result = cli("pull", "hf:other/copy:Q8_0" if form == "hub" else url)

    assert result.exit_code == 2
    assert "tiny:Q8_0 is in the store, and has other bytes" in result.stderr
    assert "hint: wizard-edge rm tiny:Q8_0, then pull again" in result.stderr


def test_a_file_of_somebody_s_own_is_not_fetched_over(
    cli: Cli, hub: LoopbackHub, home: Path
) -> None:
    own = home / "models" / "tiny" / "tiny.Q8_0.gguf"
    own.parent.mkdir(parents=True)
    own.write_bytes(b"mine")

    result = cli("pull", f"hf:{REPO}:Q8_0")

    assert result.exit_code == 5
    assert own.read_bytes() == b"mine"
    assert not [entry for entry in hub.requests() if entry.port == "cdn"]


def test_commercial_use_counts_for_what_is_there_too(
    cli: Cli, hub: LoopbackHub
) -> None:
    cli("pull", f"hf:{REPO}:Q8_0")

    for more in ((), ("--dry-run",)):
        result = cli("pull", f"hf:{REPO}:Q8_0", "--commercial", *more)
        assert result.exit_code == 5


def test_an_interrupted_download_does_not_stand_in_its_own_way(
    cli: Cli, hub: LoopbackHub, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What its part holds of the disk is not missing any more."""
    size = len(model("q8"))
    hub.faults.add(Fault(where="cdn", status=404))
    monkeypatch.setattr("wizard_edge.fitting.DISK_MARGIN", 0)
    free = size - 5000
    monkeypatch.setattr("wizard_edge.service.choosing.free_disk", lambda _: free)

    full = cli("pull", f"hf:{REPO}")
    partial = home / "partial"
    partial.mkdir(parents=True)
    for name in ("tiny.Q8_0.gguf", "tiny.Q4_K_M.gguf"):
        content = hub.hosted.repositories[REPO].files[name]
        (partial / f"{content.sha256}.part").write_bytes(bytes(content.size))
    hub.faults.clear()
    again = cli("pull", f"hf:{REPO}")

    assert full.exit_code == 7
    assert again.exit_code == 0


def test_a_mirror_gives_the_bytes(
    cli: Cli, hub: LoopbackHub, hosted: HostedRepository
) -> None:
    with LoopbackHub(hosted) as mirror:
        result = cli("pull", f"hf:{REPO}:Q8_0", "--mirror", mirror.endpoint)

        assert result.exit_code == 0
        assert mirror.requests("resolve")
    assert [e for e in hub.requests("resolve") if "gguf" in e.target] == []


def test_a_mirror_that_is_not_there_is_left(cli: Cli, hub: LoopbackHub) -> None:
    result = cli("pull", f"hf:{REPO}:Q8_0", "--mirror", "http://127.0.0.1:9")

    assert result.exit_code == 0
    assert "warning: mirror left: " in result.stderr


def test_a_mirror_that_lies_is_left(
    cli: Cli, hub: LoopbackHub, hosted: HostedRepository, home: Path
) -> None:
    with LoopbackHub(hosted) as mirror:
        mirror.faults.add(Fault(where="cdn", flip=5, times=100))
        result = cli("pull", f"hf:{REPO}:Q8_0", "--mirror", mirror.endpoint)

    assert result.exit_code == 0
    assert (home / "models/tiny/tiny.Q8_0.gguf").read_bytes() == model("q8")


def test_a_mirror_alone_is_enough_for_what_the_registry_knows(
    cli: Cli,
    hosted: HostedRepository,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A neighbour on the same network, and no other."""
    content = hosted.files["tiny.Q8_0.gguf"]
    text = MODELS.format(repo=REPO, size=content.size, sha256=content.sha256)
    text = text.replace(
        f'repo = "{REPO}"', f'repo = "{REPO}"\nrevision = "{hosted.head}"'
    )
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "models.toml").write_text(text)
    monkeypatch.setattr("time.sleep", lambda _: None)
    with LoopbackHub(hosted) as mirror:
        words = ("pull", "tiny:Q8_0", "--accept-license", "llama2")
        result = cli(*words, "--mirror", f"{mirror.cdn}/{{sha256}}")

    assert result.exit_code == 0


def test_a_hub_that_has_another_file_than_the_registry_knows(
    cli: Cli,
    hub: LoopbackHub,
    hosted: HostedRepository,
    registered: str,
    tmp_path: Path,
) -> None:
    file = tmp_path / "config" / "models.toml"
    right = hosted.files["tiny.Q8_0.gguf"].sha256
    file.write_text(file.read_text().replace(right, "0" * 64))

    result = cli("pull", "tiny:Q8_0", "--accept-license", "llama2")

    assert result.exit_code == 4
    assert "has another tiny.Q8_0.gguf than the registry knows" in result.stderr


@pytest.mark.usefixtures("unmeasured")
def test_a_plan_says_what_it_takes_and_changes_nothing(
    cli: Cli, hub: LoopbackHub, registered: str, home: Path
) -> None:
    plan = json.loads(cli("pull", "tiny:Q8_0", "--dry-run", "--json").stdout)
    text = cli("pull", "tiny:Q8_0", "--dry-run").stdout

    size = len(model("q8"))
    assert (plan["read_bytes"], plan["output_bytes"]) == (size, size)
    assert plan["tensors"] == {"F32": 12}
    assert plan["licenses"] == ["llama2"]
    assert plan["run_memory_bytes"] > 0
    assert f"({size} bytes)" in text
    assert "Llama 2 Community License Agreement (llama2)" in text
    assert not home.exists()


def test_offline_what_is_there_is_found_and_all_else_says_so(
    cli: Cli, hub: LoopbackHub, registered: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    cli("pull", "tiny:Q8_0", "--accept-license", "llama2")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    hub.forget()

    there = cli("pull", "tiny:Q8_0")
    missing = cli("pull", "tiny:Q4_K_M")

    assert there.exit_code == 0
    assert missing.exit_code == 4
    assert "HF_HUB_OFFLINE is set" in missing.stderr
    assert hub.lines() == []


def test_progress_for_programs(cli: Cli, hub: LoopbackHub) -> None:
    result = cli("pull", f"hf:{REPO}:Q8_0", "--json")

    lines = [json.loads(line) for line in result.stderr.splitlines()]
    size = len(model("q8"))
    assert lines[-1] == {
        "stage": "download",
        "done": size,
        "total": size,
        "unit": "bytes",
    }


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--base", "hf:a/b"), "--base is for original weights"),
        (("--keep-weights", "x"), "--keep-weights is for original weights"),
        (("--mirror", "ftp://x"), "not the address of a mirror: 'ftp://x'"),
        (("--mirror", "neighbour"), "not the address of a mirror: 'neighbour'"),
        (("--connections", "0"), "invalid value for '--connections'"),
        (("--limit-rate", "fast"), "invalid value for '--limit-rate'"),
    ],
)
def test_options_that_do_not_fit(
    cli: Cli, hub: LoopbackHub, words: tuple[str, ...], message: str
) -> None:
    result = cli("pull", f"hf:{REPO}:Q8_0", *words)

    assert result.exit_code == 2
    assert message in result.stderr
