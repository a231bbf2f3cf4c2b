"""What was measured, kept in a file of the home until the machine is another.

A cache: a file that is damaged, of a foreign schema or not to be written costs a
measurement and nothing else.
"""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite
from pathlib import Path

from wizard_edge.errors import WizardEdgeError
from wizard_edge.files import write_atomically
from wizard_edge.tuning import Tuned

SCHEMA = 1
FILE = "tuning.json"
# Far above any file of ours, to keep a wrong one out of memory.
_MAX_SIZE = 1 << 18
# Models times machines, for a home on a stick that is carried about.
_MOST_ENTRIES = 64
_MOST_THREADS = 1024

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Entry:
    """A measurement, and the last sessions in a row that it did not hold for.

    Each of `off` is how much longer than measured a token took there.
    """

    tuned: Tuned
    off: tuple[float, ...] = ()


class TuningFile:
    """The measurements of one home, each under the name of what it holds for."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def find(self, key: str) -> Entry | None:
        """Return what was measured; None where nothing is there that makes sense."""
        entry = self._read().get(key)
        if entry is None:
            return None
        with contextlib.suppress(KeyError, ValueError, TypeError, AttributeError):
            return _parse(entry)
        return None

    def keep(self, key: str, entry: Entry) -> None:
        """Write a measurement down, where the home can be written."""
        entries = {name: item for name, item in self._read().items() if name != key}
        # The oldest come first.
        kept = dict(list(entries.items())[1 - _MOST_ENTRIES :])
        content = {"schema": SCHEMA, "measured": {**kept, key: _spell(entry)}}
        try:
            write_atomically(self._path, json.dumps(content, indent=1).encode())
        except (WizardEdgeError, OSError) as err:
            # A store of somebody else, or a full disk: it is measured again.
            _logger.debug("no measurement kept: %s", err)

    def _read(self) -> dict[str, object]:
        with contextlib.suppress(OSError, ValueError, RecursionError):
            with self._path.open("rb") as file:
                content = json.loads(file.read(_MAX_SIZE))
            if isinstance(content, dict) and content.get("schema") == SCHEMA:
                measured = content.get("measured")
                if isinstance(measured, dict):
                    return measured
        return {}


def _spell(entry: Entry) -> Mapping[str, object]:
    tuned = entry.tuned
    return {
        "flash_attention": tuned.flash_attention,
        "threads": tuned.threads,
        "prompt_threads": tuned.prompt_threads,
        "batch_cost": _by_number(tuned.batch_cost),
        "token_s": _by_number(tuned.token_s),
        "quiet": tuned.quiet,
        "off": list(entry.off),
    }


def _by_number(values: Mapping[int, float]) -> Mapping[str, float]:
    return {str(number): value for number, value in values.items()}


def _parse(entry: object) -> Entry:
    """Read an entry. Raises: KeyError, ValueError, TypeError for any other thing."""
    if not isinstance(entry, dict):
        raise TypeError("an entry is no object")
    tuned = Tuned(
        flash_attention=_yes_no(entry["flash_attention"]),
        threads=_threads(entry["threads"]),
        prompt_threads=_threads(entry["prompt_threads"]),
        batch_cost=_numbers(entry["batch_cost"]),
        token_s=_numbers(entry["token_s"]),
        quiet=_yes_no(entry["quiet"]),
    )
    return Entry(tuned, tuple(_positive(ratio) for ratio in entry["off"]))


def _yes_no(value: object) -> bool:
    if not isinstance(value, bool):
        raise TypeError(f"{value!r} is no yes or no")
    return value


def _threads(value: object) -> int:
    if type(value) is not int or not 1 <= value <= _MOST_THREADS:
        raise ValueError(f"{value!r} threads")
    return value


def _numbers(values: object) -> dict[int, float]:
    if not isinstance(values, dict):
        raise TypeError("no table of numbers")
    return {int(number): _positive(value) for number, value in values.items()}


def _positive(value: object) -> float:
    if not isinstance(value, int | float) or not isfinite(value) or value <= 0:
        raise ValueError(f"{value!r} is no time")
    return float(value)
