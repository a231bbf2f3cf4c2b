"""Bring a model into the store, or find that it is there.

A ready GGUF file is fetched; original weights are converted while they stream, and
what comes with the package is converted on the spot.
"""

from __future__ import annotations

from functools import partial

from wizard_edge.conversion import Convert
from wizard_edge.download import Options
from wizard_edge.progress import Progress, silent
from wizard_edge.service.consent import Consent, refuse_receipt, require
from wizard_edge.service.conversions import install
from wizard_edge.service.fetching import fetch
from wizard_edge.service.installation import Installation
from wizard_edge.service.ready import Ready
from wizard_edge.service.stored import Stored
from wizard_edge.service.wanted import PullRequest, find, find_weights, open_hub
from wizard_edge.store import Installed


def pull(
    installation: Installation,
    request: PullRequest,
    *,
    convert: Convert,
    consent: Consent | None = None,
    commercial: bool | None = None,
    progress: Progress = silent,
) -> Stored:
    """Bring a model into the store, or find it there.

    What is there is taken as it is if its receipt can be read and its size is right.
    `consent` is asked before weights are fetched; without it only what was accepted
    before comes in. `commercial` is as in `consent.refuse_unfit`, and holds for what
    is there too.
    Raises: UnknownModel, UnknownQuant, NotFound, UsageError; HubError; Refused for
    terms that nobody accepted, and where the store cannot be written; NotEnough;
    Corrupt for wrong bytes; BackendError for what cannot be run; CannotConvert for a
    delta without its base; Interrupted.
    """
    consent = consent or partial(require, installation)
    found = find(installation, request)
    if isinstance(found, Installed):
        refuse_receipt(installation, found.receipt, commercial=commercial)
        return Stored(found.receipt, found.path, already=True)
    if isinstance(found, Ready):
        return fetch(
            installation,
            open_hub(installation),
            found,
            mirrors=request.mirrors,
            options=Options(request.connections, request.rate),
            consent=consent,
            progress=progress,
        )
    checkpoint, recipe = find_weights(installation, request, found)
    accepted = consent(checkpoint.terms)
    [stored] = install(
        installation,
        checkpoint,
        recipe,
        convert=convert,
        accepted=accepted,
        progress=progress,
    )
    return stored
