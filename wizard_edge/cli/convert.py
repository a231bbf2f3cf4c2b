"""`wizard-edge convert`: original weights to GGUF files, in the store or anywhere.

The converters are imported when they are used, and handed down as a value.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from wizard_edge.cli._app import App, Command, json_option, pass_app
from wizard_edge.cli._consent import accept_option, asking, commercial_option
from wizard_edge.cli._options import (
    dry_run_option,
    license_option,
    overwrite_option,
    template_option,
)
from wizard_edge.cli._recipes import (
    base_option,
    keep_weights_option,
    outputs_for,
    recipe_options,
)
from wizard_edge.cli._stored import show_cost, show_files, show_stored

if TYPE_CHECKING:
    from wizard_edge.conversion import Recipe
    from wizard_edge.service.checkpoints import Request
    from wizard_edge.service.consent import Consent


@click.command("convert", cls=Command, help="Convert original weights to a GGUF file")
@click.argument("source", metavar="SRC", type=click.Path())
@recipe_options
@click.option(
    "-o",
    "--output",
    "file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Write this file (default: install into the store)",
)
@base_option
@keep_weights_option
@click.option("--name", metavar="NAME", help="Name the model (default: as its folder)")
@template_option("Record this prompt template (default: what is known)")
@license_option
@accept_option
@commercial_option
@overwrite_option
@dry_run_option
@json_option
@pass_app
def command(
    app: App,
    source: str,
    recipe: Recipe,
    file: Path | None,
    base: str | None,
    keep_weights: Path | None,
    name: str | None,
    template: str | None,
    licenses: tuple[str, ...],
    accept: tuple[str, ...],
    commercial: bool | None,
    overwrite: bool,
    dry_run: bool,
) -> None:
    from wizard_edge.service.checkpoints import Request

    recipe = replace(recipe, keep_weights=keep_weights)
    request = Request(source, recipe, base, name, template, licenses)
    consent = asking(app, accept, commercial=commercial)
    if dry_run:
        _estimate(app, request, commercial)
    elif file is not None:
        _write(app, request, file, consent, overwrite=overwrite)
    else:
        _install(app, request, consent, overwrite=overwrite)


def _estimate(app: App, request: Request, commercial: bool | None) -> None:
    from wizard_edge.service.conversions import estimate_conversion
    from wizard_edge_converters.seam import Pipeline

    pipeline = Pipeline(environ=app.installation.environ)
    cost = estimate_conversion(
        app.installation, request, convert=pipeline, commercial=commercial
    )
    show_cost(app.output, cost, name=request.name or request.source, already=False)


def _write(
    app: App, request: Request, file: Path, consent: Consent, *, overwrite: bool
) -> None:
    from wizard_edge.service.conversions import convert_to_file
    from wizard_edge_converters.seam import Pipeline

    pipeline = Pipeline(overwrite=overwrite, environ=app.installation.environ)
    outputs = outputs_for(file, request.recipe.quants)
    with app.output.progress() as progress:
        done = convert_to_file(
            app.installation,
            request,
            outputs,
            convert=pipeline,
            consent=consent,
            progress=progress,
        )
    show_files(app.output, done)


def _install(app: App, request: Request, consent: Consent, *, overwrite: bool) -> None:
    from wizard_edge.service.conversions import convert_to_store
    from wizard_edge_converters.seam import Pipeline

    pipeline = Pipeline(environ=app.installation.environ)
    with app.output.progress() as progress:
        stored = convert_to_store(
            app.installation,
            request,
            convert=pipeline,
            overwrite=overwrite,
            consent=consent,
            progress=progress,
        )
    show_stored(app.output, stored)
