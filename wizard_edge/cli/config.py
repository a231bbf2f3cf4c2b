"""`wizard-edge config`: show, set and take back settings."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from wizard_edge.cli._app import App, Command, json_option, pass_app
from wizard_edge.cli._options import complete_settings
from wizard_edge.errors import UsageError

if TYPE_CHECKING:
    from wizard_edge.service.settings import SettingState

_NOT_SET = "-"


@click.command("config", cls=Command, help="Show or change settings")
@click.argument("key", required=False, shell_complete=complete_settings)
@click.argument("value", required=False)
@click.option("--unset", is_flag=True, help="Take the setting out of the settings file")
@json_option
@pass_app
def command(app: App, key: str | None, value: str | None, unset: bool) -> None:
    if key is None and unset:
        raise UsageError("--unset needs a key", hint="wizard-edge config KEY --unset")
    if value is not None and unset:
        raise UsageError("a value and --unset exclude each other")
    if key is None:
        _show_all(app)
    elif unset:
        _unset(app, key)
    elif value is None:
        _show(app, key)
    else:
        _set(app, key, value)


def _show_all(app: App) -> None:
    from wizard_edge.service.models import as_json
    from wizard_edge.service.settings import list_settings

    states = list_settings(app.installation)
    if app.output.as_json:
        app.output.document(as_json(states))
        return
    app.output.table(
        ("KEY", "VALUE", "FROM", "MEANING"),
        [
            (state.key, _spell(state), state.where or state.origin, state.help)
            for state in states
        ],
    )


def _show(app: App, key: str) -> None:
    from wizard_edge.service.settings import get_setting

    state = get_setting(app.installation, key)
    if app.output.as_json:
        _document(app, state)
        return
    app.output.text(_spell(state))
    app.output.detail(f"from: {state.where or state.origin}")


def _set(app: App, key: str, value: str) -> None:
    from wizard_edge.service.settings import set_setting

    state = set_setting(app.installation, key, value)
    if app.output.as_json:
        _document(app, state)
    elif state.origin == "environment":
        app.output.warn(f"{state.where} is set and still wins: {_spell(state)}")
    app.output.say(f"{key} is {_spell(state)}")


def _unset(app: App, key: str) -> None:
    from wizard_edge.service.settings import unset_setting

    state = unset_setting(app.installation, key)
    if app.output.as_json:
        _document(app, state)
    app.output.say(f"{key} is {_spell(state)} (from: {state.where or state.origin})")


def _document(app: App, state: SettingState) -> None:
    from wizard_edge.service.models import as_json

    app.output.document(as_json(state))


def _spell(state: SettingState) -> str:
    if isinstance(state.value, bool):
        return "true" if state.value else "false"
    return _NOT_SET if state.value is None else str(state.value)
