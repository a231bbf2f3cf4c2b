"""`wizard-edge eval`: how well a model predicts a text, and what a quant costs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from wizard_edge.cli._app import App, Command, json_option, pass_app
from wizard_edge.cli._options import (
    commercial_option,
    complete_models,
    threads_option,
)

if TYPE_CHECKING:
    from wizard_edge.engine import KvType
    from wizard_edge.evaluate import Estimate
    from wizard_edge.service.evaluation import Evaluated

Row = tuple[str, str]

_EPILOG = """\
Chunks, positions and formulas are those of llama.cpp's perplexity tool.
For an installed model the figures go into its receipt; 'show' and 'list' have them.
A reference is loaded beside the model: its unquantized file, or its Q8_0.
With --kv-type the model itself is a reference: what a smaller KV cache changes.
Such figures are shown and not recorded.
"""


@click.command(
    "eval",
    cls=Command,
    help="Measure how well a model predicts a text",
    epilog=_EPILOG,
)
@click.argument("model", metavar="MODEL|FILE.gguf", shell_complete=complete_models)
@click.option(
    "--text",
    metavar="FILE",
    type=click.Path(path_type=Path),
    required=True,
    help="Read this UTF-8 text, of at least two contexts",
)
@click.option(
    "--reference",
    metavar="MODEL|FILE.gguf",
    shell_complete=complete_models,
    help="Compare with this model too (default: none)",
)
@click.option(
    "-c",
    "--ctx-size",
    type=int,
    default=512,
    metavar="N",
    help="Cut the text into chunks of N tokens (default: 512)",
)
@click.option(
    "--chunks",
    type=int,
    metavar="N",
    help="Take the first N chunks (default: all)",
)
@click.option(
    "--kv-type",
    type=click.Choice(["f16", "q8_0", "q4_0"]),
    default="f16",
    help="Store the model's KV cache in this type (default: f16)",
)
@threads_option
@commercial_option
@json_option
@pass_app
def command(
    app: App,
    model: str,
    text: Path,
    reference: str | None,
    ctx_size: int,
    chunks: int | None,
    kv_type: KvType,
    threads: int | None,
    commercial: bool | None,
) -> None:
    from wizard_edge.service.evaluation import evaluate_model

    with app.output.progress() as progress:
        found = evaluate_model(
            app.installation,
            model,
            text,
            reference=reference,
            context=ctx_size,
            chunks=chunks,
            threads=threads,
            kv_type=kv_type,
            commercial=commercial,
            progress=progress,
        )
    if app.output.as_json:
        app.output.document(_document(found))
        return
    app.output.pairs(list(_rows(found)))
    if found.recorded:
        app.output.say(f"recorded in the receipt of {found.model}")


def _document(found: Evaluated) -> dict[str, object]:
    evaluation = found.evaluation
    return {
        "model": found.model,
        "reference": found.reference,
        "text_sha256": found.text_sha256,
        "context": evaluation.context,
        "chunks": evaluation.chunks,
        "tokens": evaluation.tokens,
        "kv_type": found.kv_type,
        **evaluation.figures(),
        "recorded": found.recorded,
    }


def _rows(found: Evaluated) -> Iterator[Row]:
    evaluation = found.evaluation
    kv = "" if found.kv_type == "f16" else f", KV cache {found.kv_type}"
    yield "model", f"{found.model}{kv}"
    if found.reference is not None:
        yield "reference", found.reference
    yield "text", f"sha256 {found.text_sha256[:12]}, {_extent(found)}"
    yield "perplexity", _estimate(evaluation.perplexity)
    compared = evaluation.comparison
    if compared is not None:
        yield "of the reference", _estimate(compared.reference_perplexity)
        yield "ratio of both", _estimate(compared.perplexity_ratio)
        yield "KL divergence", f"{_estimate(compared.kl_divergence)} nats"
        top1 = compared.top1_agreement
        yield "same top token", f"{top1.value:.3%} ± {top1.error:.3%}"


def _extent(found: Evaluated) -> str:
    evaluation = found.evaluation
    chunks = f"{evaluation.chunks} chunk{'s' if evaluation.chunks != 1 else ''}"
    return f"{chunks} of {evaluation.context} tokens, {evaluation.tokens} counted"


def _estimate(figure: Estimate) -> str:
    return f"{figure.value:.6f} ± {figure.error:.6f}"
