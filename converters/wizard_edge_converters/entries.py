"""One metadata entry of a GGUF file, and short ways to make one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from wizard_edge.gguf_types import ValueType

Scalar = int | float | bool | str


@dataclass(frozen=True, slots=True)
class Entry:
    """One key with its value; an array has the type of its elements in `elements`.

    A value in `bytes` is encoded already, of whatever type: as another file had it.
    """

    key: str
    type: ValueType
    value: Scalar | Sequence[Scalar] | bytes
    elements: ValueType | None = None


def u32(key: str, value: int) -> Entry:
    return Entry(key, ValueType.UINT32, int(value))


def f32(key: str, value: float) -> Entry:
    return Entry(key, ValueType.FLOAT32, value)


def flag(key: str, value: bool) -> Entry:
    return Entry(key, ValueType.BOOL, value)


def text(key: str, value: str) -> Entry:
    return Entry(key, ValueType.STRING, str(value))


def array(key: str, elements: ValueType, values: Sequence[Scalar]) -> Entry:
    return Entry(key, ValueType.ARRAY, values, elements)
