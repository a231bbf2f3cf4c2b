"""An answer as its reader sees it: chunks that another thread hands over.

asyncio, 20 ms of every start, is imported by readers that use it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from queue import Empty, SimpleQueue
from typing import Self

from wizard_edge.engine import Chunk, never
from wizard_edge.errors import UsageError

# How long a signal, or a `cancelled` that nobody calls out, waits to be heard.
_LISTENS_EVERY_S = 0.1


class Outbox:
    """Where the engine's thread lays what it has for a reader, who may be gone."""

    def __init__(self) -> None:
        self.items: SimpleQueue[Chunk | BaseException] = SimpleQueue()
        self.wake: Callable[[], None] | None = None
        self._held: list[Chunk] = []

    def hold(self, chunk: Chunk) -> None:
        """Keep the next chunk back until `flush` or `put`."""
        self._held.append(chunk)

    def put(self, item: Chunk | BaseException) -> None:
        """Lay down what is held, then the next chunk, or what went wrong."""
        self.flush()
        self.items.put(item)
        self._call()

    def flush(self) -> None:
        """Lay down what is held."""
        if self._held:
            for chunk in self._held:
                self.items.put(chunk)
            self._held.clear()
            self._call()

    def _call(self) -> None:
        wake = self.wake
        if wake is not None:
            wake()


class Answer(Iterator[Chunk]):
    """Gives the chunks of one answer in order, to a `for` or an `async for`.

    Whoever drops it, closes it or is interrupted in it ends the answer.
    """

    def __init__(
        self,
        outbox: Outbox,
        cancel: Callable[[], None],
        *,
        cancelled: Callable[[], bool] = never,
        closed: Callable[[], bool] = never,
    ) -> None:
        """`cancel` tells the engine that nobody reads any more."""
        self._outbox = outbox
        self._cancel = cancel
        self._cancelled = cancelled
        self._closed = closed
        self._ended = False

    def __next__(self) -> Chunk:
        """Raises: what ended the answer; UsageError when the engine was closed."""
        if self._ended:
            raise StopIteration
        try:
            return self._receive()
        except BaseException:
            self.close()
            raise

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Chunk:
        """Raises: as `__next__`."""
        if self._ended:
            raise StopAsyncIteration
        import asyncio

        loop = asyncio.get_running_loop()
        arrived = asyncio.Event()

        def wake() -> None:
            # A loop that was closed meanwhile has nobody to wake.
            with suppress(RuntimeError):
                loop.call_soon_threadsafe(arrived.set)

        self._outbox.wake = wake
        try:
            while self._outbox.items.empty():
                await arrived.wait()
                arrived.clear()
            return self._pass(self._outbox.items.get())
        except BaseException:
            self.close()
            raise
        finally:
            self._outbox.wake = None

    def close(self) -> None:
        """End the answer. A second call does nothing."""
        if not self._ended:
            self._ended = True
            self._cancel()

    async def aclose(self) -> None:
        """End the answer, from an `async` function."""
        self.close()

    def __del__(self) -> None:
        self.close()

    def _receive(self) -> Chunk:
        told = False
        while True:
            if self._closed():
                raise UsageError("the engine is closed")
            if not told and self._cancelled():
                told = True
                self._cancel()
            try:
                item = self._outbox.items.get(timeout=_LISTENS_EVERY_S)
            except Empty:
                continue
            return self._pass(item, cancelled=told or self._cancelled())

    def _pass(self, item: Chunk | BaseException, *, cancelled: bool = False) -> Chunk:
        if isinstance(item, BaseException):
            raise item
        if cancelled and item.finish is None and item.token is not None:
            # The engine may be tokens ahead: those are not part of the answer.
            item = replace(item, finish="cancelled")
        if item.finish is not None:
            self.close()
        return item
