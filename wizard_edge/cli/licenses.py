"""`wizard-edge licenses`: what the models here oblige to, and what was accepted."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from wizard_edge.cli._app import App, Command, json_option, pass_app
from wizard_edge.cli._options import complete_licenses
from wizard_edge.errors import UsageError

if TYPE_CHECKING:
    from wizard_edge.service.licenses import LicenseCard, Overview

_EPILOG = """\
Without an argument it lists the licences of what is in the store, and what each
obliges you to. 'show ID' shows one of them, 'accept ID' records that you accept it.
"""
_COMMERCIAL = {True: "allowed", False: "no", None: "unclear"}


@click.command(
    "licenses",
    cls=Command,
    help="Show or accept the licences of models",
    epilog=_EPILOG,
)
@click.argument(
    "action",
    required=False,
    metavar="show|accept",
    type=click.Choice(["show", "accept"]),
)
@click.argument("ids", nargs=-1, metavar="ID...", shell_complete=complete_licenses)
@json_option
@pass_app
def command(app: App, action: str | None, ids: tuple[str, ...]) -> None:
    if action is None:
        _list(app)
    elif not ids:
        raise UsageError(f"{action} which licence?", hint="wizard-edge licenses")
    elif action == "accept":
        _accept(app, ids)
    else:
        _show(app, ids)


def _list(app: App) -> None:
    from wizard_edge.service.licenses import list_licenses
    from wizard_edge.service.models import as_json

    overview = list_licenses(app.installation)
    if app.output.as_json:
        app.output.document(as_json(overview))
        return
    if not overview.licenses and not overview.unstated:
        app.output.say("no model is installed: nothing obliges you to anything")
        return
    _write_overview(app, overview)


def _write_overview(app: App, overview: Overview) -> None:
    rows = [
        (card.id, _COMMERCIAL[card.commercial], _accepted(card), ", ".join(card.models))
        for card in overview.licenses
    ]
    if overview.unstated:
        rows.append(("-", "unclear", "-", ", ".join(overview.unstated)))
    app.output.table(("LICENCE", "COMMERCIAL USE", "ACCEPTED", "MODELS"), rows)
    for card in overview.licenses:
        app.output.text(f"\n{card.summary}".rstrip("\n"))
    for conflict in overview.conflicts:
        app.output.text(f"\nconflict about {conflict.model}: {conflict.text}")


def _accepted(card: LicenseCard) -> str:
    """Say in a word or two whether the licence was accepted."""
    if card.accepted is not None:
        return card.accepted.accepted[:10]
    if card.recorded is not None:
        return card.recorded[:10]
    if card.accepted_before:
        return "in other words"
    return "no" if card.needed else "not needed"


def _show(app: App, ids: tuple[str, ...]) -> None:
    from wizard_edge.service.licenses import show_license
    from wizard_edge.service.models import as_json

    cards = [show_license(app.installation, id) for id in ids]
    if app.output.as_json:
        app.output.document(as_json(cards if len(cards) > 1 else cards[0]))
        return
    for card in cards:
        app.output.text(card.summary.rstrip("\n"))
        app.output.text(f"  {_standing(card)}")
        if card.models:
            app.output.text(f"  models here: {', '.join(card.models)}")


def _standing(card: LicenseCard) -> str:
    entry = card.accepted
    if entry is not None:
        return f"accepted {entry.accepted} by {entry.by} ({_HOW[entry.how]})"
    if card.recorded is not None:
        return f"accepted {card.recorded}, as a receipt here says"
    if card.accepted_before:
        return "accepted in other words than these; they changed since"
    return "not accepted"


_HOW = {
    "asked": "on a terminal",
    "flag": "by --accept-license",
    "command": "by 'licenses accept'",
}


def _accept(app: App, ids: tuple[str, ...]) -> None:
    from wizard_edge.service.licenses import accept_licenses
    from wizard_edge.service.models import as_json

    cards = accept_licenses(app.installation, ids)
    if app.output.as_json:
        app.output.document(as_json(cards if len(cards) > 1 else cards[0]))
    for card in cards:
        app.output.say(card.summary.rstrip("\n"))
        app.output.say(f"accepted {card.id}")
