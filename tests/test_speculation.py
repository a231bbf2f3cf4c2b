"""When guesses are made: a world in which every step has its price."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random

import pytest

from wizard_edge.lookup import Lookup
from wizard_edge.speculation import MOST_ROWS, Odds, Speculation
from wizard_edge.step_costs import StepCosts

STEP_S = 0.05
PROMPT = Random(5).choices(range(1000), k=600)


def cpu(rows: int) -> float:
    """What a batch takes on two cores."""
    return 1 + 0.16 * (rows - 1)


def gpu(rows: int) -> float:
    return 1 + 0.01 * (rows - 1)


def alone(rows: int) -> float:
    """What it takes where every token is evaluated alone."""
    return rows


@dataclass
class World:
    """Answers that are known before, told in steps; `steps` is what they took."""

    cost: Callable[[int], float] = cpu
    weigh: bool = True
    steps: float = 0.0
    drafted: int = 0
    accepted: int = 0

    def __post_init__(self) -> None:
        self.speculation = Speculation(
            [lambda sequence: Lookup()], weigh=self.weigh, clock=lambda: 0.0
        )

    def tell(
        self, prompt: Sequence[int], answer: Sequence[int], *, others: int = 0
    ) -> float:
        """Tell an answer; return how much faster that is than without guesses."""
        guesses = self.speculation.begin(0)
        ids, place, before = list(prompt), 0, self.steps
        while place < len(answer) - 1:
            most = len(answer) - place - 1
            made = guesses.guess(ids, answer[place], others=others, most=most)
            assert len(made) <= most
            rows = others + 1 + len(made)
            self.speculation.costs.observe(rows, self.cost(rows) * STEP_S)
            self.steps += self.cost(rows) / self.cost(others + 1)
            right = 0
            for guess, token in zip(made, answer[place + 1 :], strict=False):
                if guess != token:
                    break
                right += 1
            if made:
                guesses.settle(len(made), right)
            self.drafted += len(made)
            self.accepted += right
            ids += answer[place : place + 1 + right]
            place += 1 + right
        return (len(answer) - 1) / (self.steps - before)


def copied(count: int) -> list[int]:
    return PROMPT[100 : 100 + count]


def edited(count: int) -> list[int]:
    """Copy the prompt with a new token for every twentieth."""
    random = Random(1)
    return [
        random.randrange(2000, 3000) if index % 20 == 19 else token
        for index, token in enumerate(copied(count))
    ]


def contrary(count: int, *, letters: int = 6, seed: int = 2) -> list[int]:
    """Make a text that looks back all the time and never goes on as it did."""
    random = Random(seed)
    lookup = Lookup()
    ids = [random.randrange(letters)]
    while len(ids) < count:
        grade = lookup.look(ids[:-1], ids[-1])
        wrong = lookup.propose(1) if grade else []
        others = [letter for letter in range(letters) if letter not in wrong]
        ids.append(random.choice(others))
    return ids


def test_a_copy_is_told_much_faster() -> None:
    assert World().tell(PROMPT, copied(300)) > 2.5
    assert World(cost=gpu).tell(PROMPT, copied(300)) > 8


def test_an_edit_is_told_faster() -> None:
    assert World().tell(PROMPT, edited(300)) > 1.8


@pytest.mark.parametrize("cost", [cpu, gpu, alone], ids=["cpu", "gpu", "alone"])
@pytest.mark.parametrize("count", [100, 300, 1000])
@pytest.mark.parametrize("letters", [2, 4, 12])
def test_a_text_against_all_guesses_is_never_told_much_slower(
    cost: Callable[[int], float], count: int, letters: int
) -> None:
    world = World(cost)

    first, second = (
        world.tell([], contrary(count, letters=letters, seed=seed)) for seed in (1, 2)
    )

    assert first > 0.96  # The costs of this machine are learnt in it.
    assert second > 0.97


def test_a_text_of_one_letter_s_chance_is_never_told_slower() -> None:
    """Noise of few letters: what matches is right now and then."""
    world = World()

    speeds = [
        world.tell([], Random(seed).choices(range(8), k=200)) for seed in range(20)
    ]

    assert min(speeds) > 0.97


def test_a_text_that_begins_to_repeat_is_noticed() -> None:
    assert World().tell(PROMPT, [*contrary(200), *copied(200)]) > 1.3


def test_a_text_that_ceases_to_repeat_loses_no_more_than_it_gained() -> None:
    world = World()

    both = world.tell(PROMPT, [*copied(150), *contrary(500)])

    assert both > 1


def test_where_every_token_is_evaluated_alone_nothing_is_guessed() -> None:
    world = World(cost=alone)
    world.tell(PROMPT, copied(100))
    before = world.drafted

    world.tell(PROMPT, copied(100))

    assert world.drafted == before


def test_without_weighing_everything_is_guessed() -> None:
    world = World(cost=alone, weigh=False)

    world.tell(PROMPT, copied(100))

    assert world.accepted > 80


def test_nothing_is_guessed_before_a_plain_step_was_seen() -> None:
    guesses = World().speculation.begin(0)

    assert guesses.guess([1, 2, 3, 4, 1, 2], 3, others=0, most=5) == []


def test_measured_costs_are_believed_at_once() -> None:
    speculation = Speculation([lambda sequence: Lookup()], costs=StepCosts({8: 1.5}))

    guesses = speculation.begin(0).guess([1, 2, 3, 4, 1, 2], 3, others=0, most=1)

    assert guesses == [4]


def test_many_sequences_leave_no_room_for_guesses() -> None:
    world = World()

    assert world.tell(PROMPT, copied(300), others=MOST_ROWS - 1) == 1
    assert world.drafted == 0


def test_beside_others_guesses_are_made_where_they_still_pay() -> None:
    """Seven rows beside cost so much that only a batch for nothing is worth it."""
    expensive, cheap = World(lambda rows: max(1.0, rows / 4)), World(gpu)
    for world in (expensive, cheap):
        world.tell(PROMPT, contrary(8))
        world.tell(PROMPT, copied(200), others=7)

    assert expensive.drafted < 20
    assert cheap.accepted > 150


def test_odds_are_those_of_the_text_and_fade() -> None:
    odds = Odds()
    hope = odds.right(4, 0)
    odds.observe(4, 8, 0, 10)
    odds.observe(4, 8, 0, 12)

    assert odds.right(4, 12) < hope / 1.8
    assert odds.right(4, 500) == pytest.approx(hope, abs=0.01)
    assert odds.right(5, 12) > 0.7


def test_of_wrong_guesses_only_the_first_counts() -> None:
    far, near = Odds(), Odds()
    far.observe(3, 9, 2, 5)
    near.observe(3, 3, 2, 5)

    assert far.right(3, 5) == near.right(3, 5)


class Stub:
    """A drafter that says always the same."""

    def __init__(self, guesses: Sequence[int], grade: int = 5) -> None:
        self.guesses = list(guesses)
        self.grade = grade
        self.heard: list[int] = []

    def look(self, ids: Sequence[int], drawn: int) -> int:
        return self.grade

    def propose(self, most: int) -> list[int]:
        return self.guesses[:most]

    def observe(self, accepted: int) -> None:
        self.heard.append(accepted)


def test_the_next_drafter_is_asked_where_one_has_nothing() -> None:
    silent, dry, speaking = Stub([7], grade=0), Stub([]), Stub([8, 9])
    drafters = [lambda s, d=d: d for d in (silent, dry, speaking)]
    guesses = Speculation(drafters, weigh=False).begin(0)

    made = guesses.guess([1], 2, others=0, most=5)
    guesses.settle(2, 1)

    assert made == [8, 9]
    assert (silent.heard, dry.heard, speaking.heard) == ([], [], [1])


def test_a_slow_drafter_is_not_asked_again_soon() -> None:
    """It takes two steps to guess what saves one."""
    now = [0.0]

    class Slow(Stub):
        def propose(self, most: int) -> list[int]:
            now[0] += 2 * STEP_S
            return super().propose(most)

    slow = Slow([1])
    costs = StepCosts()
    speculation = Speculation(
        [lambda sequence: slow], costs=costs, clock=lambda: now[0]
    )
    guesses = speculation.begin(0)
    for _ in range(3):
        costs.observe(1, STEP_S)

    made = 0
    for place in range(200):
        if guesses.guess([1] * place, 1, others=0, most=4):
            made += 1
            guesses.settle(1, 1)

    assert made <= 3


def test_a_first_guess_stakes_a_step_and_a_right_one_earns_more() -> None:
    """Six rows more cost about a step on these two cores."""
    costs = StepCosts({4: 1.48, 16: 3.4})
    guesses = Speculation([lambda sequence: Stub(range(20), 6)], costs=costs).begin(0)
    made = []

    for place in (0, 10, 20):
        made.append(len(guesses.guess([1] * place, 1, others=0, most=20)))
        guesses.settle(made[-1], made[-1])

    assert made[0] == 6
    assert made[1:] == [15, 15]


def test_who_lost_the_stake_is_not_even_asked() -> None:
    asked: list[int] = []

    class Wrong(Stub):
        def look(self, ids: Sequence[int], drawn: int) -> int:
            asked.append(len(ids))
            return 6

    costs = StepCosts({10: 1.1})
    guesses = Speculation([lambda sequence: Wrong([7] * 9)], costs=costs).begin(0)
    made = guesses.guess([], 1, others=0, most=9)
    # A step that was thought cheap takes as long as five.
    for rows, steps in [(1, 1), (10, 5)]:
        costs.observe(rows, steps * STEP_S)
    guesses.settle(len(made), 0)

    for place in range(1, 400):
        guesses.guess([1] * place, 1, others=0, most=9)

    # Four steps are lost; one may be, and another in a hundred tokens.
    assert asked[:2] == [0, 301]


def test_now_and_then_a_step_is_plain_so_that_its_cost_stays_known() -> None:
    stub = Stub([1])
    guesses = Speculation([lambda s: stub], costs=StepCosts({2: 1.0})).begin(0)
    plain = 0

    for place in range(0, 1000, 2):
        if guesses.guess([1] * place, 1, others=0, most=1):
            guesses.settle(1, 1)
        else:
            plain += 1

    assert plain == 500 // 65
