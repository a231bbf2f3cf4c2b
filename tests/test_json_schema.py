"""Schemas as grammars: what they let through, and what they refuse to be."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path

# A schema is what JSON can hold.
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.json_values import valid
from wizard_edge._llama.engine import LlamaEngine
from wizard_edge._llama.grammar import Grammar
from wizard_edge.engine import LoadOptions, Sampling
from wizard_edge.errors import UsageError
from wizard_edge.json_schema import schema_grammar
from wizard_edge.prompt import begin, encode
from wizard_edge.templates import TEMPLATES

TREE = {
    "$defs": {
        "tree_node": {
            "type": "object",
            "properties": {
                "value": {"type": "integer"},
                "kids": {"type": "array", "items": {"$ref": "#/$defs/tree_node"}},
            },
            "required": ["value"],
        }
    },
    "$ref": "#/$defs/tree_node",
}
PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "minLength": 1},
        "age": {"type": "integer", "minimum": 0, "maximum": 150},
        "mail": {"type": ["string", "null"]},
    },
    "required": ["age"],
}
SHAPES = {
    "oneOf": [
        {
            "type": "object",
            "properties": {"kind": {"const": "circle"}, "r": {"type": "number"}},
            "required": ["kind", "r"],
        },
        {
            "type": "object",
            "properties": {
                "kind": {"const": "square"},
                "side": {"type": "number", "exclusiveMinimum": 0},
            },
            "required": ["kind", "side"],
        },
    ]
}


@pytest.fixture(scope="module")
def engine(apprentice: Callable[[str], Path]) -> Iterator[LlamaEngine]:
    with LlamaEngine(apprentice("Q8_0"), LoadOptions(threads=1)) as loaded:
        yield loaded


def grammar_for(engine: LlamaEngine, schema: object) -> Grammar:
    library = engine._backend._library
    text = schema_grammar(json.dumps(schema))
    return Grammar(library, engine.vocabulary, text)


def lets_through(engine: LlamaEngine, schema: object, text: str) -> bool:
    """Tell whether a text is a whole answer under the grammar of a schema."""
    grammar = grammar_for(engine, schema)
    try:
        # Byte by byte: every text has these tokens, whatever begins it.
        for byte in text.encode():
            token = 3 + byte
            if not grammar.allows(token):
                return False
            grammar.accept(token)
        return grammar.allows(engine.vocabulary.eos)
    finally:
        grammar.close()


KEYS = st.sampled_from(["a", "b_c", 'q"', "\\", "é", "with space", "root", "string"])
WORDS = st.sampled_from(
    [
        *("type", "enum", "const", "anyOf", "allOf", "properties", "required"),
        *("items", "prefixItems", "minItems", "maxItems", "pattern", "minLength"),
        *("minimum", "$ref", "additionalProperties", "$defs"),
    ]
)
NUMBERS = st.integers(-30, 130)
CONSTANTS = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=4),
    lambda inner: (
        st.lists(inner, max_size=2) | st.dictionaries(KEYS, inner, max_size=2)
    ),
    max_leaves=3,
)
PATTERNS = st.sampled_from(
    ["^[a-c]{2,3}$", "x", "^(ab|c)+$", r"^\d{4}-\d\d$", '^["\\\\]$', "^a|b$", "^[^a]$"]
)


@st.composite
def numeric(draw: st.DrawFn) -> dict[str, object]:
    low, high = sorted((draw(NUMBERS), draw(NUMBERS)))
    lower = draw(st.sampled_from(["minimum", "exclusiveMinimum", ""]))
    upper = draw(st.sampled_from(["maximum", "exclusiveMaximum", ""]))
    schema: dict[str, object] = {"type": draw(st.sampled_from(["integer", "number"]))}
    # Two apart, so that something lies between them.
    return schema | {k: v for k, v in ((lower, low), (upper, high + 2)) if k}


@st.composite
def arrays(draw: st.DrawFn, inner: st.SearchStrategy[Any]) -> dict[str, object]:
    least = draw(st.integers(0, 2))
    schema: dict[str, object] = {"type": "array", "minItems": least, "maxItems": 3}
    if draw(st.booleans()):
        schema["prefixItems"] = draw(st.lists(inner, max_size=2))
    schema["items"] = draw(inner)
    return schema


@st.composite
def objects(draw: st.DrawFn, inner: st.SearchStrategy[Any]) -> dict[str, object]:
    properties = draw(st.dictionaries(KEYS, inner, max_size=4))
    schema: dict[str, object] = {"type": "object", "properties": properties}
    if properties:
        names = st.sampled_from(sorted(properties))
        schema["required"] = draw(st.lists(names, unique=True))
    extra = draw(st.sampled_from([None, True, False]) | inner)
    return schema if extra is None else schema | {"additionalProperties": extra}


SCHEMAS = st.recursive(
    st.sampled_from(
        [
            {"type": "boolean"},
            {"type": "null"},
            {"type": ["null", "integer"]},
            {"type": "string", "maxLength": 5},
            {"type": "string", "minLength": 2, "maxLength": 4},
        ]
    )
    | numeric()
    | PATTERNS.map(lambda pattern: {"type": "string", "pattern": pattern})
    | CONSTANTS.map(lambda value: {"const": value})
    | st.lists(CONSTANTS, min_size=1, max_size=3).map(lambda v: {"enum": v}),
    lambda inner: (
        arrays(inner)
        | objects(inner)
        | st.lists(inner, min_size=1, max_size=3).map(lambda parts: {"anyOf": parts})
    ),
    max_leaves=6,
)


@settings(
    max_examples=100,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(SCHEMAS, st.integers(0, 99))
def test_an_answer_parses_and_is_valid(
    engine: LlamaEngine, schema: dict[str, object], seed: int
) -> None:
    sampling = Sampling(
        temperature=2, seed=seed, json_schema=json.dumps(schema), max_tokens=400
    )
    prompt = begin(engine.vocabulary) + encode(
        TEMPLATES["vicuna"].open("Hello!"), engine.vocabulary
    )

    *_, last = chunks = list(engine.generate(prompt, sampling))

    text = "".join(chunk.text for chunk in chunks)
    if last.finish == "stop":
        assert valid(json.loads(text), schema), text


@pytest.mark.parametrize(
    ("schema", "text"),
    [
        (True, '{"a": [1, -2.5e3, "x", null, true, {}]}'),
        ({}, " 12"),
        (PERSON, '{"age": 3}'),
        (PERSON, '{\n  "name": "Ada",\n  "age": 150,\n  "mail": null\n}'),
        (PERSON, '{"age":0,"mail":"\\u00e9\\n"}'),
        (TREE, '{"value": 1, "kids": [{"value": -2, "kids": []}, {"value": 3}]}'),
        (SHAPES, '{"kind": "square", "side": 0.5}'),
        (SHAPES, '{"kind": "circle", "r": -1e9}'),
        ({"enum": ['a"b', "\n", 1, None, {"k": []}]}, '"a\\"b"'),
        ({"enum": ['a"b', "\n", 1, None, {"k": []}]}, '"\\n"'),
        ({"enum": ['a"b', "\n", 1, None, {"k": []}]}, '{"k": []}'),
        ({"type": "string", "enum": ["a", 1]}, '"a"'),
        ({"type": "integer", "exclusiveMinimum": 3, "exclusiveMaximum": 5}, "4"),
        ({"type": "number", "exclusiveMinimum": 3, "exclusiveMaximum": 4}, "3.07"),
        ({"type": "array", "minItems": 2, "maxItems": 3}, '[1, "a", []]'),
        ({"prefixItems": [{"type": "null"}, {"const": 1}]}, "[null, 1]"),
        ({"items": [{"type": "null"}], "additionalItems": True}, "[null, 1]"),
        ({"type": "object", "additionalProperties": {"type": "null"}}, '{"x": null}'),
        ({"required": ["x"]}, '{"x": 7}'),
        ({"type": "string", "pattern": "b+"}, '"aéb"'),
        ({"type": "string", "pattern": '^[^a]"\\\\.$'}, '"\\n\\"\\\\🧙"'),
        ({"type": "string", "format": "date"}, '"2024-02-28"'),
        ({"type": "string", "format": "date-time"}, '"2024-02-28T23:59:59.5+01:00"'),
        ({"type": "string", "maxLength": 2}, '"🧙é"'),
        ({"allOf": [PERSON, {"required": ["name"]}]}, '{"name": "A", "age": 1}'),
        ({"$ref": "#/$defs/a~1b%20c", "$defs": {"a/b c": {"const": 5}}}, "5"),
        (
            {
                "type": "object",
                "properties": {"string": {"$ref": "#/definitions/string"}},
                "definitions": {"string": {"type": "null"}},
            },
            '{"string": null}',
        ),
    ],
)
def test_what_is_valid_is_let_through(
    engine: LlamaEngine, schema: object, text: str
) -> None:
    assert valid(json.loads(text), schema)
    assert lets_through(engine, schema, text)


@pytest.mark.parametrize(
    ("schema", "text"),
    [
        (True, '{"a": 1'),
        (True, '"a\nb"'),
        (True, '"\\ud83d"'),
        (True, "01"),
        (True, "-"),
        (PERSON, '{"name": "Ada"}'),
        (PERSON, '{"age": 151}'),
        (PERSON, '{"name": "", "age": 1}'),
        (PERSON, '{"age": 1, "other": 2}'),
        (PERSON, '{"age": 1,}'),
        (TREE, '{"value": 1, "kids": [{}]}'),
        (SHAPES, '{"kind": "square", "side": 0}'),
        (SHAPES, '{"kind": "square", "side": -1}'),
        ({"type": "array", "minItems": 2, "maxItems": 3}, "[1]"),
        ({"type": "array", "minItems": 2, "maxItems": 3}, "[1, 2, 3, 4]"),
        ({"type": "array", "maxItems": 0}, "[1]"),
        ({"prefixItems": [{"type": "null"}], "items": False}, "[null, 1]"),
        ({"type": "string", "pattern": "^a.c$"}, '"a"c"'),
        ({"type": "string", "pattern": "^a.c$"}, '"abcd"'),
        ({"type": "string", "maxLength": 2}, '"abc"'),
        ({"type": "object", "additionalProperties": False}, '{"a": 1}'),
        ({"type": "string", "enum": ["a", 1]}, "1"),
        ({"type": "number", "minimum": -2, "maximum": 2}, "2.5"),
        ({"type": "number", "exclusiveMaximum": 0}, "-0"),
        ({"type": "integer", "exclusiveMinimum": 3}, "3"),
        ({"type": "integer", "exclusiveMaximum": 3}, "3"),
        ({"type": "number", "exclusiveMinimum": 3}, "3"),
        ({"type": "number", "exclusiveMinimum": 3}, "3.0"),
    ],
)
def test_what_is_not_valid_is_not(
    engine: LlamaEngine, schema: object, text: str
) -> None:
    assert not lets_through(engine, schema, text)


@pytest.mark.parametrize("kind", ["integer", "number"])
@settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(low=st.integers(-1200, 1200), high=st.integers(-1200, 1200))
def test_whole_numbers_between_limits_are_all_let_through(
    engine: LlamaEngine, kind: str, low: int, high: int
) -> None:
    low, high = min(low, high), max(low, high)
    schema = {"type": kind, "minimum": low, "maximum": high}
    near = {low, high, (low + high) // 2, low - 1, high + 1, low * 10, high * 10, 0}

    for number in near:
        assert lets_through(engine, schema, str(number)) == (low <= number <= high)


@pytest.mark.parametrize(
    ("schema", "message"),
    [
        ("{", "not usable"),
        ('{"const": NaN}', "NaN"),
        ('{"const": 1e999}', "not usable"),
        ("5", "5 in place of a schema"),
        ("false", "false, which nothing fulfils"),
        ('{"type": "nope"}', "the type 'nope'"),
        ('{"type": []}', "no type at all"),
        ('{"not": {}}', "'not', which a grammar cannot hold"),
        ('{"type": "integer", "multipleOf": 3}', "'multipleOf'"),
        ('{"type": "array", "uniqueItems": true}', "'uniqueItems'"),
        ('{"type": "string", "pattern": "(?=a)"}', "pattern '(?=a)'"),
        ('{"type": "string", "pattern": "a**"}', "cannot be enforced"),
        ('{"type": "string", "pattern": "(a"}', "cannot be enforced"),
        ('{"type": "string", "pattern": "[a"}', "cannot be enforced"),
        ('{"type": "string", "pattern": "\\\\1"}', "cannot be enforced"),
        ('{"type": "string", "pattern": "a$b"}', "cannot be enforced"),
        ('{"type": "string", "pattern": "a", "maxLength": 3}', "with a length"),
        ('{"type": "number", "minimum": 0.5}', "'minimum' 0.5"),
        ('{"type": "integer", "minimum": 1e999}', "'minimum' inf"),
        ('{"type": "integer", "minimum": 3, "maximum": 2}', "numbers from 3 to 2"),
        ('{"type": "string", "minLength": -1}', "'minLength' -1"),
        ('{"type": "array", "minItems": 3, "maxItems": 2}', "'minItems' 3"),
        ('{"enum": []}', "no value is allowed"),
        ('{"enum": "a"}', "without a list"),
        ('{"type": "null", "enum": [1]}', "no value is allowed"),
        ('{"enum": ["a"], "maxLength": 1}', "'maxLength' beside constants"),
        ('{"anyOf": []}', "'anyOf' without a list"),
        ('{"$ref": "https://example.org/x"}', "lies elsewhere"),
        ('{"$ref": "#/$defs/none"}', "leads nowhere"),
        ('{"allOf": [{"$ref": "#/allOf/0"}]}', "refers to itself"),
        ('{"allOf": [{"type": "string"}, {"type": "null"}]}', "'type' twice"),
        ('{"properties": 3}', "'properties' 3"),
        ('{"required": [1]}', "'required' [1]"),
        ('{"type": "string", "maxLength": 2001}', "counts to 2000, not to 2001"),
        ('{"type": "string", "pattern": "a{2001}"}', "counts to 2000, not to 2001"),
        ('{"type": "string", "minLength": null}', "'minLength' None"),
        ("[" * 100_000, "nested too deep"),
        ('{"items": ' * 900 + "{}" + "}" * 900, "nested too deep"),
    ],
)
def test_what_a_grammar_cannot_hold_is_refused(schema: str, message: str) -> None:
    with pytest.raises(UsageError, match=re.escape(message)):
        schema_grammar(schema)


@pytest.mark.parametrize(
    "schema",
    [
        {"$ref": "#"},
        {"anyOf": [{"$ref": "#"}, {"type": "null"}]},
    ],
    ids=["itself", "itself or nothing"],
)
def test_what_llama_cpp_refuses_is_an_error_of_the_request(
    engine: LlamaEngine, schema: object
) -> None:
    with pytest.raises(UsageError, match=r"GBNF: .*left recursion"):
        engine.generate([1, 5], Sampling(json_schema=json.dumps(schema)))


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=3),
        lambda inner: (
            st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=4)
        ),
        max_leaves=8,
    )
)
def test_whatever_is_given_is_a_grammar_or_an_error_of_ours(schema: object) -> None:
    try:
        grammar = schema_grammar(json.dumps(schema))
    except UsageError:
        return
    assert "\nroot ::= " in grammar
