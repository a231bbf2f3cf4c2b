"""Chunks that come from another thread, for readers of both kinds."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterable

import pytest

from wizard_edge.answers import Answer, Outbox
from wizard_edge.engine import Chunk
from wizard_edge.errors import BackendError, UsageError

WORDS = [Chunk(5, "Hel"), Chunk(6, "lo"), Chunk(2, "", "stop")]


def filled(items: Iterable[Chunk | BaseException]) -> Outbox:
    outbox = Outbox()
    fill(outbox, items)
    return outbox


def fill(outbox: Outbox, items: Iterable[Chunk | BaseException]) -> None:
    for item in items:
        outbox.put(item)


def test_chunks_come_in_order_and_end_with_the_finish() -> None:
    ended: list[str] = []

    answer = Answer(filled(WORDS), lambda: ended.append("cancel"))

    assert list(answer) == WORDS
    assert list(answer) == []
    assert ended == ["cancel"]


def test_what_went_wrong_is_raised_where_it_is_read() -> None:
    answer = Answer(filled([WORDS[0], BackendError("no")]), lambda: None)

    assert next(answer) == WORDS[0]
    with pytest.raises(BackendError, match="no"):
        next(answer)
    assert list(answer) == []


def test_a_cancelled_reader_sees_one_more_token() -> None:
    ended: list[str] = []

    answer = Answer(
        filled(WORDS), lambda: ended.append("cancel"), cancelled=lambda: True
    )

    assert list(answer) == [Chunk(5, "Hel", "cancelled")]
    assert ended


def test_a_report_of_reading_is_not_the_token_that_ends_it() -> None:
    report = Chunk(None, "")

    answer = Answer(filled([report, *WORDS]), lambda: None, cancelled=lambda: True)

    assert list(answer) == [report, Chunk(5, "Hel", "cancelled")]


def test_a_closed_engine_ends_it_whatever_was_handed_over() -> None:
    answer = Answer(filled(WORDS), lambda: None, closed=lambda: True)

    with pytest.raises(UsageError, match="closed"):
        next(answer)


def test_dropping_it_cancels_once() -> None:
    ended: list[str] = []

    answer = Answer(Outbox(), lambda: ended.append("cancel"))
    answer.close()
    answer.close()
    del answer

    assert ended == ["cancel"]


def test_an_async_reader_gets_what_another_thread_hands_over() -> None:
    outbox = Outbox()

    async def read() -> list[Chunk]:
        writer = threading.Timer(0.05, fill, [outbox, WORDS])
        writer.start()
        found = [chunk async for chunk in Answer(outbox, lambda: None)]
        writer.join()
        return found

    assert asyncio.run(read()) == WORDS


def test_a_cancelled_task_cancels_the_answer() -> None:
    ended: list[str] = []

    async def read() -> None:
        answer = Answer(Outbox(), lambda: ended.append("cancel"))
        task = asyncio.ensure_future(anext(answer))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(read())

    assert ended == ["cancel"]


def test_an_async_reader_gets_errors_too() -> None:
    async def read() -> None:
        answer = Answer(filled([BackendError("no")]), lambda: None)
        async for _ in answer:
            pass

    with pytest.raises(BackendError, match="no"):
        asyncio.run(read())


def test_whoever_writes_after_the_loop_is_gone_harms_nobody() -> None:
    outbox = Outbox()

    async def give_up() -> None:
        answer = Answer(outbox, lambda: None)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(anext(answer), 0.01)

    asyncio.run(give_up())
    outbox.put(WORDS[0])


def test_what_is_held_back_comes_with_the_next_that_is_not() -> None:
    outbox = Outbox()
    answer = Answer(outbox, lambda: None)
    outbox.hold(WORDS[0])
    outbox.hold(WORDS[1])

    held = outbox.items.empty()
    outbox.put(WORDS[2])

    assert held
    assert list(answer) == WORDS


def test_a_flush_hands_over_what_is_held() -> None:
    outbox = Outbox()
    outbox.hold(WORDS[0])

    outbox.flush()
    outbox.flush()

    assert next(Answer(outbox, lambda: None)) == WORDS[0]
    assert outbox.items.empty()
