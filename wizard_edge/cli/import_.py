"""`wizard-edge import`: a GGUF file that is here already, into the store."""

from __future__ import annotations

from pathlib import Path

import click

from wizard_edge.cli._app import App, Command, json_option, pass_app
from wizard_edge.cli._consent import accept_option, asking, commercial_option
from wizard_edge.cli._options import license_option, template_option
from wizard_edge.cli._stored import show_stored

_EPILOG = """\
FILE is a GGUF file, the first part of a split one (NAME-00001-of-00003.gguf), one of
the pieces that a file was cut into (NAME.gguf-split-a, NAME.gguf.part1of2), which are
joined, or a folder that 'export' made. It is copied unless --how says otherwise: a
link takes no room, and leaves the file to whoever may change or delete it. What the
catalogue knows by its hash gets the name, template and licences of its model.
"""


@click.command(
    "import",
    cls=Command,
    help="Bring a GGUF file into the store",
    epilog=_EPILOG,
)
@click.argument("file", metavar="FILE", type=click.Path(path_type=Path))
@click.option(
    "--name", metavar="NAME", help="Name the model (default: what it is known as)"
)
@click.option(
    "--how",
    type=click.Choice(["copy", "link", "hardlink", "symlink"]),
    default="copy",
    help="Copy, or link: hard, else symbolic (default: copy)",
)
@template_option("Record this prompt template (default: what is known)")
@license_option
@accept_option
@commercial_option
@json_option
@pass_app
def command(
    app: App,
    file: Path,
    name: str | None,
    template: str | None,
    licenses: tuple[str, ...],
    how: str,
    accept: tuple[str, ...],
    commercial: bool | None,
) -> None:
    from wizard_edge.service.imports import import_file
    from wizard_edge.service.taking import How

    with app.output.progress() as progress:
        stored = import_file(
            app.installation,
            file,
            name=name,
            template=template,
            licenses=licenses,
            how=How(how),
            consent=asking(app, accept, commercial=commercial),
            progress=progress,
        )
    show_stored(app.output, [stored])
