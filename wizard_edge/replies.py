"""An answer as a conversation's caller reads it: shown text, counts, one place to end.

What was read of it, no more, joins the conversation once: at its end, or where its
reader leaves it, closes it or is interrupted.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from typing import Self

from wizard_edge.engine import Chunk, Finish, Stats
from wizard_edge.errors import UsageError
from wizard_edge.templates import ANSWER_SPACE

# Takes the tokens that were read, the text that was shown and how it ended.
Join = Callable[[tuple[int, ...], str, Finish], None]


class Reply(Iterator[Chunk]):
    """Gives the chunks of an answer in order, to a `for` or an `async for`."""

    def __init__(
        self,
        chunks: Iterator[Chunk],
        *,
        count: Callable[[Stats], Stats],
        join: Join,
        after: Callable[[], None],
    ) -> None:
        """`count` completes the counts of a chunk.

        `join` is told once what was read, where a token was; `after` is called when
        the reader has seen the end.
        """
        self._chunks = chunks
        self._count = count
        self._join = join
        self._after = after
        self._tokens: list[int] = []
        self._parts: list[str] = []
        self._finish: Finish = "cancelled"
        self._joined = False
        self._left = False

    def __next__(self) -> Chunk:
        """Raises: what ended the answer."""
        if self._joined:
            self._leave()
            raise StopIteration
        try:
            return self._take(next(self._chunks))
        except StopIteration:
            self.close()
            raise
        except BaseException:
            self.close()
            raise

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Chunk:
        """Raises: as `__next__`; UsageError for an engine that cannot wait so."""
        if self._joined:
            self._leave()
            raise StopAsyncIteration
        if not isinstance(self._chunks, AsyncIterator):
            raise UsageError("the answers of this engine are for a plain 'for'")
        try:
            return self._take(await anext(self._chunks))
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """End the answer; what was read of it is kept. A second call does nothing."""
        self._end()
        self._leave()

    async def aclose(self) -> None:
        """End the answer, from an `async` function."""
        self.close()

    def __del__(self) -> None:
        self._end()

    def _take(self, chunk: Chunk) -> Chunk:
        if chunk.token is not None:
            self._tokens.append(chunk.token)
        text = chunk.text
        if text:
            # The space that a trained answer begins with belongs to the template.
            text = text if self._parts else text.removeprefix(ANSWER_SPACE)
            self._parts.append(text)
        shown = replace(chunk, text=text, stats=self._count(chunk.stats))
        if chunk.finish is not None:
            self._finish = chunk.finish
            self._end()
        return shown

    def _end(self) -> None:
        if self._joined:
            return
        self._joined = True
        close = getattr(self._chunks, "close", None)
        if close is not None:
            close()
        if self._tokens:
            self._join(tuple(self._tokens), "".join(self._parts), self._finish)

    def _leave(self) -> None:
        if not self._left:
            self._left = True
            self._after()
