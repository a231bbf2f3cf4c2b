"""What `pull` is going to do, and what it will take, before it does anything."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from wizard_edge.conversion import Convert, Cost
from wizard_edge.errors import Corrupt, HubError, NotFound
from wizard_edge.fitting import Choice, Fit
from wizard_edge.gguf import Header
from wizard_edge.hub import Hub
from wizard_edge.licenses import Terms, terms_named
from wizard_edge.paths import place
from wizard_edge.progress import Progress, silent
from wizard_edge.service.consent import refuse_receipt, refuse_unfit
from wizard_edge.service.fit import predict
from wizard_edge.service.installation import Installation
from wizard_edge.service.ready import Ready
from wizard_edge.service.remote_headers import read_remote_header
from wizard_edge.service.stored import file_name
from wizard_edge.service.wanted import (
    PullRequest,
    WeightsOf,
    find,
    find_weights,
    open_hub,
)
from wizard_edge.store import Installed

# Python, its TLS and what waits to be hashed, whatever the size of the file.
# Measured: VmHWM of a pull over 1 to 8 connections.
_FETCH_MEMORY = 96 << 20


@dataclass(frozen=True, slots=True)
class PullPlan:
    """What `pull` is going to do; sizes in bytes.

    `read_bytes` are to be fetched or read, `output_bytes` stay in the store; the peaks
    are those of the pull itself. `cost` is that of a conversion. `fit` is how the
    model will run on this machine, `choice` why this quant was taken; both None where
    nobody can say or had to.
    """

    name: str
    quant: str
    source: str
    path: Path
    terms: Terms
    already: bool
    read_bytes: int
    output_bytes: int
    peak_disk_bytes: int
    peak_memory_bytes: int
    cost: Cost | None = None
    fit: Fit | None = None
    choice: Choice | None = None
    tensors: Mapping[str, int] | None = None


def plan_pull(
    installation: Installation,
    request: PullRequest,
    *,
    convert: Convert,
    commercial: bool | None = None,
    progress: Progress = silent,
) -> PullPlan:
    """Decide what to bring in and from where; changes nothing, fetches no weights.

    This machine is measured for a second, to say how fast the model will be.
    Raises: as `pull`, but for what happens while bytes are fetched or converted;
    Refused for a model that is not free for commercial use, where that is wanted.
    """
    found = find(installation, request)
    if isinstance(found, Installed):
        refuse_receipt(installation, found.receipt, commercial=commercial)
        return _plan_nothing(installation, found)
    if isinstance(found, Ready):
        refuse_unfit(installation, found.terms, commercial=commercial)
        return _plan_ready(installation, open_hub(installation), found, progress)
    return _plan_weights(installation, request, found, convert, commercial, progress)


def _plan_nothing(installation: Installation, found: Installed) -> PullPlan:
    receipt = found.receipt
    return PullPlan(
        name=receipt.model,
        quant=receipt.quant,
        source="store",
        path=found.path,
        terms=terms_named(receipt.licenses, installation.registry),
        already=True,
        read_bytes=0,
        output_bytes=0,
        peak_disk_bytes=0,
        peak_memory_bytes=0,
    )


def _plan_ready(
    installation: Installation, hub: Hub, ready: Ready, progress: Progress
) -> PullPlan:
    header = _header(hub, ready)
    tensors = Counter(tensor.type.name for tensor in header.tensors) if header else {}
    return PullPlan(
        name=ready.name,
        quant=ready.quant,
        source=ready.origin.kind,
        path=place(installation.home.model(ready.name), ready.files[0].name),
        terms=ready.terms,
        already=False,
        read_bytes=ready.size,
        output_bytes=ready.size,
        peak_disk_bytes=ready.size,
        peak_memory_bytes=_FETCH_MEMORY,
        fit=predict(
            installation,
            ready.spec,
            header,
            quant=ready.quant,
            size=ready.size,
            progress=progress,
        ),
        choice=ready.choice,
        tensors=dict(tensors),
    )


def _plan_weights(
    installation: Installation,
    request: PullRequest,
    found: WeightsOf,
    convert: Convert,
    commercial: bool | None,
    progress: Progress,
) -> PullPlan:
    checkpoint, recipe = find_weights(installation, request, found)
    refuse_unfit(installation, checkpoint.terms, commercial=commercial)
    cost = convert.estimate(checkpoint.weights, recipe, checkpoint.facts)
    folder = installation.home.model(found.spec.name)
    return PullPlan(
        name=found.spec.name,
        quant=found.quant,
        source=checkpoint.facts.origin.kind,
        path=place(folder, file_name(found.spec.name, found.quant)),
        terms=checkpoint.terms,
        already=False,
        read_bytes=cost.read_bytes,
        output_bytes=cost.output_bytes,
        peak_disk_bytes=cost.peak_disk_bytes,
        peak_memory_bytes=cost.peak_memory_bytes,
        cost=cost,
        fit=predict(
            installation,
            found.spec,
            None,
            quant=found.quant,
            size=cost.output_bytes,
            progress=progress,
        ),
    )


def _header(hub: Hub, ready: Ready) -> Header | None:
    """Look at the beginning of the file; a plan can do without it."""
    try:
        return read_remote_header(hub, ready.files[0].pieces[0])
    except (HubError, NotFound, Corrupt):
        return None
