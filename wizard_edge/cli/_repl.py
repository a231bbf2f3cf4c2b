"""A plain conversation, line by line. The full terminal chat takes its place later."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from wizard_edge.cli._failures import explain
from wizard_edge.cli._interrupt import answering
from wizard_edge.cli._output import Output
from wizard_edge.errors import UsageError, WizardEdgeError
from wizard_edge.units import format_seconds

if TYPE_CHECKING:
    from wizard_edge.engine import Chunk, Stats
    from wizard_edge.service.chat import Chat

_PROMPT = ">>> "
# Slash command -> what it does, as /help shows it.
_COMMANDS = {
    "/help": "show this list",
    "/clear": "forget the conversation",
    "/system": "/system TEXT: set the system text and start over",
    "/stats": "show what the last answer cost",
    "/bye": "leave, as Ctrl-D does",
}


class Repl:
    """Asks for lines and writes answers until the user leaves."""

    def __init__(self, output: Output, chat: Chat) -> None:
        self._output = output
        self._chat = chat
        self._stats: Stats | None = None

    def run(self) -> None:
        """Converse; whoever opened the chat closes it."""
        self._greet()
        while self._turn():
            pass

    def _greet(self) -> None:
        self._output.say(f"{self._chat.name} - /help lists the commands, /bye leaves")
        if not self._chat.template.multi_turn:
            self._output.say(
                "this model was trained on single questions: each one starts fresh"
            )
        if self._chat.session is not None:
            self._output.say(describe_resumed(self._chat))

    def _turn(self) -> bool:
        """Read a line and act on it; False when the user leaves."""
        try:
            line = self._output.read_line(_PROMPT).strip()
        except EOFError:
            self._output.say("")
            return False
        except KeyboardInterrupt:
            self._output.say("\nCtrl-D or /bye leaves")
            return True
        except UsageError as error:
            self._output.fail(explain(error))
            return True
        if line.startswith("/") and not line.startswith("//"):
            return self._command(*line.split(maxsplit=1))
        if line:
            self._ask(line.removeprefix("/") if line.startswith("//") else line)
        return True

    def _ask(self, question: str) -> None:
        last: Chunk | None = None
        dropped = self._stats.dropped_turns if self._stats else 0
        try:
            with answering(self._chat, question) as answer:
                for chunk in answer:
                    self._output.answer(chunk.text)
                    last, self._stats = chunk, chunk.stats
        except UsageError as error:
            # Such as a question longer than the context: the next one may fit.
            self._refuse(error)
            return
        self._output.end_answer()
        if last is not None and last.finish == "length":
            self._output.warn(f"the answer was cut: {self._limit(last.stats)}")
        if last is not None and last.stats.dropped_turns > dropped:
            self._output.say(describe_dropped(last.stats))

    def _refuse(self, error: UsageError) -> None:
        failure = explain(error)
        # The engine's own hint is for those who cannot type /clear.
        if failure.hint and self._chat.keeps_history and self._chat.messages:
            failure = replace(failure, hint="/clear starts over")
        self._output.fail(failure)

    def _limit(self, stats: Stats) -> str:
        if stats.prompt_tokens + stats.new_tokens < self._chat.context:
            return "--max-tokens is reached"
        if self._chat.keeps_history:
            return "the context is full, /clear starts over"
        return "the context is full, --ctx-size makes it larger"

    def _command(self, name: str, text: str = "") -> bool:
        if name == "/bye":
            return False
        if name == "/help":
            for command, meaning in _COMMANDS.items():
                self._output.text(f"{command:8} {meaning}")
            self._output.text("//text   send a message that begins with /")
        elif name == "/clear":
            self._chat.clear()
        elif name == "/system":
            self._restart(text or None)
        elif name == "/stats":
            self._output.text(describe(self._stats) if self._stats else "no answer yet")
        else:
            self._output.fail(explain(_unknown_command(name)))
        return True

    def _restart(self, system: str | None) -> None:
        try:
            self._chat.restart(system=system)
        except WizardEdgeError as error:
            self._output.fail(explain(error))


def describe(stats: Stats) -> str:
    """Write on one line what an answer cost."""
    guessed = (
        f"; {stats.accepted_tokens} of {stats.drafted_tokens} guesses right"
        if stats.drafted_tokens
        else ""
    )
    return (
        f"load {format_seconds(stats.load_s)}; "
        f"prompt {stats.prompt_tokens} tokens, {stats.cached_tokens} of them reused, "
        f"{stats.prompt_rate:.1f}/s; "
        f"answer {stats.new_tokens} tokens, {stats.generate_rate:.1f}/s{guessed}"
    )


def describe_resumed(chat: Chat) -> str:
    """Write on one line what came back of a session."""
    resumed = chat.resumed
    if not resumed.turns:
        return f"session {chat.session}: new"
    turns = "turn" if resumed.turns == 1 else "turns"
    line = f"session {chat.session}: {resumed.turns} {turns}"
    if resumed.reason is None:
        return line
    return f"{line}; {resumed.to_read} tokens are read again: {resumed.reason}"


def describe_dropped(stats: Stats) -> str:
    """Write on one line what of the conversation the model no longer saw."""
    turns = "turn" if stats.dropped_turns == 1 else "turns"
    return (
        f"left out of the prompt: the oldest {stats.dropped_turns} {turns}, "
        f"{stats.dropped_tokens} tokens, which the context has no room for"
    )


def _unknown_command(name: str) -> UsageError:
    from difflib import get_close_matches

    near = get_close_matches(name, _COMMANDS, n=1)
    hint = f"did you mean {near[0]}?" if near else "/help lists the commands"
    return UsageError(f"unknown command {name!r}", hint=hint)
