"""The command, with a model of zeros: it knows nothing of its 264 tokens."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.child import environment
from tests.cli.conftest import Cli
from wizard_edge.store import Installed

Install = Callable[..., Installed]

CONTENT = b"ab" * 100
SHA256 = hashlib.sha256(CONTENT).hexdigest()
SHORT = ("-c", "16", "-t", "1")


@pytest.fixture
def text(tmp_path: Path) -> str:
    path = tmp_path / "text.txt"
    path.write_bytes(CONTENT)
    return str(path)


def test_figures_for_a_person(cli: Cli, installed: Install, text: str) -> None:
    installed("tiny")

    result = cli("eval", "tiny", "--text", text, *SHORT)

    assert result.stdout == (
        "model       tiny:F32\n"
        f"text        sha256 {SHA256[:12]}, 6 chunks of 16 tokens, 42 counted\n"
        "perplexity  264.000000 ± 0.000000\n"
    )
    assert result.stderr == "recorded in the receipt of tiny:F32\n"
    assert cli("list").stdout.endswith("ppl 264.00\n")


def test_figures_against_a_reference(cli: Cli, installed: Install, text: str) -> None:
    path = installed("tiny").path
    words = ("eval", str(path), "--text", text, "--reference", "tiny", *SHORT)

    result = cli(*words, "--chunks", "1")

    assert result.stdout == (
        "model             tiny.F32.gguf\n"
        "reference         tiny:F32\n"
        f"text              sha256 {SHA256[:12]}, 1 chunk of 16 tokens, 7 counted\n"
        "perplexity        264.000000 ± 0.000000\n"
        "of the reference  264.000000 ± 0.000000\n"
        "ratio of both     1.000000 ± 0.000000\n"
        "KL divergence     0.000000 ± 0.000000 nats\n"
        "same top token    100.000% ± 0.000%\n"
    )
    assert result.stderr == ""
    assert json.loads(cli("list", "--json").stdout)[0]["quality"] is None


def test_a_smaller_kv_cache_is_named_beside_the_model(
    cli: Cli, apprentice: Callable[[str], Path], text: str
) -> None:
    path = str(apprentice("Q8_0"))
    words = ("eval", path, "--text", text, "--reference", path, *SHORT)

    result = cli(*words, "--chunks", "1", "--kv-type", "q8_0")

    assert result.stdout.startswith(
        "model             apprentice.Q8_0.gguf, KV cache q8_0\n"
        "reference         apprentice.Q8_0.gguf\n"
    )


def test_figures_for_a_program(cli: Cli, installed: Install, text: str) -> None:
    installed("tiny")

    result = cli(
        "eval", "tiny", "--text", text, "--reference", "tiny", *SHORT, "--json"
    )

    document = json.loads(result.stdout)
    assert {key: document[key] for key in list(document)[:6]} == {
        "model": "tiny:F32",
        "reference": "tiny:F32",
        "text_sha256": SHA256,
        "context": 16,
        "chunks": 6,
        "tokens": 42,
    }
    assert document["perplexity"] == pytest.approx(264)
    assert document["kl_divergence"] == 0
    assert document["top1_agreement"] == 1
    assert document["recorded"] is True
    [row] = json.loads(cli("list", "--json").stdout)
    assert row["quality"] == {key: document[key] for key in row["quality"]}
    assert row["evaluated_on"]["reference"] == "tiny:F32"
    events = [json.loads(line) for line in result.stderr.splitlines()]
    assert events[-1] == {"stage": "eval", "done": 192, "total": 192, "unit": "tokens"}


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["tiny"], 2, "error: missing option '--text'"),
        (["tny", "--text", "text.txt"], 3, "error: unknown model 'tny'"),
        (["tiny", "--text", "none.txt"], 3, "error: no such file or directory: none"),
        (
            ["tiny", "--text", "text.txt", "-c", "64"],
            2,
            "error: the text has 101 tokens, a context of 64 needs at least 128\n"
            "hint: take a longer text, or a smaller --ctx-size\n",
        ),
        (
            ["tiny", "--text", "text.txt", "--reference", "./text.txt", *SHORT],
            6,
            "error: text.txt is damaged",
        ),
    ],
    ids=["no text", "no model", "no file", "short", "no reference"],
)
def test_what_cannot_be_measured_is_told(
    cli: Cli, installed: Install, text: str, words: list[str], code: int, message: str
) -> None:
    installed("tiny")

    result = cli("eval", *words)

    assert result.stderr.startswith(message)
    assert (result.stdout, result.exit_code) == ("", code)


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGINT to send")
def test_ctrl_c_leaves_the_receipt_as_it_was(
    tmp_path: Path, home: Path, installed: Install
) -> None:
    item = installed("tiny")
    before = item.receipt_path.read_bytes()
    long = tmp_path / "long.txt"
    long.write_text("ab cd " * 50_000)
    words = ["eval", "tiny", "--text", str(long), "--json", *SHORT]

    with subprocess.Popen(
        [sys.executable, "-m", "wizard_edge", *words],
        env=environment(tmp_path),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if b'"eval"' in line:
                break
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=60)

    last = json.loads(errors.splitlines()[-1])
    assert last["error"]["kind"] == "interrupted"
    assert (output, process.returncode) == (b"", 130)
    assert item.receipt_path.read_bytes() == before
