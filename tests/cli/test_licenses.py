"""What `licenses` lists, shows and accepts, word for word."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from tests.cli.conftest import Cli
from wizard_edge.ledger import Entry, Ledger
from wizard_edge.licenses import summary_of, summary_sha256
from wizard_edge.names import Sha256
from wizard_edge.paths import Home
from wizard_edge.receipts import Acceptance
from wizard_edge.registry import Registry
from wizard_edge.store import Installed, Store

REGISTRY = Registry.load()
APACHE, LLAMA2 = REGISTRY.license("apache-2.0"), REGISTRY.license("llama2")


def test_an_empty_store_obliges_to_nothing(cli: Cli, home: Path) -> None:
    result = cli("licenses")

    assert (result.stdout, result.exit_code) == ("", 0)
    assert result.stderr == "no model is installed: nothing obliges you to anything\n"
    assert not home.exists()


def test_it_lists_what_the_models_here_oblige_to(
    cli: Cli, installed: Callable[..., Installed]
) -> None:
    installed("tiny", "F32")
    installed("wizardlm-13b-v1.2", "Q8_0")
    cli("licenses", "accept", "llama2")
    today = Ledger(Home(Path("home").absolute())).entries()[0].accepted[:10]

    result = cli("licenses")

    assert (result.stderr, result.exit_code) == ("", 0)
    conflict = REGISTRY.find("wizardlm-13b-v1.2").license_conflict
    assert result.stdout == (
        "LICENCE     COMMERCIAL USE  ACCEPTED    MODELS\n"
        "apache-2.0  allowed         not needed  tiny:F32, wizardlm-13b-v1.2:Q8_0\n"
        f"llama2      allowed         {today}  wizardlm-13b-v1.2:Q8_0\n"
        f"\n{summary_of(APACHE)}"
        f"\n{summary_of(LLAMA2)}"
        f"\nconflict about wizardlm-13b-v1.2: {conflict}\n"
    )


def test_what_only_a_receipt_names_is_not_unneeded(
    cli: Cli, installed: Callable[..., Installed], home: Path
) -> None:
    """A delta was asked for by the licences of its base too."""
    found = installed("tiny", "F32")
    base = REGISTRY.license("llama-1")
    digest = summary_sha256(base)
    now, before = "2026-01-02T03:04:05Z", Sha256("0" * 64)
    accepted = (
        Acceptance("llama-1", digest, now),
        Acceptance("cc-by-nc-4.0", before, now),
    )
    change = partial(replace, accepted=accepted)
    Store(Home(home)).amend(found, change)

    shown = cli("licenses", "show", "llama-1").stdout

    table = cli("licenses").stdout.split("\n\n")[0]
    assert table == (
        "LICENCE       COMMERCIAL USE  ACCEPTED        MODELS\n"
        "apache-2.0    allowed         not needed      tiny:F32\n"
        "cc-by-nc-4.0  no              in other words  tiny:F32\n"
        "llama-1       no              2026-01-02      tiny:F32"
    )
    assert shown == (
        f"{summary_of(base)}  accepted {now}, as a receipt here says\n"
        "  models here: tiny:F32\n"
    )


def test_json_has_the_same(cli: Cli, installed: Callable[..., Installed]) -> None:
    installed("wizardlm-13b-v1.2", "Q8_0")

    document = json.loads(cli("licenses", "--json").stdout)

    assert document["unstated"] == []
    assert [item["model"] for item in document["conflicts"]] == ["wizardlm-13b-v1.2"]
    assert [
        (item["id"], item["commercial"], item["needed"], item["accepted"])
        for item in document["licenses"]
    ] == [("apache-2.0", True, False, None), ("llama2", True, True, None)]


def test_show_has_the_summary_and_who_accepted_it(cli: Cli, home: Path) -> None:
    before = cli("licenses", "show", "llama2")
    accepted = cli("licenses", "accept", "llama2")
    after = cli("licenses", "show", "llama2")

    [entry] = Ledger(Home(home)).entries()
    assert before.stdout == f"{summary_of(LLAMA2)}  not accepted\n"
    assert (accepted.stdout, accepted.stderr) == (
        "",
        f"{summary_of(LLAMA2)}accepted llama2\n",
    )
    assert after.stdout == (
        f"{summary_of(LLAMA2)}"
        f"  accepted {entry.accepted} by {entry.by} (by 'licenses accept')\n"
    )


def test_json_of_show_and_accept_is_one_card(cli: Cli) -> None:
    shown = json.loads(cli("licenses", "show", "llama2", "--json").stdout)
    accepted = json.loads(cli("licenses", "accept", "llama2", "--json").stdout)

    assert shown["summary"] == summary_of(LLAMA2)
    assert shown["accepted"] is None
    assert accepted["accepted"]["summary_sha256"] == summary_sha256(LLAMA2)
    assert accepted["accepted"]["how"] == "command"


def test_a_text_that_changed_since_is_told(
    cli: Cli, home: Path, installed: Callable[..., Installed]
) -> None:
    installed("wizardlm-13b-v1.2", "Q8_0")
    older = Entry("llama2", Sha256("0" * 64), "2026-01-02T03:04:05Z", "x", "flag")
    Ledger(Home(home)).record([older])

    assert "llama2      allowed         in other words  wiz" in cli("licenses").stdout
    assert cli("licenses", "show", "llama2").stdout == (
        f"{summary_of(LLAMA2)}"
        "  accepted in other words than these; they changed since\n"
        "  models here: wizardlm-13b-v1.2:Q8_0\n"
    )


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["show"], 2),
        (["accept"], 2),
        (["revoke", "llama2"], 2),
        (["show", "lama2"], 3),
        (["accept", "llama2", "lama2"], 3),
    ],
    ids=["show", "accept", "revoke", "show unknown", "accept unknown"],
)
def test_failures_have_their_codes(
    cli: Cli, home: Path, words: list[str], code: int
) -> None:
    assert cli("licenses", *words).exit_code == code
    assert not home.exists()


def test_a_damaged_ledger_is_told(cli: Cli, home: Path) -> None:
    (home / "licenses").mkdir(parents=True)
    (home / "licenses" / "accepted.json").write_text("[]")

    result = cli("licenses")

    assert result.exit_code == 6
    assert result.stderr.startswith(
        f"error: {home}/licenses/accepted.json is damaged: should be an object\n"
    )
