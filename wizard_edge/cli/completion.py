"""`wizard-edge completion`: click's own completion scripts."""

from __future__ import annotations

import click

from wizard_edge.cli._app import App, Command, pass_app

SHELLS = ("bash", "zsh", "fish")
_EPILOG = """\
\b
Put this into the file that your shell reads when it starts:
  bash  eval "$(wizard-edge completion bash)"   in ~/.bashrc
  zsh   eval "$(wizard-edge completion zsh)"    in ~/.zshrc
  fish  wizard-edge completion fish | source    in ~/.config/fish/config.fish
"""


@click.command(
    "completion",
    cls=Command,
    help="Write the completion script for a shell",
    epilog=_EPILOG,
)
@click.argument("shell", type=click.Choice(SHELLS), metavar="SHELL")
@click.pass_context
@pass_app
def command(app: App, ctx: click.Context, shell: str) -> None:
    from click.shell_completion import ShellComplete, get_completion_class

    from wizard_edge.cli._root import COMPLETE_VARIABLE, PROGRAM

    kind = get_completion_class(shell)
    assert kind is not None
    script = kind(ctx.find_root().command, {}, PROGRAM, COMPLETE_VARIABLE)
    # Not bash's own `source`, which starts a shell to ask for its version.
    app.output.text(ShellComplete.source(script))
