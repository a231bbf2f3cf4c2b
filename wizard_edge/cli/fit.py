"""`wizard-edge fit`: which models and quants this machine can run, and how fast."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import click

from wizard_edge.cli._app import App, Command, json_option, pass_app
from wizard_edge.cli._options import complete_models
from wizard_edge.cli._output import Output
from wizard_edge.progress import Progress, ProgressEvent
from wizard_edge.units import format_bytes

if TYPE_CHECKING:
    from wizard_edge.engine import KvType
    from wizard_edge.service.fit import MachineFacts, ModelFit, VariantFit

_NUMBERS = ("WEIGHTS", "KV CACHE", "SCRATCH", "TOTAL", "TOKENS/S")
_STATES = {
    "installed": "installed",
    "ready": "ready file",
    "converted": "to convert",
    "file": "file",
}


@click.command(
    "fit", cls=Command, help="Predict what fits this machine, and how fast it is"
)
@click.argument(
    "model",
    required=False,
    metavar="[MODEL[:QUANT]|FILE.gguf]",
    shell_complete=complete_models,
)
@click.option(
    "-c",
    "--ctx-size",
    type=int,
    metavar="N",
    help="Count a context of N tokens (default: 4096 at most)",
)
@click.option(
    "--kv-type",
    type=click.Choice(["f16", "q8_0", "q4_0"]),
    help="Count a KV cache of this type (default: f16)",
)
@json_option
@pass_app
def command(
    app: App, model: str | None, ctx_size: int | None, kv_type: KvType | None
) -> None:
    from wizard_edge.service.fit import fit
    from wizard_edge.service.models import as_json

    with app.output.progress(brief=True) as progress:
        report = fit(
            app.installation,
            model,
            context=ctx_size,
            kv_type=kv_type,
            progress=_announced(app.output, progress),
        )
    facts = report.machine
    if facts.is_busy:
        app.output.warn(
            f"other programs used {facts.load:.1f} of {facts.cores.physical} cores in "
            "the last minute: without them it is faster"
        )
    if app.output.as_json:
        app.output.document(as_json(report))
        return
    app.output.pairs(list(_machine(facts)))
    app.output.text("")
    if model is None:
        _overview(app, report.models)
    else:
        _variants(app, report.models[0])


def _announced(output: Output, progress: Progress) -> Progress:
    """Say what takes a second when it begins: a wrong name is told before."""
    begun = False

    def report(event: ProgressEvent) -> None:
        nonlocal begun
        if not begun:
            begun = True
            output.say("measuring this machine")
        progress(event)

    return report


def _machine(facts: MachineFacts) -> Iterator[tuple[str, str]]:
    cores = facts.cores
    parts = [f"{cores.physical}, {facts.threads} used"]
    if cores.fast < cores.physical:
        parts.append(f"{cores.fast} of them fast")
    yield "cores", ", ".join(parts)
    yield (
        "memory",
        f"{format_bytes(facts.memory.total)}, {format_bytes(facts.memory.available)} "
        f"free now, a model may use {format_bytes(facts.room)}",
    )
    yield "disk", f"{format_bytes(facts.free_disk)} free"
    yield "backends", ", ".join(facts.backends) or "unknown: llama.cpp does not load"
    yield "bandwidth", f"{_rate(facts.bandwidth)} of memory"
    if facts.weights:
        yield "weights", _rates(facts.weights)


def _rates(weights: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {_rate(rate)}" for name, rate in weights.items())


def _rate(rate: float) -> str:
    return f"{format_bytes(round(rate))}/s"


def _overview(app: App, models: tuple[ModelFit, ...]) -> None:
    """Write a row for each model: what would be taken, or what it would lack."""
    heads = ("NAME", "QUANT", "WEIGHTS", "KV CACHE", "TOTAL", "FITS", "TOKENS/S")
    rows = []
    for model in models:
        best = model.best
        if best is None:
            rows.append([model.name, *["-"] * (len(heads) - 1)])
        else:
            sizes = (best.weights, best.kv_cache, best.total)
            rows.append(
                [model.name, best.quant, *map(format_bytes, sizes), *_verdict(best)]
            )
    app.output.table(heads, rows, right=_NUMBERS)


def _variants(app: App, model: ModelFit) -> None:
    app.output.table(
        ("QUANT", *_NUMBERS[:-1], "FITS", "TOKENS/S", "FROM"),
        [
            [
                item.quant,
                *map(
                    format_bytes,
                    (item.weights, item.kv_cache, item.scratch, item.total),
                ),
                *_verdict(item),
                _STATES[item.state],
            ]
            for item in model.variants
        ],
        right=_NUMBERS,
    )
    app.output.text(f"\n{model.why}")
    for item in model.variants:
        app.output.detail(f"{item.quant}: {item.why or 'fits'}")


def _verdict(item: VariantFit) -> tuple[str, str]:
    speed = item.tokens_per_s
    return (
        "yes" if item.fits else f"no {item.lacks}",
        "-" if speed is None else f"{speed:.1f}",
    )
