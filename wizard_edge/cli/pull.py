"""`wizard-edge pull`: bring a model into the store."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from wizard_edge.cli._app import App, Command, json_option, pass_app
from wizard_edge.cli._consent import accept_option, asking, commercial_option
from wizard_edge.cli._options import complete_models, dry_run_option
from wizard_edge.cli._plans import show_plan
from wizard_edge.cli._recipes import base_option, keep_weights_option, read_size
from wizard_edge.cli._stored import show_stored

if TYPE_CHECKING:
    from wizard_edge.service.wanted import PullRequest

_EPILOG = """\
MODEL is a model of the catalogue ('list --all'), hf:OWNER/REPO, hf:OWNER/REPO:QUANT,
hf:OWNER/REPO/FILE.gguf, or the https address of a GGUF file, which may end in
#sha256=DIGEST. Without a quant the best one that fits this machine is taken. The same
command goes on where an earlier one was interrupted.
"""


@click.command("pull", cls=Command, help="Bring a model into the store", epilog=_EPILOG)
@click.argument("model", metavar="MODEL[:QUANT]", shell_complete=complete_models)
@click.option(
    "--from",
    "origin",
    type=click.Choice(["weights"]),
    help="Convert the original weights while they stream (default: no)",
)
@base_option
@keep_weights_option
@accept_option
@commercial_option
@click.option(
    "--connections",
    type=click.IntRange(1, 16),
    default=4,
    metavar="N",
    help="Fetch over N connections at once (default: 4)",
)
@click.option(
    "--limit-rate",
    callback=read_size,
    metavar="SIZE",
    help="Fetch SIZE a second at most, such as 2M (default: no limit)",
)
@click.option(
    "--mirror",
    "mirrors",
    multiple=True,
    metavar="URL",
    help="Ask this mirror for bytes first, repeatable (default: none)",
)
@dry_run_option
@json_option
@pass_app
def command(
    app: App,
    model: str,
    origin: str | None,
    base: str | None,
    keep_weights: Path | None,
    accept: tuple[str, ...],
    commercial: bool | None,
    connections: int,
    limit_rate: int | None,
    mirrors: tuple[str, ...],
    dry_run: bool,
) -> None:
    from wizard_edge.conversion import Recipe
    from wizard_edge.service.wanted import PullRequest

    request = PullRequest(
        model,
        from_weights=origin == "weights",
        base=base,
        recipe=replace(Recipe(), keep_weights=keep_weights),
        connections=connections,
        rate=limit_rate,
        mirrors=mirrors,
    )
    if dry_run:
        _plan(app, request, commercial)
    else:
        _pull(app, request, accept, commercial)


def _plan(app: App, request: PullRequest, commercial: bool | None) -> None:
    from wizard_edge.service.pull_plans import plan_pull
    from wizard_edge_converters.seam import Pipeline

    pipeline = Pipeline(environ=app.installation.environ)
    with app.output.progress(brief=True) as progress:
        plan = plan_pull(
            app.installation,
            request,
            convert=pipeline,
            commercial=commercial,
            progress=progress,
        )
    show_plan(app.output, plan)


def _pull(
    app: App, request: PullRequest, accept: tuple[str, ...], commercial: bool | None
) -> None:
    from wizard_edge.service.pull import pull
    from wizard_edge_converters.seam import Pipeline

    pipeline = Pipeline(environ=app.installation.environ)
    with app.output.progress() as progress:
        stored = pull(
            app.installation,
            request,
            convert=pipeline,
            consent=asking(app, accept, commercial=commercial),
            commercial=commercial,
            progress=progress,
        )
    show_stored(app.output, [stored])
    receipt = stored.receipt
    if not receipt.licenses:
        app.output.say("licence: nobody says which; look where it comes from")
    app.output.say(
        f'next: wizard-edge run {receipt.model}:{receipt.quant} "Who are you?"'
    )
