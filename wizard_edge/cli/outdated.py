"""`wizard-edge outdated`: what there is something newer of."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from wizard_edge.cli._app import App, Command, json_option, pass_app

if TYPE_CHECKING:
    from wizard_edge.service.updates import Outlook, Update

_EPILOG = """\
Looks in the catalogue, at the repositories that the models came from and, for what was
made here, at the version of the program that made it. Changes nothing.
"""


@click.command(
    "outdated",
    cls=Command,
    help="List models that there is something newer of",
    epilog=_EPILOG,
)
@json_option
@pass_app
def command(app: App) -> None:
    from wizard_edge.service.models import as_json
    from wizard_edge.service.updates import find_updates

    with app.output.progress(brief=True) as progress:
        outlook = find_updates(app.installation, progress=progress)
    if app.output.as_json:
        app.output.document(as_json(outlook.updates))
    elif not outlook.updates:
        app.output.say("no model is installed")
    else:
        _show(app, outlook)
    if outlook.error is not None:
        raise outlook.error


def _show(app: App, outlook: Outlook) -> None:
    app.output.table(
        ("NAME", "QUANT", "NEWER"),
        [(item.name, item.quant, _state(item)) for item in outlook.updates],
    )
    for item in outlook.updates:
        for newer in item.newer:
            app.output.say(f"{item.name}:{item.quant}: {newer.what}\n  {newer.command}")
    for problem in dict.fromkeys(item.problem for item in outlook.updates):
        if problem and outlook.error is None:
            app.output.warn(f"not everything was looked at: {problem}")


def _state(item: Update) -> str:
    """Say where something newer is; `?` where not everybody could be asked."""
    places = [newer.where.value for newer in item.newer]
    return ", ".join([*dict.fromkeys(places), *(["?"] if item.problem else [])]) or "-"
