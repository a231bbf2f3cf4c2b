"""`wizard-edge rm`: take models out of the store, after asking."""

from __future__ import annotations

import click

from wizard_edge.cli._app import App, Command, json_option, pass_app
from wizard_edge.cli._options import complete_installed
from wizard_edge.errors import Refused
from wizard_edge.units import format_bytes


@click.command("rm", cls=Command, help="Remove models from the store")
@click.argument(
    "models",
    nargs=-1,
    required=True,
    metavar="MODEL[:QUANT]...",
    shell_complete=complete_installed,
)
@click.option("-y", "--yes", is_flag=True, help="Remove without asking (default: ask)")
@json_option
@pass_app
def command(app: App, models: tuple[str, ...], yes: bool) -> None:
    from wizard_edge.service.models import as_json, plan_removal, remove

    removal = plan_removal(app.installation, models)
    names = ", ".join(removal.models)
    if not yes and not app.output.confirm(
        f"remove {names} ({format_bytes(removal.size)})?"
    ):
        raise Refused("nothing was removed", hint="--yes removes without asking")
    freed = remove(app.installation, removal)
    if app.output.as_json:
        app.output.document({"removed": as_json(removal.models), "freed": freed})
    app.output.say(f"removed {names}, {format_bytes(freed)} freed")
