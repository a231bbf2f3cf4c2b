"""Options of the commands that make GGUF files: of what, which quants, and how.

Those of quantizing arrive as one `Recipe`; values that cannot be are refused here or
where they are first understood.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING

import click

from wizard_edge.cli._options import complete_quants
from wizard_edge.errors import UsageError
from wizard_edge.refs import DEFAULT_QUANT, parse_quant
from wizard_edge.units import parse_bytes

if TYPE_CHECKING:
    from wizard_edge.conversion import Recipe

_Function = Callable[..., object]
_Decorator = Callable[[_Function], _Function]
_RULES = ("importance", "tensor_types", "output_type", "embedding_type", "pure")
# What stands for the quant in the name of an output, where several are made.
PLACEHOLDER = "{quant}"


def recipe_options(function: _Function) -> _Function:
    """Add the options of quantizing; they arrive as `recipe`."""

    @wraps(function)
    def collect(*args: object, **given: object) -> object:
        recipe = _collect(given)
        return function(*args, recipe=recipe, **given)

    decorated: _Function = collect
    for option in reversed(_OPTIONS):
        decorated = option(decorated)
    return decorated


def outputs_for(file: Path, quants: Sequence[str]) -> list[Path]:
    """Return the file of each quant. Raises: UsageError where they would be one."""
    if PLACEHOLDER in file.name:
        return [file.with_name(file.name.replace(PLACEHOLDER, q)) for q in quants]
    if len(quants) > 1:
        raise UsageError(
            f"{len(quants)} quants cannot all be called {file.name}",
            hint=f"put {PLACEHOLDER} into the name: "
            f"{file.stem}.{PLACEHOLDER}{file.suffix}",
        )
    return [file]


base_option: _Decorator = click.option(
    "--base",
    metavar="DIR|hf:REPO",
    help="Add this base model to a weight delta (default: none)",
)
keep_weights_option: _Decorator = click.option(
    "--keep-weights",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Keep the fetched files in DIR (default: keep none)",
)


def read_size(
    ctx: click.Context, param: click.Parameter, value: str | None
) -> int | None:
    """Read the value of an option that is a size in bytes, such as 4G."""
    if value is None:
        return None
    try:
        size = parse_bytes(value)
    except ValueError as err:
        raise click.BadParameter(str(err)) from err
    if size < 1:
        raise click.BadParameter(f"{value!r} is no size")
    return size


_OPTIONS = [
    click.option(
        "-q",
        "--quant",
        "quants",
        multiple=True,
        metavar="QUANT",
        shell_complete=complete_quants,
        help=f"Quantize to this type, repeatable (default: {DEFAULT_QUANT})",
    ),
    click.option(
        "--imatrix",
        "importance",
        type=click.Path(path_type=Path),
        metavar="FILE",
        help="Weigh columns by this importance matrix (default: none)",
    ),
    click.option(
        "--tensor-type",
        "tensor_types",
        multiple=True,
        metavar="REGEX=TYPE",
        help="Store matching tensors as TYPE, repeatable (default: none)",
    ),
    click.option(
        "--output-type",
        metavar="TYPE",
        help="Store the output matrix as TYPE (default: the quant's)",
    ),
    click.option(
        "--token-embedding-type",
        "embedding_type",
        metavar="TYPE",
        help="Store the embedding as TYPE (default: the quant's)",
    ),
    click.option(
        "--pure", is_flag=True, help="Give all tensors one type (default: a mix)"
    ),
    click.option(
        "--split-max-size",
        callback=read_size,
        metavar="SIZE",
        help="Split into files of SIZE, such as 4G (default: one file)",
    ),
    click.option(
        "-t",
        "--threads",
        type=click.IntRange(min=1),
        metavar="N",
        help="Quantize on N threads (default: cores available)",
    ),
]


def _collect(given: dict[str, object]) -> Recipe:
    # Imported here: '--help' needs no values of the inner layers.
    from wizard_edge.conversion import QuantRules, Recipe

    rules = {name: given.pop(name) for name in _RULES}
    rest = {name: given.pop(name) for name in ("split_max_size", "threads")}
    quants = given.pop("quants") or (DEFAULT_QUANT,)
    assert isinstance(quants, tuple)
    # Ignored types: click gives each option in the type that is declared above.
    return Recipe(
        quants=tuple(dict.fromkeys(map(parse_quant, quants))),
        rules=QuantRules(**rules),  # type: ignore[arg-type]
        **rest,  # type: ignore[arg-type]
    )
