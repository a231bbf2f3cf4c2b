"""What a row says: one line for people, the figures behind it for programs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from statistics import median, quantiles
from typing import Literal

from tests.benchmarks.engine_rows.pairs import Measured


@dataclass(frozen=True, slots=True)
class Result:
    """One line of the report. `ok` None: there is no target to meet."""

    row: str
    model: str
    text: str
    ok: bool | None
    figures: Mapping[str, object]

    @property
    def verdict(self) -> str:
        return {None: "", True: "ok", False: "MISSED"}[self.ok]


@dataclass(frozen=True, slots=True)
class Target:
    """A bound for our figure divided by llama.cpp's."""

    ratio: float
    way: Literal["at least", "at most"] = "at least"

    def met_by(self, ratio: float) -> bool:
        return ratio >= self.ratio if self.way == "at least" else ratio <= self.ratio


def compare(
    row: str,
    model: str,
    unit: str,
    measured: Measured,
    target: Target,
    *,
    peer: str = "llama.cpp",
    note: str = "",
) -> Result:
    """Set what "ours" measured beside `peer`: the median of the pairs' ratios."""
    ours, theirs = measured.sides["ours"], measured.sides[peer]
    ratios = [mine / yours for mine, yours in zip(ours, theirs, strict=True)]
    ratio = median(ratios)
    low, high = quartiles(ratios)
    ok = target.met_by(ratio)
    text = (
        f"ours {median(ours):.4g} {unit}, {peer} {median(theirs):.4g} {unit}, "
        f"ratio {ratio:.3f} (quartiles {low:.3f}-{high:.3f}, all {min(ratios):.3f}-"
        f"{max(ratios):.3f}), {target.way} {target.ratio:g}; {said_of(measured)}{note}"
    )
    figures = {
        "unit": unit,
        "peer": peer,
        "ratio": ratio,
        "target": target.ratio,
        "sides": measured.sides,
        "others": measured.others,
        "pairs_run": measured.run,
    }
    return Result(row, model, text, ok, figures)


def quartiles(values: list[float]) -> tuple[float, float]:
    if len(values) < 2:
        return values[0], values[0]
    low, _, high = quantiles(values, n=4, method="inclusive")
    return low, high


def said_of(measured: Measured) -> str:
    """Tell how many pairs count, and how far other programs disturbed them."""
    kept = len(measured.others)
    which = f"{kept} pairs"
    if measured.run > kept:
        which = f"the {kept} calmest of {measured.run} pairs"
    return f"{which}, other programs took {median(measured.others):.0%} of the machine"
