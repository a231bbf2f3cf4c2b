"""Asking for consent to a licence, and the options that answer beforehand.

On a terminal each licence is shown and asked for once; elsewhere nothing is asked,
and the service refuses what nobody accepted.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import click

from wizard_edge.cli._app import App
from wizard_edge.cli._options import commercial_option, complete_licenses
from wizard_edge.cli._output import is_terminal
from wizard_edge.cli._stored import show_terms
from wizard_edge.errors import Refused
from wizard_edge.licenses import Terms, summary

if TYPE_CHECKING:
    from wizard_edge.models import License
    from wizard_edge.receipts import Acceptance
    from wizard_edge.service.consent import Consent

__all__ = ["accept_option", "asking", "commercial_option", "obtain"]

_Decorator = Callable[[Callable[..., object]], Callable[..., object]]

accept_option: _Decorator = click.option(
    "--accept-license",
    "accept",
    multiple=True,
    metavar="ID",
    shell_complete=complete_licenses,
    help="Accept this licence, repeatable (default: ask)",
)


def obtain(
    app: App,
    terms: Terms,
    accept: Sequence[str] = (),
    *,
    commercial: bool | None = None,
) -> None:
    """Show the terms of a model; on a terminal ask for what nobody accepted yet.

    A yes is recorded at once; elsewhere than on a terminal `consent.require` has the
    last word. Raises: Refused for a no, and for what no yes can change; UsageError for
    an id in `accept` that nobody knows.
    """
    from wizard_edge.service import consent

    consent.refuse_unfit(app.installation, terms, commercial=commercial)
    consent.find_named(app.installation, terms, accept)
    missing = [
        license
        for license in consent.find_missing(app.installation, terms)
        if license.id not in accept
    ]
    somebody = is_terminal(sys.stdin) and is_terminal(sys.stderr)
    if not missing or app.output.as_json or not somebody:
        if terms.licenses:
            show_terms(app.output, terms)
        return
    # What is asked for is shown in full below, with the conflict.
    accepted = tuple(item for item in terms.licenses if item not in missing)
    if accepted:
        show_terms(app.output, Terms(accepted))
    for license in missing:
        _ask(app, license, replace(terms, licenses=(license,)))
        terms = replace(terms, conflict="")


def asking(
    app: App, accept: Sequence[str], *, commercial: bool | None = None
) -> Consent:
    """Return what a service calls once it knows the terms: it asks, then requires.

    Terms that it is called with again are not shown again.
    """
    shown: list[Terms] = []

    def consent_to(terms: Terms) -> tuple[Acceptance, ...]:
        from wizard_edge.service import consent

        if terms not in shown:
            obtain(app, terms, accept, commercial=commercial)
            shown.append(terms)
        return consent.require(
            app.installation, terms, accept=accept, commercial=commercial
        )

    return consent_to


def _ask(app: App, license: License, terms: Terms) -> None:
    from wizard_edge.service import consent

    if not app.output.confirm(
        f"accept the terms of {license.id}?", about=summary(terms)
    ):
        raise Refused(
            f"licence {license.id} was not accepted",
            hint=f"--accept-license {license.id} accepts it without asking",
        )
    consent.record(app.installation, [license], "asked")
