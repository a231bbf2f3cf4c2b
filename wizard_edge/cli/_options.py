"""Options and arguments that several commands share, spelled alike everywhere.

They become values of the inner layers here, at the border. An option that was not
given says nothing, so that settings and the model's own choice can speak.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields
from functools import wraps
from typing import TYPE_CHECKING, TypeVar

import click

from wizard_edge.cli._app import App
from wizard_edge.cli._input import read_file
from wizard_edge.errors import UsageError, WizardEdgeError

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

    from wizard_edge.config import Settings
    from wizard_edge.endpoints import Endpoint

_Item = TypeVar("_Item")
_Function = Callable[..., object]
_Decorator = Callable[[_Function], _Function]


@dataclass(frozen=True, slots=True)
class ModelOptions:
    """What the options say of how to load a model and how to sample.

    `flags` are those that are settings too; `grammar` and `json_schema` are the
    texts of the files that were named, `draft` the name of a model.
    """

    flags: Settings
    system: str | None = None
    template: str | None = None
    grammar: str | None = None
    json_schema: str | None = None
    draft: str | None = None


@dataclass(frozen=True, slots=True)
class AnswerOptions:
    """What the options say of one answer: where it ends, what is told of it.

    A `logit_bias` is for a token id, or for a text that is one token.
    """

    stop: tuple[str, ...] = ()
    logit_bias: tuple[tuple[int | str, float], ...] = ()
    logprobs: int | None = None
    echo: bool = False


def answer_options(function: _Function) -> _Function:
    """Add the options of a single answer; they arrive as `answer`."""

    @wraps(function)
    def collect(*args: object, **given: object) -> object:
        # Any: each option's own type is that of the field it is named after.
        found = {item.name: given.pop(item.name) for item in fields(AnswerOptions)}
        answer = AnswerOptions(**found)  # type: ignore[arg-type]
        return function(*args, answer=answer, **given)

    decorated: _Function = collect
    for option in reversed(_ANSWER_OPTIONS):
        decorated = option(decorated)
    return decorated


def model_options(function: _Function) -> _Function:
    """Add the options of sampling and loading; they arrive as `options`."""

    @wraps(function)
    def collect(*args: object, **given: object) -> object:
        options = _collect(given)
        return function(*args, options=options, **given)

    decorated: _Function = collect
    for option in reversed([*_TEXT_OPTIONS, *_SETTING_OPTIONS.values()]):
        decorated = option(decorated)
    return decorated


def loading_options(function: _Function) -> _Function:
    """Add the options of loading alone; they arrive as `flags`."""
    names = [name for name in _SETTING_OPTIONS if name not in _ANSWERING]

    @wraps(function)
    def collect(*args: object, **given: object) -> object:
        flags = _flags({name: given.pop(name) for name in names})
        return function(*args, flags=flags, **given)

    decorated: _Function = collect
    for name in reversed(names):
        decorated = _SETTING_OPTIONS[name](decorated)
    return decorated


def complete_models(
    ctx: click.Context, param: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Complete what is installed and what the catalogue has, or a path."""
    from wizard_edge.service.models import list_catalogue

    if incomplete.startswith((".", "/", "~")):
        return click.Path().shell_complete(ctx, param, incomplete)
    known = _quietly(lambda: [e.name for e in list_catalogue(_app(ctx).installation)])
    return _items(dict.fromkeys((*_installed(ctx, incomplete), *known)), incomplete)


def complete_installed(
    ctx: click.Context, param: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Complete what is installed."""
    return _items(_installed(ctx, incomplete), incomplete)


def complete_quants(
    ctx: click.Context, param: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Complete the names of quants."""
    from wizard_edge.refs import QUANTS

    return _items(QUANTS, incomplete.upper())


def complete_templates(
    ctx: click.Context, param: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Complete the ids of prompt templates."""
    from wizard_edge.templates import TEMPLATES

    return _items(TEMPLATES, incomplete)


def complete_settings(
    ctx: click.Context, param: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Complete the keys of settings."""
    from wizard_edge.config import SETTINGS

    return _items(SETTINGS, incomplete)


def complete_licenses(
    ctx: click.Context, param: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Complete the ids of licences."""
    known = _quietly(lambda: [e.id for e in _app(ctx).installation.registry.licenses])
    return _items(known, incomplete)


def template_option(help: str) -> _Decorator:
    """Return `--template`."""
    return click.option(
        "--template", metavar="ID", shell_complete=complete_templates, help=help
    )


license_option: _Decorator = click.option(
    "--license",
    "licenses",
    multiple=True,
    metavar="ID",
    help="Record this licence, repeatable (default: what is known)",
)
overwrite_option: _Decorator = click.option(
    "--overwrite", is_flag=True, help="Replace what is there (default: refuse)"
)
threads_option: _Decorator = click.option(
    "-t",
    "--threads",
    type=int,
    metavar="N",
    help="Use N threads (default: physical cores available)",
)
# None where it is not given, so that the setting can speak.
commercial_option: _Decorator = click.option(
    "--commercial",
    is_flag=True,
    default=None,
    help="Refuse a model not free for commercial use",
)
dry_run_option: _Decorator = click.option(
    "--dry-run", is_flag=True, help="Say what it would take in bytes, do nothing"
)


class _RpcOption(click.Option):
    """Shown and completed only where llama.cpp can compute on other machines."""

    @property
    def hidden(self) -> bool:
        from wizard_edge._llama.built import has_rpc

        return not has_rpc()

    @hidden.setter
    def hidden(self, value: bool) -> None:
        """Leave it to the build, whatever click's default is."""


def _endpoints(
    ctx: click.Context, param: click.Parameter, value: str | None
) -> tuple[Endpoint, ...]:
    from wizard_edge.endpoints import parse_endpoints

    return () if value is None else parse_endpoints(value)


rpc_option: _Decorator = click.option(
    "--rpc",
    cls=_RpcOption,
    metavar="HOST:PORT,...",
    callback=_endpoints,
    help="Compute on these workers too (default: this machine)",
)


def _layers(
    ctx: click.Context, param: click.Parameter, value: str | None
) -> str | int | None:
    if value is None or value in ("auto", "all"):
        return value
    if not value.isdecimal():
        raise click.BadParameter(f"{value!r} is not auto, all or a number")
    return int(value)


def _biases(
    ctx: click.Context, param: click.Parameter, values: Sequence[str]
) -> tuple[tuple[int | str, float], ...]:
    return tuple(_bias(value) for value in values)


def _bias(value: str) -> tuple[int | str, float]:
    token, _, bias = value.rpartition("=")
    try:
        number = float(bias)
    except ValueError:
        raise click.BadParameter(f"{value!r} is not TOKEN=BIAS") from None
    if not token:
        raise click.BadParameter(f"{value!r} is not TOKEN=BIAS")
    return (int(token) if token.isdecimal() else token), number


def _file_text(
    ctx: click.Context, param: click.Parameter, value: str | None
) -> str | None:
    if value is None:
        return None
    text = read_file(value)
    if not text.strip():
        raise UsageError(f"{value} is empty")
    return text


_TEXT_OPTIONS: list[_Decorator] = [
    click.option(
        "-s",
        "--system",
        metavar="TEXT",
        help="Set the system text (default: the template's own)",
    ),
    template_option("Use this prompt template (default: the model's own)"),
    click.option(
        "--grammar",
        metavar="FILE",
        type=click.Path(),
        callback=_file_text,
        help="Force the answer into a GBNF grammar (default: none)",
    ),
    click.option(
        "--json-schema",
        metavar="FILE",
        type=click.Path(),
        callback=_file_text,
        help="Force the answer into a JSON schema (default: none)",
    ),
    click.option(
        "--draft",
        metavar="MODEL",
        shell_complete=complete_installed,
        help="Let a smaller model guess ahead: faster (default: none)",
    ),
]
_ANSWER_OPTIONS: list[_Decorator] = [
    click.option(
        "--stop",
        multiple=True,
        metavar="TEXT",
        help="End the answer before TEXT, repeatable (default: none)",
    ),
    click.option(
        "--logit-bias",
        multiple=True,
        metavar="TOKEN=BIAS",
        callback=_biases,
        help="Add to a token's logit, repeatable (default: none)",
    ),
    click.option(
        "--logprobs",
        type=int,
        metavar="N",
        help="Tell how likely tokens were, and N others (default: off)",
    ),
    click.option(
        "--echo",
        is_flag=True,
        help="With --logprobs: the prompt's tokens too",
    ),
]
# The field of `Settings` -> the option. The settings file may change a default.
_SETTING_OPTIONS: dict[str, _Decorator] = {
    "temperature": click.option(
        "--temperature",
        type=float,
        metavar="X",
        help="Set the randomness, 0 is none (default: the model's)",
    ),
    "top_p": click.option(
        "--top-p",
        type=float,
        metavar="X",
        help="Draw from this share of tokens (default: the model's)",
    ),
    "top_k": click.option(
        "--top-k",
        type=int,
        metavar="N",
        help="Draw from the N likeliest tokens (default: 0, off)",
    ),
    "min_p": click.option(
        "--min-p",
        type=float,
        metavar="X",
        help="Drop tokens below this share of the best (default: 0)",
    ),
    "repeat_penalty": click.option(
        "--repeat-penalty",
        type=float,
        metavar="X",
        help="Penalise the last 64 tokens (default: 1, off)",
    ),
    "seed": click.option(
        "--seed",
        type=int,
        metavar="N",
        help="Start the random numbers here (default: drawn)",
    ),
    "max_tokens": click.option(
        "-n",
        "--max-tokens",
        type=int,
        metavar="N",
        help="End after N tokens (default: when the context is full)",
    ),
    "ctx_size": click.option(
        "-c",
        "--ctx-size",
        type=int,
        metavar="N",
        help="Set the context in tokens (default: 4096 at most)",
    ),
    "threads": threads_option,
    "gpu_layers": click.option(
        "--gpu-layers",
        "--ngl",
        metavar="auto|all|N",
        callback=_layers,
        help="Move layers to the GPU (default: auto)",
    ),
    "kv_type": click.option(
        "--kv-type",
        type=click.Choice(["f16", "q8_0", "q4_0"]),
        help="Store the KV cache in this type (default: f16)",
    ),
    "mmap": click.option(
        "--no-mmap",
        "mmap",
        flag_value=False,
        default=None,
        help="Read the model file instead of mapping it",
    ),
    "mlock": click.option(
        "--mlock",
        is_flag=True,
        default=None,
        help="Keep the model from being swapped out",
    ),
    "deterministic": click.option(
        "--deterministic",
        is_flag=True,
        default=None,
        help="Give the same answer whatever is cached: slower",
    ),
    "lookup": click.option(
        "--lookup/--no-lookup",
        default=None,
        help="Draft what was said before (default: if faster)",
    ),
    "low_memory": click.option(
        "--low-memory",
        is_flag=True,
        default=None,
        help="Save memory where nothing else is said",
    ),
    "overflow": click.option(
        "--overflow",
        type=click.Choice(["drop-oldest-turns", "shift", "error"]),
        help="Where the context is full (default: drop-oldest-turns)",
    ),
    "commercial": commercial_option,
}
# Those of them that say how to answer; the others say how to load.
_ANSWERING = {
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "repeat_penalty",
    "seed",
    "max_tokens",
    "overflow",
}


def _flags(given: dict[str, object]) -> Settings:
    # Imported here: completing an option must not read the settings' code.
    from wizard_edge.config import Settings

    # Each option's own type is that of the field it is named after.
    return Settings(**given)  # type: ignore[arg-type]


def _collect(given: dict[str, object]) -> ModelOptions:
    flags = _flags({name: given.pop(name) for name in _SETTING_OPTIONS})
    texts = {
        name: given.pop(name)
        for name in ("system", "template", "grammar", "json_schema", "draft")
    }
    return ModelOptions(flags, **texts)  # type: ignore[arg-type]


def _installed(ctx: click.Context, incomplete: str) -> list[str]:
    from wizard_edge.service.models import list_installed

    models = _quietly(lambda: list_installed(_app(ctx).installation))
    # bash takes a colon for the end of a word: names alone, until one is typed.
    if ":" in incomplete:
        return [f"{model.name}:{model.quant}" for model in models]
    return list(dict.fromkeys(model.name for model in models))


def _quietly(names: Callable[[], list[_Item]]) -> list[_Item]:
    # A damaged file is news for a command, not for a press of Tab.
    try:
        return names()
    except WizardEdgeError:
        return []


def _app(ctx: click.Context) -> App:
    return ctx.ensure_object(App)


def _items(names: Iterable[str], incomplete: str) -> list[CompletionItem]:
    from click.shell_completion import CompletionItem

    return [CompletionItem(name) for name in names if name.startswith(incomplete)]
