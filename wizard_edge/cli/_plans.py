"""How `pull --dry-run` tells what it would do."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from wizard_edge.cli._output import Output
from wizard_edge.cli._stored import cost_document, cost_rows
from wizard_edge.licenses import COMMERCIAL_USE
from wizard_edge.units import format_bytes

if TYPE_CHECKING:
    from wizard_edge.service.pull_plans import PullPlan

_SOURCES = {
    "hub": "a ready file on the hub",
    "url": "a ready file at an address",
    "bundled": "the checkpoint in this package",
    "local": "original weights on this machine",
}


def show_plan(output: Output, plan: PullPlan) -> None:
    """Write what a pull would take; all zero where nothing is left to do."""
    if output.as_json:
        output.document(_document(plan))
    elif plan.already:
        output.text(f"{plan.name}:{plan.quant} is in the store already: nothing to do")
    else:
        output.pairs(list(_rows(plan)))


def _document(plan: PullPlan) -> dict[str, object]:
    name = f"{plan.name}:{plan.quant}"
    document = cost_document(plan.cost, name=name, already=plan.already)
    rejected = plan.choice.rejected if plan.choice else ()
    document |= {
        "quant": plan.quant,
        "source": plan.source,
        "path": str(plan.path),
        "read_bytes": plan.read_bytes,
        "output_bytes": plan.output_bytes,
        "peak_disk_bytes": plan.peak_disk_bytes,
        "peak_memory_bytes": plan.peak_memory_bytes,
        "run_memory_bytes": plan.fit.total if plan.fit else None,
        "fits": plan.fit.fits if plan.fit else None,
        "tokens_per_s": plan.fit.tokens_per_s if plan.fit else None,
        "licenses": list(plan.terms.ids),
        "commercial": plan.terms.commercial,
        "why": plan.choice.why if plan.choice else None,
        "rejected": [{"quant": fit.quant, "why": fit.why} for fit in rejected],
    }
    if plan.tensors is not None:
        document["tensors"] = dict(plan.tensors)
    return document


def _rows(plan: PullPlan) -> Iterator[tuple[str, str]]:
    yield "model", f"{plan.name}:{plan.quant}"
    if plan.choice is not None:
        yield "why", plan.choice.why
        for fit in plan.choice.rejected:
            yield f"not {fit.quant}", fit.why
    if plan.cost is not None:
        yield from cost_rows(plan.cost)
    else:
        yield "from", _SOURCES[plan.source]
        yield "to fetch", f"{format_bytes(plan.read_bytes)} ({plan.read_bytes} bytes)"
        yield "disk at most", format_bytes(plan.peak_disk_bytes)
    if plan.tensors:
        types = sorted(plan.tensors.items(), key=lambda item: -item[1])
        yield "tensors", ", ".join(f"{number} {kind}" for kind, number in types)
    yield from _running(plan)
    for license in plan.terms.licenses:
        use = COMMERCIAL_USE[license.commercial]
        yield "licence", f"{license.name} ({license.id}), commercial use {use}"
    if not plan.terms.licenses:
        yield "licence", "nobody says"
    if plan.terms.conflict:
        yield "conflict", plan.terms.conflict
    yield "goes to", str(plan.path)


def _running(plan: PullPlan) -> Iterator[tuple[str, str]]:
    if plan.fit is None:
        return
    told = "" if plan.fit.fits else f": does not fit, {plan.fit.why}"
    yield "RAM to run it", f"{format_bytes(plan.fit.total)}{told}"
    if plan.fit.tokens_per_s is not None:
        yield "speed", f"about {plan.fit.tokens_per_s:.1f} tokens/s"
