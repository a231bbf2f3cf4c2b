"""`wizard-edge list`: what is installed, or all there is."""

from __future__ import annotations

from datetime import date, datetime
from typing import TYPE_CHECKING

import click

from wizard_edge.cli._app import App, Command, json_option, pass_app
from wizard_edge.units import format_bytes, format_count, format_days_ago

if TYPE_CHECKING:
    from wizard_edge.service.models import InstalledModel

# Name of a figure, what a row calls it and how it writes it.
_FIGURES = (("perplexity", "ppl", ".2f"), ("kl_divergence", "kl", ".4f"))


@click.command("list", cls=Command, help="List the models in the store")
@click.option(
    "-a",
    "--all",
    "whole_catalogue",
    is_flag=True,
    help="List every model of the catalogue (default: installed)",
)
@json_option
@pass_app
def command(app: App, whole_catalogue: bool) -> None:
    if whole_catalogue:
        _list_catalogue(app)
    else:
        _list_installed(app)


def _list_installed(app: App) -> None:
    from wizard_edge.service.models import as_json, list_installed

    models = list_installed(app.installation)
    if app.output.as_json:
        app.output.document(as_json(models))
        return
    if not models:
        app.output.say("no model is installed\nhint: wizard-edge pull apprentice")
        return
    today = _day(app.installation.now())
    heads = ["NAME", "QUANT", "SIZE", "TEMPLATE", "LICENCE", "LAST USED"]
    rows = [
        [
            model.name,
            model.quant,
            format_bytes(model.size),
            model.template or "-",
            ", ".join(model.licenses) or "-",
            _days_ago(model.last_used, today),
        ]
        for model in models
    ]
    qualities = [_quality(model) for model in models]
    if any(qualities):
        heads.append("QUALITY")
        for row, quality in zip(rows, qualities, strict=True):
            row.append(quality or "-")
    app.output.table(heads, rows, right=("SIZE",))
    for model in models:
        if model.problem:
            app.output.warn(f"{model.name}:{model.quant}: {model.problem}")


def _day(utc: str) -> date:
    """Return the day that a time in UTC is on where this machine stands."""
    return datetime.fromisoformat(utc).astimezone().date()


def _days_ago(utc: str | None, today: date) -> str:
    return format_days_ago((today - _day(utc)).days) if utc else "-"


def _quality(model: InstalledModel) -> str:
    """Write the figures of `eval` in a few letters; "" where there are none."""
    figures = model.quality or {}
    parts = [
        f"{short} {figures[name]:{form}}"
        for name, short, form in _FIGURES
        if name in figures
    ]
    return ", ".join(parts)


def _list_catalogue(app: App) -> None:
    from wizard_edge.service.models import as_json, list_catalogue

    entries = list_catalogue(app.installation)
    if app.output.as_json:
        app.output.document(as_json(entries))
        return
    app.output.table(
        ("NAME", "PARAMS", "TEMPLATE", "LICENCE", "FITS", "INSTALLED"),
        [
            (
                entry.name,
                format_count(entry.parameters) if entry.parameters else "-",
                entry.template,
                ", ".join(entry.licenses),
                entry.fits or "-",
                ", ".join(entry.installed) or "-",
            )
            for entry in entries
        ],
        right=("PARAMS",),
    )
