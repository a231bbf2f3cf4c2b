"""`wizard-edge prune`: remove what kills, crashes and changes of mind left behind."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from wizard_edge.cli._app import App, Command, json_option, pass_app
from wizard_edge.units import format_bytes

if TYPE_CHECKING:
    from wizard_edge.service.pruning import Leftover, Pruning

_WHAT = {
    "unfinished": "left of a download, conversion or import",
    "temporary": "half-written file",
    "model": "model without a receipt",
    "beside": "left of a model that is gone",
    "lock": "lock of a process that is gone",
    "folder": "empty folder",
}

_EPILOG = """\
What a running command works at is left alone. A model file without a receipt may be
somebody's own, so it is asked for; --yes removes it without asking, and where nobody
can answer it stays.
"""


@click.command(
    "prune",
    cls=Command,
    help="Remove what is left over in the store",
    epilog=_EPILOG,
)
@click.option("--dry-run", is_flag=True, help="Say what would go, remove nothing")
@click.option("-y", "--yes", is_flag=True, help="Remove without asking (default: ask)")
@json_option
@pass_app
def command(app: App, dry_run: bool, yes: bool) -> None:
    from wizard_edge.service.pruning import Pruned, plan_pruning, prune

    plan = plan_pruning(app.installation)
    root = app.installation.home.root
    _show_busy(app, plan)
    if not app.output.as_json:
        _show(app, root, plan)
    if dry_run:
        done = Pruned((), plan.leftovers)
    else:
        models = yes or (bool(plan.models) and app.output.confirm(_question(plan)))
        done = prune(app.installation, plan, models=models)
    if app.output.as_json:
        app.output.document(
            {
                "removed": _documents(done.removed),
                "kept": _documents(done.kept),
                "busy": [str(lock) for lock in plan.busy],
                "freed": done.freed,
            }
        )
    elif not dry_run and plan.leftovers:
        app.output.say(_done(done.removed, done.kept, done.freed))


def _show(app: App, root: Path, plan: Pruning) -> None:
    if not plan.leftovers:
        app.output.say("nothing is left over")
        return
    app.output.table(
        ("PATH", "SIZE", "WHAT"),
        [
            (
                item.path.relative_to(root).as_posix(),
                format_bytes(item.size),
                _WHAT[item.kind],
            )
            for item in plan.leftovers
        ],
        right=("SIZE",),
    )
    app.output.say(f"{_count(plan.leftovers)}, {format_bytes(plan.size)} in all")


def _show_busy(app: App, plan: Pruning) -> None:
    for lock in plan.busy:
        app.output.say(f"in use, left alone: {lock.stem}")


def _question(plan: Pruning) -> str:
    size = sum(item.size for item in plan.models)
    files = [item.path.name for item in plan.models]
    return f"remove {', '.join(files)} too ({format_bytes(size)})?"


def _done(removed: Sequence[Leftover], kept: Sequence[Leftover], freed: int) -> str:
    text = f"removed {_count(removed)}, {format_bytes(freed)} freed"
    if any(item.kind == "model" for item in kept):
        text += "; models without a receipt stay, --yes removes them"
    return text


def _count(items: Sequence[Leftover]) -> str:
    return f"{len(items)} item{'' if len(items) == 1 else 's'}"


def _documents(items: Sequence[Leftover]) -> list[dict[str, object]]:
    return [
        {"path": str(item.path), "size": item.size, "kind": item.kind.value}
        for item in items
    ]
