"""`wizard-edge pull`: bring a model into the store."""

from __future__ import annotations

import click

from wizard_edge.cli._app import App, Command, json_option, pass_app
from wizard_edge.cli._options import complete_models
from wizard_edge.cli._stored import show_cost, show_stored, show_terms


@click.command("pull", cls=Command, help="Bring a model into the store")
@click.argument("model", metavar="MODEL[:QUANT]", shell_complete=complete_models)
@click.option(
    "--dry-run", is_flag=True, help="Say what it would take in bytes, do nothing"
)
@json_option
@pass_app
def command(app: App, model: str, dry_run: bool) -> None:
    if dry_run:
        _plan(app, model)
    else:
        _pull(app, model)


def _plan(app: App, model: str) -> None:
    from wizard_edge.service.pull import plan_pull
    from wizard_edge_converters.seam import Pipeline

    plan = plan_pull(app.installation, model, convert=Pipeline())
    name = f"{plan.name}:{plan.quant}"
    show_cost(app.output, plan.cost, name=name, already=plan.already)


def _pull(app: App, model: str) -> None:
    from wizard_edge.service.pull import plan_pull, pull
    from wizard_edge_converters.seam import Pipeline

    plan = plan_pull(app.installation, model, convert=Pipeline())
    if not plan.already:
        show_terms(app.output, plan.terms)
    with app.output.progress() as progress:
        stored = pull(app.installation, model, convert=Pipeline(), progress=progress)
    show_stored(app.output, stored)
    receipt = stored.receipt
    app.output.say(
        f'next: wizard-edge run {receipt.model}:{receipt.quant} "Who are you?"'
    )
