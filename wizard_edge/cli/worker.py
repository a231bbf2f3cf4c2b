"""`wizard-edge worker`: lends this machine to `run --rpc` elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from typing import TYPE_CHECKING

import click

from wizard_edge.cli._app import App, Command, pass_app
from wizard_edge.cli._options import threads_option
from wizard_edge.cli._output import Output
from wizard_edge.endpoints import DEFAULT_PORT
from wizard_edge.units import format_bytes

if TYPE_CHECKING:
    from wizard_edge.service.workers import Event, Lending

_EPILOG = """\
For trusted networks only: llama.cpp's RPC has no authentication and no encryption.
Works where llama-cpp-python was built with RPC (docs/several-machines.md).
"""


@click.command(
    "worker",
    cls=Command,
    help="Lend this machine to 'run --rpc' elsewhere",
    epilog=_EPILOG,
)
@click.option(
    "--bind",
    metavar="ADDRESS",
    default="127.0.0.1",
    help="Listen at this IPv4 address (default: 127.0.0.1)",
)
@click.option(
    "--port",
    type=int,
    metavar="N",
    default=DEFAULT_PORT,
    help=f"Listen at this port (default: {DEFAULT_PORT})",
)
@threads_option
@pass_app
def command(app: App, bind: str, port: int, threads: int | None) -> None:
    from wizard_edge.service.workers import lend

    output = app.output
    with closing(lend(bind, port, threads)) as events:
        _tell(output, events)


def _tell(output: Output, events: Iterator[Event]) -> None:
    from wizard_edge.service.workers import Client, Lending

    lending, busy = False, False
    try:
        for event in events:
            if isinstance(event, Lending):
                lending = True
                _introduce(output, event)
            elif isinstance(event, Client):
                busy = event.came
                output.detail("a program connected" if busy else "it left")
            else:
                output.detail(event.text)
    finally:
        if lending:
            output.say(
                "no longer lending"
                + ("; a program was connected and ends too" if busy else "")
            )


def _introduce(output: Output, lending: Lending) -> None:
    from wizard_edge.service.workers import trust_needed

    output.warn(trust_needed(lending.endpoint))
    for device in lending.devices:
        output.say(
            f"lending {device.name} ({device.description}), "
            f"{format_bytes(device.free)} of {format_bytes(device.total)} free"
        )
    output.say(f"at {lending.endpoint}; Ctrl-C ends")
