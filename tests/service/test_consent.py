"""What has to be accepted, what counts as accepted, and what is refused anyway."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tests.service.fakes import an_installation, tree
from wizard_edge.errors import Corrupt, Refused, UsageError
from wizard_edge.ledger import Ledger
from wizard_edge.licenses import Terms, summary_sha256, terms_named, terms_of
from wizard_edge.models import License
from wizard_edge.receipts import Acceptance
from wizard_edge.service.consent import find_missing, record, refuse_unfit, require
from wizard_edge.service.installation import Installation

NOW = "2026-01-02T03:04:05Z"
FREE = License("free", "Free Licence", "LicenseRef-Free", commercial=True)
STRICT = License("strict", "Strict Licence", "LicenseRef-Strict", commercial=False)
VAGUE = License("vague", "Vague Licence", "LicenseRef-Vague", commercial=None)


def known(installation: Installation, id: str) -> License:
    return installation.registry.license(id)


def test_what_nobody_accepted_is_refused_in_one_line(tmp_path: Path) -> None:
    installation = an_installation(tmp_path)
    spec = installation.registry.find("wizardlm-13b-v1.0")
    terms = terms_of(spec, installation.registry, from_weights=True)

    with pytest.raises(Refused) as caught:
        require(installation, terms)

    assert caught.value.message == (
        "licences wizardlm-nc, cc-by-nc-4.0, llama-1 are not accepted"
    )
    assert caught.value.hint == (
        "wizard-edge licenses show wizardlm-nc cc-by-nc-4.0 llama-1, then "
        "--accept-license wizardlm-nc --accept-license cc-by-nc-4.0 "
        "--accept-license llama-1"
    )
    assert tree(tmp_path) == []


def test_a_licence_accepted_by_name_is_recorded_for_good(tmp_path: Path) -> None:
    installation = an_installation(tmp_path)
    license = known(installation, "llama2")
    digest = summary_sha256(license)

    first = require(installation, Terms((license,)), accept=["llama2"])

    assert first == (Acceptance("llama2", digest, NOW),)
    [entry] = Ledger(installation.home).entries()
    assert (entry.license, entry.summary_sha256) == ("llama2", digest)
    assert (entry.accepted, entry.how) == (NOW, "flag")
    assert entry.by
    later = replace(installation, clock=lambda: 0.0)
    assert require(later, Terms((license,))) == first


def test_a_changed_summary_asks_again(tmp_path: Path) -> None:
    installation = an_installation(tmp_path)
    record(installation, [FREE], "asked")
    changed = replace(FREE, obligations=("name the authors",))

    assert find_missing(installation, Terms((FREE,))) == ()
    assert find_missing(installation, Terms((changed,))) == (changed,)


def test_what_is_missing_beside_what_was_named_records_nothing(tmp_path: Path) -> None:
    installation = an_installation(tmp_path)
    terms = terms_named(["llama2", "msr"], installation.registry)

    with pytest.raises(Refused, match="licence msr is not accepted"):
        require(installation, terms, accept=["llama2"])

    assert tree(tmp_path) == []


def test_an_unknown_id_is_told_with_the_known_ones(tmp_path: Path) -> None:
    installation = an_installation(tmp_path)

    with pytest.raises(UsageError) as caught:
        require(installation, Terms((FREE,)), accept=["free", "lama2"])

    assert caught.value.message == "--accept-license: unknown licence 'lama2'"
    assert "llama2" in (caught.value.hint or "")


def test_the_bundled_model_asks_for_nothing(tmp_path: Path) -> None:
    installation = an_installation(tmp_path)
    spec = installation.registry.find("apprentice")

    assert require(installation, terms_of(spec, installation.registry)) == ()
    assert tree(tmp_path) == []


def test_a_licence_that_was_stated_asks_for_nothing(tmp_path: Path) -> None:
    installation = an_installation(tmp_path)
    terms = terms_named(["llama2"], installation.registry, needs_consent=False)

    assert require(installation, terms) == ()


def test_a_damaged_ledger_is_no_consent(tmp_path: Path) -> None:
    installation = an_installation(tmp_path)
    installation.home.licenses.mkdir(parents=True)
    (installation.home.licenses / "accepted.json").write_text("{")

    with pytest.raises(Corrupt):
        require(installation, Terms((FREE,)), accept=["llama2"])


@pytest.mark.parametrize(
    ("licenses", "message"),
    [
        ((FREE,), None),
        ((FREE, STRICT), "strict: commercial use not allowed"),
        ((VAGUE,), "vague: commercial use unclear, take it as no"),
        ((), "nobody says which licence this is under"),
    ],
    ids=["free", "strict", "unclear", "none"],
)
def test_commercial_use_refuses_what_does_not_allow_it(
    tmp_path: Path, licenses: tuple[License, ...], message: str | None
) -> None:
    installation = an_installation(tmp_path)
    terms = Terms(licenses)

    refuse_unfit(installation, terms)
    if message is None:
        refuse_unfit(installation, terms, commercial=True)
        return
    with pytest.raises(Refused) as caught:
        refuse_unfit(installation, terms, commercial=True)

    assert (caught.value.message, caught.value.hint) == (
        message,
        "leave out --commercial",
    )


def test_the_setting_refuses_too_and_nothing_is_recorded(tmp_path: Path) -> None:
    installation = an_installation(tmp_path, WIZARD_EDGE_COMMERCIAL="yes")
    terms = Terms((known(installation, "wizardlm-nc"),))

    with pytest.raises(Refused) as caught:
        require(installation, terms, accept=["wizardlm-nc"])

    assert caught.value.hint == (
        "the setting 'commercial' is on: wizard-edge config commercial --unset"
    )
    assert tree(tmp_path) == []
    refuse_unfit(installation, terms, commercial=False)
