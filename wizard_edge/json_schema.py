"""A JSON schema as a grammar: whatever the grammar lets through is valid.

The other way round it may be narrower: keys come in the order of the schema, objects
with named keys have no others, `oneOf` is read as `anyOf`. A keyword that a grammar
cannot hold is refused, never passed over in silence.
Source: JSON Schema Core and Validation, draft 2020-12; `definitions`, lists as
`items` and `additionalItems` as in draft 7.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping

# A schema is what JSON can hold; every value is looked at before it is used.
from typing import Any, NoReturn
from urllib.parse import unquote

from wizard_edge.errors import UsageError
from wizard_edge.gbnf import either, json_text, literal, repeated
from wizard_edge.json_leaves import (
    DIGITS,
    Schema,
    bounds,
    constants,
    integer,
    mapping,
    number,
    refuse,
    shown,
    string,
    texts,
    types_of,
)

# Keywords that would make an answer invalid which the grammar lets through.
_BEYOND = {
    *("not", "if", "then", "else", "contains", "minContains", "maxContains"),
    *("uniqueItems", "patternProperties", "propertyNames", "minProperties"),
    *("maxProperties", "dependentRequired", "dependentSchemas", "dependencies"),
    *("multipleOf", "unevaluatedItems", "unevaluatedProperties", "$dynamicRef"),
    "$recursiveRef",
}
# They say nothing about what is valid, or only what a name stands for.
_NOTES = {
    *("title", "description", "default", "examples", "deprecated", "readOnly"),
    *("writeOnly", "$schema", "$id", "$comment", "$anchor", "$defs", "definitions"),
    "format",
}
# What may stand between two parts, at most one line and its indentation.
# Source: llama.cpp 0c1e57098, common/json-schema-to-grammar.cpp, SPACE_RULE.
_RULES = {
    "space": '" "? | "\\n" [ \\t]{0,20}',
    "hex": "[0-9a-fA-F]",
    # Surrogates as escapes are left out: one without the other is no character.
    "char": r'[^"\\\x00-\x1F\x7F] | "\\" (["\\bfnrt/] '
    r'| "u" ([0-9a-cA-CefEF] hex{3} | [dD] [0-7] hex{2}))',
    "string": r'"\"" char* "\""',
    "whole": f'"0" | [1-9] [0-9]{{0,{DIGITS - 1}}}',
    "integer": '"-"? whole',
    "number": f'"-"? whole ("." [0-9]{{1,{DIGITS}}})? ([eE] [+-]? [0-9]{{1,2}})?',
    "boolean": '"true" | "false"',
    "null": '"null"',
    "value": "object | array | string | number | boolean | null",
    "member": 'string space ":" space value',
    "object": '"{" space (member space ("," space member space)*)? "}"',
    "array": '"[" space (value space ("," space value space)*)? "]"',
}


def schema_grammar(text: str) -> str:
    """Return the grammar of a JSON schema in GBNF.

    Raises: UsageError for text that is no schema, and for what a grammar cannot say.
    """
    try:
        schema = json.loads(text, parse_constant=_refuse_constant)
        return _Converter(schema).grammar()
    except ValueError as err:
        raise UsageError(f"the JSON schema is not usable: {err}") from err
    except RecursionError as err:
        raise UsageError("the JSON schema is nested too deep") from err


class _Converter:
    """Makes one rule of each part of a schema that others refer to."""

    def __init__(self, root: object) -> None:
        self._root = root
        self._rules = dict(_RULES)
        # Pointer -> rule, so that a definition may refer to itself.
        self._named: dict[str, str] = {}

    def grammar(self) -> str:
        self._named["#"] = "document"
        self._rules["document"] = self._any_of(self._root)
        # The models were trained on answers that begin with a space.
        self._rules["root"] = '" "? document'
        return "\n".join(f"{name} ::= {body}" for name, body in self._rules.items())

    def _any_of(self, schema: object) -> str:
        """Return the grammar of a schema, whatever it is."""
        if schema is True:
            return "value"
        if not isinstance(schema, Mapping):
            if schema is False:
                refuse("false, which nothing fulfils")
            refuse(f"{shown(schema)} in place of a schema")
        for word in sorted(_BEYOND & schema.keys()):
            if schema[word] not in (False, 0) or word in ("not", "if", "then", "else"):
                refuse(f"{word!r}, which a grammar cannot hold")
        for word in ("anyOf", "oneOf"):
            if word in schema:
                return self._choices(schema, word)
        if "allOf" in schema:
            return self._any_of(self._merged(schema))
        if "$ref" in schema:
            return self._reference(schema)
        return self._plain(schema)

    def _plain(self, schema: Schema) -> str:
        types = types_of(schema)
        if "const" in schema or "enum" in schema:
            return constants(schema, types)
        if types is None:
            return "value"
        makers: dict[str, Callable[[Schema], str]] = {
            "object": self._object,
            "array": self._array,
            "string": string,
            "integer": integer,
            "number": number,
        }
        return either(makers[t](schema) if t in makers else t for t in types)

    def _choices(self, schema: Schema, word: str) -> str:
        branches = schema[word]
        if not isinstance(branches, list) or not branches:
            refuse(f"{word!r} without a list")
        beside = {key: value for key, value in schema.items() if key != word}
        if not beside.keys() - _NOTES:
            return either(self._any_of(branch) for branch in branches)
        return either(self._any_of(self._both(beside, each)) for each in branches)

    def _merged(self, schema: Schema) -> Schema:
        """Return one schema in place of a schema and all of its `allOf`."""
        parts = schema["allOf"]
        if not isinstance(parts, list):
            refuse("'allOf' without a list")
        whole: Schema = {key: schema[key] for key in schema if key != "allOf"}
        for part in parts:
            whole = self._both(whole, part)
        return whole

    def _both(self, one: Schema, other: object) -> Schema:
        """Return a schema that says what two of them say."""
        seen: set[str] = set()
        while isinstance(other, Mapping) and "$ref" in other:
            pointer = _pointer_of(other)
            if pointer in seen:
                refuse(f"{pointer!r}, which refers to itself")
            seen.add(pointer)
            beside = {key: value for key, value in other.items() if key != "$ref"}
            one, other = self._both(one, beside), self._find(pointer)
        if not isinstance(other, Mapping):
            if other is True:
                return one
            refuse(f"{shown(other)} beside other keywords")
        both = dict(one)
        for key, value in other.items():
            if key in _NOTES or key not in both or _same(both[key], value):
                both.setdefault(key, value)
            elif key == "required" and isinstance(value, list):
                both[key] = [*both[key], *value]
            elif key == "properties" and not both[key].keys() & value.keys():
                both[key] = {**both[key], **value}
            else:
                refuse(f"{key!r} twice, in parts that hold together")
        return both

    def _reference(self, schema: Schema) -> str:
        if schema.keys() - {"$ref"} - _NOTES:
            beside = {key: value for key, value in schema.items() if key != "$ref"}
            return self._any_of(self._both(beside, {"$ref": schema["$ref"]}))
        pointer = _pointer_of(schema)
        if pointer not in self._named:
            name = f"ref{len(self._named)}"
            self._named[pointer] = name
            self._rules[name] = self._any_of(self._find(pointer))
        return self._named[pointer]

    def _find(self, pointer: str) -> object:
        # Any: whatever lies there is looked at by whoever asked.
        found: Any = self._root
        for step in pointer.removeprefix("#").split("/")[1:]:
            key = unquote(step).replace("~1", "/").replace("~0", "~")
            try:
                found = found[int(key) if isinstance(found, list) else key]
            except (KeyError, IndexError, TypeError, ValueError):
                refuse(f"{pointer!r}, which leads nowhere")
        return found

    def _object(self, schema: Schema) -> str:
        properties = mapping(schema, "properties")
        required = texts(schema, "required")
        extra = schema.get("additionalProperties", True)
        if not properties and not required:
            if extra is True:
                return "object"
            return '"{" space "}"' if extra is False else self._map(extra)
        for name in required:
            if name not in properties:
                properties[name] = extra
        return self._keys(properties, set(required))

    def _map(self, value: object) -> str:
        member = f'string space ":" space {self._any_of(value)} space'
        return f'"{{" space ({member} ("," space {member})*)? "}}"'

    def _keys(self, properties: Schema, required: set[str]) -> str:
        """Return the grammar of keys in their order, some of which may be missing.

        `first` is what may come where no key came yet, `later` what may come behind
        one; both are built from the last key on.
        """
        first, later = "", ""
        for name, schema in reversed(list(properties.items())):
            if schema is False and name not in required:
                continue
            key = literal(json_text(name))
            member = self._rule(f'{key} space ":" space {self._any_of(schema)} space')
            if name in required:
                first = f"{member} {later}".strip()
                later = f'"," space {member} {later}'.strip()
            else:
                begins = f"{member} {later}".strip()
                first = f"{begins} | {first}" if first else f"({begins})?"
                later = f'("," space {member})? {later}'.strip()
            later = self._rule(later)
            first = self._rule(first)
        return f'"{{" space {first} "}}"'.replace("  ", " ")

    def _array(self, schema: Schema) -> str:
        least, most = bounds(schema, "minItems", "maxItems")
        tuple_, rest_word = schema.get("prefixItems", []), "items"
        if isinstance(schema.get("items"), list):
            tuple_, rest_word = schema["items"], "additionalItems"
        if not isinstance(tuple_, list):
            refuse("'prefixItems' without a list")
        tuple_ = tuple_[: len(tuple_) if most is None else most]
        items = schema.get(rest_word, True)
        # Nobody speaks of more of them: then there are none, where that is enough.
        if rest_word not in schema and tuple_ and least <= len(tuple_):
            items = False
        parts = [f"{self._any_of(item)} space" for item in tuple_]
        head = ' "," space '.join(parts)
        if items is False:
            if least > len(tuple_):
                refuse(f"'minItems' {least}, with fewer items")
            return f'"[" space {head} "]"'.replace("  ", " ")
        rest = None if most is None else most - len(tuple_)
        more = f"{self._rule(self._any_of(items))} space"
        need = max(0, least - len(tuple_))
        if head:
            tail = repeated(f'"," space {more}', need, rest) if rest != 0 else ""
            return f'"[" space {head} {tail} "]"'
        if rest == 0:
            return '"[" space "]"'
        tail = repeated(
            f'"," space {more}', max(0, need - 1), None if rest is None else rest - 1
        )
        whole = more if rest == 1 else f"{more} {tail}"
        return f'"[" space {whole if need else f"({whole})?"} "]"'

    def _rule(self, body: str) -> str:
        """Return the name of a rule of its own, which keeps others short."""
        if body.isidentifier() or not body:
            return body
        name = f"part{len(self._rules)}"
        self._rules[name] = body
        return name


def _pointer_of(schema: Schema) -> str:
    pointer = schema["$ref"]
    if not isinstance(pointer, str) or not (pointer == "#" or pointer[:2] == "#/"):
        refuse(f"{shown(pointer)}, which lies elsewhere")
    return pointer


def _refuse_constant(name: str) -> NoReturn:
    refuse(name)


def _same(one: object, other: object) -> bool:
    # Not ==, for which true is 1.
    return json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)
