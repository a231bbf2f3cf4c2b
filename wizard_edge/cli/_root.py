"""The program itself: the table of commands, and the one place where it ends.

Commands are imported when they are called; `--help` prints the table and imports
none. Every exception of a command becomes an exit code and a line here.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from importlib import import_module
from types import FrameType
from typing import TYPE_CHECKING, NoReturn

import click

from wizard_edge import __version__
from wizard_edge.cli._app import App, brief, global_options, pass_app
from wizard_edge.cli._failures import BROKEN_PIPE, Failure, explain
from wizard_edge.cli._output import Output
from wizard_edge.errors import UsageError

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

PROGRAM = "wizard-edge"
COMPLETE_VARIABLE = "_WIZARD_EDGE_COMPLETE"

# name -> (module in this package, help); the order is that of --help.
COMMANDS: dict[str, tuple[str, str]] = {
    "pull": ("pull", "Bring a model into the store"),
    "run": ("run", "Answer one prompt, or converse on a terminal"),
    "list": ("list", "List the models in the store"),
    "fit": ("fit", "Predict what fits this machine, and how fast it is"),
    "bench": ("bench", "Measure how fast a model is on this machine"),
    "doctor": ("doctor", "Look for what keeps models from running well"),
    "show": ("show", "Show all that is known about a model"),
    "rm": ("rm", "Remove models from the store"),
    "verify": ("verify", "Check the files of the store, repair them"),
    "prune": ("prune", "Remove what is left over in the store"),
    "outdated": ("outdated", "List models that there is something newer of"),
    "prompt": ("prompt", "Show the exact text and tokens a model would get"),
    "convert": ("convert", "Convert original weights to a GGUF file"),
    "imatrix": ("imatrix", "Compute an importance matrix from a text"),
    "eval": ("eval", "Measure how well a model predicts a text"),
    "quantize": ("quantize", "Quantize a GGUF file to other types"),
    "import": ("import_", "Bring a GGUF file into the store"),
    "export": ("export", "Write a model to a folder"),
    "licenses": ("licenses", "Show or accept the licences of models"),
    "worker": ("worker", "Lend this machine to 'run --rpc' elsewhere"),
    "config": ("config", "Show or change settings"),
    "completion": ("completion", "Write the completion script for a shell"),
}
# Offered only where llama.cpp was built with RPC; they say so when called elsewhere.
_WITH_RPC = {"worker"}


class Root(click.Group):
    """The group of all commands, none of them imported before it is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_offered())

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module = import_module(f"wizard_edge.cli.{COMMANDS[cmd_name][0]}")
        command: click.Command = module.command
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args[0] not in COMMANDS and not ctx.resilient_parsing:
            raise _unknown_command(args[0])
        return super().resolve_command(ctx, args)

    def format_commands(
        self, ctx: click.Context, formatter: click.HelpFormatter
    ) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in _offered().items()])

    def shell_complete(
        self, ctx: click.Context, incomplete: str
    ) -> list[CompletionItem]:
        from click.shell_completion import CompletionItem

        names = [
            CompletionItem(name, help=text)
            for name, (_, text) in _offered().items()
            if name.startswith(incomplete)
        ]
        # Not Group's own, which would import every command.
        return names + click.Command.shell_complete(self, ctx, incomplete)

    def get_help_option(self, ctx: click.Context) -> click.Option | None:
        return brief(super().get_help_option(ctx))

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        *rest: object,
        **extra: object,
    ) -> NoReturn:
        """Run one command and exit with its code."""
        words = sys.argv[1:] if args is None else list(args)
        instruction = os.environ.get(COMPLETE_VARIABLE)
        if instruction:
            sys.exit(self._complete(instruction))
        app = App(Output(as_json=_asks_for_json(words)), os.environ)
        _end_tidily_on_signals()
        try:
            code = self._run(words, app)
        except BrokenPipeError:
            # The reader of a pipe left, as `head` does: no news to anybody.
            code = BROKEN_PIPE
        sys.exit(code)

    def _run(self, words: list[str], app: App) -> int:
        try:
            with self.make_context(PROGRAM, words, obj=app) as ctx:
                self.invoke(ctx)
        except click.exceptions.Exit as leave:
            return leave.exit_code
        except BrokenPipeError:
            raise
        except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001
            # The border of the process: what comes here ends the command.
            return _report(explain(error), error, app.output)
        finally:
            app.output.close_log()
        return 0

    def _complete(self, instruction: str) -> int:
        from click.shell_completion import shell_complete

        app = App(Output(), os.environ)
        return shell_complete(
            self, {"obj": app}, PROGRAM, COMPLETE_VARIABLE, instruction
        )


def _show_version(ctx: click.Context, _: click.Parameter, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        ctx.ensure_object(App).output.text(f"{PROGRAM} {__version__}")
        ctx.exit()


@click.group(
    PROGRAM,
    cls=Root,
    params=list(global_options()),
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    help="Run the WizardLM family on small machines, with the exact trained prompt.",
    epilog=f"'{PROGRAM} COMMAND --help' shows the options of a command.",
)
@click.option(
    "--version",
    is_flag=True,
    expose_value=False,
    is_eager=True,
    callback=_show_version,
    help="Show the version",
)
@pass_app
@click.pass_context
def root(ctx: click.Context, app: App) -> None:
    if ctx.invoked_subcommand is None:
        app.output.text(ctx.get_help())
        return
    app.output.open_log()


def _report(failure: Failure, error: BaseException, output: Output) -> int:
    if output.verbosity > (0 if failure.is_bug else 1):
        output.traceback(error)
    output.fail(failure)
    return failure.code


def _offered() -> dict[str, tuple[str, str]]:
    """Return the commands that this llama.cpp can do, told from its files."""
    from wizard_edge._llama.built import has_rpc

    if has_rpc():
        return COMMANDS
    return {name: entry for name, entry in COMMANDS.items() if name not in _WITH_RPC}


def _unknown_command(name: str) -> UsageError:
    from difflib import get_close_matches

    near = get_close_matches(name, _offered(), n=2)
    hint = f"did you mean {' or '.join(near)}?" if near else f"{PROGRAM} --help"
    return UsageError(f"unknown command {name!r}", hint=hint)


def _asks_for_json(words: Sequence[str]) -> bool:
    # A usage error must be JSON too, and comes before the options are parsed.
    options = words[: words.index("--")] if "--" in words else words
    return "--json" in options


def _end_tidily_on_signals() -> None:
    """Let a hang-up or `kill` end the program as Ctrl-C does: nothing half-written.

    A signal that is ignored, as under nohup, stays so.
    """
    for name in ("SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, _end)


def _end(number: int, frame: FrameType | None) -> NoReturn:
    # As a shell reports a program that a signal ended.
    sys.exit(128 + number)
