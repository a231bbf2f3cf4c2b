from __future__ import annotations

from dataclasses import replace
from hashlib import sha256

import pytest

from wizard_edge.errors import NotFound
from wizard_edge.licenses import (
    Terms,
    summary,
    summary_of,
    summary_sha256,
    terms_named,
    terms_of,
)
from wizard_edge.models import Base, License, ModelSpec, Source
from wizard_edge.names import ModelName, RelPath
from wizard_edge.registry import Registry

FREE = License("free", "Free Licence", "LicenseRef-Free", commercial=True)
STRICT = License(
    "strict",
    "Strict Licence",
    "LicenseRef-Strict",
    commercial=False,
    url="https://example.org/strict",
    use_policy="https://example.org/policy",
    obligations=("name the authors", "ask first"),
    notice="Strict, Copyright (c) Somebody.",
)
VAGUE = License("vague", "Vague Licence", "LicenseRef-Vague", commercial=None)
SPEC = ModelSpec(
    name=ModelName.parse("wizard"),
    title="Wizard",
    architecture="llama",
    template="vicuna",
    licenses=("free",),
    license_conflict="the README says otherwise",
    source=Source(delta_of=Base("LLaMA", license="strict"), license="vague"),
)
REGISTRY = Registry([SPEC], [FREE, STRICT, VAGUE])


def test_a_model_comes_under_its_own_licences() -> None:
    assert terms_of(SPEC, REGISTRY) == Terms((FREE,), "the README says otherwise")


def test_a_delta_needs_the_licence_of_its_base_too() -> None:
    terms = terms_of(SPEC, REGISTRY, from_weights=True)

    assert terms.ids == ("free", "vague", "strict")


def test_a_licence_that_comes_twice_is_named_once() -> None:
    spec = ModelSpec(
        name=SPEC.name,
        title="",
        architecture="llama",
        template="vicuna",
        licenses=("free",),
        source=Source(license="free"),
    )

    assert terms_of(spec, REGISTRY, from_weights=True).ids == ("free",)


def test_a_licence_nobody_knows_is_kept_by_its_id() -> None:
    terms = terms_named(["free", "house-rules"], REGISTRY)

    assert terms.ids == ("free", "house-rules")
    assert terms.licenses[1] == License("house-rules", "house-rules", "", None)


def test_the_registry_must_have_what_it_names() -> None:
    with pytest.raises(NotFound):
        terms_of(SPEC, Registry([], [FREE]), from_weights=True)


@pytest.mark.parametrize(
    ("licenses", "commercial"),
    [
        ((FREE,), True),
        ((FREE, STRICT), False),
        ((FREE, VAGUE), None),
        ((VAGUE, STRICT), False),
        ((), None),
    ],
)
def test_commercial_use_needs_every_licence(
    licenses: tuple[License, ...], commercial: bool | None
) -> None:
    assert Terms(licenses).commercial is commercial


def test_notices_travel_to_the_letter() -> None:
    assert Terms((FREE, STRICT)).notices == ("Strict, Copyright (c) Somebody.",)


def test_the_summary_says_it_all() -> None:
    assert summary(Terms((FREE, STRICT), "the README says otherwise")) == (
        "Free Licence (free)\n"
        "  commercial use: allowed, under the licence's conditions\n"
        "Strict Licence (strict)\n"
        "  text: https://example.org/strict\n"
        "  use policy: https://example.org/policy\n"
        "  commercial use: not allowed\n"
        "  - name the authors\n"
        "  - ask first\n"
        "  notice: Strict, Copyright (c) Somebody.\n"
        "conflict: the README says otherwise\n"
    )


def test_no_licence_is_said_so() -> None:
    assert summary(Terms(())) == "licence: not stated by whoever converted it\n"


def test_restricted_uses_carry_the_letters_of_the_licence() -> None:
    license = replace(FREE, restrictions=("harm", "spam"), unverified=("url",))

    assert summary_of(license) == (
        "Free Licence (free)\n"
        "  commercial use: allowed, under the licence's conditions\n"
        "  not to be used for:\n"
        "    (a) harm\n"
        "    (b) spam\n"
        "  nobody could confirm: url\n"
    )


def test_the_hash_is_that_of_the_text_that_is_shown() -> None:
    digest = summary_sha256(STRICT)

    assert digest == sha256(summary_of(STRICT).encode()).hexdigest()
    assert summary(Terms((STRICT,))) == summary_of(STRICT)
    assert summary_sha256(replace(STRICT, commercial=True)) != digest
    # Where it was read is nothing that anybody agrees to.
    assert summary_sha256(replace(STRICT, sources=("a page",))) == digest


def test_only_the_model_of_this_program_needs_no_consent() -> None:
    bundled = replace(SPEC, source=Source(package=RelPath.parse("toy")))

    assert terms_of(SPEC, REGISTRY).needs_consent
    assert terms_of(replace(SPEC, source=None), REGISTRY).needs_consent
    assert not terms_of(bundled, REGISTRY).needs_consent
