"""Ctrl-C while an answer comes: it stops the answer, not the program."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING

from wizard_edge.engine import Chunk, never

if TYPE_CHECKING:
    from wizard_edge.service.chat import Chat


@contextmanager
def answering(chat: Chat, question: str) -> Iterator[Iterator[Chunk]]:
    """Lend the answer to a question; Ctrl-C ends it, and so does leaving the block."""
    with stop_on_interrupt() as stopped:
        chunks = chat.ask(question, cancelled=stopped)
        try:
            yield chunks
        finally:
            # An engine whose answer is half read cannot be closed.
            close = getattr(chunks, "close", None)
            if close is not None:
                close()


@contextmanager
def stop_on_interrupt() -> Iterator[Callable[[], bool]]:
    """Lend a question that the first Ctrl-C answers with yes; a second one interrupts.

    Where Ctrl-C is ignored, as under nohup, it stays so.
    """
    if signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield never
        return
    stopped = False

    def stop(number: int, frame: FrameType | None) -> None:
        nonlocal stopped
        if stopped:
            raise KeyboardInterrupt
        stopped = True

    signal.signal(signal.SIGINT, stop)
    try:
        yield lambda: stopped
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
