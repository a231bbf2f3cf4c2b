"""What lies beside a model says it all to whoever gets the folder alone."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from tests.gguf_files import small_llama, u32
from tests.hub.content import repository
from tests.hub.faults import Fault
from tests.hub.server import LoopbackHub
from tests.service.fakes import a_checkpoint, an_installation, stored, tree
from tests.service.test_imports import digest, knowing
from wizard_edge.conversion import HubWeights
from wizard_edge.hub import Hub, Patience
from wizard_edge.licenses import Terms, terms_named, terms_of
from wizard_edge.names import CommitId, ModelName, RelPath, RepoId, Sha256
from wizard_edge.receipts import Check, CheckedFile, Origin, Receipt, StoredFile
from wizard_edge.registry import Registry
from wizard_edge.service.imports import import_file
from wizard_edge.service.installation import Installation
from wizard_edge.service.models import plan_removal, remove
from wizard_edge.service.notices import (
    MAX_FILES,
    MAX_SIZE,
    license_texts,
    license_texts_of,
    texts_for,
)

REPO = RepoId.parse("TheBloke/WizardLM-13B-V1.2-GGUF")
COMMIT = CommitId.parse("0123456789abcdef0123456789abcdef01234567")
DIGEST = Sha256.parse("a" * 64)
CONVERTED = CheckedFile(RelPath.parse("model.bin"), 1, Check.SIZE)
LLAMA_LINE = (
    "Llama 2 is licensed under the LLAMA 2 Community License, "
    "Copyright (c) Meta Platforms, Inc. All Rights Reserved."
)


def a_receipt(
    quant: str, origin: Origin, weights: tuple[CheckedFile, ...] = ()
) -> Receipt:
    return Receipt(
        model=ModelName.parse("w"),
        quant=quant,
        files=(StoredFile(RelPath.parse(f"w.{quant}.gguf"), 1, DIGEST),),
        origin=origin,
        licenses=(),
        template=None,
        architecture=None,
        context=None,
        parameters=None,
        tool="wizard-edge 9",
        created="2026-01-02T03:04:05Z",
        weights=weights,
    )


def test_the_notice_names_all_that_has_to_travel() -> None:
    registry = Registry.load()
    spec = registry.find("13b")
    receipts = [
        a_receipt("Q4_K_M", Origin("hub", REPO, COMMIT)),
        a_receipt("Q8_0", Origin("hub", REPO, base="llama-13b"), (CONVERTED,)),
    ]

    texts = texts_for(terms_of(spec, registry), spec.title, receipts)

    assert list(texts) == ["NOTICE"]
    text = texts[RelPath.parse("NOTICE")].decode()
    assert text.startswith(f"WizardLM-13B-V1.2\n\n{LLAMA_LINE}\n\n")
    assert "Llama 2 Community License Agreement (llama2)\n" in text
    assert "  use policy: https://ai.meta.com/llama/use-policy\n" in text
    assert f"conflict: {spec.license_conflict}\n" in text
    assert (
        "Files, and what was changed in them:\n"
        "- w.Q4_K_M.gguf: Q4_K_M, taken over unchanged from "
        f"https://huggingface.co/{REPO}, revision {COMMIT}\n"
        "- w.Q8_0.gguf: converted to GGUF as Q8_0 by wizard-edge 9 on 2026-01-02 from "
        f"https://huggingface.co/{REPO}, a weight delta that was added to llama-13b\n"
    ) in text


def test_restricted_uses_are_named_in_the_notice() -> None:
    registry = Registry.load()
    terms = terms_of(registry.find("wizardcoder-15b"), registry)

    [text] = texts_for(terms, "W", [a_receipt("F16", Origin("local"))]).values()

    assert b"    (a) breaking the law\n" in text
    assert b"    (n) automated justice, law enforcement or immigration\n" in text


@pytest.mark.parametrize(
    ("origin", "source"),
    [
        (Origin("local"), "a file of this machine"),
        (Origin("url", url="https://example.org/w.gguf"), "https://example.org/w.gguf"),
    ],
    ids=["local", "url"],
)
def test_an_origin_off_the_hub_is_told(origin: Origin, source: str) -> None:
    [text] = texts_for(Terms(()), "W", [a_receipt("F16", origin)]).values()

    assert f"- w.F16.gguf: F16, taken over unchanged from {source}\n" in text.decode()
    assert b"licence: not stated by whoever converted it\n" in text


def test_each_variant_keeps_its_paragraph(tmp_path: Path) -> None:
    installation = an_installation(tmp_path)
    path = stored(installation, tmp_path / "model", "Q8_0").path
    for quant in ("Q4_K_M", "Q8_0"):
        if quant == "Q4_K_M":
            stored(installation, tmp_path / "model", quant)

    lines = (path.parent / "NOTICE").read_text().splitlines()

    assert [line[:21] for line in lines if line.startswith("- model")] == [
        "- model.Q4_K_M.gguf: ",
        "- model.Q8_0.gguf: Q8",
    ]


def test_texts_leave_with_the_last_variant(tmp_path: Path) -> None:
    installation = an_installation(tmp_path)
    folder = a_checkpoint(tmp_path / "model")
    for name in ("LICENSE.txt", "USE_POLICY.md", "Notice", "licence-of-data"):
        (folder / name).write_text(f"text of {name}")
    path = stored(installation, folder).path

    assert tree(path.parent) == [
        "LICENSE.txt",
        "NOTICE",
        "NOTICE.original",
        "USE_POLICY.md",
        "licence-of-data",
        "model.Q8_0.gguf",
        "model.Q8_0.gguf.json",
    ]
    assert (path.parent / "NOTICE.original").read_text() == "text of Notice"
    remove(installation, plan_removal(installation, ["model"]))
    assert tree(installation.home.models) == []


def a_mixed_model(tmp_path: Path) -> tuple[Installation, Path]:
    """Import one quant under Llama 2, and another under Apache 2.0."""
    installation = an_installation(tmp_path)
    for kind, license in ((7, "llama2"), (15, "apache-2.0")):
        model = small_llama().set("general.file_type", u32(kind))
        path = model.write(tmp_path / "m.gguf")
        path = import_file(installation, path, licenses=[license]).path
    return installation, path.parent / "NOTICE"


def test_another_variant_takes_no_terms_away(tmp_path: Path) -> None:
    _, notice = a_mixed_model(tmp_path)

    text = notice.read_text()

    assert text.startswith(f"m\n\n{LLAMA_LINE}\n\n")
    assert "(apache-2.0)\n" in text
    assert "(llama2)\n" in text


def test_what_was_said_of_a_variant_leaves_with_it(tmp_path: Path) -> None:
    installation, notice = a_mixed_model(tmp_path)

    remove(installation, plan_removal(installation, ["m:Q8_0"]))

    text = notice.read_text()
    [receipt] = [item.receipt for item in installation.store.installed()]
    terms = terms_named(["apache-2.0"], installation.registry)
    assert text.encode() == texts_for(terms, "m", [receipt])[RelPath("NOTICE")]


def test_the_conflict_of_a_kept_variant_stays(tmp_path: Path) -> None:
    """What the registry knows by its bytes alone has its conflict in the NOTICE."""
    content = small_llama().build()
    installation = knowing(tmp_path, f'F32 = {{ sha256 = "{digest(content)}" }}')
    table = installation.config_dir / "models.toml"
    said = 'licenses = ["llama2"]\nlicense_conflict = "two licences are named"'
    table.write_text(table.read_text().replace('licenses = ["llama2"]', said))
    installation = replace(installation)
    (tmp_path / "a.gguf").write_bytes(content)
    import_file(installation, tmp_path / "a.gguf", name="mine")
    model = small_llama(width=16).set("general.file_type", u32(7))
    other = model.write(tmp_path / "b.gguf")

    path = import_file(installation, other, name="mine").path

    text = (path.parent / "NOTICE").read_text()
    assert "\nconflict: two licences are named\n" in text


def test_a_notice_stays_beside_a_receipt_that_cannot_be_read(tmp_path: Path) -> None:
    installation, notice = a_mixed_model(tmp_path)
    removal = plan_removal(installation, ["m:Q8_0"])
    (notice.parent / "m.Q4_K_M.gguf.json").write_text("{")
    before = notice.read_text()

    remove(installation, removal)

    assert notice.read_text() == before


def texts_in(folder: Path) -> list[str]:
    return sorted(license_texts_of(folder, {}))


def test_only_small_texts_of_the_folder_itself_are_taken(tmp_path: Path) -> None:
    folder, secret = tmp_path / "model", tmp_path / "secret"
    (folder / "LICENSES").mkdir(parents=True)
    (folder / "LICENSES" / "LICENSE").write_text("deeper")
    secret.write_text("key")
    (folder / "NOTICE.json").write_text("no receipt")
    (folder / "LICENSE.exe").write_text("no program")
    (folder / "LICENSE.gguf").write_text("no model")
    (folder / "license_plates.py").write_text("no text")
    (folder / "LICENSE-BIG").write_bytes(b"x" * (MAX_SIZE + 1))
    (folder / "LICENSE").write_bytes(b"x" * MAX_SIZE)
    if os.name != "nt":
        (folder / "NOTICE.txt").symlink_to(secret)
        os.mkfifo(folder / "USE_POLICY")

    assert texts_in(folder) == ["LICENSE"]
    assert texts_in(tmp_path / "none") == []


@pytest.mark.skipif(os.name == "nt", reason="the hub's cache has no links there")
def test_the_links_of_the_hub_s_cache_are_followed(tmp_path: Path) -> None:
    blobs = tmp_path / "models--a--b" / "blobs"
    folder = tmp_path / "models--a--b" / "snapshots" / COMMIT
    blobs.mkdir(parents=True)
    folder.mkdir(parents=True)
    (blobs / "123").write_text("text")
    (folder / "LICENSE").symlink_to("../../blobs/123")

    assert texts_in(folder) == ["LICENSE"]


FILES = {
    "config.json": b"{}",
    "LICENSE.txt": b"text",
    "Notice": b"line",
    "deeper/LICENSE": b"deeper",
    "LICENSE-BIG": b"x" * (MAX_SIZE + 1),
}


def ask(hub: LoopbackHub) -> dict[str, bytes]:
    patience = Patience(tries_to_start=1, tries_to_go_on=1, sleep=lambda _: None)
    environ = {"HF_ENDPOINT": hub.endpoint, "HF_HUB_DISABLE_IMPLICIT_TOKEN": "1"}
    found = Hub.from_environment(environ, patience=patience)
    texts = license_texts(found, found.repository(REPO))
    return {str(name): text for name, text in texts.items()}


def test_texts_of_a_repository_are_fetched(caplog: pytest.LogCaptureFixture) -> None:
    with LoopbackHub(repository(REPO, FILES)) as hub:
        texts = ask(hub)

    assert texts == {"LICENSE.txt": b"text", "NOTICE.original": b"line"}
    assert "without LICENSE-BIG of" in caplog.text


def test_no_more_than_a_few_are_fetched() -> None:
    files = {f"LICENSE-{number:02}": b"text" for number in range(20)}
    with LoopbackHub(repository(REPO, files)) as hub:
        assert len(ask(hub)) == MAX_FILES


@pytest.mark.parametrize(
    "fault",
    [
        Fault(where="resolve", path="LICENSE", status=404, times=9),
        Fault(where="resolve", path="LICENSE", status=503, times=9),
        Fault(where="resolve", path="LICENSE", flip=1, times=9),
        Fault(where="resolve", path="LICENSE", cut_after=1, times=9),
    ],
    ids=["missing", "busy", "other bytes", "cut"],
)
def test_a_text_that_cannot_be_fetched_stops_nothing(
    fault: Fault, caplog: pytest.LogCaptureFixture
) -> None:
    with LoopbackHub(repository(REPO, FILES)) as hub:
        hub.faults.add(fault)
        texts = ask(hub)

    assert list(texts) == ["NOTICE.original"]
    assert "without LICENSE.txt of" in caplog.text


def test_a_hub_out_of_reach_stops_nothing(caplog: pytest.LogCaptureFixture) -> None:
    assert license_texts_of(HubWeights(REPO), {"HF_HUB_OFFLINE": "1"}) == {}
    assert f"without the licence texts of hf:{REPO}" in caplog.text


def test_a_model_may_be_called_like_a_text(tmp_path: Path) -> None:
    """Its own files are no texts, and are counted once."""
    installation = an_installation(tmp_path)
    model = stored(installation, tmp_path / "notice-7b")

    removal = plan_removal(installation, ["notice-7b"])

    assert sorted(file.path.name for file in removal.files) == [
        "NOTICE",
        "notice-7b.Q8_0.gguf",
        "notice-7b.Q8_0.gguf.json",
    ]
    assert installation.store.companions(model.receipt.model) == [
        model.path.parent / "NOTICE"
    ]
