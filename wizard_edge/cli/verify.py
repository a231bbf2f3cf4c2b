"""`wizard-edge verify`: are the files what was installed, and can they be mended."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import click

from wizard_edge.cli._app import App, Command, json_option, pass_app
from wizard_edge.cli._options import complete_installed
from wizard_edge.errors import Corrupt
from wizard_edge.units import format_bytes

if TYPE_CHECKING:
    from wizard_edge.errors import WizardEdgeError
    from wizard_edge.service.verification import DamagedChunk, Verified

# More damaged chunks than this are counted; --json has them all.
_FEW = 10

_EPILOG = """\
Without MODEL the whole store is checked. Each file is read once and compared with the
SHA-256 in its receipt; the sums beside it say which chunks are damaged. --repair
fetches those alone and puts a right copy in the place of the file, where whoever has
it open keeps what they have. Exit 6 where something is damaged.
"""


@click.command(
    "verify",
    cls=Command,
    help="Check the files of the store, repair them",
    epilog=_EPILOG,
)
@click.argument(
    "models", nargs=-1, metavar="[MODEL[:QUANT]]...", shell_complete=complete_installed
)
@click.option(
    "--repair",
    "mend",
    is_flag=True,
    help="Fetch what is damaged again (default: only tell)",
)
@json_option
@pass_app
def command(app: App, models: tuple[str, ...], mend: bool) -> None:
    from wizard_edge.service.repairing import repair
    from wizard_edge.service.verification import verify

    with app.output.progress() as progress:
        check = repair if mend else verify
        results = check(app.installation, models, progress=progress)
    if app.output.as_json:
        app.output.document([_document(item) for item in results])
    elif results:
        app.output.pairs([(_name(item), "\n".join(_lines(item))) for item in results])
    else:
        app.output.say("no model is installed: nothing to check")
    errors = [_error(item, item.error) for item in results if item.error is not None]
    if errors:
        raise _worst(errors)


def _document(item: Verified) -> dict[str, object]:
    return {
        "name": item.name,
        "quant": item.quant,
        "path": str(item.path),
        "ok": item.ok,
        "problem": item.problem,
        "damaged": _chunks(item.damaged),
        "note": item.note,
        "repaired": _chunks(item.repaired),
        "fetched": item.fetched,
    }


def _chunks(chunks: Sequence[DamagedChunk]) -> list[dict[str, int]]:
    return [
        {"chunk": item.chunk, "offset": item.offset, "size": item.size}
        for item in chunks
    ]


def _name(item: Verified) -> str:
    return item.path.name


def _lines(item: Verified) -> Iterator[str]:
    yield _verdict(item)
    yield from _places(item.damaged)
    if item.repaired:
        count = len(item.repaired)
        yield (
            f"repaired: {count} chunk{'s' if count > 1 else ''}, "
            f"{format_bytes(item.fetched)} fetched"
        )
    if item.note:
        yield item.note


def _verdict(item: Verified) -> str:
    if item.skipped:
        return "not checked"
    if item.error is None:
        return "ok"
    if isinstance(item.error, Corrupt):
        return f"damaged: {item.problem}"
    state = "damaged, not repaired" if item.damage else "not checked"
    return f"{state}: {item.problem}"


def _places(chunks: Sequence[DamagedChunk]) -> Iterator[str]:
    for item in chunks[:_FEW]:
        yield f"chunk {item.chunk} at byte {item.offset}, {item.size} bytes"
    if len(chunks) > _FEW:
        yield f"and {len(chunks) - _FEW} more"


def _error(item: Verified, error: WizardEdgeError) -> WizardEdgeError:
    """Return what is wrong with a file: it stays damaged, whatever was in the way."""
    if item.damage is None:
        return error
    problem = f"{item.damage.problem}; not repaired: {error.message}"
    return Corrupt(item.path, problem, hint=error.hint)


def _worst(errors: Sequence[WizardEdgeError]) -> WizardEdgeError:
    """Return what the command ends with: damage before any other trouble."""
    damage = [error for error in errors if isinstance(error, Corrupt)]
    worst = (damage or errors)[0]
    others = len(errors) - 1
    if others:
        files = "file is" if others == 1 else "files are"
        worst.message += f" ({others} other {files} not right either)"
    return worst
