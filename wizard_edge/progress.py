"""How long work reports itself: values handed to a callable. Draws nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

Unit = Literal["bytes", "tensors", "tokens", "steps"]


@dataclass(frozen=True, slots=True)
class ProgressEvent:
    """`done` of `total` units of one stage; `total` is 0 where it is not known."""

    stage: str
    done: int
    total: int
    unit: Unit = "bytes"


Progress = Callable[[ProgressEvent], None]


def silent(event: ProgressEvent) -> None:
    """Ignore the event: the default of every `progress=` parameter."""
