"""`wizard-edge quantize`: a GGUF file to the same model in other types.

The converters are imported when they are used.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from wizard_edge.cli._app import App, Command, json_option, pass_app
from wizard_edge.cli._options import commercial_option, dry_run_option, overwrite_option
from wizard_edge.cli._recipes import outputs_for, recipe_options
from wizard_edge.cli._stored import show_cost, show_files

if TYPE_CHECKING:
    from wizard_edge.conversion import Recipe

_EPILOG = """\
IN is a GGUF file, or the first part of a split one. With several --quant it is read
once, and the name of OUT contains {quant}, which stands for the name of each.
"""


@click.command(
    "quantize",
    cls=Command,
    help="Quantize a GGUF file to other types",
    epilog=_EPILOG,
)
@click.argument("source", metavar="IN", type=click.Path(path_type=Path))
@click.argument("output", metavar="OUT", type=click.Path(path_type=Path))
@recipe_options
@click.option(
    "--allow-requantize",
    is_flag=True,
    help="Take a quantized file, losing twice (default: refuse)",
)
@commercial_option
@overwrite_option
@dry_run_option
@json_option
@pass_app
def command(
    app: App,
    source: Path,
    output: Path,
    recipe: Recipe,
    allow_requantize: bool,
    commercial: bool | None,
    overwrite: bool,
    dry_run: bool,
) -> None:
    from wizard_edge.service.consent import refuse_file
    from wizard_edge_converters.seam import Quantizer

    refuse_file(app.installation, source, commercial=commercial)
    quantizer = Quantizer(overwrite=overwrite, allow_requantize=allow_requantize)
    outputs = outputs_for(output, recipe.quants)
    if dry_run:
        cost = quantizer.estimate(source, outputs, recipe)
        show_cost(app.output, cost, name=str(source), already=False)
        return
    with app.output.progress() as progress:
        done = quantizer.quantize(source, outputs, recipe, progress=progress)
    show_files(app.output, done)
