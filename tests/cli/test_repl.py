from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.scripted import ScriptedEngine
from wizard_edge.cli._output import Output
from wizard_edge.cli._repl import Repl
from wizard_edge.conversation import Conversation
from wizard_edge.engine import Chunk, Sampling
from wizard_edge.errors import UsageError
from wizard_edge.names import SessionName
from wizard_edge.paths import Home
from wizard_edge.service.chat import Chat
from wizard_edge.sessions import ModelFile, Session
from wizard_edge.templates import find_template

Line = str | BaseException | type[BaseException]


class Typed(Output):
    """An output whose user types these lines and then Ctrl-D."""

    def __init__(self, *lines: Line) -> None:
        super().__init__()
        self._typed = iter(lines)

    def read_line(self, prompt: str) -> str:
        line = next(self._typed, EOFError)
        if not isinstance(line, str):
            raise line
        self.text(f"{prompt}{line}")
        return line


@pytest.fixture
def converse(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Return a function that holds a conversation and returns the transcript."""

    def run(
        engine: ScriptedEngine,
        *lines: Line,
        template: str = "vicuna",
        quiet: bool = False,
        max_tokens: int | None = None,
        session: Session | None = None,
    ) -> str:
        output = Typed(*lines)
        output.quiet = quiet
        begin = Conversation if session is None else session.resume
        conversation = begin(engine, find_template(template))
        sampling = Sampling(max_tokens=max_tokens)
        chat = Chat("tiny:F32", engine, conversation, sampling, session=session)
        Repl(output, chat).run()
        if session is not None:
            session.close()
        captured = capsys.readouterr()
        return captured.out + captured.err

    return run


def prompts(engine: ScriptedEngine) -> list[str]:
    return ["".join(map(engine.vocabulary.spell, ids)) for ids in engine.prompts]


GREETING = "tiny:F32 - /help lists the commands, /bye leaves\n"


def test_turns_follow_each_other(converse: Callable[..., str]) -> None:
    engine = ScriptedEngine("Hello.", "Ada.")

    transcript = converse(engine, "Hi", "", "Who am I?", "/bye")

    assert transcript == (
        f">>> Hi\nHello.\n>>> \n>>> Who am I?\nAda.\n>>> /bye\n{GREETING}"
    )
    assert prompts(engine)[1].endswith(
        " USER: Hi ASSISTANT:Hello.</s>USER: Who am I? ASSISTANT:"
    )


def test_ctrl_d_leaves_and_ctrl_c_at_the_prompt_hints(
    converse: Callable[..., str],
) -> None:
    transcript = converse(ScriptedEngine(), KeyboardInterrupt)

    assert transcript == f"{GREETING}\nCtrl-D or /bye leaves\n\n"


def test_commands_are_never_sent(converse: Callable[..., str]) -> None:
    engine = ScriptedEngine("ok")

    transcript = converse(engine, "/stats", "/sytem x", "/zzz", "//bin", "/help")

    assert len(engine.prompts) == 1
    assert prompts(engine)[0].endswith(" USER: /bin ASSISTANT:")
    assert transcript == (
        ">>> /stats\n"
        "no answer yet\n"
        ">>> /sytem x\n"
        ">>> /zzz\n"
        ">>> //bin\n"
        "ok\n"
        ">>> /help\n"
        "/help    show this list\n"
        "/clear   forget the conversation\n"
        "/system  /system TEXT: set the system text and start over\n"
        "/stats   show what the last answer cost\n"
        "/bye     leave, as Ctrl-D does\n"
        "//text   send a message that begins with /\n"
        f"{GREETING}"
        "error: unknown command '/sytem'\n"
        "hint: did you mean /system?\n"
        "error: unknown command '/zzz'\n"
        "hint: /help lists the commands\n"
        "\n"
    )


def test_what_was_asked_for_is_shown_when_quiet_too(
    converse: Callable[..., str],
) -> None:
    transcript = converse(ScriptedEngine(), "/stats", "/zzz", quiet=True)

    assert transcript == (
        ">>> /stats\nno answer yet\n>>> /zzz\n"
        "error: unknown command '/zzz'\nhint: /help lists the commands\n"
    )


def test_clear_and_system_start_over(converse: Callable[..., str]) -> None:
    engine = ScriptedEngine("a", "b", "c")

    converse(engine, "one", "/clear", "two", "/system Be brief.", "three", "/stats")

    assert [text.count("USER:") for text in prompts(engine)] == [1, 1, 1]
    assert prompts(engine)[2] == "<s>Be brief. USER: three ASSISTANT:"


def test_a_system_text_without_a_place_changes_nothing(
    converse: Callable[..., str],
) -> None:
    engine = ScriptedEngine("a")

    transcript = converse(engine, "/system Be brief.", "one", template="wizardlm-7b")

    assert (
        "error: template 'wizardlm-7b' has no place for a system text\n" in transcript
    )
    assert prompts(engine) == ["<s>one\n\n### Response:"]


def test_single_turn_models_say_so(converse: Callable[..., str]) -> None:
    engine = ScriptedEngine("a", "b")

    transcript = converse(engine, "one", "two", template="alpaca")

    assert "single questions: each one starts fresh\n" in transcript
    assert prompts(engine)[0].replace("one", "two") == prompts(engine)[1]


def test_a_question_that_does_not_fit_ends_nothing(
    converse: Callable[..., str],
) -> None:
    engine = ScriptedEngine("ok", context=300)

    transcript = converse(engine, "x" * 300, "short")

    assert transcript.count("error: the prompt does not fit\n") == 1
    assert ">>> short\nok\n" in transcript


def test_a_line_that_is_no_text_ends_nothing(converse: Callable[..., str]) -> None:
    engine = ScriptedEngine("ok")

    transcript = converse(engine, UsageError("that line is not UTF-8 text"), "Hi")

    assert transcript.count("error: that line is not UTF-8 text\n") == 1
    assert transcript.startswith(">>> Hi\nok\n")


@pytest.mark.parametrize("quiet", [False, True])
def test_an_answer_that_was_cut_says_so(
    quiet: bool, converse: Callable[..., str]
) -> None:
    transcript = converse(ScriptedEngine("abc"), "Hi", quiet=quiet, max_tokens=2)

    assert transcript.startswith(">>> Hi\nab\n")
    assert "warning: the answer was cut: --max-tokens is reached\n" in transcript


def test_a_full_context_names_clear(converse: Callable[..., str]) -> None:
    full = ScriptedEngine("abc", "d")
    converse(full, "Hi")
    engine = ScriptedEngine("abc", context=len(full.prompts[0]) + 2)

    transcript = converse(engine, "Hi", max_tokens=2)

    assert (
        "warning: the answer was cut: the context is full, /clear starts over\n"
        in transcript
    )


def test_a_question_that_fits_no_more_names_clear(converse: Callable[..., str]) -> None:
    class Full(ScriptedEngine):
        def generate(self, prompt: Sequence[int], *rest: Any, **more: Any) -> Any:
            if self.prompts:
                raise UsageError("the prompt does not fit", hint="a larger --ctx-size")
            return super().generate(prompt, *rest, **more)

    transcript = converse(Full("ok"), "one", "two")

    assert transcript.endswith(
        "error: the prompt does not fit\nhint: /clear starts over\n\n"
    )


def test_a_new_system_text_loads_no_model(converse: Callable[..., str]) -> None:
    closed: list[bool] = []

    class Watched(ScriptedEngine):
        def close(self) -> None:
            closed.append(True)

    engine = Watched("a", "b")
    transcript = converse(engine, "one", "/system Be brief.", "two")

    assert prompts(engine)[1] == "<s>Be brief. USER: two ASSISTANT:"
    assert closed == []
    assert "error" not in transcript


def test_ctrl_c_stops_the_answer_and_keeps_it(converse: Callable[..., str]) -> None:
    engine = ScriptedEngine("next")
    generate = engine.generate

    def interrupted(
        *args: object, owner: object, cancelled: Callable[[], bool]
    ) -> Iterator[Chunk]:
        engine.generate = generate  # type: ignore[method-assign]
        yield Chunk(100, "a")
        os.kill(os.getpid(), signal.SIGINT)
        while not cancelled():
            yield Chunk(101, "never")
        yield Chunk(101, "b", "cancelled")

    engine.generate = interrupted  # type: ignore[method-assign,assignment]

    transcript = converse(engine, "one", "two")

    assert transcript.startswith(">>> one\nab\n>>> two\nnext\n")
    assert prompts(engine)[0].endswith("ASSISTANT:ab</s>USER: two ASSISTANT:")


def test_what_is_left_out_is_said_once_with_counts(
    converse: Callable[..., str],
) -> None:
    engine = ScriptedEngine(*["ok"] * 9, context=400)

    transcript = converse(engine, *["x" * 40] * 9, max_tokens=40)

    said = [line for line in transcript.splitlines() if "left out" in line]
    assert said == [
        f"left out of the prompt: the oldest {turns} turns, {tokens} tokens, "
        "which the context has no room for"
        for turns, tokens in ((3, 180), (6, 360))
    ]


def test_a_session_says_what_came_back(
    converse: Callable[..., str], tmp_path: Path
) -> None:
    def session() -> Session:
        model = ModelFile("tiny:F32", "tiny.gguf", 1)
        return Session(Home(tmp_path), SessionName.parse("work"), model)

    said = [
        converse(ScriptedEngine("a", "b"), "Hi", session=session()).splitlines()[-2],
        converse(ScriptedEngine("c"), session=session()).splitlines()[-2],
        converse(
            ScriptedEngine("d"), "Hi", template="alpaca", session=session()
        ).splitlines()[-2],
    ]

    assert said == [
        "session work: new",
        "session work: 1 turn",
        "session work: 1 turn; 144 tokens are read again: the template was vicuna",
    ]
