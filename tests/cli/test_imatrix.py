from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.cli.conftest import Cli
from tests.gguf_files import small_llama
from tests.llama.models import ModelShape, write_random_model
from wizard_edge.store import Installed
from wizard_edge_converters.imatrix import read_imatrix

Install = Callable[..., Installed]


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "text.txt"
    path.write_text("cdefgh ij" * 12)
    return path


WORDS = ("--text", "text.txt", "-o", "out.gguf", "-c", "16")


def test_an_installed_model_reads_a_text(
    cli: Cli, installed: Install, text: Path, tmp_path: Path
) -> None:
    installed("tiny")

    result = cli("imatrix", "tiny", *WORDS)

    size = (tmp_path / "out.gguf").stat().st_size
    assert (result.stdout, result.exit_code) == ("", 0)
    # On a busy machine, lines of progress come before.
    assert result.stderr.splitlines()[-1] == (
        f"wrote out.gguf ({size / 1000:.1f} kB): 7 tensors, 6 chunks of 16 tokens"
    )
    matrix = read_imatrix(tmp_path / "out.gguf")
    assert (matrix.dataset, matrix.chunks) == ("text.txt", 6)


def test_a_file_will_do_and_the_weights_are_real(
    cli: Cli, text: Path, tmp_path: Path
) -> None:
    write_random_model(tmp_path / "m.gguf", ModelShape(width=64, blocks=1))

    result = cli("imatrix", "./m.gguf", *WORDS, "--quiet", "--threads", "1")

    values = read_imatrix(tmp_path / "out.gguf").values["blk.0.attn_q.weight"]
    assert (result.stdout, result.stderr, result.exit_code) == ("", "", 0)
    assert values.shape == (64,)
    assert np.all(values > 0)


def test_the_json_shape(
    cli: Cli, installed: Install, text: Path, tmp_path: Path
) -> None:
    installed("tiny")

    result = cli("imatrix", "tiny", *WORDS, "--chunks", "2", "--json")

    assert json.loads(result.stdout) == {
        "path": "out.gguf",
        "size": (tmp_path / "out.gguf").stat().st_size,
        "tensors": 7,
        "tokens": 32,
        "chunks": 2,
        "chunk_size": 16,
    }
    events = [json.loads(line) for line in result.stderr.splitlines()]
    last = {"stage": "imatrix", "done": 32, "total": 32, "unit": "tokens"}
    assert events[-1] == last


def test_text_comes_from_stdin_too(
    cli: Cli, installed: Install, tmp_path: Path
) -> None:
    installed("tiny")
    words = ("--text", "-", "-o", "out.gguf", "-c", "16")

    # A line break at the end is not part of it, and would be a token more.
    short = cli("imatrix", "tiny", *words, input="c" * 13 + "\n")
    enough = cli("imatrix", "tiny", *words, input="c" * 14 + "\n")

    assert short.stderr == (
        "error: the text has 15 tokens, too few for a chunk of 16\n"
        "hint: a longer text, or a smaller --ctx-size\n"
    )
    assert enough.exit_code == 0
    assert read_imatrix(tmp_path / "out.gguf").chunks == 1


def test_a_file_that_is_there_is_replaced_only_when_told_to(
    cli: Cli, installed: Install, text: Path, tmp_path: Path
) -> None:
    installed("tiny")
    output = tmp_path / "out.gguf"
    output.write_bytes(b"precious")

    refused = cli("imatrix", "tiny", *WORDS)
    kept = output.read_bytes()
    replaced = cli("imatrix", "tiny", *WORDS, "--overwrite")

    assert refused.stderr.startswith("error: the output is there already: out.gguf\n")
    assert (refused.exit_code, kept) == (2, b"precious")
    assert replaced.exit_code == 0
    assert read_imatrix(output).chunks == 6


@pytest.mark.parametrize("output", ["m.gguf", "text.txt"])
def test_what_is_read_is_never_replaced(
    output: str, cli: Cli, text: Path, tmp_path: Path
) -> None:
    small_llama().write(tmp_path / "m.gguf")
    before = (tmp_path / output).read_bytes()

    result = cli(
        *("imatrix", "./m.gguf", "--text", "text.txt", "-c", "16"),
        *("-o", output, "--overwrite"),
    )

    assert result.stderr == f"error: the output is what is read: {output}\n"
    assert result.exit_code == 2
    assert (tmp_path / output).read_bytes() == before


@pytest.mark.parametrize(
    ("words", "code", "error"),
    [
        (("tiny", *WORDS[:4]), 2, "a chunk of 512 tokens, but the model knows 64"),
        (("tiny", *WORDS[:4], "-c", "8"), 2, "a chunk has 16 tokens or more, not 8"),
        (("tiny", *WORDS, "--chunks", "0"), 2, "chunks must be 1 or more, not 0"),
        (("tiny", *WORDS, "-t", "0"), 2, "threads must be 1 or more, not 0"),
        (("tiny", *WORDS[:2]), 2, "missing option '-o' / '--output'"),
        (("tiny", *WORDS[2:]), 2, "missing option '--text'"),
        (("tiny", "--text", "none", *WORDS[2:]), 3, "no such file or directory: none"),
        (("./none.gguf", *WORDS), 3, "no such file or directory: none.gguf"),
        (("nothing-like-it", *WORDS), 3, "unknown model 'nothing-like-it'"),
        (
            ("tiny", *WORDS[:2], "-o", "none/out.gguf"),
            3,
            "no such file or directory: none",
        ),
        (("./text.txt.gguf", *WORDS), 6, "text.txt.gguf is damaged at "),
    ],
    ids=[
        *("long chunk", "short chunk", "no chunks", "no threads", "no output"),
        *("no text", "missing text", "missing model", "unknown model"),
        *("missing folder", "no model"),
    ],
)
def test_what_cannot_be_done_is_told_and_leaves_nothing(
    words: tuple[str, ...],
    code: int,
    error: str,
    cli: Cli,
    installed: Install,
    text: Path,
    tmp_path: Path,
) -> None:
    installed("tiny")
    (tmp_path / "text.txt.gguf").write_text("Once upon a time")
    before = sorted(tmp_path.iterdir())

    result = cli("imatrix", *words)

    assert (result.stdout, result.exit_code) == ("", code)
    assert result.stderr.startswith(f"error: {error}")
    assert sorted(tmp_path.iterdir()) == before


def test_ctrl_c_leaves_nothing(
    cli: Cli,
    installed: Install,
    text: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def interrupt(*arguments: object) -> None:
        raise KeyboardInterrupt

    installed("tiny")
    monkeypatch.setattr("wizard_edge._llama.activations._Collector._add", interrupt)
    before = sorted(tmp_path.iterdir())

    result = cli("imatrix", "tiny", *WORDS)

    assert (result.stdout, result.exit_code) == ("", 130)
    assert result.stderr.startswith("error: interrupted\n")
    assert sorted(tmp_path.iterdir()) == before
