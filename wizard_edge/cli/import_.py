"""`wizard-edge import`: a model that is here already, into the store."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from wizard_edge.cli._app import App, Command, json_option, pass_app
from wizard_edge.cli._consent import accept_option, asking, commercial_option
from wizard_edge.cli._options import license_option, template_option
from wizard_edge.cli._stored import show_stored
from wizard_edge.errors import UsageError
from wizard_edge.units import format_bytes

if TYPE_CHECKING:
    from wizard_edge.service.adoption import FoundModel, Wish
    from wizard_edge.service.other_stores import Program
    from wizard_edge.service.taking import How

_EPILOG = """\
FILE is a GGUF file, the first part of a split one (NAME-00001-of-00003.gguf), one of
the pieces that a file was cut into (NAME.gguf-split-a, NAME.gguf.part1of2), which are
joined, or a folder that 'export' made. It is copied unless --how says otherwise: a
link takes no room, and leaves the file to whoever may change or delete it. What the
catalogue knows by its hash gets the name, template and licences of its model.

Without FILE, the models of Ollama, LM Studio and the Hugging Face cache are listed;
--from with a NAME of the list, or --all, takes them over by a link, without a copy.
"""
# What the program itself says, without importing the service for --help.
_PROGRAMS = ("ollama", "lm-studio", "huggingface")


@click.command(
    "import",
    cls=Command,
    help="Bring a GGUF file into the store",
    epilog=_EPILOG,
)
@click.argument("words", nargs=-1, metavar="[FILE|NAME...]")
@click.option(
    "--from",
    "program",
    type=click.Choice(_PROGRAMS),
    help="Take models over from this program (default: from FILE)",
)
@click.option(
    "--all",
    "everything",
    is_flag=True,
    help="Take over all that can be run (default: those named)",
)
@click.option(
    "--name", metavar="NAME", help="Name the model (default: what it is known as)"
)
@click.option(
    "--how",
    type=click.Choice(["copy", "link", "hardlink", "symlink"]),
    help="Copy or link (default: copy; with --from: link)",
)
@template_option("Record this prompt template (default: what is known)")
@license_option
@accept_option
@commercial_option
@json_option
@pass_app
def command(
    app: App,
    words: tuple[str, ...],
    program: Program | None,
    everything: bool,
    name: str | None,
    how: str | None,
    template: str | None,
    licenses: tuple[str, ...],
    accept: tuple[str, ...],
    commercial: bool | None,
) -> None:
    from wizard_edge.service.adoption import Wish
    from wizard_edge.service.taking import How

    wish = Wish(
        names=words,
        everything=everything,
        program=program,
        how=How(how or "link"),
        name=name,
        template=template,
        licenses=licenses,
    )
    if everything and words:
        raise UsageError("--all and names at once", hint="leave out one of them")
    if everything or (program and words):
        _adopt(app, wish, accept, commercial=commercial)
    elif not words:
        _list(app, program)
    elif len(words) > 1:
        raise UsageError(
            "one FILE at a time", hint="--from PROGRAM takes several names"
        )
    else:
        _import(app, wish, How(how or "copy"), accept, commercial=commercial)


def _import(
    app: App, wish: Wish, how: How, accept: tuple[str, ...], *, commercial: bool | None
) -> None:
    from wizard_edge.service.imports import import_file

    with app.output.progress() as progress:
        stored = import_file(
            app.installation,
            Path(wish.names[0]),
            name=wish.name,
            template=wish.template,
            licenses=wish.licenses,
            how=how,
            consent=asking(app, accept, commercial=commercial),
            commercial=commercial,
            progress=progress,
        )
    show_stored(app.output, [stored])


def _adopt(
    app: App, wish: Wish, accept: tuple[str, ...], *, commercial: bool | None
) -> None:
    from wizard_edge.service.adoption import adopt

    with app.output.progress() as progress:
        adoption = adopt(
            app.installation,
            _user(app),
            wish,
            consent=asking(app, accept, commercial=commercial),
            commercial=commercial,
            progress=progress,
        )
    show_stored(app.output, adoption.stored)
    for failed in adoption.failed:
        app.output.warn(f"{failed.name}: {failed.error.message}")
    if adoption.failed:
        raise adoption.failed[0].error


def _list(app: App, program: Program | None) -> None:
    from wizard_edge.service.adoption import list_found
    from wizard_edge.service.models import as_json

    found = list_found(app.installation, _user(app), program=program)
    if app.output.as_json:
        app.output.document(as_json(found))
        return
    if not found:
        app.output.say(
            "no model of another program is here\n"
            "hint: wizard-edge import FILE, or wizard-edge pull MODEL"
        )
        return
    app.output.table(
        ("FROM", "NAME", "SIZE", "WOULD BE", "STATE"),
        [
            (
                model.program,
                model.name,
                "-" if model.size is None else format_bytes(model.size),
                f"{model.model}:{model.quant}" if model.model else "-",
                _state(model),
            )
            for model in found
        ],
        right=("SIZE",),
    )


def _state(model: FoundModel) -> str:
    return model.problem or ("installed" if model.installed else "-")


def _user(app: App) -> Path:
    """Return the home folder of whoever asks."""
    named = app.environ.get("HOME") or app.environ.get("USERPROFILE")
    return Path(named) if named else Path.home()
