"""`wizard-edge pull`: bring a model into the store."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from wizard_edge.cli._app import App, Command, json_option, pass_app
from wizard_edge.cli._options import complete_models, dry_run_option
from wizard_edge.cli._recipes import base_option, keep_weights_option
from wizard_edge.cli._stored import show_cost, show_stored, show_terms

if TYPE_CHECKING:
    from wizard_edge.service.pull import PullRequest


@click.command("pull", cls=Command, help="Bring a model into the store")
@click.argument("model", metavar="MODEL[:QUANT]", shell_complete=complete_models)
@click.option(
    "--from",
    "origin",
    type=click.Choice(["weights"]),
    help="Convert the original weights while they stream (default: no)",
)
@base_option
@keep_weights_option
@dry_run_option
@json_option
@pass_app
def command(
    app: App,
    model: str,
    origin: str | None,
    base: str | None,
    keep_weights: Path | None,
    dry_run: bool,
) -> None:
    from wizard_edge.conversion import Recipe
    from wizard_edge.service.pull import PullRequest

    request = PullRequest(
        model,
        from_weights=origin == "weights",
        base=base,
        recipe=replace(Recipe(), keep_weights=keep_weights),
    )
    if dry_run:
        _plan(app, request)
    else:
        _pull(app, request)


def _plan(app: App, request: PullRequest) -> None:
    from wizard_edge.service.pull import plan_pull
    from wizard_edge_converters.seam import Pipeline

    pipeline = Pipeline(environ=app.installation.environ)
    plan = plan_pull(app.installation, request, convert=pipeline)
    name = f"{plan.name}:{plan.quant}"
    show_cost(app.output, plan.cost, name=name, already=plan.already)


def _pull(app: App, request: PullRequest) -> None:
    from wizard_edge.service.pull import find_terms, pull
    from wizard_edge_converters.seam import Pipeline

    terms = find_terms(app.installation, request)
    if terms is not None:
        show_terms(app.output, terms)
    pipeline = Pipeline(environ=app.installation.environ)
    with app.output.progress() as progress:
        stored = pull(app.installation, request, convert=pipeline, progress=progress)
    show_stored(app.output, [stored])
    receipt = stored.receipt
    app.output.say(
        f'next: wizard-edge run {receipt.model}:{receipt.quant} "Who are you?"'
    )
