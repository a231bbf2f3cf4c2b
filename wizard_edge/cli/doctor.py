"""`wizard-edge doctor`: what is well with this machine, and what is not."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from wizard_edge.cli._app import App, Command, json_option, pass_app

if TYPE_CHECKING:
    from collections.abc import Sequence

    from wizard_edge.service.findings import Finding


_EPILOG = """\
Nothing is changed. The exit code is 0 whatever is found: --json counts the problems.
"""


@click.command(
    "doctor",
    cls=Command,
    help="Look for what keeps models from running well",
    epilog=_EPILOG,
)
@json_option
@pass_app
def command(app: App) -> None:
    from wizard_edge.service.examination import examine
    from wizard_edge.service.models import as_json

    diagnosis = examine(app.installation)
    if app.output.as_json:
        app.output.document(as_json(diagnosis))
        return
    app.output.pairs([(item.about, _tell(item)) for item in diagnosis.findings])
    app.output.say(_sum_up(diagnosis.findings))


def _tell(finding: Finding) -> str:
    what = finding.what if finding.level == "ok" else f"{finding.level}: {finding.what}"
    return f"{what}\nhint: {finding.hint}" if finding.hint else what


def _sum_up(findings: Sequence[Finding]) -> str:
    counts = [
        f"{count} {level}{'' if count == 1 else 's'}"
        for level in ("problem", "note")
        if (count := sum(item.level == level for item in findings))
    ]
    return ", ".join(counts) or "nothing to mend"
