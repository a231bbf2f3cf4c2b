"""What a JSON schema says of single values: constants, texts, numbers, and its types.

For `json_schema`, which puts them together.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

# A schema is what JSON can hold; every value is looked at before it is used.
from typing import Any, NoReturn

from wizard_edge.errors import UsageError
from wizard_edge.gbnf import either, json_text, literal, repeated, whole_numbers
from wizard_edge.json_pattern import pattern_grammar

Schema = Mapping[str, Any]

_TYPES = ("object", "array", "string", "number", "integer", "boolean", "null")
# A keyword -> the type that it speaks of where nobody names one.
_SPEAKS_OF = {
    "object": ("properties", "required", "additionalProperties"),
    "array": ("items", "prefixItems", "additionalItems", "minItems", "maxItems"),
    "string": ("pattern", "minLength", "maxLength"),
    "number": ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"),
}
SPEAKING = frozenset(word for words in _SPEAKS_OF.values() for word in words)
# Longer ones are cut there: a model that has begun a number would not end it.
DIGITS = 15
MOST_WHOLE = 10**DIGITS
# Between limits: so that no sum of both is rounded onto one of them.
_DECIMALS = 6
_LARGEST_LIMIT = 10**9

_FORMATS = {
    "date": '[0-9]{4} "-" ("0" [1-9] | "1" [0-2]) "-" ("0" [1-9] | "1" [0-9] '
    '| "2" [0-8])',
    "time": '([01] [0-9] | "2" [0-3]) ":" [0-5] [0-9] ":" [0-5] [0-9] '
    '("." [0-9]{1,6})? ("Z" | [+-] ([01] [0-9] | "2" [0-3]) ":" [0-5] [0-9])',
    "uuid": '[0-9a-fA-F]{8} ("-" [0-9a-fA-F]{4}){3} "-" [0-9a-fA-F]{12}',
}
_FORMATS["date-time"] = f'{_FORMATS["date"]} "T" {_FORMATS["time"]}'


def constants(schema: Schema, types: Iterable[str] | None) -> str:
    """Return the grammar of `const`, or of what of an `enum` has one of the types."""
    for word in SPEAKING & schema.keys():
        refuse(f"{word!r} beside constants")
    if "const" in schema and "enum" in schema:
        refuse("'const' beside 'enum'")
    values = [schema["const"]] if "const" in schema else schema["enum"]
    if not isinstance(values, list):
        refuse("'enum' without a list")
    if types is not None:
        values = [value for value in values if any(_is(value, t) for t in types)]
    if not values:
        refuse("an 'enum' of which no value is allowed")
    return either(literal(json_text(value)) for value in values)


def string(schema: Schema) -> str:
    """Return the grammar of strings of a length, a pattern or a format."""
    least, most = bounds(schema, "minLength", "maxLength")
    sized = least > 0 or most is not None
    if "pattern" in schema:
        if sized or not isinstance(schema["pattern"], str):
            refuse("'pattern' together with a length")
        return rf'"\"" {pattern_grammar(schema["pattern"], "char")} "\""'
    form = schema.get("format")
    if isinstance(form, str) and form in _FORMATS and not sized:
        return rf'"\"" {_FORMATS[form]} "\""'
    if not sized:
        return "string"
    inside = repeated("char", least, most) if most != 0 else ""
    return rf'"\"" {inside} "\""'


def integer(schema: Schema) -> str:
    """Return the grammar of whole numbers between the limits."""
    limits = _limits(schema)
    if limits is None:
        return "integer"
    least = limits.low + limits.low_open
    most = limits.high - limits.high_open
    if least > most:
        refuse(f"whole numbers from {least} to {most}")
    choices = []
    if most >= 0:
        choices.append(whole_numbers(max(least, 0), most))
    if least < 0:
        choices.append(f'"-" {whole_numbers(max(1, -most), -least)}')
    return either(choices)


def number(schema: Schema) -> str:
    """Return the grammar of numbers between the limits, without exponents."""
    limits = _limits(schema)
    if limits is None:
        return "number"
    low, high = limits.low, limits.high
    choices = []
    if high >= 0:
        begins_open = limits.low_open and low >= 0
        choices += _magnitudes(max(low, 0), begins_open, high, limits.high_open)
    if low < 0:
        begins_open = limits.high_open and high <= 0
        sizes = _magnitudes(max(-high, 0), begins_open, -low, limits.low_open)
        choices += [f'"-" {size}' for size in sizes]
    if not choices:
        refuse(f"numbers from {low} to {high}")
    return either(choices)


def _magnitudes(low: int, low_open: bool, high: int, high_open: bool) -> list[str]:
    """Return grammars of the numbers between two whole ones, 0 or more."""
    found = []
    if low <= high and not low_open and not (low == high and high_open):
        found.append(whole_numbers(low, low))
    if low < high:
        part = f'"." [0-9]{{0,{_DECIMALS - 1}}} [1-9]'
        found.append(f"{whole_numbers(low, low)} {part}")
        if low + 1 <= high - 1:
            inner = whole_numbers(low + 1, high - 1)
            found.append(f'{inner} ("." [0-9]{{1,{_DECIMALS}}})?')
        if not high_open:
            found.append(whole_numbers(high, high))
    return found


def types_of(schema: Schema) -> list[str] | None:
    """Return the types that a schema names, or speaks of; None for every one."""
    named = schema.get("type")
    if named is None:
        spoken = [
            kind
            for kind, words in _SPEAKS_OF.items()
            if any(word in schema for word in words)
        ]
        return spoken[:1] or None
    types = named if isinstance(named, list) else [named]
    for kind in types:
        if kind not in _TYPES:
            refuse(f"the type {shown(kind)}")
    if not types:
        refuse("no type at all")
    return types


def _is(value: object, kind: str) -> bool:
    if kind == "integer" and isinstance(value, float):
        return value.is_integer()
    if kind in ("number", "integer") and isinstance(value, bool):
        return False
    kinds: dict[str, tuple[type, ...]] = {
        "object": (dict,),
        "array": (list,),
        "string": (str,),
        "number": (int, float),
        "integer": (int,),
        "boolean": (bool,),
        "null": (type(None),),
    }
    return isinstance(value, kinds[kind])


def bounds(schema: Schema, least: str, most: str) -> tuple[int, int | None]:
    """Return two counts, the second None where there is no end."""
    for name in {least, most} & schema.keys():
        value = schema[name]
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            refuse(f"{name!r} {shown(value)}")
    low, high = schema.get(least, 0), schema.get(most)
    if high is not None and high < low:
        refuse(f"{least!r} {low} and {most!r} {high}")
    return low, high


@dataclass(frozen=True, slots=True)
class _Limits:
    """Two whole numbers, and whether they are still within."""

    low: int = -MOST_WHOLE
    low_open: bool = False
    high: int = MOST_WHOLE
    high_open: bool = False


def _limits(schema: Schema) -> _Limits | None:
    """Return the narrower of each two limits; None where there are none."""
    least, most = _limit(schema, "minimum"), _limit(schema, "maximum")
    above = _limit(schema, "exclusiveMinimum")
    below = _limit(schema, "exclusiveMaximum")
    if least is None and most is None and above is None and below is None:
        return None
    limits = _Limits()
    if least is not None:
        limits = replace(limits, low=least)
    if above is not None and (least is None or above >= least):
        limits = replace(limits, low=above, low_open=True)
    if most is not None:
        limits = replace(limits, high=most)
    if below is not None and (most is None or below <= most):
        limits = replace(limits, high=below, high_open=True)
    return limits


def _limit(schema: Schema, name: str) -> int | None:
    value = schema.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        refuse(f"{name!r} {shown(value)}")
    if not abs(value) <= _LARGEST_LIMIT or value != int(value):
        refuse(f"{name!r} {value}, which is no whole number up to {_LARGEST_LIMIT}")
    return int(value)


def mapping(schema: Schema, name: str) -> dict[str, Any]:
    """Return a keyword that holds schemas by name; empty where it is missing."""
    value = schema.get(name, {})
    if not isinstance(value, dict):
        refuse(f"{name!r} {shown(value)}")
    return dict(value)


def texts(schema: Schema, name: str) -> list[str]:
    """Return a keyword that holds texts; empty where it is missing."""
    value = schema.get(name, [])
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        refuse(f"{name!r} {shown(value)}")
    return value


def refuse(what: str) -> NoReturn:
    """Raise UsageError, which names what a grammar cannot hold."""
    raise UsageError(f"the JSON schema has {what}")


def shown(value: object) -> str:
    """Return a part of a schema for a message, cut where it is long."""
    text = repr(value)
    return text if len(text) <= 40 else text[:37] + "..."
