"""Whose terms are asked for, on a terminal and in a script, and what is kept of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path

import pexpect
import pytest

from tests.child import environment
from tests.cli.conftest import Cli
from tests.converters.checkpoints import SHAPES, write_checkpoint
from tests.gguf_files import small_llama, string
from tests.hub.content import repository
from tests.hub.server import LoopbackHub
from wizard_edge.gguf import KEY_LICENSES, read_header
from wizard_edge.ledger import Ledger
from wizard_edge.licenses import summary_of, summary_sha256
from wizard_edge.paths import Home
from wizard_edge.registry import Registry
from wizard_edge.store import Installed

REPO = "WizardLMTeam/WizardLM-13B-V1.2"
LLAMA2 = Registry.load().license("llama2")
WORDS = ("convert", f"hf:{REPO}", "-q", "Q8_0")
on_a_terminal = pytest.mark.skipif(
    os.name == "nt", reason="Windows has no pseudo-terminals"
)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LoopbackHub]:
    folder = write_checkpoint(tmp_path / "c", SHAPES["llama-1"])
    files: dict[str, bytes | Path] = {path.name: path for path in folder.iterdir()}
    files["LICENSE.txt"] = b"the agreement"
    with LoopbackHub(repository(REPO, files)) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.endpoint)
        yield hub


@pytest.fixture
def environ(tmp_path: Path, hub: LoopbackHub) -> dict[str, str]:
    return environment(tmp_path, HF_ENDPOINT=hub.endpoint, TERM="dumb")


def terminal(environ: dict[str, str], *words: str) -> pexpect.spawn[bytes]:
    return pexpect.spawn(
        sys.executable,
        ["-m", "wizard_edge", *words],
        env=environ,
        timeout=60,
        dimensions=(50, 500),
    )


def leave(process: pexpect.spawn[bytes]) -> int:
    process.expect(pexpect.EOF)
    process.close()
    assert process.exitstatus is not None
    return int(process.exitstatus)


def accepted(home: Path) -> list[tuple[str, str]]:
    return [(entry.license, entry.how) for entry in Ledger(Home(home)).entries()]


def test_a_script_is_told_the_options_and_nothing_is_read(
    cli: Cli, hub: LoopbackHub, home: Path
) -> None:
    result = cli(*WORDS)

    assert result.exit_code == 5
    assert result.stderr.splitlines()[-2:] == [
        "error: licence llama2 is not accepted",
        "hint: wizard-edge licenses show llama2, then --accept-license llama2",
    ]
    assert not home.exists()
    assert [item for item in hub.log if "resolve" in item.target] == []


def test_an_option_accepts_and_the_next_time_needs_none(
    cli: Cli, hub: LoopbackHub, home: Path, tmp_path: Path
) -> None:
    first = cli(*WORDS, "--accept-license", "llama2", "--json")
    second = cli(*WORDS, "-o", str(tmp_path / "out.gguf"))

    assert (first.exit_code, second.exit_code) == (0, 0)
    assert accepted(home) == [("llama2", "flag")]
    path = Path(json.loads(first.stdout)["path"])
    receipt = json.loads(Path(f"{path}.json").read_text())
    assert receipt["accepted"] == [
        {
            "license": "llama2",
            "summary_sha256": summary_sha256(LLAMA2),
            "accepted": Ledger(Home(home)).entries()[0].accepted,
        }
    ]
    assert (path.parent / "LICENSE.txt").read_text() == "the agreement"
    assert LLAMA2.notice in (path.parent / "NOTICE").read_text()


def test_what_has_to_travel_stands_in_the_file(
    cli: Cli, hub: LoopbackHub, tmp_path: Path
) -> None:
    output = tmp_path / "out.gguf"

    cli(*WORDS, "--accept-license", "llama2", "-o", str(output))

    header = read_header(output)
    assert header.text("general.license") == "llama2"
    assert header.text("general.license.name") == LLAMA2.name
    assert header.text("general.license.link") == LLAMA2.url
    assert header.text("wizard_edge.notices") == LLAMA2.notice


def test_another_name_does_not_shake_off_the_licence(
    cli: Cli, hub: LoopbackHub
) -> None:
    refused = cli(*WORDS, "--name", "mine")
    done = cli(*WORDS, "--name", "mine", "--accept-license", "llama2")

    assert (refused.exit_code, done.exit_code) == (5, 0)
    assert json.loads(cli("list", "--json").stdout)[0]["licenses"] == ["llama2"]


def test_an_earlier_accept_counts(cli: Cli, hub: LoopbackHub, home: Path) -> None:
    assert cli("licenses", "accept", "llama2").exit_code == 0

    assert cli(*WORDS).exit_code == 0
    assert accepted(home) == [("llama2", "command")]


def test_an_unknown_licence_is_a_usage_error(cli: Cli, hub: LoopbackHub) -> None:
    result = cli(*WORDS, "--accept-license", "lama2")

    assert result.exit_code == 2
    assert "error: --accept-license: unknown licence 'lama2'\n" in result.stderr


def test_a_damaged_ledger_stops_it(cli: Cli, hub: LoopbackHub, home: Path) -> None:
    (home / "licenses").mkdir(parents=True)
    (home / "licenses" / "accepted.json").write_text('{"schema": 1')

    result = cli(*WORDS, "--accept-license", "llama2")

    assert result.exit_code == 6
    assert "licenses accept ID" in result.stderr
    assert not (home / "models").exists()


def test_commercial_use_is_refused_by_option_and_by_setting(
    cli: Cli, hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("convert", "hf:TheBloke/WizardLM-30B-fp16", "--accept-license")

    option = cli(*words, "wizardlm-nc", "--commercial", "--dry-run")
    monkeypatch.setenv("WIZARD_EDGE_COMMERCIAL", "on")
    setting = cli(*words, "wizardlm-nc")

    assert (option.exit_code, setting.exit_code) == (5, 5)
    assert option.stderr == (
        "error: wizardlm-nc: commercial use not allowed\nhint: leave out --commercial\n"
    )
    assert setting.stderr == (
        "error: wizardlm-nc: commercial use not allowed\n"
        "hint: the setting 'commercial' is on: wizard-edge config commercial --unset\n"
    )
    assert hub.log == []


@on_a_terminal
def test_a_terminal_shows_the_terms_and_asks_once(
    environ: dict[str, str], tmp_path: Path
) -> None:
    words = (*WORDS, "-o", str(tmp_path / "out.gguf"), "--overwrite")

    first = terminal(environ, *words)
    first.expect_exact(summary_of(LLAMA2).replace("\n", "\r\n"))
    first.expect_exact("accept the terms of llama2? [y/N]: ")
    first.sendline("y")
    first.expect_exact("wrote ")
    code = leave(first)
    second = terminal(environ, *words)
    index = second.expect_exact(["accept the terms", "wrote "])

    assert (code, index, leave(second)) == (0, 1, 0)
    assert accepted(tmp_path / "home") == [("llama2", "asked")]


@on_a_terminal
def test_quiet_still_shows_what_is_asked(environ: dict[str, str]) -> None:
    process = terminal(environ, *WORDS, "--quiet")

    process.expect_exact("notice: Llama 2 is licensed")
    process.expect_exact("[y/N]: ")
    process.sendline("n")

    assert leave(process) == 5


@on_a_terminal
@pytest.mark.parametrize("key", ["n\n", "\x04", "\n"], ids=["no", "Ctrl-D", "Enter"])
def test_a_no_ends_it_and_records_nothing(
    environ: dict[str, str], tmp_path: Path, key: str
) -> None:
    process = terminal(environ, *WORDS)

    process.expect_exact("[y/N]: ")
    process.send(key)
    process.expect_exact("licence llama2 was not accepted")
    process.expect_exact("--accept-license llama2 accepts it without asking")

    assert leave(process) == 5
    assert not (tmp_path / "home").exists()


def test_two_processes_accept_at_once(environ: dict[str, str], tmp_path: Path) -> None:
    accept = ("licenses", "accept")
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "wizard_edge", *accept, *ids], env=environ
        )
        for ids in (("llama2", "msr"), ("wizardlm-nc", "llama2"))
    ]

    assert [process.wait(timeout=60) for process in processes] == [0, 0]
    found = [license for license, _ in accepted(tmp_path / "home")]
    assert sorted(found) == ["llama2", "msr", "wizardlm-nc"]


@pytest.mark.parametrize(
    "words",
    [
        ["run", "wizardlm-13b-v1.1", "Hi"],
        ["eval", "wizardlm-13b-v1.1", "--text", "text.txt"],
        ["eval", "tiny", "--text", "text.txt", "--reference", "wizardlm-13b-v1.1"],
        ["imatrix", "wizardlm-13b-v1.1", "--text", "text.txt", "-o", "out.gguf"],
    ],
    ids=["run", "eval", "reference", "imatrix"],
)
def test_what_is_here_is_not_opened_for_commercial_use(
    cli: Cli, installed: Callable[..., Installed], tmp_path: Path, words: list[str]
) -> None:
    """The receipt may say another licence than the registry: both count."""
    installed("wizardlm-13b-v1.1", "F32")
    installed("tiny", "F32")
    (tmp_path / "text.txt").write_text("text")

    result = cli(*words, "--commercial")

    assert result.exit_code == 5
    assert result.stderr == (
        "error: wizardlm-nc: commercial use not allowed\nhint: leave out --commercial\n"
    )


@pytest.mark.parametrize(
    ("words", "setting", "hint"),
    [
        ([], True, "the setting 'commercial' is on: wizard-edge config commercial"),
        (["--commercial"], False, "leave out --commercial\n"),
    ],
    ids=["setting", "option"],
)
def test_run_tells_what_it_was_that_refused(
    cli: Cli,
    installed: Callable[..., Installed],
    words: list[str],
    setting: bool,
    hint: str,
) -> None:
    installed("wizardlm-13b-v1.1", "F32")
    if setting:
        cli("config", "commercial", "true")

    result = cli("run", "wizardlm-13b-v1.1", "Hi", *words)

    assert result.exit_code == 5
    assert f"\nhint: {hint}" in result.stderr


def test_a_file_is_asked_itself(cli: Cli, tmp_path: Path) -> None:
    research = small_llama().set(KEY_LICENSES, string("llama-1"))
    research.write(tmp_path / "a.gguf")
    small_llama().write(tmp_path / "b.gguf")
    words = ("out.gguf", "-q", "F16", "--commercial")

    said = cli("quantize", "a.gguf", *words)
    nobody = cli("run", "./b.gguf", "Hi", "--template", "vicuna", "--commercial")
    imported = cli("import", "b.gguf", "--commercial")

    assert (said.exit_code, nobody.exit_code, imported.exit_code) == (5, 5, 5)
    assert said.stderr.startswith("error: llama-1: commercial use not allowed\n")
    for result in (nobody, imported):
        assert result.stderr.startswith(
            "error: nobody says which licence this is under\n"
        )
    assert not (tmp_path / "out.gguf").exists()


def test_import_tells_the_terms_and_asks_as_pull_does(
    cli: Cli, tmp_path: Path, home: Path
) -> None:
    content = small_llama().build()
    (tmp_path / "any.gguf").write_bytes(content)
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "models.toml").write_text(
        "schema = 1\n"
        "[models.known]\n"
        'architecture = "llama"\n'
        'template = "vicuna"\n'
        'licenses = ["llama2"]\n'
        "[models.known.variants.F32]\n"
        'repo = "a/b"\n'
        'file = "f"\n'
        f'sha256 = "{sha256(content).hexdigest()}"\n'
    )

    refused = cli("import", "any.gguf")
    done = cli("import", "any.gguf", "--accept-license", "llama2")

    assert refused.exit_code == 5
    terms = "licence: Llama 2 Community License Agreement, "
    assert refused.stderr.startswith(terms)
    assert done.exit_code == 0
    assert done.stderr.count(terms) == 1
    assert done.stderr.splitlines()[-1].startswith("installed known:F32 (")
    assert accepted(home) == [("llama2", "flag")]
