from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from hashlib import sha256
from pathlib import Path

import pytest

from tests.child import environment
from tests.cli.conftest import Cli
from tests.gguf_files import small_llama
from tests.llama.models import ModelShape, write_random_model
from wizard_edge.gguf import read_header
from wizard_edge.gguf_types import GgmlType

# Runs the program, and stays where it would read the second block.
STUCK = """
import threading
from wizard_edge.cli import main
from wizard_edge_converters.gguf_source import GgufCheckpoint
read = GgufCheckpoint.read
def stay(*given):
    GgufCheckpoint.read = stop
    return read(*given)
def stop(*given):
    print("working", flush=True)
    threading.Event().wait()
GgufCheckpoint.read = stay
main()
"""


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A small model of random F16 weights."""
    shape = ModelShape(width=32, weights=GgmlType.F16)
    return write_random_model(tmp_path / "in.gguf", shape)


def test_it_writes_the_file_and_leaves_the_store_alone(
    cli: Cli, source: Path, tmp_path: Path, home: Path
) -> None:
    output = tmp_path / "out.gguf"

    result = cli("quantize", str(source), str(output), "-q", "q8_0")

    assert (result.stdout, result.exit_code) == ("", 0)
    assert result.stderr.splitlines()[-1].startswith(f"wrote {output} (")
    assert read_header(output).quant == "Q8_0"
    assert not home.exists()


def test_the_usual_quant_is_made_without_asking(
    cli: Cli, source: Path, tmp_path: Path
) -> None:
    assert cli("quantize", str(source), "out.gguf").exit_code == 0

    assert read_header(tmp_path / "out.gguf").quant == "Q4_K_M"


def test_json_says_what_was_made_and_how_good_it_is(
    cli: Cli, source: Path, tmp_path: Path
) -> None:
    words = ("-q", "Q8_0", "-q", "Q4_0", "--json")

    result = cli("quantize", str(source), "{quant}.gguf", *words)

    made = json.loads(result.stdout)
    assert [item["quant"] for item in made] == ["Q8_0", "Q4_0"]
    for item in made:
        content = (tmp_path / f"{item['quant']}.gguf").read_bytes()
        assert item["path"] == f"{item['quant']}.gguf"
        assert item["size"] == len(content)
        assert item["sha256"] == sha256(content).hexdigest()
        assert item["files"] == [{key: item[key] for key in ("path", "size", "sha256")}]
    errors = [item["quality"][f"relative_error.{item['quant']}"] for item in made]
    assert 0 < errors[0] < 0.01 < errors[1] < 0.2
    stages = {json.loads(line)["stage"] for line in result.stderr.splitlines()}
    assert stages == {"convert", "verify"}


def test_several_quants_need_a_place_in_the_name(cli: Cli, source: Path) -> None:
    result = cli("quantize", str(source), "out.gguf", "-q", "Q8_0", "-q", "Q4_0")

    assert result.exit_code == 2
    assert result.stderr.splitlines() == [
        "error: 2 quants cannot all be called out.gguf",
        "hint: put {quant} into the name: out.{quant}.gguf",
    ]


def test_dry_run_says_what_it_would_take(
    cli: Cli, source: Path, tmp_path: Path
) -> None:
    words = ("quantize", str(source), "{quant}.gguf", "-q", "Q8_0", "-q", "F32")

    cost = json.loads(cli(*words, "--dry-run", "--json").stdout)
    lines = cli(*words, "--dry-run").stdout.splitlines()
    untouched = list(tmp_path.glob("*.gguf"))
    made = json.loads(cli(*words, "--json").stdout)

    assert untouched == [source]
    assert cost["read_bytes"] == source.stat().st_size
    assert cost["output_bytes"] == sum(item["size"] for item in made)
    sizes = [item["output_bytes"] for item in cost["quants"]]
    assert sizes == [item["size"] for item in made]
    assert cost["quants"][1]["tensors"] == {"F32": 21}
    data = sum(tensor.size for tensor in read_header(source).tensors)
    assert cost["files"] == {"in.gguf": data}
    assert {"peak_disk_bytes", "peak_memory_bytes", "seconds"} <= set(cost)
    assert lines[0] == f"model           {source}"


def test_a_dry_run_measures_types_that_need_importance(
    cli: Cli, tmp_path: Path
) -> None:
    model = small_llama(width=256, weights=GgmlType.IQ2_XXS)
    model.write(tmp_path / "small.gguf")
    words = ("small.gguf", "out.gguf", "-q", "Q8_0", "--allow-requantize")

    result = cli("quantize", *words, "--dry-run", "--json")

    assert result.exit_code == 0
    assert json.loads(result.stdout)["seconds"] > 0


def test_parts_are_written_and_read(cli: Cli, source: Path, tmp_path: Path) -> None:
    words = ("--split-max-size", "20 kB")

    parts = cli("quantize", str(source), "p.gguf", "-q", "F16", *words)
    first = next(tmp_path.glob("p-00001-of-*.gguf"))
    again = cli("quantize", str(first), "again.gguf", "-q", "F16", "-t", "1")
    whole = cli("quantize", str(source), "whole.gguf", "-q", "F16")

    assert {r.exit_code for r in (parts, again, whole)} == {0}
    count = len(list(tmp_path.glob("p-*.gguf")))
    assert count > 2
    assert first.name == f"p-00001-of-{count:05d}.gguf"
    assert parts.stderr.count("wrote ") == count
    content = (tmp_path / "whole.gguf").read_bytes()
    assert (tmp_path / "again.gguf").read_bytes() == content


def test_a_second_loss_needs_its_flag(cli: Cli, source: Path, tmp_path: Path) -> None:
    cli("quantize", str(source), "q8.gguf", "-q", "Q8_0")
    words = ("quantize", "q8.gguf", "q4.gguf", "-q", "Q4_0")

    refused = cli(*words)
    dry = cli(*words, "--dry-run")
    there = (tmp_path / "q4.gguf").exists()
    allowed = cli(*words, "--allow-requantize")

    assert (refused.exit_code, dry.exit_code, there) == (9, 9, False)
    assert " is Q8_0 already: making it Q4_0 loses twice" in refused.stderr
    assert "--allow-requantize" in refused.stderr.splitlines()[1]
    assert allowed.exit_code == 0
    assert read_header(tmp_path / "q4.gguf").quant == "Q4_0"


def test_the_source_is_never_the_output(cli: Cli, source: Path, tmp_path: Path) -> None:
    content = source.read_bytes()
    (tmp_path / "link.gguf").symlink_to(source)

    for output in ("in.gguf", "./in.gguf", "link.gguf"):
        words = ("quantize", str(source), output, "-q", "Q8_0", "--overwrite")
        for dry in ((), ("--dry-run",)):
            result = cli(*words, *dry)
            assert result.exit_code == 2
            assert result.stderr.startswith("error: the output is the source: ")

    assert source.read_bytes() == content


def test_a_file_that_is_there_is_replaced_only_when_told_to(
    cli: Cli, source: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out.gguf"
    output.write_bytes(b"precious")
    words = ("quantize", str(source), str(output), "-q", "Q8_0")

    refused = cli(*words)
    kept = output.read_bytes()
    replaced = cli(*words, "--overwrite")

    assert (refused.exit_code, kept) == (2, b"precious")
    assert replaced.exit_code == 0
    assert read_header(output).quant == "Q8_0"


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("none.gguf", "out.gguf"), 3),
        (("in.gguf", "out.gguf", "-q", "Q9"), 3),
        (("in.gguf", "none/out.gguf"), 3),
        (("in.gguf", "out.gguf", "--split-max-size", "much"), 2),
        (("in.gguf", "out.gguf", "--split-max-size", "10"), 9),
        (("in.gguf", "out.gguf", "-t", "0"), 2),
        (("in.gguf",), 2),
    ],
    ids=str,
)
def test_failures_have_their_codes(
    words: tuple[str, ...], code: int, cli: Cli, source: Path, tmp_path: Path
) -> None:
    result = cli("quantize", *words)

    assert result.exit_code == code
    assert result.stderr.startswith("error: ")
    assert [path.name for path in tmp_path.iterdir()] == ["in.gguf"]


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGINT to send")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interruption_leaves_nothing(
    number: signal.Signals, source: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    with subprocess.Popen(
        [sys.executable, "-c", STUCK, "quantize", str(source), str(folder / "o.gguf")],
        env=environment(tmp_path),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        during = list(folder.iterdir())
        process.send_signal(number)
        process.wait(timeout=30)

    assert during
    assert process.returncode == (130 if number == signal.SIGINT else 143)
    assert list(folder.iterdir()) == []
