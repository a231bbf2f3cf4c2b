"""How `pull` and `convert` tell what they would take, and what they left behind."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from wizard_edge.cli._output import Output
from wizard_edge.licenses import COMMERCIAL_USE
from wizard_edge.units import format_bytes

if TYPE_CHECKING:
    from wizard_edge.conversion import Cost
    from wizard_edge.licenses import Terms
    from wizard_edge.service.conversions import Stored


def show_cost(output: Output, cost: Cost | None, *, name: str, already: bool) -> None:
    """Write what a conversion would take; all zero where nothing is left to do."""
    if output.as_json:
        output.document(
            {
                "name": name,
                "already": already,
                "read_bytes": cost.read_bytes if cost else 0,
                "output_bytes": cost.output_bytes if cost else 0,
                "peak_disk_bytes": cost.peak_disk_bytes if cost else 0,
                "peak_memory_bytes": cost.peak_memory_bytes if cost else 0,
                "tensors": dict(cost.tensors) if cost else {},
            }
        )
    elif cost is None:
        output.text(f"{name} is in the store already: nothing to do")
    else:
        types = sorted(cost.tensors.items(), key=lambda item: -item[1])
        output.pairs(
            [
                ("model", name),
                ("to read", format_bytes(cost.read_bytes)),
                ("to write", format_bytes(cost.output_bytes)),
                ("disk at most", format_bytes(cost.peak_disk_bytes)),
                ("memory at most", format_bytes(cost.peak_memory_bytes)),
                ("tensors", ", ".join(f"{count} {type}" for type, count in types)),
            ]
        )


def show_terms(output: Output, terms: Terms) -> None:
    """Tell what a model may be used for, a line for each licence."""
    for license in terms.licenses:
        link = f", {license.url}" if license.url else ""
        use = COMMERCIAL_USE[license.commercial]
        output.say(f"licence: {license.name}{link}, commercial use {use}")
    if not terms.licenses:
        output.say("licence: nobody says")
    if terms.conflict:
        output.say(f"conflict: {terms.conflict}")


def show_stored(output: Output, stored: Stored) -> None:
    """Write what is in the store now."""
    receipt = stored.receipt
    name = f"{receipt.model}:{receipt.quant}"
    if output.as_json:
        output.document(
            {
                "name": receipt.model,
                "quant": receipt.quant,
                "path": str(stored.path),
                "size": receipt.size,
                "sha256": receipt.sha256,
                "already": stored.already,
            }
        )
    elif stored.already:
        output.say(f"{name} is in the store already")
    else:
        output.say(f"installed {name} ({format_bytes(receipt.size)})")


def show_file(output: Output, path: Path, size: int, sha256: str) -> None:
    """Write what file was made."""
    if output.as_json:
        output.document({"path": str(path), "size": size, "sha256": sha256})
    else:
        output.say(f"wrote {path} ({format_bytes(size)})")
        output.detail(f"sha256 {sha256}")
