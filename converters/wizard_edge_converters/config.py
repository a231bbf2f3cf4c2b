"""Typed, bounded access to a config.json. Knows no architecture."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite
from typing import NoReturn

from wizard_edge.errors import CannotConvert, Corrupt
from wizard_edge_converters.checkpoint import SideFiles
from wizard_edge_converters.source_files import parse_json, shown

CONFIG = "config.json"

# Our own bounds, far above any model of the family; llama.cpp has 512 layers at most.
# Source: llama.cpp 0c1e57098, src/llama-hparams.h, LLAMA_MAX_LAYERS.
MAX_LAYERS = 512
MAX_WIDTH = 1 << 20
MAX_VOCABULARY = 1 << 20
MAX_CONTEXT = 1 << 26

# The special tokens that a config may name by id, in the order in which llama.cpp
# writes them. Source: llama.cpp 0c1e57098, gguf-py/gguf/vocab.py, `SpecialVocab`.
SPECIAL_KINDS = ("bos", "eos", "unk", "sep", "pad", "cls", "mask")


@dataclass(frozen=True, slots=True)
class Config:
    """The values of a config; `prefix` goes before keys in errors."""

    label: str
    values: Mapping[str, object]
    prefix: str = ""

    def integer(
        self, key: str, most: int, *, least: int = 1, default: int | None = None
    ) -> int:
        """Return a whole number from `least` to `most`. Raises: Corrupt."""
        value = self._value(key, default)
        if type(value) is not int:
            self.fail(key, f"is {shown(value)}, should be a whole number")
        if not least <= value <= most:
            self.fail(key, f"is {shown(value)}, can be {least} to {most}")
        return value

    def number(self, key: str, most: float, *, default: float | None = None) -> float:
        """Return a number above 0, up to `most`. Raises: Corrupt."""
        value = self._value(key, default)
        if type(value) not in (int, float):
            self.fail(key, f"is {shown(value)}, should be a number")
        number = _as_float(value)
        if not isfinite(number) or not 0 < number <= most:
            self.fail(key, f"is {shown(value)}, can be above 0 and up to {most:g}")
        return number

    def boolean(self, key: str, *, default: bool) -> bool:
        """Return true or false. Raises: Corrupt."""
        value = self._value(key, default)
        if not isinstance(value, bool):
            self.fail(key, f"is {shown(value)}, should be true or false")
        return value

    def section(self, key: str) -> Config:
        """Return an object inside, an empty one where it is not there."""
        value = self.values.get(key)
        if value is None:
            value = {}
        if not isinstance(value, dict):
            self.fail(key, f"is {shown(value)}, should be an object")
        return Config(self.label, value, prefix=f"{self.prefix}{key}.")

    def special_ids(self) -> dict[str, int]:
        """Return the ids that are ids: LLaMA-1 writes -1 for what there is not."""
        ids = {}
        for kind in SPECIAL_KINDS:
            value = self.values.get(f"{kind}_token_id")
            if type(value) is int and 0 <= value < MAX_VOCABULARY:
                ids[kind] = value
        return ids

    def fail(self, key: str, problem: str) -> NoReturn:
        raise Corrupt(self.label, problem, where=f"key {self.prefix}{key}")

    def refuse(self, key: str, reason: str) -> NoReturn:
        value = shown(self.values.get(key))
        raise CannotConvert(f"{self.label} has {key} = {value}: {reason}")

    def expect(self, key: str, allowed: tuple[object, ...], reason: str) -> None:
        """Refuse a value that is there and is none of `allowed`."""
        value = self.values.get(key)
        # 1 == True, but a config means one of them.
        same = any(type(value) is type(one) and value == one for one in allowed)
        if value is not None and not same:
            self.refuse(key, reason)

    def _value(self, key: str, default: object) -> object:
        value = self.values.get(key)
        if value is not None:
            return value
        if default is None:
            self.fail(key, "is missing")
        return default


def read_config(files: SideFiles) -> Config:
    """Read config.json of a checkpoint.

    Raises: CannotConvert where there is none; Corrupt for bad JSON.
    """
    label = files.label(CONFIG)
    data = files.small(CONFIG)
    if data is None:
        raise CannotConvert(
            f"no {CONFIG} beside the weights: {label}",
            hint="it comes with the checkpoint and states the model's shape",
        )
    return Config(label, parse_json(data, label))


def _as_float(value: object) -> float:
    try:
        return float(value)  # type: ignore[arg-type]
    except OverflowError:
        return float("inf")
