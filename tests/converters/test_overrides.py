"""`REGEX=TYPE` becomes a pattern and a type, or an error that says what is wrong."""

from __future__ import annotations

import pytest

from wizard_edge.errors import UsageError
from wizard_edge.gguf_types import GgmlType
from wizard_edge_converters.overrides import MAX_PATTERN, parse_override, parse_type


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("ffn_down=q6_k", ("ffn_down", GgmlType.Q6_K)),
        ("attn_v=IQ4_nl", ("attn_v", GgmlType.IQ4_NL)),
        (r"blk\.(?=1)\S+=BF16", (r"blk\.(?=1)\S+", GgmlType.BF16)),
    ],
    ids=["lower", "mixed", "equals sign inside"],
)
def test_pattern_and_type(text: str, expected: tuple[str, GgmlType]) -> None:
    assert parse_override(text) == expected


@pytest.mark.parametrize(
    "text",
    ["ffn_down", "=q6_k", "a\0b=q6_k", "a\nb=q6_k", "a" * (MAX_PATTERN + 1) + "=q8_0"],
    ids=["no type", "no pattern", "zero byte", "line break", "long"],
)
def test_what_is_no_override(text: str) -> None:
    with pytest.raises(UsageError):
        parse_override(text)


@pytest.mark.parametrize("name", ["q9_k", "", "i32", "Q8_K", "q4_k_m"])
def test_an_unknown_type_gets_the_known_ones(name: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_type(name)

    assert caught.value.message == f"unknown tensor type {name!r}"
    assert caught.value.hint is not None
    assert caught.value.hint.startswith("known: F32, F16, Q4_0, ")
    assert "Q8_K" not in caught.value.hint
