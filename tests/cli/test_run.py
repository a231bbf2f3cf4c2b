from __future__ import annotations

import json
import math
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from tests.cli.conftest import Cli
from tests.scripted import ScriptedEngine
from wizard_edge.cli import _output
from wizard_edge.engine import Chunk, Sampling, never
from wizard_edge.errors import BackendError
from wizard_edge.templates import VICUNA_SYSTEM

Script = Callable[..., ScriptedEngine]


def prompt_of(engine: ScriptedEngine) -> str:
    """Return the text of the last prompt, without BOS."""
    return "".join(map(engine.vocabulary.spell, engine.prompts[-1][1:]))


def test_the_answer_alone_is_on_stdout(cli: Cli, scripted: Script) -> None:
    engine = scripted("Hello!")

    result = cli("run", "tiny", "Hi")

    assert (result.stdout, result.stderr, result.exit_code) == ("Hello!\n", "", 0)
    assert prompt_of(engine) == f"{VICUNA_SYSTEM} USER: Hi ASSISTANT:"


def test_an_answer_that_ends_its_line_gets_no_second_end(
    cli: Cli, scripted: Script
) -> None:
    scripted("Hello!\n")

    assert cli("run", "tiny", "Hi").stdout == "Hello!\n"


@pytest.mark.parametrize(
    ("words", "piped", "question"),
    [
        (["explain"], "x = 1\n", "explain\n\nx = 1"),
        ([], "why?\n", "why?"),
        (["why?"], "", "why?"),
        (["why?"], "\n", "why?"),
        (["é"], "\ufeffü\r\n", "é\n\nü"),
    ],
    ids=["both", "pipe alone", "empty pipe", "blank pipe", "marked UTF-8"],
)
def test_what_is_piped_in_follows_the_prompt(
    words: list[str], piped: str, question: str, cli: Cli, scripted: Script
) -> None:
    engine = scripted("ok")

    cli("run", "tiny", *words, input=piped)

    assert prompt_of(engine) == f"{VICUNA_SYSTEM} USER: {question} ASSISTANT:"


def test_bytes_that_are_no_text_are_refused(cli: Cli, scripted: Script) -> None:
    scripted("ok")

    result = cli("run", "tiny", input=b"\xff\xfe\x00")

    assert result.stderr == "error: standard input is not UTF-8 text\n"
    assert result.exit_code == 2


def test_no_prompt_at_all_is_a_usage_error(cli: Cli, scripted: Script) -> None:
    scripted("ok")

    result = cli("run", "tiny")

    assert result.stderr == "error: no prompt\nhint: wizard-edge run MODEL PROMPT\n"
    assert result.exit_code == 2


def test_the_json_shape(cli: Cli, scripted: Script) -> None:
    engine = scripted("Hi\x1b[1m!")

    result = cli("run", "tiny", "Hi", "--json")

    assert json.loads(result.stdout) == {
        "model": "tiny",
        "text": "Hi\x1b[1m!",
        "finish": "stop",
        "stats": {
            "prompt_tokens": len(engine.prompts[0]),
            "cached_tokens": 0,
            "read_tokens": len(engine.prompts[0]),
            "reread_tokens": 0,
            "new_tokens": 8,
            "drafted_tokens": 0,
            "accepted_tokens": 0,
            "dropped_turns": 0,
            "dropped_tokens": 0,
            "load_s": 0.0,
            "wait_s": 0.0,
            "prompt_s": 0.0,
            "generate_s": 0.0,
        },
    }
    assert result.stderr == ""


def test_verbose_tells_what_it_cost(cli: Cli, scripted: Script) -> None:
    engine = scripted("Hi")

    result = cli("run", "tiny", "Hi", "-v")

    assert result.stdout == "Hi\n"
    assert result.stderr == (
        f"load 0.0 s; prompt {len(engine.prompts[0])} tokens, 0 of them reused, "
        "0.0/s; answer 3 tokens, 0.0/s\n"
    )


def test_options_become_values(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: dict[str, object] = {}

    def open_chat(ref: str, **options: object) -> None:
        given.update(options)
        raise BackendError("enough")

    monkeypatch.setattr("wizard_edge.service.chat.open_chat", open_chat)
    (tmp_path / "g.gbnf").write_text('root ::= "yes"')
    line = (
        "run tiny Hi -s Be_brief --template alpaca --temperature 0.5 --top-p 0.9 "
        "--top-k 40 --min-p 0.05 --repeat-penalty 1.1 --seed 7 -n 99 -c 512 -t 3 "
        "--ngl all --kv-type q8_0 --no-mmap --mlock --deterministic --low-memory "
        "--overflow shift --no-lookup --draft small --session work --other-model "
        "--grammar g.gbnf"
    )

    result = cli(*line.split())

    assert result.exit_code == BackendError.exit_code
    assert (given["system"], given["template"]) == ("Be_brief", "alpaca")
    assert given["draft"] == "small"
    assert (given["session"], given["other_model"]) == ("work", True)
    assert (given["grammar"], given["json_schema"]) == ('root ::= "yes"', None)
    flags = {
        name: value
        for name in given["settings"].__dataclass_fields__  # type: ignore[attr-defined]
        if (value := getattr(given["settings"], name)) is not None
    }
    assert flags == {
        "temperature": 0.5,
        "top_p": 0.9,
        "top_k": 40,
        "min_p": 0.05,
        "repeat_penalty": 1.1,
        "seed": 7,
        "max_tokens": 99,
        "ctx_size": 512,
        "threads": 3,
        "gpu_layers": "all",
        "kv_type": "q8_0",
        "mmap": False,
        "mlock": True,
        "deterministic": True,
        "lookup": False,
        "low_memory": True,
        "overflow": "shift",
    }


def test_options_of_the_answer_become_values(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: dict[str, object] = {}

    def open_chat(ref: str, **options: object) -> None:
        given.update(options)
        raise BackendError("enough")

    monkeypatch.setattr("wizard_edge.service.chat.open_chat", open_chat)
    words = ["--stop", "USER:", "--stop", "\n", "--logprobs", "3", "--json"]
    for bias in ("7=-inf", "</s>=1.5", "==-2", " x=3"):
        words += ["--logit-bias", bias]

    cli("run", "tiny", "Hi", *words)

    assert (given["stop"], given["logprobs"]) == (("USER:", "\n"), 3)
    assert given["logit_bias"] == (
        (7, float("-inf")),
        ("</s>", 1.5),
        ("=", -2.0),
        (" x", 3.0),
    )


def test_logprobs_stand_beside_the_answer(cli: Cli, scripted: Script) -> None:
    scripted("Hi")

    result = cli("run", "tiny", "Hi", "--json", "--logprobs", "1")

    assert json.loads(result.stdout)["logprobs"] == [
        {
            "token": token,
            "id": id,
            "logprob": 0,
            "top": [{"token": token, "id": id, "logprob": 0}],
        }
        for token, id in (("H", 75), ("i", 108), ("</s>", 2))
    ]


def test_echo_puts_the_tokens_of_the_prompt_first(cli: Cli, scripted: Script) -> None:
    engine = scripted("Hi")

    result = cli("run", "tiny", "Hi", "--json", "--logprobs", "0", "--echo")

    told = json.loads(result.stdout)["logprobs"]
    [prompt] = engine.prompts
    assert [item["id"] for item in told] == [*prompt, 75, 108, 2]
    assert [item.get("prompt", False) for item in told] == [True] * len(prompt) + [
        False
    ] * 3
    first, *rest = told[: len(prompt)]
    assert first == {
        "token": "<s>",
        "id": 1,
        "logprob": None,
        "top": [],
        "prompt": True,
    }
    assert [item["logprob"] for item in rest] == [pytest.approx(-math.log(131))] * (
        len(prompt) - 1
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--logprobs", "3"], "--logprobs are shown as JSON"),
        (["--echo", "--json"], "--echo shows logprobs"),
        (
            ["--logit-bias", "yes"],
            "invalid value for '--logit-bias': 'yes' is not TOKEN=BIAS",
        ),
        (
            ["--logit-bias", "=1"],
            "invalid value for '--logit-bias': '=1' is not TOKEN=BIAS",
        ),
    ],
    ids=["no json", "echo of nothing", "no bias", "no token"],
)
def test_options_that_say_nothing_together(
    options: list[str], message: str, cli: Cli, scripted: Script
) -> None:
    scripted("ok")

    result = cli("run", "tiny", "Hi", *options)

    assert message in result.stderr
    assert (result.exit_code, result.stdout) == (2, "")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ["--ngl", "most"],
            "invalid value for '--gpu-layers' / '--ngl': 'most' is not auto, all or a "
            "number",
        ),
        (
            ["--seed", "x"],
            "invalid value for '--seed': 'x' is not a valid integer",
        ),
        (["--grammar", "none.gbnf"], "no such file or directory: none.gbnf"),
        (["--json-schema", os.devnull], f"{os.devnull} is empty"),
        (["--grammar", "."], ". is a directory, not a file"),
    ],
    ids=["layers", "seed", "no grammar", "empty schema", "directory"],
)
def test_a_value_that_makes_no_sense(
    options: list[str], message: str, cli: Cli, scripted: Script
) -> None:
    scripted("ok")

    result = cli("run", "tiny", "Hi", *options)

    assert result.stderr.splitlines()[0] == f"error: {message}"
    assert result.stdout == ""


def test_an_answer_that_was_cut_says_so(cli: Cli, scripted: Script) -> None:
    script_steps(scripted(), cut)

    result = cli("run", "tiny", "Hi")

    assert result.stdout == "half\n"
    assert result.stderr == (
        "the answer was cut: --max-tokens or --ctx-size is reached\n"
    )


Steps = Callable[[Callable[[], bool]], Iterator[Chunk]]


def script_steps(engine: ScriptedEngine, steps: Steps) -> None:
    """Have the engine take these steps, whatever the prompt is."""

    def generate(
        prompt: Sequence[int],
        sampling: Sampling,
        *,
        owner: object | None = None,
        cancelled: Callable[[], bool] = never,
    ) -> Iterator[Chunk]:
        return steps(cancelled)

    engine.generate = generate  # type: ignore[method-assign]


def cut(cancelled: Callable[[], bool]) -> Iterator[Chunk]:
    yield Chunk(5, "half", "length")


def interrupted(cancelled: Callable[[], bool]) -> Iterator[Chunk]:
    """Answer until somebody presses Ctrl-C, which happens after the second word."""
    yield Chunk(5, "one")
    yield Chunk(6, " two")
    os.kill(os.getpid(), signal.SIGINT)
    while not cancelled():
        yield Chunk(7, " never")
    yield Chunk(8, " three", "cancelled")


def test_ctrl_c_keeps_what_was_answered(cli: Cli, scripted: Script) -> None:
    script_steps(scripted(), interrupted)

    result = cli("run", "tiny", "Hi")

    assert (result.stdout, result.stderr) == ("one two three\n", "")
    assert result.exit_code == 130


def test_ctrl_c_is_told_in_json(cli: Cli, scripted: Script) -> None:
    script_steps(scripted(), interrupted)

    result = cli("run", "tiny", "Hi", "--json")

    document = json.loads(result.stdout)
    assert (document["text"], document["finish"]) == ("one two three", "cancelled")
    assert result.exit_code == 130


def test_a_second_ctrl_c_does_not_wait_for_the_answer(
    cli: Cli, scripted: Script
) -> None:
    def deaf(cancelled: Callable[[], bool]) -> Iterator[Chunk]:
        yield Chunk(5, "one")
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        yield Chunk(5, "never", "stop")

    script_steps(scripted(), deaf)

    result = cli("run", "tiny", "Hi")

    assert (result.stdout, result.stderr) == ("one\n", "error: interrupted\n")
    assert result.exit_code == 130
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_model_text_cannot_steer_a_terminal(
    cli: Cli, scripted: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_output, "is_terminal", lambda stream: True)
    scripted("a\x1b]52;c;aGk=\x07b\x1b[2Jc\x9b1md")

    assert cli("run", "tiny", "Hi").stdout == "abcd\n"


def test_a_reader_that_left_is_no_error(
    cli: Cli, scripted: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(output: _output.Output, text: str) -> None:
        raise BrokenPipeError

    monkeypatch.setattr(_output.Output, "answer", gone)
    scripted("Hello")

    result = cli("run", "tiny", "Hi")

    assert (result.output, result.exit_code) == ("", 141)


def test_an_answer_half_read_is_ended_before_the_model_is_closed(
    cli: Cli, scripted: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The real engine refuses to close in mid-answer, which hid the pipe's end."""
    ended: list[str] = []

    def steps(cancelled: Callable[[], bool]) -> Iterator[Chunk]:
        try:
            yield Chunk(5, "one")
        finally:
            ended.append("answer")

    def gone(output: _output.Output, text: str) -> None:
        raise BrokenPipeError

    engine = scripted()
    script_steps(engine, steps)
    engine.close = lambda: ended.append("model")  # type: ignore[method-assign]
    monkeypatch.setattr(_output.Output, "answer", gone)

    cli("run", "tiny", "Hi")

    assert ended == ["answer", "model"]


def test_another_model_is_a_word_about_a_session(cli: Cli, scripted: Script) -> None:
    scripted("Hello!")

    result = cli("run", "tiny", "Hi", "--other-model")

    assert (result.exit_code, result.stderr) == (
        2,
        "error: --other-model is for a --session NAME\n",
    )
