"""What every command is made of: the installation, the output, the global options.

Global options may stand before or after the command's name, as people type them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import click

from wizard_edge.cli._output import Output
from wizard_edge.errors import UsageError

if TYPE_CHECKING:
    from wizard_edge.service.installation import Installation

_Decorated = TypeVar("_Decorated", bound=Callable[..., object] | click.Command)


@dataclass
class App:
    """What one call of the program works with."""

    output: Output
    environ: Mapping[str, str]
    home: Path | None = None

    @cached_property
    def installation(self) -> Installation:
        """The installation that options and environment point to."""
        # Imported here, so that --help reads no registry code.
        from wizard_edge.service.installation import open_installation

        return open_installation(self.environ, self.home)


class Command(click.Command):
    """A command that takes the global options too, without listing them again."""

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        return [*super().get_params(ctx), *_HIDDEN_GLOBALS]

    def get_help_option(self, ctx: click.Context) -> click.Option | None:
        return brief(super().get_help_option(ctx))


pass_app = click.make_pass_decorator(App)


def json_option(command: _Decorated) -> _Decorated:
    """Add `--json`; the output then knows, and the command asks it."""
    return click.option(
        "--json",
        is_flag=True,
        expose_value=False,
        callback=_set_json,
        help="Write JSON on stdout, progress and errors as JSON too",
    )(command)


def global_options(*, hidden: bool = False) -> list[click.Option]:
    """Return the options that every command takes."""
    return [
        click.Option(
            ["--home"],
            type=click.Path(file_okay=False),
            metavar="DIR",
            expose_value=False,
            callback=_set_home,
            hidden=hidden,
            help="Keep models in DIR (default: the user's data folder)",
        ),
        click.Option(
            ["-v", "--verbose"],
            count=True,
            expose_value=False,
            callback=_set_verbosity,
            hidden=hidden,
            help="Tell more on stderr; -vv adds llama.cpp's own lines",
        ),
        click.Option(
            ["--quiet"],
            is_flag=True,
            expose_value=False,
            callback=_set_quiet,
            hidden=hidden,
            help="Tell nothing on stderr but warnings and errors",
        ),
    ]


def brief(option: click.Option | None) -> click.Option | None:
    """Word click's own `--help` as the other options are."""
    if option is not None:
        option.help = "Show this help"
    return option


def _set_json(ctx: click.Context, _: click.Parameter, value: bool) -> None:
    ctx.ensure_object(App).output.as_json = value


def _set_home(ctx: click.Context, _: click.Parameter, value: str | None) -> None:
    if value is None:
        return
    if not value.strip():
        # As a variable that is not set leaves it: not the current folder.
        raise UsageError("--home is empty", hint="name the folder of the store")
    try:
        ctx.ensure_object(App).home = Path(value).expanduser()
    except RuntimeError as err:
        raise UsageError(f"--home {value}: {err}") from err


def _set_verbosity(ctx: click.Context, _: click.Parameter, value: int) -> None:
    if value:
        ctx.ensure_object(App).output.verbosity += value


def _set_quiet(ctx: click.Context, _: click.Parameter, value: bool) -> None:
    if value:
        ctx.ensure_object(App).output.quiet = True


_HIDDEN_GLOBALS = global_options(hidden=True)
