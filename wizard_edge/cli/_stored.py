"""How `pull` and `convert` tell what they would take, and what they left behind."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from wizard_edge.cli._output import Output
from wizard_edge.licenses import COMMERCIAL_USE
from wizard_edge.units import format_bytes, format_seconds

if TYPE_CHECKING:
    from wizard_edge.conversion import Converted, Cost
    from wizard_edge.licenses import Terms
    from wizard_edge.service.stored import Stored


def show_cost(output: Output, cost: Cost | None, *, name: str, already: bool) -> None:
    """Write what a conversion would take; all zero where nothing is left to do."""
    if output.as_json:
        output.document(cost_document(cost, name=name, already=already))
    elif cost is None:
        output.text(f"{name} is in the store already: nothing to do")
    else:
        output.pairs([("model", name), *cost_rows(cost)])


def cost_document(cost: Cost | None, *, name: str, already: bool) -> dict[str, object]:
    """Return the costs of a conversion as JSON has them; zeros where there are none."""
    tensors: Counter[str] = Counter()
    for quant in cost.quants if cost else ():
        tensors.update(quant.tensors)
    return {
        "name": name,
        "already": already,
        "read_bytes": cost.read_bytes if cost else 0,
        "output_bytes": cost.output_bytes if cost else 0,
        "peak_disk_bytes": cost.peak_disk_bytes if cost else 0,
        "peak_memory_bytes": cost.peak_memory_bytes if cost else 0,
        "seconds": cost.seconds if cost else 0,
        "tensors": dict(tensors),
        "quants": [
            {
                "quant": quant.quant,
                "output_bytes": quant.output_bytes,
                "tensors": dict(quant.tensors),
            }
            for quant in (cost.quants if cost else ())
        ],
        "files": dict(cost.files) if cost else {},
    }


def cost_rows(cost: Cost) -> Iterator[tuple[str, str]]:
    """Write the costs of a conversion for a person."""
    count = len(cost.files)
    files = f" in {count} files" if count > 1 else ""
    yield "to read", f"{format_bytes(cost.read_bytes)}{files}"
    for quant in cost.quants:
        types = sorted(quant.tensors.items(), key=lambda item: -item[1])
        tensors = ", ".join(f"{number} {kind}" for kind, number in types)
        yield (
            f"to write {quant.quant}",
            f"{format_bytes(quant.output_bytes)} ({quant.output_bytes} bytes): "
            f"{tensors}",
        )
    yield "disk at most", format_bytes(cost.peak_disk_bytes)
    yield "memory at most", format_bytes(cost.peak_memory_bytes)
    if cost.seconds is not None:
        yield "time here", f"about {format_seconds(cost.seconds)}, without the network"


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


def show_stored(output: Output, stored: Sequence[Stored]) -> None:
    """Write what is in the store now: one document, or a list of several."""
    if output.as_json:
        output.document(_one_or_all([_stored_document(item) for item in stored]))
        return
    for item in stored:
        receipt = item.receipt
        name = f"{receipt.model}:{receipt.quant}"
        if item.already:
            output.say(f"{name} is in the store already")
        else:
            output.say(f"installed {name} ({format_bytes(receipt.size)})")


def show_files(output: Output, done: Sequence[Converted]) -> None:
    """Write which files were made: one document, or a list of several quants."""
    if output.as_json:
        output.document(_one_or_all([_file_document(item) for item in done]))
        return
    for item in done:
        for file in item.files:
            output.say(f"wrote {file.path} ({format_bytes(file.size)})")
            output.detail(f"sha256 {file.sha256}")


def _stored_document(stored: Stored) -> dict[str, object]:
    receipt = stored.receipt
    return {
        "name": receipt.model,
        "quant": receipt.quant,
        "path": str(stored.path),
        "size": receipt.size,
        "sha256": receipt.sha256,
        "already": stored.already,
    }


def _file_document(done: Converted) -> dict[str, object]:
    first = done.files[0]
    return {
        "quant": done.quant,
        "path": str(first.path),
        "size": done.size,
        "sha256": first.sha256,
        "files": [
            {"path": str(file.path), "size": file.size, "sha256": file.sha256}
            for file in done.files
        ],
        "quality": dict(done.quality),
        "weights": [
            {"name": file.name, "size": file.size, "check": file.check.value}
            for file in done.weights
        ],
    }


def _one_or_all(documents: list[dict[str, object]]) -> object:
    return documents[0] if len(documents) == 1 else documents
