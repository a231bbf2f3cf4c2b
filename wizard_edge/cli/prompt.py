"""`wizard-edge prompt`: exactly what a model would be sent, as text and token ids."""

from __future__ import annotations

import json

import click

from wizard_edge.cli._app import App, Command, json_option, pass_app
from wizard_edge.cli._input import read_file
from wizard_edge.cli._options import complete_models, template_option
from wizard_edge.errors import UsageError


@click.command(
    "prompt",
    cls=Command,
    help="Show the exact text and tokens a model would get",
)
@click.argument("model", metavar="MODEL|FILE.gguf", shell_complete=complete_models)
@click.option(
    "--messages",
    metavar="FILE",
    type=click.Path(allow_dash=True),
    required=True,
    help="Read the conversation from FILE as JSON, - is stdin",
)
@template_option("Use this prompt template (default: the model's own)")
@click.option("--ids", is_flag=True, help="Show the token ids too (default: with -v)")
@json_option
@pass_app
def command(
    app: App, model: str, messages: str, template: str | None, ids: bool
) -> None:
    from wizard_edge.service.prompts import show_prompt
    from wizard_edge.templates import parse_messages

    conversation = parse_messages(_decode(messages))
    view = show_prompt(app.installation, model, conversation, template)
    output = app.output
    if output.as_json:
        output.document(
            {"template": view.template, "text": view.text, "ids": list(view.ids)}
        )
        return
    output.answer(view.text)
    output.end_answer()
    if ids or output.verbosity:
        output.text(" ".join(map(str, view.ids)))


def _decode(name: str) -> object:
    text = read_file(name)
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as err:
        where = "standard input" if name == "-" else name
        raise UsageError(
            f"{where} is not JSON: {err}",
            hint='messages are a list such as [{"role": "user", "content": "Hi"}]',
        ) from err
