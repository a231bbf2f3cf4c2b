"""Measures programs in turn, and how far the rest of the machine disturbed that.

Pairs are chosen by what other programs did meanwhile, never by what came out.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

# Columns of the first line of /proc/stat that are no work: idle and iowait.
_IDLE = (3, 4)
# Of `cpu` only the first eight columns are disjoint: guest time is in user time.
# Source: proc_stat(5).
_COLUMNS = 8


@dataclass(frozen=True, slots=True)
class Plan:
    """How many pairs are wanted, how calm, and for how long to try (seconds)."""

    rounds: int
    calm: float
    budget_s: float


@dataclass(frozen=True, slots=True)
class Measured:
    """The figures of each side, pair by pair; `others` is a share of the machine."""

    sides: Mapping[str, list[float]]
    others: list[float]
    run: int


def alternate(plan: Plan, sides: Mapping[str, Callable[[], float]]) -> Measured:
    """Measure every side once a round, the order turned round each time.

    Ends with `plan.rounds` calm rounds or when the time is up, and keeps the
    calmest of those it has.
    """
    rounds: list[tuple[float, dict[str, float]]] = []
    end = time.monotonic() + plan.budget_s
    longest = 0.0
    while sum(others <= plan.calm for others, _ in rounds) < plan.rounds:
        begun = time.monotonic()
        if rounds and begun + longest > end:
            break
        order = list(sides)[:: -1 if len(rounds) % 2 else 1]
        before = _cpu()
        figures = {name: sides[name]() for name in order}
        rounds.append((_others(before, _cpu()), figures))
        longest = max(longest, time.monotonic() - begun)
    kept = sorted(rounds, key=lambda round_: round_[0])[: plan.rounds]
    return Measured(
        {name: [figures[name] for _, figures in kept] for name in sides},
        [others for others, _ in kept],
        len(rounds),
    )


def _cpu() -> tuple[float, float, float]:
    """Return seconds since some past: all cores' together, their work, and ours."""
    try:
        line = Path("/proc/stat").read_text().splitlines()[0]
    except OSError:
        return 0.0, 0.0, 0.0
    ticks = [int(word) for word in line.split()[1 : _COLUMNS + 1]]
    second = os.sysconf("SC_CLK_TCK")
    times = os.times()
    ours = times.user + times.system + times.children_user + times.children_system
    work = sum(ticks) - sum(ticks[column] for column in _IDLE)
    return sum(ticks) / second, work / second, ours


def _others(
    before: tuple[float, float, float], after: tuple[float, float, float]
) -> float:
    """Return what share of the machine went to neither us nor our children."""
    whole, work, ours = (
        late - early for early, late in zip(before, after, strict=True)
    )
    return max(0.0, work - ours) / whole if whole > 0 else 0.0
