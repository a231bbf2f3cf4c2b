"""`wizard-edge run`: one answer, or a plain conversation on a terminal."""

from __future__ import annotations

import os
import sys
from functools import partial
from typing import TYPE_CHECKING, NoReturn

import click

from wizard_edge.cli._app import App, Command, json_option, pass_app
from wizard_edge.cli._failures import explain
from wizard_edge.cli._input import read_pipe
from wizard_edge.cli._interrupt import answering
from wizard_edge.cli._options import (
    AnswerOptions,
    ModelOptions,
    answer_options,
    complete_models,
    model_options,
    rpc_option,
)
from wizard_edge.cli._output import Output, is_terminal
from wizard_edge.cli._repl import Repl, describe, describe_dropped, describe_resumed
from wizard_edge.errors import Interrupted, UsageError, WizardEdgeError

if TYPE_CHECKING:
    from wizard_edge.endpoints import Endpoint
    from wizard_edge.engine import Chunk, Logprobs
    from wizard_edge.service.chat import Chat


_EPILOG = """\
Standard input, where it is not a terminal, is added to the prompt after a blank line.
Ctrl-C ends the answer and keeps what there is of it.
Without MODEL the setting 'model' decides: wizard-edge config model NAME.
"""


@click.command(
    "run",
    cls=Command,
    help="Answer one prompt, or converse on a terminal",
    epilog=_EPILOG,
)
@click.argument("model", required=False, shell_complete=complete_models)
@click.argument("prompt", required=False)
@click.option(
    "--session",
    metavar="NAME",
    help="Keep the conversation, or go on with it (default: forget it)",
)
@click.option(
    "--other-model",
    is_flag=True,
    help="Go on with a session of another model (default: refuse)",
)
@model_options
@answer_options
@rpc_option
@json_option
@pass_app
def command(
    app: App,
    model: str | None,
    prompt: str | None,
    session: str | None,
    other_model: bool,
    options: ModelOptions,
    answer: AnswerOptions,
    rpc: tuple[Endpoint, ...],
) -> None:
    model = model or app.installation.settings.model
    if model is None:
        raise UsageError("missing argument 'MODEL'", hint="wizard-edge run --help")
    _check_logprobs(app.output, answer)
    if other_model and session is None:
        raise UsageError("--other-model is for a --session NAME")
    question = _question(prompt)
    opened = partial(_open, app, model, options, answer, rpc, session, other_model)
    if question:
        with opened() as chat:
            _answer(app.output, chat, question, echo=answer.echo)
        return
    if app.output.as_json or not (is_terminal(sys.stdin) and is_terminal(sys.stdout)):
        raise UsageError("no prompt", hint="wizard-edge run MODEL PROMPT")
    with opened() as chat:
        Repl(app.output, chat).run()


def _question(prompt: str | None) -> str:
    """Return the prompt and what was piped in, a blank line between them."""
    return "\n\n".join(part for part in (prompt, read_pipe()) if part)


def _check_logprobs(output: Output, answer: AnswerOptions) -> None:
    if answer.logprobs is not None and not output.as_json:
        raise UsageError("--logprobs are shown as JSON", hint="add --json")
    if answer.echo and answer.logprobs is None:
        raise UsageError("--echo shows logprobs", hint="add --logprobs N")


def _open(
    app: App,
    model: str,
    options: ModelOptions,
    answer: AnswerOptions,
    rpc: tuple[Endpoint, ...],
    session: str | None,
    other_model: bool,
) -> Chat:
    from wizard_edge.service.chat import open_chat

    if rpc:
        from wizard_edge.service.workers import on_loss

        on_loss(rpc, partial(_leave, app.output))
    with app.output.progress(brief=True) as progress:
        return open_chat(
            model,
            system=options.system,
            template=options.template,
            settings=options.flags,
            grammar=options.grammar,
            json_schema=options.json_schema,
            draft=options.draft,
            stop=answer.stop,
            logit_bias=answer.logit_bias,
            logprobs=answer.logprobs,
            session=session,
            other_model=other_model,
            rpc=rpc,
            installation=app.installation,
            progress=progress,
        )


def _leave(output: Output, error: WizardEdgeError) -> NoReturn:
    """End the process from any thread, because llama.cpp is about to: no unwinding."""
    output.fail(explain(error))
    os._exit(error.exit_code)


def _answer(output: Output, chat: Chat, question: str, *, echo: bool) -> None:
    chunks: list[Chunk] = []
    if chat.resumed.reason:
        output.say(describe_resumed(chat))
    with answering(chat, question) as answer:
        for chunk in answer:
            chunks.append(chunk)
            if not output.as_json:
                output.answer(chunk.text)
    last = chunks[-1]
    if output.as_json:
        shown: dict[str, object] = {
            "model": chat.name,
            "text": "".join(chunk.text for chunk in chunks),
            "finish": last.finish,
            "stats": last.stats.as_dict(),
        }
        if chat.session is not None:
            shown["session"] = chat.session
        if chat.sampling.logprobs is not None:
            prompt = _prompt_logprobs(chat, chunks) if echo else []
            shown["logprobs"] = prompt + _answer_logprobs(chat, chunks)
        output.document(shown)
    else:
        output.end_answer()
    if last.finish == "length":
        output.say("the answer was cut: --max-tokens or --ctx-size is reached")
    if last.stats.dropped_turns:
        output.say(describe_dropped(last.stats))
    output.detail(describe(last.stats))
    if last.finish == "cancelled":
        raise click.exceptions.Exit(Interrupted.exit_code)


def _prompt_logprobs(chat: Chat, chunks: list[Chunk]) -> list[dict[str, object]]:
    answer = sum(chunk.token is not None for chunk in chunks)
    ids = chat.ids[: len(chat.ids) - answer]
    # Nothing was kept of a question whose answer never began.
    found = chat.score(ids, top=chat.sampling.logprobs or 0) if ids else []
    return [
        _logprobs(chat, token, logprobs) | {"prompt": True}
        for token, logprobs in zip(ids, found, strict=True)
    ]


def _answer_logprobs(chat: Chat, chunks: list[Chunk]) -> list[dict[str, object]]:
    return [
        _logprobs(chat, chunk.token, chunk.logprobs)
        for chunk in chunks
        if chunk.token is not None
    ]


def _logprobs(chat: Chat, token: int, found: Logprobs | None) -> dict[str, object]:
    """Return a token with what is known of it; of the very first there is nothing."""
    top = found.top if found else ()
    return {
        "token": chat.spell(token),
        "id": token,
        "logprob": found.logprob if found else None,
        "top": [
            {"token": chat.spell(other), "id": other, "logprob": logprob}
            for other, logprob in top
        ],
    }
