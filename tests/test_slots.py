"""Where a prompt goes: the book alone, no cache."""

from __future__ import annotations

import weakref

from wizard_edge.slots import LEAST_COPY, Place, Slot, choose_place, shared_prefix


class Conversation:
    """Somebody who owns what lies in a slot."""


SYSTEM = list(range(100, 100 + LEAST_COPY))


def slot(
    index: int,
    cached: list[int],
    *,
    owner: Conversation | None = None,
    used: int = 0,
    busy: bool = False,
) -> Slot:
    reference: weakref.ref[object] | None = None
    if owner is not None:
        reference = weakref.ref(owner)
    return Slot(index, cached, reference, last_used=used, busy=busy)


def test_where_all_are_busy_there_is_no_place() -> None:
    assert choose_place([slot(0, [], busy=True)], [1, 2], None) is None


def test_a_conversation_goes_where_it_was_even_after_another_turn() -> None:
    me = Conversation()
    mine = slot(0, [1, 2, 3, 4], owner=me)

    place = choose_place([slot(1, []), mine], [1, 2, 9], me)

    assert place == Place(mine, 2)


def test_the_last_token_is_always_evaluated() -> None:
    only = slot(0, [1, 2, 3])

    assert choose_place([only], [1, 2, 3], None) == Place(only, 2)


def test_a_slot_that_loses_nothing_comes_before_an_empty_one() -> None:
    begun = slot(0, [1, 2])

    assert choose_place([slot(1, []), begun], [1, 2, 3], None) == Place(begun, 2)


def test_of_those_the_longest_is_taken() -> None:
    longer = slot(1, [1, 2, 3])

    place = choose_place([slot(0, [1, 2]), longer], [1, 2, 3, 4], None)

    assert place == Place(longer, 3)


def test_an_empty_slot_comes_before_one_that_would_lose_something() -> None:
    empty = slot(1, [], used=9)

    assert choose_place([slot(0, [5, 6]), empty], [1, 2], None) == Place(empty, 0)


def test_the_longest_unused_gives_way() -> None:
    old = slot(1, [7], used=1)

    assert choose_place([slot(0, [5], used=2), old], [1, 2], None) == Place(old, 0)


def test_a_beginning_worth_it_is_copied_from_whoever_has_it() -> None:
    busy = slot(0, [*SYSTEM, 1], busy=True)
    empty = slot(1, [])

    place = choose_place([busy, empty], [*SYSTEM, 2, 3], None)

    assert place == Place(empty, LEAST_COPY, busy)


def test_a_short_beginning_is_read_again() -> None:
    busy = slot(0, [*SYSTEM[:-1], 1], busy=True)
    empty = slot(1, [])

    assert choose_place([busy, empty], [*SYSTEM[:-1], 2], None) == Place(empty, 0)


def test_a_conversation_that_is_gone_holds_nothing() -> None:
    owner = Conversation()
    held = slot(0, [1], owner=owner)

    assert held.belongs_to(owner)
    del owner

    assert held.holder is None
    assert not held.belongs_to(None)


def test_the_shared_beginning_ends_at_the_first_difference() -> None:
    assert shared_prefix([1, 2, 3], [1, 2, 4, 3]) == 2
    assert shared_prefix([], [1]) == 0
    assert shared_prefix([1, 2], [1, 2]) == 2
