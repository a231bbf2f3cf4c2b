"""What only a real process shows: pipes, signals, closed streams, full disks."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pexpect
import pytest

from tests.benchmarks.models import Shape, make_checkpoint
from tests.child import environment
from tests.llama.models import ModelShape, write_random_model

# Plays `run` with a model that ends its answer when it is told to.
ENDLESS = """
import time
from tests.scripted import ScriptedEngine
from wizard_edge.conversation import Conversation
from wizard_edge.engine import Chunk, Sampling
from wizard_edge.service import chat
from wizard_edge.templates import find_template

class Endless(ScriptedEngine):
    def generate(self, prompt, sampling, *, owner, cancelled):
        while not cancelled():
            yield Chunk(100, "word ")
            time.sleep(0.001)
        yield Chunk(101, "last", "cancelled")

def open_chat(ref, **options):
    engine = Endless()
    conversation = Conversation(engine, find_template("vicuna"))
    return chat.Chat(ref, engine, conversation, Sampling())

chat.open_chat = open_chat
from wizard_edge.cli import main
main()
"""


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    return environment(tmp_path)


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGPIPE")
@pytest.mark.parametrize(
    "command",
    [
        [sys.executable, "-m", "wizard_edge", "list", "--all"],
        [sys.executable, "-m", "wizard_edge", "run", "--help"],
        [sys.executable, "-c", ENDLESS, "run", "tiny", "Hi"],
    ],
    ids=["table", "help", "answer"],
)
def test_a_reader_that_leaves_is_no_news(
    command: list[str], environ: dict[str, str]
) -> None:
    reading, writing = os.pipe()
    os.close(reading)

    done = subprocess.run(
        command,
        env=environ,
        stdin=subprocess.DEVNULL,
        stdout=writing,
        stderr=subprocess.PIPE,
        check=False,
    )
    os.close(writing)

    assert (done.stderr, done.returncode) == (b"", 141)


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGINT to send")
def test_ctrl_c_ends_the_answer_and_keeps_it(environ: dict[str, str]) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", ENDLESS, "run", "tiny", "Hi"],
        env=environ,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        begin = process.stdout.read(5)
        process.send_signal(signal.SIGINT)
        rest, errors = process.communicate(timeout=30)

    assert (begin + rest).startswith(b"word ")
    assert rest.endswith(b"last\n")
    assert (errors, process.returncode) == (b"", 130)


@pytest.mark.skipif(os.name == "nt", reason="Windows has no pseudo-terminals")
def test_a_conversation_on_a_terminal(environ: dict[str, str]) -> None:
    terminal = pexpect.spawn(
        sys.executable, ["-c", ENDLESS, "run", "tiny"], env=environ, timeout=30
    )

    terminal.expect_exact("tiny - /help lists the commands, /bye leaves\r\n>>> ")
    terminal.sendline("Hi")
    terminal.expect_exact("word word ")
    terminal.sendintr()
    terminal.expect_exact("last\r\n>>> ")
    terminal.sendintr()
    terminal.expect_exact("Ctrl-D or /bye leaves\r\n>>> ")
    terminal.sendeof()
    terminal.expect(pexpect.EOF)
    terminal.close()

    assert terminal.exitstatus == 0


@pytest.mark.skipif(os.name == "nt", reason="Windows has no pseudo-terminals")
def test_a_byte_that_is_no_text_ends_no_conversation(environ: dict[str, str]) -> None:
    terminal = pexpect.spawn(
        sys.executable,
        ["-c", ENDLESS, "run", "tiny"],
        env=environ | {"PYTHONUTF8": "0", "PYTHONIOENCODING": "utf-8:strict"},
        timeout=30,
    )

    terminal.expect_exact(">>> ")
    terminal.sendline(b"a\xffb")
    terminal.expect_exact("that line is not UTF-8 text\r\n>>> ")
    terminal.sendline("/bye")
    terminal.expect(pexpect.EOF)
    terminal.close()

    assert terminal.exitstatus == 0


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGINT to send")
def test_an_ignored_ctrl_c_stays_ignored(environ: dict[str, str]) -> None:
    """As a shell starts a program behind `&` or under `nohup`."""
    program = f"import signal; signal.signal(2, signal.SIG_IGN)\n{ENDLESS}"
    with subprocess.Popen(
        [sys.executable, "-c", program, "run", "tiny", "Hi"],
        env=environ,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        process.stdout.read(5)
        process.send_signal(signal.SIGINT)
        more = process.stdout.read(500)
        process.terminate()

    assert len(more) == 500
    assert b"last" not in more


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_under_stdout_is_an_error(environ: dict[str, str]) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "wizard_edge", "list", "--all"],
            env=environ,
            stdout=full,
            stderr=subprocess.PIPE,
            check=False,
        )

    assert done.stderr == b"error: no space left on device\n"
    assert done.returncode == 7


@pytest.mark.skipif(os.name == "nt", reason="needs a POSIX shell")
def test_closed_streams_are_no_bug(environ: dict[str, str]) -> None:
    done = subprocess.run(
        f"exec '{sys.executable}' -m wizard_edge list --all <&- >&- 2>&-",
        shell=True,
        env=environ,
        check=False,
    )

    assert done.returncode == 0


def test_a_terminal_that_knows_only_ascii_ends_nothing(
    environ: dict[str, str], tmp_path: Path
) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "wizard_edge", "show", "./größe.gguf"],
        env=environ | {"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"},
        cwd=tmp_path,
        capture_output=True,
        check=False,
    )

    assert done.stderr == b"error: no such file or directory: gr??e.gguf\n"
    assert done.returncode == 3


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such signals")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_killed_conversion_leaves_nothing_half_written(
    tmp_path: Path, environ: dict[str, str], number: signal.Signals
) -> None:
    # Large enough that the conversion is still running when the signal comes.
    shape = Shape(2, hidden=1024, ffn=2816, heads=8, kv_heads=8, vocabulary=8_000)
    source = make_checkpoint(tmp_path / "checkpoint", shape)
    output = tmp_path / "out"
    output.mkdir()
    words = [sys.executable, "-m", "wizard_edge", "convert", str(source)]

    with subprocess.Popen(
        [*words, "-q", "Q4_K_M", "-o", str(output / "model.gguf")],
        env=environ,
        stderr=subprocess.DEVNULL,
    ) as process:
        while process.poll() is None and not list(output.iterdir()):
            time.sleep(0.002)
        process.send_signal(number)
        code = process.wait(timeout=60)

    assert code == 128 + number
    assert list(output.iterdir()) == []


def program(
    *words: str, folder: Path, environ: dict[str, str], typed: str = ""
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-P", "-m", "wizard_edge", *words],
        cwd=folder,
        env=environ,
        input=typed,
        capture_output=True,
        text=True,
        check=False,
    )


def test_an_empty_home_is_not_the_current_folder(
    tmp_path: Path, environ: dict[str, str]
) -> None:
    done = program("--home", "", "list", folder=tmp_path, environ=environ)

    assert done.returncode == 2
    assert done.stderr.startswith("error: --home is empty")


def test_run_opens_the_model_of_the_settings(
    tmp_path: Path, environ: dict[str, str]
) -> None:
    environ["WIZARD_EDGE_MODEL"] = "no-such-model"

    done = program("run", folder=tmp_path, environ=environ, typed="Hi")

    assert done.returncode == 3
    assert done.stderr.startswith("error: unknown model 'no-such-model'")


def test_a_prompt_that_begins_with_a_minus_is_told_its_way(
    tmp_path: Path, environ: dict[str, str]
) -> None:
    done = program("run", "apprentice", "-5 + 3", folder=tmp_path, environ=environ)

    assert done.returncode == 2
    assert "hint: a text that begins with a minus goes behind --" in done.stderr


@pytest.mark.skipif(os.name == "nt", reason="Windows sends no SIGINT to one process")
def test_ctrl_c_while_a_matrix_is_computed_leaves_nothing(
    environ: dict[str, str], tmp_path: Path
) -> None:
    write_random_model(tmp_path / "m.gguf", ModelShape(blocks=4))
    (tmp_path / "text.txt").write_text("cdefgh ij" * 20_000)
    words = ["imatrix", "./m.gguf", "--text", "text.txt", "-o", "out.gguf", "--json"]
    before = sorted(tmp_path.iterdir())

    with subprocess.Popen(
        [sys.executable, "-m", "wizard_edge", *words],
        env=environ,
        cwd=tmp_path,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        assert process.stderr is not None
        for line in process.stderr:
            # The first percent: by now llama.cpp is at work.
            if '"imatrix"' in line and '"done": 0' not in line:
                break
        process.send_signal(signal.SIGINT)
        *_, last = process.stderr

    assert json.loads(last)["error"]["kind"] == "interrupted"
    assert process.returncode == 130
    assert sorted(tmp_path.iterdir()) == before
