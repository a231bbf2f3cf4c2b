from __future__ import annotations

import pytest

from tests.download.serving import Server
from wizard_edge.download._worker import _Pace
from wizard_edge.errors import HubError


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def pace(clock: Clock, *, is_mirror: bool, is_limited: bool = False) -> _Pace:
    source = Server((b"",)).source(is_mirror=is_mirror)
    return _Pace(source, is_limited=is_limited, clock=clock)


def test_a_mirror_that_trickles_is_left() -> None:
    clock = Clock()
    watched = pace(clock, is_mirror=True)

    for _ in range(39):
        clock.now += 0.5
        watched.took(1)
    clock.now += 0.5
    with pytest.raises(HubError, match="mirror sends 2 bytes a second"):
        watched.took(1)


@pytest.mark.parametrize(
    ("is_mirror", "is_limited", "size"),
    [(False, False, 1), (True, True, 1), (True, False, 10_000)],
    ids=["the hub", "a rate that was asked for", "fast enough"],
)
def test_all_else_is_waited_for(is_mirror: bool, is_limited: bool, size: int) -> None:
    clock = Clock()
    watched = pace(clock, is_mirror=is_mirror, is_limited=is_limited)

    for _ in range(200):
        clock.now += 0.5
        watched.took(size)
