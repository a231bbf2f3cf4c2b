"""A file that the registry knows comes in under its terms, whoever brings it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.gguf_files import small_llama, string
from tests.service.fakes import an_installation, tree
from tests.service.test_imports import digest, knowing
from wizard_edge.errors import Refused
from wizard_edge.gguf import KEY_LICENSES
from wizard_edge.licenses import Terms
from wizard_edge.receipts import Acceptance
from wizard_edge.service.consent import require
from wizard_edge.service.imports import import_file
from wizard_edge.service.installation import Installation


def not_accepting(tmp_path: Path, variants: str = "Q2_K = {}") -> Installation:
    installation = knowing(tmp_path, variants)
    (installation.home.licenses / "accepted.json").unlink()
    return installation


def test_a_known_name_is_refused_before_a_byte_is_copied(tmp_path: Path) -> None:
    installation = not_accepting(tmp_path)
    path = small_llama().write(tmp_path / "Wizard-7B.F32.gguf")

    with pytest.raises(Refused, match="licence llama2 is not accepted"):
        import_file(installation, path, licenses=["apache-2.0"])

    assert tree(installation.home.root) == []
    assert not installation.home.partial.exists()


def test_a_known_hash_is_refused_and_nothing_is_left(tmp_path: Path) -> None:
    content = small_llama().build()
    variants = f'F32 = {{ sha256 = "{digest(content)}" }}'
    installation = not_accepting(tmp_path, variants)
    (tmp_path / "a.gguf").write_bytes(content)

    with pytest.raises(Refused, match="licence llama2 is not accepted"):
        import_file(installation, tmp_path / "a.gguf", name="mine")

    assert tree(installation.home.root) == []


def test_the_acceptance_stands_in_the_receipt(tmp_path: Path) -> None:
    installation = not_accepting(tmp_path)
    path = small_llama().write(tmp_path / "Wizard-7B.F32.gguf")
    asked: list[tuple[str, ...]] = []

    def consent(terms: Terms) -> tuple[Acceptance, ...]:
        asked.append(terms.ids)
        return require(installation, terms, accept=terms.ids)

    stored = import_file(installation, path, consent=consent)

    assert set(asked) == {("llama2",)}
    assert [item.license for item in stored.receipt.accepted] == ["llama2"]
    notice = (stored.path.parent / "NOTICE").read_text()
    assert "Copyright (c) Meta Platforms, Inc. All Rights Reserved." in notice
    assert "F32, taken over unchanged from a file of this machine\n" in notice


@pytest.mark.parametrize("said", [(), ("llama2",)], ids=["in the file", "stated"])
def test_what_only_the_file_or_its_owner_says_needs_no_consent(
    tmp_path: Path, said: tuple[str, ...]
) -> None:
    model = small_llama().set(KEY_LICENSES, string("llama2"))
    path = model.write(tmp_path / "m.gguf")

    receipt = import_file(an_installation(tmp_path), path, licenses=said).receipt

    assert (receipt.licenses, receipt.accepted) == (("llama2",), ())


def test_nobody_talks_a_known_model_out_of_its_licences(tmp_path: Path) -> None:
    content = small_llama().build()
    installation = knowing(tmp_path, f'F32 = {{ sha256 = "{digest(content)}" }}')
    (tmp_path / "a.gguf").write_bytes(content)

    stored = import_file(
        installation, tmp_path / "a.gguf", name="mine", licenses=["apache-2.0"]
    )

    assert stored.receipt.model == "mine"
    assert stored.receipt.licenses == ("llama2", "apache-2.0")
    notice = (stored.path.parent / "NOTICE").read_text()
    assert "Copyright (c) Meta Platforms, Inc. All Rights Reserved." in notice
    assert "(apache-2.0)" in notice


@pytest.mark.parametrize("by", ["option", "setting"])
def test_what_is_there_already_is_refused_for_commercial_use_too(
    tmp_path: Path, by: str
) -> None:
    path = small_llama().write(tmp_path / "m.gguf")
    import_file(an_installation(tmp_path), path, licenses=["wizardlm-nc"])
    environ = {"WIZARD_EDGE_COMMERCIAL": "yes"} if by == "setting" else {}
    option = True if by == "option" else None

    with pytest.raises(Refused, match="wizardlm-nc: commercial use not allowed"):
        import_file(an_installation(tmp_path, **environ), path, commercial=option)


def test_what_a_receipt_adds_to_the_registry_counts_for_commercial_use(
    tmp_path: Path,
) -> None:
    installation = knowing(tmp_path)
    path = small_llama().write(tmp_path / "Wizard-7B.F32.gguf")

    with pytest.raises(Refused, match="wizardlm-nc: commercial use not allowed"):
        import_file(installation, path, licenses=["wizardlm-nc"], commercial=True)

    assert tree(installation.home.models) == []
