"""`wizard-edge export`: a model of the store, to a stick or anywhere."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from wizard_edge.cli._app import App, Command, json_option, pass_app
from wizard_edge.cli._options import (
    commercial_option,
    complete_installed,
    overwrite_option,
)
from wizard_edge.cli._recipes import read_size
from wizard_edge.units import format_bytes

if TYPE_CHECKING:
    from wizard_edge.service.exports import Exported

_EPILOG = """\
DEST is a folder, which is made. It gets the GGUF files with their receipt, the licence
texts, and SHA256SUMS for 'sha256sum -c'. FAT32 takes no file of 4 GiB: --split 4G cuts
larger ones into pieces (NAME.gguf.part1of2). 'wizard-edge import DEST' puts all of it
together again. The same command goes on where an interrupted one ended.
"""


@click.command("export", cls=Command, help="Write a model to a folder", epilog=_EPILOG)
@click.argument("model", metavar="MODEL[:QUANT]", shell_complete=complete_installed)
@click.argument("folder", metavar="DEST", type=click.Path(path_type=Path))
@click.option(
    "--split",
    callback=read_size,
    metavar="SIZE",
    help="Cut into files of SIZE, such as 4G (default: do not)",
)
@overwrite_option
@commercial_option
@json_option
@pass_app
def command(
    app: App,
    model: str,
    folder: Path,
    split: int | None,
    overwrite: bool,
    commercial: bool | None,
) -> None:
    from wizard_edge.service.exports import export_model

    with app.output.progress() as progress:
        exported = export_model(
            app.installation,
            model,
            folder,
            split=split,
            overwrite=overwrite,
            commercial=commercial,
            progress=progress,
        )
    _show(app, exported)


def _show(app: App, exported: Exported) -> None:
    from wizard_edge.service.models import as_json

    receipt = exported.receipt
    if app.output.as_json:
        document = {
            "name": receipt.model,
            "quant": receipt.quant,
            "folder": str(exported.folder),
            "size": receipt.size,
            "sha256": receipt.sha256,
            "files": as_json(exported.files),
        }
        app.output.document(document)
        return
    for file in exported.files:
        there = ", was there" if file.kept else ""
        app.output.detail(f"{file.name} ({format_bytes(file.size)}{there})")
    count = len(exported.files)
    app.output.say(
        f"exported {receipt.model}:{receipt.quant} ({format_bytes(receipt.size)}) "
        f"as {count} files to {exported.folder}"
    )
