"""`wizard-edge convert`: original weights to a GGUF file, in the store or anywhere.

The converters are imported when they are used, and handed down as a value.
"""

from __future__ import annotations

from pathlib import Path

import click

from wizard_edge.cli._app import App, Command, json_option, pass_app
from wizard_edge.cli._options import complete_quants, template_option
from wizard_edge.cli._stored import show_cost, show_file, show_stored


@click.command("convert", cls=Command, help="Convert original weights to a GGUF file")
@click.argument("source", metavar="SRC", type=click.Path())
@click.option(
    "-q",
    "--quant",
    default="Q4_K_M",
    metavar="QUANT",
    shell_complete=complete_quants,
    help="Quantize to this type (default: Q4_K_M)",
)
@click.option(
    "-o",
    "--output",
    "file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Write this file (default: install into the store)",
)
@click.option("--name", metavar="NAME", help="Name the model (default: as its folder)")
@template_option("Record this prompt template (default: what is known)")
@click.option(
    "--license",
    "licenses",
    multiple=True,
    metavar="ID",
    help="Record this licence, repeatable (default: what is known)",
)
@click.option(
    "--overwrite", is_flag=True, help="Replace what is there (default: refuse)"
)
@click.option(
    "--dry-run", is_flag=True, help="Say what it would take in bytes, do nothing"
)
@json_option
@pass_app
def command(
    app: App,
    source: str,
    quant: str,
    file: Path | None,
    name: str | None,
    template: str | None,
    licenses: tuple[str, ...],
    overwrite: bool,
    dry_run: bool,
) -> None:
    if dry_run:
        _estimate(app, source, quant, name, template, licenses)
    elif file is not None:
        _write(app, source, quant, file, name, template, licenses, overwrite=overwrite)
    else:
        _install(app, source, quant, name, template, licenses, overwrite=overwrite)


def _estimate(
    app: App,
    source: str,
    quant: str,
    name: str | None,
    template: str | None,
    licenses: tuple[str, ...],
) -> None:
    from wizard_edge.service.conversions import estimate_conversion
    from wizard_edge_converters.seam import Pipeline

    cost = estimate_conversion(
        app.installation,
        source,
        quant,
        convert=Pipeline(),
        name=name,
        template=template,
        licenses=licenses,
    )
    show_cost(app.output, cost, name=name or source, already=False)


def _write(
    app: App,
    source: str,
    quant: str,
    file: Path,
    name: str | None,
    template: str | None,
    licenses: tuple[str, ...],
    *,
    overwrite: bool,
) -> None:
    from wizard_edge.service.conversions import convert_to_file
    from wizard_edge_converters.seam import Pipeline

    with app.output.progress() as progress:
        made = convert_to_file(
            app.installation,
            source,
            quant,
            file,
            convert=Pipeline(overwrite=overwrite),
            name=name,
            template=template,
            licenses=licenses,
            progress=progress,
        )
    show_file(app.output, made.path, made.size, made.sha256)


def _install(
    app: App,
    source: str,
    quant: str,
    name: str | None,
    template: str | None,
    licenses: tuple[str, ...],
    *,
    overwrite: bool,
) -> None:
    from wizard_edge.service.conversions import convert_to_store
    from wizard_edge_converters.seam import Pipeline

    with app.output.progress() as progress:
        stored = convert_to_store(
            app.installation,
            source,
            quant,
            convert=Pipeline(),
            name=name,
            template=template,
            licenses=licenses,
            overwrite=overwrite,
            progress=progress,
        )
    show_stored(app.output, stored)
