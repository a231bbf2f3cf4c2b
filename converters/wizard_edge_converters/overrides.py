"""What a person types to give some tensors another type: `ffn_down=q6_k`."""

from __future__ import annotations

from wizard_edge.errors import UsageError
from wizard_edge.gguf_types import WEIGHT_TYPES, GgmlType

# Longer than any list of tensors somebody would type; llama.cpp's pattern compiler
# calls itself for every bracket.
MAX_PATTERN = 1024


def parse_override(text: str) -> tuple[str, GgmlType]:
    """Read `REGEX=TYPE`; the last `=` counts, for a pattern may hold one.

    The pattern is llama.cpp's to judge: `decide_types` says when it refuses it.
    Raises: UsageError.
    """
    pattern, separator, name = text.rpartition("=")
    if not separator or not pattern:
        raise UsageError(f"not REGEX=TYPE: {text!r}", hint="such as ffn_down=q6_k")
    if len(pattern) > MAX_PATTERN or not pattern.isprintable():
        raise UsageError(
            f"not a pattern of up to {MAX_PATTERN} printable characters: "
            f"{pattern[:80]!r}"
        )
    return pattern, parse_type(name)


def parse_type(text: str) -> GgmlType:
    """Read the name of a tensor type that weights can have, in any case.

    Raises: UsageError naming all of them.
    """
    kind = GgmlType.__members__.get(text.strip().upper())
    if kind not in WEIGHT_TYPES:
        known = ", ".join(kind.name for kind in GgmlType if kind in WEIGHT_TYPES)
        raise UsageError(f"unknown tensor type {text!r}", hint=f"known: {known}")
    return kind
