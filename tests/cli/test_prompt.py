from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.conftest import Cli
from tests.gguf_files import small_llama
from wizard_edge.store import Installed
from wizard_edge.templates import VICUNA_SYSTEM

Install = Callable[..., Installed]

MESSAGES = [
    {"role": "user", "content": "a</s>b"},
    {"role": "assistant", "content": "ab"},
    {"role": "user", "content": "b"},
]
TEXT = f"{VICUNA_SYSTEM} USER: a</s>b ASSISTANT: ab</s>USER: b ASSISTANT:"


@pytest.fixture
def messages(tmp_path: Path) -> Path:
    path = tmp_path / "messages.json"
    path.write_text(json.dumps(MESSAGES))
    return path


def test_the_json_shape(cli: Cli, installed: Install, messages: Path) -> None:
    installed("tiny")

    view = json.loads(
        cli("prompt", "tiny", "--messages", str(messages), "--json").stdout
    )

    assert {key: view[key] for key in ("template", "text")} == {
        "template": "vicuna",
        "text": TEXT,
    }
    # BOS, then one end token: the one that the user typed is plain text.
    assert view["ids"][0] == 1
    assert view["ids"].count(2) == 1


def test_text_then_ids(cli: Cli, installed: Install, messages: Path) -> None:
    installed("tiny")

    plain = cli("prompt", "tiny", "--messages", str(messages))
    with_ids = cli("prompt", "tiny", "--messages", str(messages), "--ids")
    verbose = cli("prompt", "-v", "tiny", "--messages", str(messages))

    assert plain.stdout == f"{TEXT}\n"
    text, ids, _ = with_ids.stdout.split("\n")
    assert (text, ids.split()[:1]) == (TEXT, ["1"])
    assert verbose.stdout == with_ids.stdout


def test_messages_come_from_stdin_too(cli: Cli, installed: Install) -> None:
    installed("tiny")

    result = cli("prompt", "tiny", "--messages", "-", input=json.dumps(MESSAGES))

    assert result.stdout == f"{TEXT}\n"


def test_a_file_will_do_and_the_template_is_a_choice(cli: Cli, tmp_path: Path) -> None:
    small_llama().write(tmp_path / "m.gguf")
    question = json.dumps(MESSAGES[:1])
    words = ("prompt", "./m.gguf", "--messages", "-", "--template", "wizardlm-7b")

    assert cli(*words, input=question).stdout == "a</s>b\n\n### Response:\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "standard input is not JSON: "),
        ("[" * 100_000, "standard input is not JSON: "),
        ("{}", "messages must be a JSON list of {role, content}"),
        ("[]", "the conversation has no user message"),
        ('[{"role": "user"}]', "message 1 must have exactly role and content"),
    ],
    ids=["no JSON", "deep", "no list", "empty", "no content"],
)
def test_messages_that_make_no_sense(
    text: str, message: str, cli: Cli, installed: Install
) -> None:
    installed("tiny")

    result = cli("prompt", "tiny", "--messages", "-", input=text)

    assert result.stderr.startswith(f"error: {message}")
    assert result.exit_code == 2


def test_messages_that_are_not_there(cli: Cli, installed: Install) -> None:
    installed("tiny")

    result = cli("prompt", "tiny", "--messages", "none.json")

    assert result.stderr == "error: no such file or directory: none.json\n"
    assert result.exit_code == 3
