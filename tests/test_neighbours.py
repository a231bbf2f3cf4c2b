from __future__ import annotations

from pathlib import Path

import pytest

from wizard_edge.neighbours import Neighbours


class Machine:
    """Two processors, of which the hundredths of a second are counted."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.now = 100.0
        self.own = 0.0
        self.write()

    def write(self, *, user: int = 0, nice: int = 0, steal: int = 0) -> None:
        """Let the second processor have worked that much, the first nothing."""
        file = self.root / "proc/stat"
        file.parent.mkdir(exist_ok=True)
        idle = "1000 7 0 0"
        file.write_text(
            f"cpu  9 9 9 9 9 9 9 9 0 0\n"
            f"cpu0 0 0 0 {idle} 0 0 0\n"
            f"cpu1 {user} {nice} 0 {idle} {steal} 0 0\n"
            "intr 1234\n"
        )

    def watch(self, *, allowed: frozenset[int] = frozenset({0, 1})) -> Neighbours:
        return self._watch(allowed, 0)

    def watch_nicely(self) -> Neighbours:
        return self._watch(frozenset({0, 1}), 10)

    def _watch(self, allowed: frozenset[int], niceness: int) -> Neighbours:
        return Neighbours(
            root=self.root,
            allowed=allowed,
            niceness=niceness,
            ticks=100,
            own_s=lambda: self.own,
            clock=lambda: self.now,
        )


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_nobody_knows_before_some_time_has_passed(machine: Machine) -> None:
    neighbours = machine.watch()
    machine.now += 0.1
    machine.write(user=10)

    assert neighbours.busy is None


def test_what_this_process_did_not_do_is_the_others_work(machine: Machine) -> None:
    neighbours = machine.watch()
    machine.now += 2
    machine.own += 1.5
    machine.write(user=300, steal=10)

    assert neighbours.busy == pytest.approx(0.8)


def test_every_answer_is_about_the_time_since_the_last(machine: Machine) -> None:
    neighbours = machine.watch()
    machine.now += 1
    machine.write(user=100)
    busy = neighbours.busy
    machine.now += 1

    assert (busy, neighbours.busy) == (1.0, 0.0)


def test_processors_that_are_not_ours_do_not_count(machine: Machine) -> None:
    neighbours = machine.watch(allowed=frozenset({0}))
    machine.now += 1
    machine.write(user=100)

    assert neighbours.busy == 0.0


def test_whoever_is_nicer_than_we_are_is_not_in_the_way(machine: Machine) -> None:
    neighbours, nice = machine.watch(), machine.watch_nicely()
    machine.now += 1
    machine.write(nice=100)

    assert (neighbours.busy, nice.busy) == (0.0, 1.0)


def test_a_system_without_such_counts_tells_nothing(tmp_path: Path) -> None:
    now = iter(range(10))
    neighbours = Neighbours(root=tmp_path, clock=lambda: float(next(now)))

    assert neighbours.busy is None


def test_this_machine_can_be_asked() -> None:
    now = iter((0.0, 1000.0, 1000.0))

    busy = Neighbours(clock=lambda: next(now)).busy

    assert busy is None or busy >= 0
