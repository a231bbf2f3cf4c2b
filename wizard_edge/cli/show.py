"""`wizard-edge show`: everything that is known about one model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from typing import TYPE_CHECKING

import click

from wizard_edge.cli._app import App, Command, json_option, pass_app
from wizard_edge.cli._options import complete_models
from wizard_edge.licenses import COMMERCIAL_USE, lettered
from wizard_edge.units import format_bytes, format_count

if TYPE_CHECKING:
    from wizard_edge.models import Scores, Source
    from wizard_edge.receipts import CheckedFile, EvaluatedOn, Receipt
    from wizard_edge.service.cards import FileFacts, InstalledCard, ModelCard

Row = tuple[str, str]

_UNVERIFIED = " (UNVERIFIED)"
_STATES = {
    "present": "",
    "unknown": ", nobody knows if it is still there",
    "gone": ", gone from the hub",
}
# How weight files were checked, in words.
_CHECKS = {
    "sha256": "checked by sha256",
    "crc32": "checked by the CRC-32 of their members",
    "size": "checked by their sizes only",
}
# The figures of `eval` in a receipt: what they are called and how they are written.
_FIGURES = {
    "perplexity": ("perplexity", ".4f"),
    "kl_divergence": ("KL divergence", ".6f"),
    "top1_agreement": ("same top token", ".2%"),
    "perplexity_ratio": ("perplexity ratio", ".4f"),
    "reference_perplexity": ("reference's perplexity", ".4f"),
}
# The scores as their papers call them.
_SCORES = {
    "humaneval": "HumanEval",
    "humaneval_plus": "HumanEval+",
    "mbpp": "MBPP",
    "mbpp_plus": "MBPP+",
    "gsm8k": "GSM8K",
    "math": "MATH",
    "mt_bench": "MT-Bench",
    "alpaca_eval": "AlpacaEval",
}


@click.command("show", cls=Command, help="Show all that is known about a model")
@click.argument("model", metavar="MODEL|FILE.gguf", shell_complete=complete_models)
@json_option
@pass_app
def command(app: App, model: str) -> None:
    from wizard_edge.service.cards import show
    from wizard_edge.service.models import as_json

    card = show(app.installation, model)
    if app.output.as_json:
        app.output.document(as_json(card))
        return
    app.output.pairs([row for row in _rows(card) if row[1]])


def _rows(card: ModelCard) -> Iterator[Row]:
    yield "model", card.title
    yield "names", ", ".join(dict.fromkeys((card.name, *card.aliases)))
    yield "architecture", _marked(card, "architecture", card.architecture or "")
    if card.parameters:
        yield "parameters", _marked(card, "parameters", format_count(card.parameters))
    if card.context:
        yield "context", _marked(card, "context", f"{card.context} tokens")
    if card.training_length:
        length = f"{card.training_length} tokens"
        yield "trained on", _marked(card, "training_length", length)
    yield "template", _templates(card)
    if card.sampling:
        yield "sampling", _marked(card, "sampling", _sampling(card))
    yield from _terms(card)
    if card.base:
        yield "base", _marked(card, "base", card.base.name)
    if card.source:
        yield "source", _marked(card, "source", _source(card.source))
    yield "installed", "\n".join(map(_installed, card.installed)) or _absent(card)
    yield "quality", "\n".join(filter(None, map(_quality, card.installed)))
    yield "ready files", _variants(card)
    if card.file:
        yield from _file(card.file)
    if card.scores:
        yield "scores", _marked(card, "scores", _scores(card.scores))
    yield "traps", "\n".join(card.traps)
    yield "unverified", ", ".join(card.unverified)
    yield "inferred", ", ".join(card.inferred)


def _marked(card: ModelCard, key: str, text: str) -> str:
    return text + _UNVERIFIED if text and key in card.unverified else text


def _templates(card: ModelCard) -> str:
    if card.template is None:
        return "nobody says; give one with --template"
    text = _marked(card, "template", card.template)
    return " or ".join((text, *card.alternative_templates))


def _sampling(card: ModelCard) -> str:
    assert card.sampling is not None
    return f"temperature {card.sampling.temperature:g}, top-p {card.sampling.top_p:g}"


def _terms(card: ModelCard) -> Iterator[Row]:
    licenses = [f"{item.name} ({item.id})" for item in card.terms.licenses]
    yield "licence", _marked(card, "licenses", "\n".join(licenses) or "nobody says")
    if card.terms.licenses:
        yield "commercial use", COMMERCIAL_USE[card.terms.commercial]
    obligations = [line for item in card.terms.licenses for line in item.obligations]
    yield "obligations", "\n".join(obligations)
    uses = [use for item in card.terms.licenses for use in lettered(item.restrictions)]
    yield "ruled out uses", "\n".join(uses)
    yield "notice", "\n".join(card.terms.notices)
    yield "conflict", card.terms.conflict


def _source(source: Source) -> str:
    place = source.repo or ("this package" if source.package else "")
    revision = f" at {source.revision[:12]}" if source.revision else ""
    # What comes with the package has no state on the hub.
    state = _STATES[source.state] if source.repo else ""
    parts = [
        f"{place}{revision}{state}",
        f"weight delta of {source.delta_of.name}" if source.delta_of else "",
        source.dtype or "",
        _size(source.size, exact=source.size_exact) if source.size else "",
    ]
    return ", ".join(part for part in parts if part)


def _absent(card: ModelCard) -> str:
    return "" if card.file else "no"


def _installed(card: InstalledCard) -> str:
    receipt = card.receipt
    lines = [f"{receipt.quant}, {format_bytes(receipt.size)}, {card.path}"]
    if card.problem:
        lines.append(f"problem: {card.problem}")
    lines += [f"fetched from {place}" for place in _places(receipt)]
    if receipt.weights:
        lines.append(_checked(receipt.weights))
    lines.append(
        "chunk sums are there" if card.sums else "no chunk sums: verify writes them"
    )
    if card.last_used:
        lines.append(f"last used {card.last_used}")
    return "\n  ".join(lines)


def _places(receipt: Receipt) -> Iterator[str]:
    """Say what the files were fetched as."""
    for file in receipt.files:
        for piece in file.pieces:
            if piece.repo and piece.revision:
                yield f"hf:{piece.repo}/{piece.path} at {piece.revision[:12]}"
            else:
                yield piece.url or ""


def _checked(weights: Sequence[CheckedFile]) -> str:
    """Say how the files a model was made from were checked."""
    counts = Counter(file.check.value for file in weights)
    checks = [
        f"{count} weight file{'s' if count > 1 else ''}, {_CHECKS[check]}"
        for check, count in counts.items()
    ]
    return f"made from {'; '.join(checks)}"


def _quality(card: InstalledCard) -> str:
    """Write every figure of a receipt, those of `eval` first and with their errors."""
    receipt = card.receipt
    figures = dict(receipt.quality or {})
    if not figures:
        return ""
    lines = []
    for name, (title, form) in _FIGURES.items():
        value, error = figures.pop(name, None), figures.pop(f"{name}_error", 0.0)
        if value is not None:
            lines.append(f"{title} {value:{form}} ± {error:{form}}")
    if receipt.evaluated_on is not None:
        lines.append(_evaluated_on(receipt.evaluated_on))
    rest = _measured(figures)
    return "\n  ".join([receipt.quant, *lines, *([rest] if rest else [])])


def _measured(figures: Mapping[str, float]) -> str:
    """Write the figures that a conversion left."""
    return ", ".join(f"{name} {value:.4g}" for name, value in sorted(figures.items()))


def _evaluated_on(found: EvaluatedOn) -> str:
    against = f", against {found.reference}" if found.reference else ""
    return (
        f"measured on text {found.text_sha256[:12]}, "
        f"{found.chunks} x {found.context} tokens{against}"
    )


def _variants(card: ModelCard) -> str:
    return ", ".join(
        f"{item.quant} {_size(item.size, exact=item.size_exact)}".rstrip()
        for item in card.variants
    )


def _size(size: int | None, *, exact: bool) -> str:
    if size is None:
        return ""
    return format_bytes(size) if exact else f"about {format_bytes(size)}"


def _file(facts: FileFacts) -> Iterator[Row]:
    yield "file", f"{facts.path} ({format_bytes(facts.size)}, GGUF v{facts.version})"
    yield "quant", facts.quant or "nobody says"
    if facts.vocabulary:
        yield "vocabulary", f"{facts.vocabulary} tokens, {facts.tokenizer or 'unknown'}"
    counts = sorted(facts.tensors.items(), key=lambda item: -item[1])
    yield "tensors", ", ".join(f"{count} {kind}" for kind, count in counts)
    yield "quality", _measured(facts.quality)


def _scores(scores: Scores) -> str:
    found = {item.name: getattr(scores, item.name) for item in fields(scores)}
    text = ", ".join(
        f"{title} {found[name]:g}"
        for name, title in _SCORES.items()
        if found[name] is not None
    )
    return f"{text}\n  as printed in {scores.source}"
