"""Checks values against the part of JSON Schema that the grammars know."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from math import inf

# Schemas and values are what JSON can hold.
from typing import Any

_TYPES: dict[str, tuple[type, ...]] = {
    "string": (str,),
    "number": (int, float),
    "integer": (int,),
    "array": (list,),
    "object": (dict,),
    "null": (type(None),),
}


def valid(value: Any, schema: Any, root: Any = None) -> bool:
    """Tell whether a value is what a schema wants; `oneOf` is read as `anyOf`."""
    root = schema if root is None else root
    if isinstance(schema, bool):
        return schema

    def any_of(parts: Any) -> bool:
        return any(valid(value, part, root) for part in parts)

    checks: dict[str, Callable[[Any], bool]] = {
        "$ref": lambda pointer: valid(value, _find(root, pointer), root),
        "anyOf": any_of,
        "oneOf": any_of,
        "allOf": lambda parts: all(valid(value, part, root) for part in parts),
        "const": lambda constant: json.dumps(constant) == json.dumps(value),
        "enum": lambda values: json.dumps(value) in map(json.dumps, values),
        "type": lambda kinds: any(_is(value, kind) for kind in _listed(kinds)),
    }
    if not all(check(schema[word]) for word, check in checks.items() if word in schema):
        return False
    if isinstance(value, str):
        return _fits(schema, "Length", len(value)) and bool(
            re.search(schema.get("pattern", ""), value)
        )
    if isinstance(value, list):
        return _fits(schema, "Items", len(value)) and _items_valid(value, schema, root)
    if isinstance(value, dict):
        known, extra = schema.get("properties", {}), schema.get("additionalProperties")
        return set(schema.get("required", [])) <= value.keys() and all(
            valid(item, known.get(key, True if extra is None else extra), root)
            for key, item in value.items()
        )
    return not _is(value, "number") or _within(value, schema)


def _items_valid(value: list[Any], schema: Any, root: Any) -> bool:
    prefix, items = schema.get("prefixItems", []), schema.get("items", True)
    if isinstance(items, list):
        prefix, items = items, schema.get("additionalItems", True)
    wanted = [*prefix, *[items] * len(value)]
    return all(valid(v, s, root) for v, s in zip(value, wanted, strict=False))


def _within(value: float, schema: Any) -> bool:
    low, high = schema.get("minimum", value), schema.get("maximum", value)
    above = schema.get("exclusiveMinimum", -inf)
    below = schema.get("exclusiveMaximum", inf)
    return bool(low <= value <= high and above < value < below)


def _fits(schema: Any, what: str, count: int) -> bool:
    least, most = schema.get(f"min{what}", 0), schema.get(f"max{what}", count)
    return bool(least <= count <= most)


def _find(root: Any, pointer: str) -> Any:
    for step in pointer.split("/")[1:]:
        key = step.replace("%20", " ").replace("~1", "/")
        root = root[int(key) if isinstance(root, list) else key]
    return root


def _listed(kinds: Any) -> list[str]:
    return kinds if isinstance(kinds, list) else [kinds]


def _is(value: Any, kind: str) -> bool:
    if isinstance(value, bool) or kind == "boolean":
        return isinstance(value, bool) and kind == "boolean"
    return isinstance(value, _TYPES[kind])
