"""`wizard-edge bench`: how fast a model is, beside what this machine could do."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from wizard_edge.cli._app import App, Command, json_option, pass_app
from wizard_edge.cli._options import complete_models, loading_options
from wizard_edge.units import format_bytes

if TYPE_CHECKING:
    from wizard_edge.config import Settings
    from wizard_edge.service.bench_report import Report
    from wizard_edge.service.bench_values import Figure

Row = tuple[str, ...]

_SECONDS = ("SECONDS", "MEDIAN", "LOW", "HIGH")
_SPEEDS = ("TOKENS/S", "MEDIAN", "LOW", "HIGH", "LIMIT", "SHARE", "FIT SAYS")
# More than these are told by --json: the page is for one look.
_MOST_LEFT_OUT = 5
_EPILOG = """\
LIMIT is what the speed of the memory, or of the matrices when a prompt is read, allows.
Everything is measured in a process of its own, loaded as 'run' loads it.
"""


def _counts(
    ctx: click.Context, param: click.Parameter, value: str | None
) -> tuple[int, ...] | None:
    """Read numbers with commas between them; none at all is a choice as well."""
    if value is None:
        return None
    words = [word.strip() for word in value.split(",") if word.strip()]
    for word in words:
        if not word.isdecimal():
            raise click.BadParameter(f"{word!r} is not a number of tokens or answers")
    return tuple(dict.fromkeys(map(int, words)))


@click.command(
    "bench",
    cls=Command,
    help="Measure how fast a model is on this machine",
    epilog=_EPILOG,
)
@click.argument("model", metavar="MODEL|FILE.gguf", shell_complete=complete_models)
@click.option(
    "--prompt",
    "prompts",
    metavar="N,...",
    callback=_counts,
    help="Read prompts of N tokens (default: 128,512)",
)
@click.option(
    "--depth",
    "depths",
    metavar="N,...",
    callback=_counts,
    help="Generate behind N tokens (default: 0,512,1024)",
)
@click.option(
    "--parallel",
    "conversations",
    metavar="N,...",
    callback=_counts,
    help="Answer N conversations at once (default: 2,4)",
)
@click.option(
    "--rounds",
    type=int,
    metavar="N",
    help="Measure N times, take the median (default: 3)",
)
@click.option(
    "--max-time",
    "max_s",
    type=float,
    metavar="S",
    help="End after S seconds, leave out the rest (default: 60)",
)
@click.option(
    "--cold",
    is_flag=True,
    help="Load from the disk, not from the page cache",
)
@loading_options
@json_option
@pass_app
def command(
    app: App,
    model: str,
    flags: Settings,
    cold: bool,
    prompts: tuple[int, ...] | None,
    depths: tuple[int, ...] | None,
    conversations: tuple[int, ...] | None,
    rounds: int | None,
    max_s: float | None,
) -> None:
    from wizard_edge.service.bench import Plan, bench
    from wizard_edge.service.models import as_json

    usual = Plan()
    plan = Plan(
        prompts=usual.prompts if prompts is None else prompts,
        depths=usual.depths if depths is None else depths,
        conversations=usual.conversations if conversations is None else conversations,
        rounds=usual.rounds if rounds is None else rounds,
        max_s=usual.max_s if max_s is None else max_s,
    )
    with app.output.progress() as progress:
        report = bench(
            app.installation,
            model,
            settings=flags,
            plan=plan,
            cold=cold,
            progress=progress,
        )
    for note in report.notes:
        app.output.warn(note)
    if app.output.as_json:
        app.output.document(as_json(report))
        return
    app.output.pairs(list(_head(report)))
    for heads, rows in ((_SECONDS, _waits(report)), (_SPEEDS, _speeds(report))):
        if found := list(rows):
            app.output.text("")
            app.output.table(heads, found, right=heads[1:])
    if report.left_out:
        app.output.text("")
    for item in report.left_out[:_MOST_LEFT_OUT]:
        app.output.text(f"left out: {item.what}: {item.why}")
    if more := report.left_out[_MOST_LEFT_OUT:]:
        app.output.text(f"left out: {len(more)} more, which --json names")


def _head(report: Report) -> Iterator[tuple[str, str]]:
    machine, used, limits = report.machine, report.settings, report.limits
    digest = f", sha256 {report.sha256[:12]}" if report.sha256 else ""
    yield "model", f"{report.model}, {format_bytes(report.file_bytes)}{digest}"
    yield (
        "machine",
        f"{', '.join(machine.devices)}, {machine.cores.physical} cores, "
        f"{format_bytes(machine.memory_bytes)}",
    )
    yield (
        "settings",
        f"threads {used.threads}, for prompts {used.prompt_threads}, context "
        f"{used.context_tokens}, batch {used.batch_tokens},",
    )
    yield (
        "",
        f"flash attention {'on' if used.flash_attention else 'off'}, KV cache "
        f"{used.kv_type}, GPU layers {used.gpu_layers}, llama.cpp "
        f"{used.llama_cpp.split(' ')[0]}",
    )
    if limits is not None:
        matrices = ", ".join(
            f"{name} {rate / 1e9:.0f}"
            for name, rate in limits.matrix_flop_per_s.items()
        )
        yield (
            "limits",
            f"memory {format_bytes(round(limits.memory_bytes_per_s))}/s, matrices "
            f"{matrices} GFLOP/s",
        )
    if memory := ", ".join(_memory(report)):
        yield "memory", memory
    if report.loading.cached_share is not None:
        yield "file", f"{report.loading.cached_share:.0%} of it in the page cache"


def _memory(report: Report) -> Iterator[str]:
    memory = report.memory
    if memory.peak_bytes is not None:
        yield f"{format_bytes(memory.peak_bytes)} at most"
    if memory.predicted_bytes is not None:
        yield f"fit says {format_bytes(memory.predicted_bytes)}"
    if memory.kv_bytes_per_token is not None:
        yield f"KV cache {format_bytes(memory.kv_bytes_per_token)} a token"


def _waits(report: Report) -> Iterator[Row]:
    loading, first = report.loading, report.first_token
    history, question = first.history_tokens, first.question_tokens
    for what, figure in (
        ("start of the process to loaded", loading.ready_s),
        ("start of the process to first token", loading.first_token_s),
        (f"first token, {history + question} tokens to read", first.cold_s),
        (f"first token, {history} of them cached", first.warm_s),
        (f"first token, {history} of them from a file", first.resumed_s),
    ):
        if figure is not None:
            values = (figure.median, figure.low, figure.high)
            yield what, *(f"{value:.3f}" for value in values)


def _speeds(report: Report) -> Iterator[Row]:
    for prompt in report.prompts:
        yield _row(
            f"reading a prompt of {prompt.tokens}",
            prompt.tokens_per_s,
            prompt.limit_tokens_per_s,
            prompt.matrix_share,
        )
    for answer in report.generation:
        yield _row(
            f"generation at depth {answer.depth_tokens}",
            answer.tokens_per_s,
            answer.limit_tokens_per_s,
            answer.memory_share,
            answer.predicted_tokens_per_s,
        )
    for several in report.together:
        if several.conversations > 1:
            what = f"{several.conversations} conversations, together"
            yield _row(what, several.tokens_per_s)


def _row(
    what: str,
    figure: Figure,
    limit: float | None = None,
    share: float | None = None,
    predicted: float | None = None,
) -> Row:
    speeds = (figure.median, figure.low, figure.high, limit)
    percent = "" if share is None else f"{share:.0%}"
    return what, *map(_number, speeds), percent, _number(predicted)


def _number(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:.1f}" if value < 1000 else f"{value:.0f}"
