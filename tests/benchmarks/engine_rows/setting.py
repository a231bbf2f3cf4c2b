"""What every row is given: the model, the threads, how long to measure."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tests.benchmarks.engine_rows.pairs import Plan


@dataclass(frozen=True, slots=True)
class Setting:
    """One row is measured with one model. `folder` is free to work in."""

    model: Path
    name: str
    folder: Path
    threads: int
    flash: bool
    plan: Plan
