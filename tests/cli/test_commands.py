"""Commands that show or change what is installed, compared by their whole output."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from tests.cli.conftest import Cli
from tests.machines import LAPTOP
from tests.stores import CONTENT, install, receipt_of, tree
from wizard_edge.cli import _output
from wizard_edge.names import CommitId, RelPath, RepoId, Sha256
from wizard_edge.paths import Home
from wizard_edge.receipts import EvaluatedOn, Piece
from wizard_edge.store import Installed, Store
from wizard_edge.units import format_bytes

Install = Callable[..., Installed]


def bytes_in(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir())


def measured(item: Installed, home: Path, quality: dict[str, float]) -> Installed:
    """Write figures into a receipt, and what they were measured on."""
    found = EvaluatedOn(
        text_sha256=Sha256.parse("4" * 64),
        context=512,
        chunks=27,
        tool="wizard-edge 0",
        evaluated="2026-01-02T03:04:05Z",
        reference="tiny:F16",
    )
    return Store(Home(home)).amend(
        item, lambda receipt: replace(receipt, quality=quality, evaluated_on=found)
    )


def licensed(item: Installed, home: Path, license: str) -> None:
    """Write another licence into a receipt."""
    Store(Home(home)).amend(item, lambda receipt: replace(receipt, licenses=(license,)))


def test_list_of_nothing_says_what_to_do(cli: Cli) -> None:
    result = cli("list")

    assert (result.stdout, result.exit_code) == ("", 0)
    assert result.stderr == (
        "no model is installed\nhint: wizard-edge pull apprentice\n"
    )


def test_list(cli: Cli, installed: Install) -> None:
    installed("tiny")
    installed("a-longer-name", "Q8_0", template=None)

    result = cli("list")

    assert result.stdout == (
        "NAME           QUANT     SIZE  TEMPLATE  LICENCE     LAST USED\n"
        "a-longer-name  Q8_0   30.0 kB  -         apache-2.0  -\n"
        "tiny           F32    30.0 kB  vicuna    apache-2.0  -\n"
    )
    assert result.stderr == ""


def test_list_warns_of_what_is_damaged(cli: Cli, installed: Install) -> None:
    path = installed("tiny").path
    path.write_bytes(b"")

    result = cli("list")

    assert result.stderr.startswith("warning: tiny:F32: tiny.F32.gguf has 0 bytes")
    assert result.exit_code == 0


def test_list_has_a_column_of_quality_where_there_is_any(
    cli: Cli, installed: Install, home: Path
) -> None:
    installed("other")
    measured(installed("tiny"), home, {"perplexity": 5.9134, "kl_divergence": 0.01234})

    assert cli("list").stdout == (
        "NAME   QUANT     SIZE  TEMPLATE  LICENCE     LAST USED  QUALITY\n"
        "other  F32    30.0 kB  vicuna    apache-2.0  -          -\n"
        "tiny   F32    30.0 kB  vicuna    apache-2.0  -          ppl 5.91, kl 0.0123\n"
    )
    rows = json.loads(cli("list", "--json").stdout)
    assert [row["quality"] for row in rows] == [
        None,
        {"perplexity": 5.9134, "kl_divergence": 0.01234},
    ]


def test_errors_of_a_conversion_alone_make_no_column(
    cli: Cli, installed: Install, home: Path
) -> None:
    measured(installed("tiny"), home, {"rms_error.Q4_K": 0.01})

    assert cli("list").stdout.splitlines()[0].split()[-2:] == ["LAST", "USED"]


def test_list_tells_when_a_model_was_used_last(
    cli: Cli, installed: Install, home: Path
) -> None:
    item = installed("tiny")
    days = 24 * 3600
    Store(Home(home)).mark_used(item, time.time() - 3 * days)

    assert cli("list").stdout.splitlines()[1].endswith("  3 days ago")

    Store(Home(home)).mark_used(item, 1767323045.0)
    [row] = json.loads(cli("list", "--json").stdout)
    assert row["last_used"] == "2026-01-02T03:04:05Z"


def test_list_of_the_longest_names_fits_into_88_columns(
    cli: Cli, installed: Install, home: Path
) -> None:
    store = Store(Home(home))
    for name, license in (
        ("wizardcoder-python-34b-v1.0", "llama2"),
        ("wizardcoder-15b-v1.0", "bigcode-openrail-m"),
    ):
        item = installed(name, "Q4_K_M", template="alpaca")
        licensed(item, home, license)
        store.mark_used(item, time.time() - 250 * 24 * 3600)

    lines = cli("list").stdout.splitlines()

    assert max(map(len, lines)) <= 88
    assert lines[1].endswith("  8 months ago")


def test_list_in_json(cli: Cli, installed: Install) -> None:
    item = installed("tiny")

    rows = json.loads(cli("list", "--json").stdout)

    assert len(rows) == 1
    promised = ("name", "quant", "path", "size", "sha256", "licenses", "template")
    assert {key: rows[0][key] for key in promised} == {
        "name": "tiny",
        "quant": "F32",
        "path": str(item.path),
        "size": item.receipt.size,
        "sha256": item.receipt.sha256,
        "licenses": ["apache-2.0"],
        "template": "vicuna",
    }


def test_list_all_has_one_row_per_model(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "wizard_edge.service.choosing.find_machine", lambda installation: LAPTOP
    )

    rows = cli("list", "--all").stdout.splitlines()
    entries = json.loads(cli("list", "--all", "--json").stdout)

    assert [" ".join(row.split()) for row in rows[:4]] == [
        "NAME PARAMS TEMPLATE LICENCE FITS INSTALLED",
        "apprentice 4.2 M vicuna apache-2.0 Q8_0 -",
        "wizardlm-70b-v1.0 69.0 B vicuna llama2 - -",
        "wizardlm-13b-v1.2 13.0 B vicuna llama2 Q4_K_M -",
    ]
    assert max(map(len, rows)) <= 88
    assert len(rows) == len(entries) + 1
    assert {"name", "installed", "variants", "fits"} <= set(entries[0])


def test_show_of_an_installed_model(cli: Cli, installed: Install) -> None:
    item = installed("tiny")

    assert cli("show", "tiny").stdout == (
        "model           tiny\n"
        "names           tiny\n"
        "architecture    llama\n"
        "parameters      5.0 k\n"
        "context         64 tokens\n"
        "template        vicuna\n"
        "licence         Apache License 2.0 (apache-2.0)\n"
        "commercial use  allowed, under the licence's conditions\n"
        "obligations     hand over a copy of the licence and keep the notices (4)\n"
        "                mark the files you changed (4.b)\n"
        f"installed       F32, 30.0 kB, {item.path}\n"
        "                  no chunk sums: verify writes them\n"
    )


def test_show_says_where_the_files_are_from_and_what_lies_beside(
    cli: Cli, home: Path
) -> None:
    repo, revision = RepoId("owner/small"), CommitId("0123456789" * 4)
    receipt = receipt_of()
    half = len(CONTENT) // 2
    pieces = (
        Piece(half, None, repo, revision, RelPath("q/small-a.gguf")),
        Piece(len(CONTENT) - half, url="https://example.org/small-b.gguf"),
    )
    receipt = replace(receipt, files=(replace(receipt.files[0], pieces=pieces),))
    item = install(Store(Home(home)), receipt)
    Store(Home(home)).mark_used(item, 1767323045.0)

    lines = cli("show", "small").stdout.splitlines()

    start = next(n for n, line in enumerate(lines) if line.startswith("installed"))
    assert [line.strip() for line in lines[start + 2 : start + 6]] == [
        "fetched from hf:owner/small/q/small-a.gguf at 012345678901",
        "fetched from https://example.org/small-b.gguf",
        "chunk sums are there",
        "last used 2026-01-02T03:04:05Z",
    ]
    [card] = json.loads(cli("show", "small", "--json").stdout)["installed"]
    assert (card["sums"], card["last_used"]) == (True, "2026-01-02T03:04:05Z")


def test_show_has_the_notice_to_the_letter(cli: Cli) -> None:
    text = cli("show", "wizardlm-13b-v1.2").stdout

    assert "\nnotice          Llama 2 is licensed under the LLAMA 2 Community" in text
    assert "\nobligations     " in text


def test_rm_takes_everything_along_that_is_ours(
    cli: Cli, installed: Install, home: Path
) -> None:
    item = installed("tiny")
    Store(Home(home)).mark_used(item, 0.0)
    cli("verify", "tiny")
    for name in ("NOTICE", "LICENSE.txt"):
        (item.folder / name).write_text("text")
    size = bytes_in(item.folder)

    result = cli("rm", "tiny", "--yes", "--json")

    assert json.loads(result.stdout)["freed"] == size
    assert tree(home) == []


def test_show_of_a_measured_model(cli: Cli, installed: Install, home: Path) -> None:
    item = measured(
        installed("tiny"),
        home,
        {
            "perplexity": 5.9134,
            "perplexity_error": 0.0321,
            "kl_divergence": 0.01234,
            "kl_divergence_error": 0.00056,
            "top1_agreement": 0.9512,
            "top1_agreement_error": 0.0034,
            "relative_error.Q4_K": 0.0721,
            "rms_error.Q4_K": 0.00123,
        },
    )

    text = cli("show", "tiny").stdout

    assert text.endswith(
        f"installed       F32, 30.0 kB, {item.path}\n"
        "                  no chunk sums: verify writes them\n"
        "quality         F32\n"
        "                  perplexity 5.9134 ± 0.0321\n"
        "                  KL divergence 0.012340 ± 0.000560\n"
        "                  same top token 95.12% ± 0.34%\n"
        "                  measured on text 444444444444, 27 x 512 tokens, "
        "against tiny:F16\n"
        "                  relative_error.Q4_K 0.0721, rms_error.Q4_K 0.00123\n"
    )
    [found] = json.loads(cli("show", "tiny", "--json").stdout)["installed"]
    assert found["receipt"]["quality"]["perplexity"] == 5.9134
    assert found["receipt"]["evaluated_on"]["reference"] == "tiny:F16"


def test_show_marks_what_is_not_verified(cli: Cli) -> None:
    text = cli("show", "wizardlm-7b-v1.0").stdout

    assert "weight delta of LLaMA-1 7B" in text
    assert "\nunverified      " in text


def test_show_in_json_has_what_is_promised(cli: Cli) -> None:
    card = json.loads(cli("show", "wizardlm-13b-v1.2", "--json").stdout)

    promised = {
        *("template", "licenses", "context", "architecture", "source", "variants"),
        *("scores", "traps"),
    }
    assert promised <= set(card)


def test_show_reads_a_file_that_is_not_installed(cli: Cli, installed: Install) -> None:
    path = installed("tiny").path

    text = cli("show", str(path)).stdout

    assert f"\nfile          {path} (30.0 kB, GGUF v3)\n" in text
    assert text.startswith("model         small llama\n")


def test_rm_asks_and_takes_no_answer_for_no(cli: Cli, installed: Install) -> None:
    path = installed("tiny").path
    size = format_bytes(bytes_in(path.parent))

    result = cli("rm", "tiny")

    assert (result.stdout, result.exit_code) == ("", 5)
    assert result.stderr == (
        f"remove tiny:F32 ({size})? [y/N]: \n"
        "error: nothing was removed\n"
        "hint: --yes removes without asking\n"
    )
    assert path.exists()


@pytest.mark.parametrize(
    ("words", "answer"), [([], "y\n"), (["--yes"], None)], ids=["asked", "--yes"]
)
def test_rm_tells_what_it_freed(
    words: list[str], answer: str | None, cli: Cli, installed: Install, home: Path
) -> None:
    size = format_bytes(bytes_in(installed("tiny").folder))

    result = cli("rm", "tiny", *words, input=answer)

    assert result.exit_code == 0
    assert result.stdout == ""
    assert result.stderr.endswith(f"removed tiny:F32, {size} freed\n")
    assert not list((home / "models").iterdir())


def test_rm_in_json(cli: Cli, installed: Install) -> None:
    size = bytes_in(installed("tiny").folder)

    result = cli("rm", "tiny", "--yes", "--json")

    assert json.loads(result.stdout) == {"removed": ["tiny:F32"], "freed": size}


def test_rm_removes_nothing_when_one_name_is_wrong(
    cli: Cli, installed: Install
) -> None:
    path = installed("tiny").path

    result = cli("rm", "tiny", "tny", "--yes")

    assert result.stderr == "error: unknown model 'tny'\nhint: did you mean tiny?\n"
    assert result.exit_code == 3
    assert path.exists()


def test_config_is_set_shown_and_taken_back(cli: Cli, tmp_path: Path) -> None:
    file = tmp_path / "config" / "config.toml"

    assert cli("config", "seed").stdout == "-\n"
    assert cli("config", "seed", "7").stderr == "seed is 7\n"
    assert cli("config", "seed").stdout == "7\n"
    assert cli("config", "seed", "-v").stderr == f"from: {file}\n"
    assert json.loads(cli("config", "seed", "--json").stdout)["value"] == 7
    assert cli("config", "mmap", "no").stderr == "mmap is false\n"
    assert cli("config", "seed", "--unset").stderr == "seed is - (from: default)\n"
    assert cli("config", "seed").stdout == "-\n"


def test_config_says_when_the_environment_wins(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WIZARD_EDGE_SEED", "9")

    result = cli("config", "seed", "7")

    assert result.stderr == (
        "warning: WIZARD_EDGE_SEED is set and still wins: 9\nseed is 9\n"
    )


def test_config_lists_every_setting(cli: Cli) -> None:
    rows = cli("config").stdout.splitlines()
    states = json.loads(cli("config", "--json").stdout)

    assert rows[0].split() == ["KEY", "VALUE", "FROM", "MEANING"]
    assert [row.split()[0] for row in rows[1:]] == [state["key"] for state in states]


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["--unset"], 2),
        (["seed", "7", "--unset"], 2),
        (["sed", "7"], 10),
        (["seed", "many"], 10),
    ],
    ids=["no key", "both", "unknown key", "wrong value"],
)
def test_config_refuses(words: list[str], code: int, cli: Cli, tmp_path: Path) -> None:
    result = cli("config", *words)

    assert result.exit_code == code
    assert result.stderr.startswith("error: ")
    assert not (tmp_path / "config").exists()


def test_a_damaged_receipt_is_a_warning_of_list(cli: Cli, installed: Install) -> None:
    installed("tiny").receipt_path.write_bytes(b"{")

    result = cli("list")

    assert result.stderr.startswith("warning: ")
    assert result.exit_code == 0


def test_pull_finds_what_is_there(cli: Cli, installed: Install) -> None:
    installed("apprentice", "Q8_0")

    result = cli("pull", "apprentice")

    assert (result.stdout, result.exit_code) == ("", 0)
    assert result.stderr == (
        "apprentice:Q8_0 is in the store already\n"
        'next: wizard-edge run apprentice:Q8_0 "Who are you?"\n'
    )


def test_pull_shows_the_licence_before_it_converts(cli: Cli) -> None:
    result = cli("pull", "apprentice")

    lines = result.stderr.splitlines()
    assert lines[0] == (
        "licence: Apache License 2.0, https://www.apache.org/licenses/LICENSE-2.0, "
        "commercial use allowed, under the licence's conditions"
    )
    assert result.exit_code == 0


def test_rm_of_a_damaged_model(cli: Cli, installed: Install, home: Path) -> None:
    item = installed("tiny")
    item.receipt_path.write_bytes(b"{")

    refused = cli("run", "tiny", "Hi")
    removed = cli("rm", "tiny", "--yes")

    assert refused.stderr.endswith("hint: wizard-edge rm tiny\n")
    assert removed.stderr == "removed tiny/tiny.F32.gguf, 30.0 kB freed\n"
    assert not item.folder.exists()


def test_pull_dry_run_of_what_is_there(cli: Cli, installed: Install) -> None:
    installed("apprentice", "Q8_0")

    assert cli("pull", "apprentice", "--dry-run").stdout == (
        "apprentice:Q8_0 is in the store already: nothing to do\n"
    )
    plan = json.loads(cli("pull", "apprentice", "--dry-run", "--json").stdout)
    assert plan.pop("path").endswith("apprentice.Q8_0.gguf")
    assert plan == {
        "name": "apprentice:Q8_0",
        "quant": "Q8_0",
        "source": "store",
        "already": True,
        "read_bytes": 0,
        "output_bytes": 0,
        "peak_disk_bytes": 0,
        "peak_memory_bytes": 0,
        "run_memory_bytes": None,
        "fits": None,
        "tokens_per_s": None,
        "seconds": 0,
        "tensors": {},
        "quants": [],
        "files": {},
        "licenses": ["apache-2.0"],
        "commercial": True,
        "why": None,
        "rejected": [],
    }


def test_names_from_outside_cannot_steer_a_terminal(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_output, "is_terminal", lambda stream: True)
    monkeypatch.setenv("NO_COLOR", "1")

    result = cli("show", "./\u202ex\x9b1m.gguf")

    assert "\u202e" not in result.stderr
    assert "\x9b" not in result.stderr
