"""Writes docs/cli.md from the commands themselves; a test compares the two.

python tools/cli_docs.py
"""

from __future__ import annotations

from pathlib import Path

import click

from wizard_edge.cli._failures import BROKEN_PIPE
from wizard_edge.cli._root import COMMANDS, PROGRAM, root

PAGE = Path(__file__).resolve().parent.parent / "docs" / "cli.md"

_HEAD = """\
# The commands

This page is written by `python tools/cli_docs.py`; `{program} COMMAND --help` says
the same.

Answers and data go to stdout; talk, progress, hints and errors go to stderr.
Commands that show data take `--json`: stdout then holds one JSON document and stderr
JSON lines, `{{"stage","done","total","unit"}}` for progress and
`{{"error":{{"code","kind","message","hint"}}}}` for an error.

## Global options

They may stand before or after the command.

{options}

## Exit codes

| code | meaning |
|---|---|
{codes}

## Commands

{commands}
"""

# Exit code -> when; 141 is what a shell shows for a program that SIGPIPE ended.
EXIT_CODES = {
    0: "done",
    1: "a bug of this program",
    2: "usage: an option, an argument or a value that makes no sense",
    3: "not found: an unknown model or quant, a missing file",
    4: "the hub or the network",
    5: "refused: a licence, a missing consent, a permission, a thing in use",
    6: "damaged bytes",
    7: "not enough disk or memory",
    8: "llama.cpp: missing, or it cannot run this model",
    9: "valid input that cannot be converted",
    10: "settings or registry files that make no sense",
    130: "interrupted by Ctrl-C; what was answered by then is on stdout",
    BROKEN_PIPE: "the reader of a pipe left, as `head` does; nothing is said",
}


def main() -> None:
    """Write the page."""
    PAGE.write_text(page(), encoding="utf-8")


def page() -> str:
    """Return the page as the commands are now."""
    ctx = click.Context(root, info_name=PROGRAM)
    return _HEAD.format(
        program=PROGRAM,
        options=_options(root),
        codes="\n".join(f"| {code} | {text} |" for code, text in EXIT_CODES.items()),
        commands="\n\n".join(_command(ctx, name) for name in COMMANDS),
    )


def _command(ctx: click.Context, name: str) -> str:
    command = root.get_command(ctx, name)
    assert command is not None
    usage = " ".join((PROGRAM, name, *_arguments(command)))
    parts = [
        f"### {name}",
        f"{command.help}.",
        f"    {usage}",
        _epilog(command),
        _options(command),
    ]
    return "\n\n".join(part for part in parts if part)


def _epilog(command: click.Command) -> str:
    text = (command.epilog or "").strip()
    # click's mark for lines that stay as they are.
    if text.startswith("\b"):
        return "```text\n" + text.removeprefix("\b").strip() + "\n```"
    return text


def _arguments(command: click.Command) -> list[str]:
    words = []
    for argument in command.params:
        if isinstance(argument, click.Argument):
            word = argument.metavar or (argument.name or "").upper()
            words.append(word if argument.required else f"[{word}]")
    return words


def _options(command: click.Command) -> str:
    options = [item for item in command.params if isinstance(item, click.Option)]
    if not options:
        return ""
    rows = [f"| {_spelling(option)} | {option.help} |" for option in options]
    return "\n".join(("| option | what it does |", "|---|---|", *rows))


def _spelling(option: click.Option) -> str:
    value = "" if option.is_flag or option.count else f" {_value(option)}"
    names = [f"`{name}`" for name in option.opts[:-1]]
    # A bar would end the cell of the table.
    return ", ".join((*names, f"`{option.opts[-1]}{value}`")).replace("|", "\\|")


def _value(option: click.Option) -> str:
    if isinstance(option.type, click.Choice):
        return "|".join(map(str, option.type.choices))
    assert option.metavar is not None
    return option.metavar


if __name__ == "__main__":
    main()
