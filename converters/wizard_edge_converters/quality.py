"""How far the written numbers are from the source's, measured while converting.

Per tensor type two figures: the root mean square of the differences, and the same
relative to the root mean square of the source. They stand in the metadata as f32,
whose width is known before their value is.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import sqrt

import numpy as np
from numpy.typing import NDArray

from wizard_edge.gguf import QUALITY_PREFIX
from wizard_edge.gguf_types import ValueType
from wizard_edge_converters.entries import Entry

RMS_ERROR = "rms_error"
RELATIVE_ERROR = "relative_error"


@dataclass(frozen=True, slots=True)
class Deviation:
    """Sums over some elements: of squared differences, of squared source values."""

    error: float = 0.0
    power: float = 0.0
    count: int = 0

    def __add__(self, other: Deviation) -> Deviation:
        return Deviation(
            self.error + other.error,
            self.power + other.power,
            self.count + other.count,
        )

    @property
    def figures(self) -> dict[str, float]:
        """The two figures by name."""
        if not self.count:
            return {RMS_ERROR: 0.0, RELATIVE_ERROR: 0.0}
        return {
            RMS_ERROR: sqrt(self.error / self.count),
            RELATIVE_ERROR: sqrt(self.error / self.power) if self.power else 0.0,
        }


def measure(rows: NDArray[np.float32], written: NDArray[np.float32]) -> Deviation:
    """Compare rows with what was written of them; `written` is spent.

    Both are (rows, columns) of float32.
    """
    np.subtract(rows, written, out=written)
    return Deviation(_squares(written), _squares(rows), rows.size)


def quality_entries(
    types: Iterable[str], measured: Mapping[str, Deviation] | None = None
) -> tuple[Entry, ...]:
    """Return the metadata of some tensor types; zeros until they are measured."""
    known = measured or {}
    return tuple(
        Entry(f"{QUALITY_PREFIX}{name}.{kind}", ValueType.FLOAT32, value)
        for kind in sorted(types)
        for name, value in known.get(kind, Deviation()).figures.items()
    )


def _squares(rows: NDArray[np.float32]) -> float:
    # Rows of float32 sums are added in float64: the error stays below 1e-6.
    return float(np.einsum("ij,ij->i", rows, rows).sum(dtype=np.float64))
