from __future__ import annotations

import contextlib
import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wizard_edge.errors import ConfigError, Corrupt, WizardEdgeError
from wizard_edge.names import CommitId, ModelName, RelPath, RepoId, Sha256
from wizard_edge.receipts import (
    MAX_SIZE,
    Acceptance,
    EvaluatedOn,
    Origin,
    Piece,
    Receipt,
    StoredFile,
    parse_receipt,
)

PATH = Path("model.gguf.json")

RECEIPT = Receipt(
    model=ModelName.parse("wizardlm-13b-v1.2"),
    quant="Q4_K_M",
    files=(
        StoredFile(RelPath.parse("a.gguf"), 7, Sha256.parse("0" * 64)),
        StoredFile(
            RelPath.parse("b.gguf"),
            5,
            Sha256.parse("1" * 64),
            pieces=(
                Piece(2, url="https://example.org/b.gguf-split-a"),
                Piece(
                    3,
                    sha256=Sha256.parse("6" * 64),
                    repo=RepoId.parse("somebody/Model-GGUF"),
                    revision=CommitId.parse("7" * 40),
                    path=RelPath.parse("b.gguf-split-b"),
                ),
            ),
        ),
    ),
    origin=Origin(
        kind="hub",
        repo=RepoId.parse("WizardLMTeam/WizardLM-13B-V1.2"),
        revision=CommitId.parse("2" * 40),
    ),
    licenses=("llama2",),
    template="vicuna",
    architecture="llama",
    context=4096,
    parameters=13_015_864_320,
    tool="wizard-edge 0.1.0",
    created="2026-01-02T03:04:05Z",
    accepted=(Acceptance("llama2", Sha256.parse("3" * 64), "2026-01-02T03:04:05Z"),),
    quality={"error": 0.5},
    evaluated_on=EvaluatedOn(
        text_sha256=Sha256.parse("4" * 64),
        context=512,
        chunks=27,
        tool="wizard-edge 0.1.0",
        evaluated="2026-01-02T03:04:05Z",
        reference="wizardlm-13b-v1.2:F16",
        reference_sha256=Sha256.parse("5" * 64),
    ),
)


def changed(**keys: object) -> bytes:
    table = json.loads(RECEIPT.to_bytes())
    return json.dumps({**table, **keys}).encode()


def test_what_was_written_is_read() -> None:
    assert parse_receipt(PATH, RECEIPT.to_bytes()) == RECEIPT


def test_unknown_facts_are_null() -> None:
    bare = replace(
        RECEIPT,
        licenses=(),
        template=None,
        architecture=None,
        context=None,
        parameters=None,
        accepted=(),
        quality=None,
        evaluated_on=None,
        origin=Origin("local"),
    )

    assert parse_receipt(PATH, bare.to_bytes()) == bare


def test_the_bytes_are_canonical() -> None:
    text = RECEIPT.to_bytes().decode()

    assert text.startswith('{\n  "accepted": [\n')
    assert text.endswith('  "tool": "wizard-edge 0.1.0",\n  "weights": []\n}\n')
    assert json.loads(text)["schema"] == 1


def test_size_counts_all_files_and_the_hash_is_of_the_first() -> None:
    assert (RECEIPT.size, RECEIPT.sha256) == (12, "0" * 64)
    assert RECEIPT.file_name == "a.gguf.json"


def test_keys_of_a_later_minor_version_are_ignored() -> None:
    assert parse_receipt(PATH, changed(colour="blue")) == RECEIPT


def test_a_receipt_from_before_evaluations_is_read() -> None:
    table = json.loads(RECEIPT.to_bytes())
    del table["evaluated_on"]

    receipt = parse_receipt(PATH, json.dumps(table).encode())

    assert receipt == replace(RECEIPT, evaluated_on=None)


@pytest.mark.parametrize(
    "piece",
    [
        {"size": 7},
        {"size": 7, "url": "https://example.org/a", "path": "a.gguf"}
        | {"repo": "somebody/model", "revision": "7" * 40},
        {"size": 7, "repo": "somebody/model", "path": "a.gguf"},
        {"size": 6, "url": "https://example.org/a"},
        {"size": 7, "url": "https://example.org/\x1b[2J"},
        {"size": 7, "url": "https://example.org/a b"},
        {"size": 7, "url": "https://somebody:secret@example.org/a"},
        {"size": 7, "url": "ftp://example.org/a"},
        {"size": 7, "url": "--from"},
    ],
    ids=[
        *("nowhere", "two places", "no revision", "another size", "escapes"),
        *("blanks", "password", "ftp", "option"),
    ],
)
def test_pieces_that_cannot_be_are_refused(piece: dict[str, object]) -> None:
    file = {"name": "a.gguf", "size": 7, "sha256": "0" * 64, "pieces": [piece]}

    with pytest.raises(Corrupt):
        parse_receipt(PATH, changed(files=[file]))


def test_an_evaluation_without_a_reference_is_read() -> None:
    assert RECEIPT.evaluated_on is not None
    alone = replace(RECEIPT.evaluated_on, reference=None, reference_sha256=None)
    receipt = replace(RECEIPT, evaluated_on=alone)

    assert parse_receipt(PATH, receipt.to_bytes()) == receipt


def test_a_newer_schema_is_refused_with_the_upgrade() -> None:
    with pytest.raises(ConfigError) as caught:
        parse_receipt(PATH, b'{"schema": 2}')

    assert caught.value.message == f"{PATH} has schema 2, this version reads up to 1"
    assert caught.value.hint == "upgrade with: pip install --upgrade wizard-edge"


EVALUATED = json.loads(RECEIPT.to_bytes())["evaluated_on"]
FILE = {"name": "a.gguf", "size": 1, "sha256": "0" * 64}


@pytest.mark.parametrize(
    ("key", "value", "where"),
    [
        ("schema", True, "key schema"),
        ("schema", None, "key schema"),
        ("model", "../etc", "key model"),
        ("model", "CON", "key model"),
        ("quant", "Q9", "key quant"),
        ("files", [], "key files"),
        ("files", {}, "key files"),
        ("files", [1], "files[0]."),
        ("files", [{**FILE, "name": "../a"}], "key files[0].name"),
        ("files", [{**FILE, "name": "b/a"}], "key files"),
        ("files", [{**FILE, "name": "/a"}], "key files[0].name"),
        ("files", [{**FILE, "name": "nul"}], "key files[0].name"),
        ("files", [{**FILE, "size": -1}], "key files[0].size"),
        ("files", [{**FILE, "size": 1.5}], "key files[0].size"),
        ("files", [{**FILE, "sha256": "0" * 63}], "key files[0].sha256"),
        ("origin", None, "origin."),
        ("origin", {"kind": "stolen"}, "key origin.kind"),
        ("origin", {"kind": "hub", "repo": "x"}, "key origin.repo"),
        ("licenses", ["\x1b[31m"], "key licenses"),
        ("licenses", [""], "key licenses"),
        ("template", 7, "key template"),
        ("context", "4096", "key context"),
        ("created", "yesterday", "key created"),
        ("accepted", [{"license": "llama2"}], "key accepted[0].summary_sha256"),
        ("quality", {"error": "none"}, "key quality.'error'"),
        ("quality", {"error": float("nan")}, "key quality.'error'"),
        ("quality", {"error": True}, "key quality.'error'"),
        ("evaluated_on", [], "evaluated_on."),
        ("evaluated_on", {"text_sha256": "4"}, "key evaluated_on.text_sha256"),
        ("evaluated_on", {**EVALUATED, "chunks": 0}, "key evaluated_on.chunks"),
        ("evaluated_on", {**EVALUATED, "context": None}, "key evaluated_on.context"),
        ("evaluated_on", {**EVALUATED, "evaluated": "x"}, "key evaluated_on.evaluated"),
    ],
)
def test_a_wrong_value_is_damage_and_its_key_is_named(
    key: str, value: object, where: str
) -> None:
    with pytest.raises(Corrupt) as caught:
        parse_receipt(PATH, changed(**{key: value}))

    assert caught.value.where == where


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"[]", id="a list"),
        pytest.param(b"\xff", id="no UTF-8"),
        pytest.param(b'{"schema": ' + b"1" * 5000 + b"}", id="5000 digits"),
        pytest.param(b"[" * 100_000, id="nested without end"),
        pytest.param(b" " * (MAX_SIZE + 1), id="too long"),
    ],
)
def test_what_is_no_receipt_is_damage(content: bytes) -> None:
    with pytest.raises(Corrupt):
        parse_receipt(PATH, content)


@pytest.mark.parametrize("end", range(0, len(RECEIPT.to_bytes()) - 2, 7))
def test_a_cut_receipt_is_damage(end: int) -> None:
    with pytest.raises(Corrupt):
        parse_receipt(PATH, RECEIPT.to_bytes()[:end])


@given(st.integers(0, len(RECEIPT.to_bytes()) - 1), st.integers(0, 255))
def test_a_flipped_byte_brings_our_errors_only(position: int, byte: int) -> None:
    content = bytearray(RECEIPT.to_bytes())
    content[position] = byte

    with contextlib.suppress(WizardEdgeError):
        parse_receipt(PATH, bytes(content))
