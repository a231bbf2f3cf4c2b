"""Read TOML tables strictly, by a schema, and lay one file over another.

A schema says for every key what reads its value; a key it does not name is an
error, so that a misspelt one is never silently without effect. Knows nothing of
what the tables mean. `difflib` is imported where an error needs it.
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from math import isfinite
from pathlib import Path
from typing import Any

from wizard_edge.errors import ConfigError, UsageError, WizardEdgeError
from wizard_edge.names import ModelName

# Any: what TOML gives, until a reader has made something of it.
Reader = Callable[[Any], object]
Table = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Keys:
    """A table with these keys and no others.

    Of two `rivals` only one may be given; a later file's puts the older one out of
    force. `part_of` names keys that fall when the key they belong to is given anew.
    """

    required: Mapping[str, Node] = field(default_factory=dict)
    optional: Mapping[str, Node] = field(default_factory=dict)
    rivals: tuple[tuple[str, str], ...] = ()
    part_of: Mapping[str, str] = field(default_factory=dict)

    def node(self, key: str) -> Node | None:
        """Return what reads `key`, None for a key that is not of this table."""
        return self.required.get(key) or self.optional.get(key)

    def out_of_force(self, given: Table) -> set[str]:
        """Name the older keys that a later file takes back by giving these."""
        gone = {b for pair in self.rivals for a, b in (pair, pair[::-1]) if a in given}
        owners = gone | set(given)
        return gone | {key for key, owner in self.part_of.items() if owner in owners}


@dataclass(frozen=True, slots=True)
class Named:
    """A table whose keys are names; `shown` stands for one of them in a path.

    `whole` entries are replaced by a later file, others are merged key by key.
    """

    shown: str
    name: Reader
    entry: Node
    whole: bool = False


@dataclass(frozen=True, slots=True)
class ListOf:
    """An array, read into a tuple."""

    entry: Node


Node = Reader | Keys | Named | ListOf


class Misfit(ValueError):
    """A value that does not fit; `keys` lead to it, outermost first."""

    def __init__(self, problem: str, *keys: str, hint: str | None = None) -> None:
        super().__init__(problem)
        self.keys = keys
        self.hint = hint

    def under(self, *keys: str) -> Misfit:
        """Say the same of a table further out."""
        return Misfit(str(self), *keys, *self.keys, hint=self.hint)

    def in_file(self, path: Path, *, hint: str) -> ConfigError:
        """Say it as an error of that file; `hint` stands in for a missing one."""
        place = ".".join(f'"{key}"' if "." in key else key for key in self.keys)
        return ConfigError(f"{path}: {place}: {self}", hint=self.hint or hint)


def parse_file(path: Path) -> Table:
    """Read a TOML file. Raises: ConfigError where it cannot be read or is no TOML."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as err:
        raise ConfigError(f"cannot read {path}: {err.strerror}") from err
    # ValueError also from the encoding and from int(), which bounds its digits;
    # tomllib recurses into nested arrays.
    except (ValueError, RecursionError) as err:
        raise ConfigError(f"{path} is not TOML: {err}") from err


def read(node: Node, value: Any) -> Any:
    """Read a value by its schema; missing keys are left to `check_complete`.

    Raises: Misfit.
    """
    if isinstance(node, Keys):
        return _read_keys(node, _table(value))
    if isinstance(node, Named):
        return _read_named(node, _table(value))
    if isinstance(node, ListOf):
        if not isinstance(value, list):
            raise Misfit(f"wants a list, got {_shown(value)}")
        return tuple(read(node.entry, item) for item in value)
    try:
        return node(value)
    except Misfit:
        raise
    except (ValueError, WizardEdgeError) as err:
        raise Misfit(str(err)) from err


def merge(node: Node, old: Any, new: Any) -> Any:
    """Lay `new` over `old`: tables key by key, everything else replaced."""
    if old is None or not isinstance(node, Keys | Named):
        return new
    merged = dict(old)
    if isinstance(node, Keys):
        for key in node.out_of_force(new):
            merged.pop(key, None)
        for key, item in new.items():
            merged[key] = merge(_known(node, key), merged.get(key), item)
        return merged
    for name, item in new.items():
        earlier = None if node.whole else merged.get(name)
        merged[name] = merge(node.entry, earlier, item)
    return merged


def check_complete(node: Node, value: Any) -> None:
    """Check that every required key is there. Raises: Misfit."""
    if isinstance(node, Keys):
        for key in node.required:
            if key not in value:
                raise Misfit("is missing", key)
        for key, item in value.items():
            _check_under(key, _known(node, key), item)
    elif isinstance(node, Named):
        for key, item in value.items():
            _check_under(key, node.entry, item)
    elif isinstance(node, ListOf):
        for item in value:
            check_complete(node.entry, item)


def key_paths(node: Node, prefix: str = "") -> Iterator[tuple[str, bool]]:
    """Give the dotted path of every key there is, and whether it is required."""
    if isinstance(node, Keys):
        for key, entry in {**node.required, **node.optional}.items():
            path = f"{prefix}.{key}" if prefix else key
            if not isinstance(entry, Named):
                yield path, key in node.required
            yield from key_paths(entry, path)
    elif isinstance(node, Named):
        path = f"{prefix}.{node.shown}"
        yield path, False
        yield from key_paths(node.entry, path)
    elif isinstance(node, ListOf):
        yield from key_paths(node.entry, prefix)


def knows(node: Node, keys: list[str]) -> bool:
    """Tell whether these keys lead somewhere; any name fits where names are free."""
    if not keys:
        return True
    if isinstance(node, ListOf):
        return knows(node.entry, keys)
    if isinstance(node, Named):
        return knows(node.entry, keys[1:])
    entry = node.node(keys[0]) if isinstance(node, Keys) else None
    return entry is not None and knows(entry, keys[1:])


# ---- readers of single values ------------------------------------------------


def text(value: Any) -> str:
    """Read one line of text that is not blank."""
    if not isinstance(value, str) or not value.strip() or not value.isprintable():
        raise Misfit(f"wants one line of text, got {_shown(value)}")
    return value


def lines(value: Any) -> str:
    """Read text that may have several lines."""
    text(value.replace("\n", " ") if isinstance(value, str) else value)
    return str(value)


def name(value: Any) -> str:
    """Read a name of ours: of a template, a licence."""
    try:
        return ModelName.parse(value)
    except UsageError:
        raise Misfit(
            f"wants lower-case letters, digits, '.', '_' and '-', got {_shown(value)}"
        ) from None


def count(value: Any) -> int:
    """Read a whole number above 0."""
    if not isinstance(value, int) or isinstance(value, bool) or value <= 0:
        raise Misfit(f"wants a whole number above 0, got {_shown(value)}")
    return value


def index(value: Any) -> int:
    """Read a whole number from 0 on."""
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise Misfit(f"wants a whole number from 0 on, got {_shown(value)}")
    return value


def number(value: Any) -> float:
    """Read a finite number from 0 on."""
    fits = isinstance(value, int | float) and not isinstance(value, bool)
    if not fits or not isfinite(value) or value < 0:
        raise Misfit(f"wants a number from 0 on, got {_shown(value)}")
    return float(value)


def url(value: Any) -> str:
    """Read an https address."""
    if not text(value).startswith("https://"):
        raise Misfit(f"wants an https address, got {_shown(value)}")
    return str(value)


def one_of(*choices: str) -> Reader:
    """Make a reader that takes these words only."""

    def word(value: Any) -> str:
        if value not in choices:
            raise Misfit(f"wants one of {', '.join(choices)}, got {_shown(value)}")
        return str(value)

    return word


def _read_keys(node: Keys, table: Table) -> Table:
    found = {key: _under(key, _known(node, key), item) for key, item in table.items()}
    for one, other in node.rivals:
        if one in table and other in table:
            raise Misfit(f"excludes {other!r}: give one of them", one)
    return found


def _read_named(node: Named, table: Table) -> Table:
    found: Table = {}
    for key, item in table.items():
        name = str(_under(key, node.name, key))
        if name in found:
            raise Misfit(f"is there twice, once as {name!r}", key)
        found[name] = _under(key, node.entry, item)
    return found


def _under(key: str, node: Node, value: Any) -> Any:
    try:
        return read(node, value)
    except Misfit as err:
        raise err.under(key) from err.__cause__


def _check_under(key: str, node: Node, value: Any) -> None:
    try:
        check_complete(node, value)
    except Misfit as err:
        raise err.under(key) from None


def _table(value: Any) -> Table:
    if not isinstance(value, dict):
        raise Misfit(f"wants a table, got {_shown(value)}")
    return value


def _known(node: Keys, key: str) -> Node:
    found = node.node(key)
    if found is not None:
        return found
    from difflib import get_close_matches

    keys = [*node.required, *node.optional]
    near = get_close_matches(key, keys, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"known keys: {', '.join(keys)}"
    raise Misfit("is no key of this table", key, hint=hint)


def _shown(value: Any) -> str:
    shown = repr(value)
    return shown if len(shown) <= 60 else f"{shown[:57]}..."
