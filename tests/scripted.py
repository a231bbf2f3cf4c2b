"""A fake behind the `Engine` seam: a vocabulary of characters, scripted answers."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from wizard_edge.engine import Chunk, KvPart, Logprobs, Sampling, Stats, never
from wizard_edge.errors import BackendError, UsageError
from wizard_edge.slots import shared_prefix

BOS, EOS = 1, 2
_OFFSET = 3


class CharVocabulary:
    """Every character is a token; ids 1 and 2 are BOS and `</s>`."""

    size = 0x110000 + _OFFSET
    eos = EOS

    def __init__(self, *, bos: int | None = BOS) -> None:
        self.bos = bos

    def tokenize(self, text: str) -> list[int]:
        return [ord(letter) + _OFFSET for letter in text]

    def control(self, text: str) -> int:
        return {"<s>": BOS, "</s>": EOS}[text]

    def piece(self, token: int) -> bytes:
        return b"" if token < _OFFSET else chr(token - _OFFSET).encode()

    def spell(self, token: int) -> str:
        return {BOS: "<s>", EOS: "</s>"}.get(token) or chr(token - _OFFSET)

    def is_end(self, token: int) -> bool:
        return token == EOS


class ScriptedEngine:
    """Gives the scripted answers in turn and keeps every prompt it was handed.

    Like the real one it holds the tokens of the last prompt and answer, without
    the token drawn last, and reports what of the next prompt it would not evaluate.
    What it saves of them is their numbers as JSON, parts of them with `saves_parts`.
    """

    load_s = 0.0
    state_kind = "scripted"

    def __init__(
        self,
        *answers: str,
        context: int = 4096,
        bos: int | None = BOS,
        saves_parts: bool = True,
        can_shift: bool = True,
    ) -> None:
        self.vocabulary = CharVocabulary(bos=bos)
        self.context = context
        self.saves_parts = saves_parts
        self.can_shift = can_shift
        self.prompts: list[list[int]] = []
        self.evaluated = 0
        self.cached: list[int] = []
        self._answers = list(answers)

    def generate(
        self,
        prompt: Sequence[int],
        sampling: Sampling,
        *,
        owner: object | None = None,
        cancelled: Callable[[], bool] = never,
    ) -> Iterator[Chunk]:
        if len(prompt) >= self.context:
            raise UsageError("the prompt does not fit")
        self.prompts.append(list(prompt))
        chunks = self._answer(list(prompt), sampling, cancelled)
        return (_with_logprobs(chunk, sampling.logprobs) for chunk in chunks)

    def score(
        self, ids: Sequence[int], *, first: int = 0
    ) -> Iterator[NDArray[np.float32]]:
        """Expect every letter of ASCII alike."""
        yield np.zeros((len(ids) - first, 128 + _OFFSET), np.float32)

    def shift_state(self, ids: Sequence[int], *, first: int, count: int) -> bool:
        held = shared_prefix(self.cached, ids)
        if held < first + count:
            return False
        self.cached = [*self.cached[:first], *self.cached[first + count : held]]
        return True

    def save_state(self, ids: Sequence[int], *, first: int = 0) -> KvPart:
        if first and not self.saves_parts:
            raise UsageError("no parts")
        held = self.cached[first : shared_prefix(self.cached, ids)]
        return KvPart(first, len(held), json.dumps(held).encode() if held else b"")

    def restore_state(
        self,
        ids: Sequence[int],
        parts: Iterable[KvPart],
        *,
        owner: object | None = None,
    ) -> None:
        self.cached = []
        try:
            for part in parts:
                self.cached += json.loads(bytes(part.data))
        except ValueError as err:
            self.cached = []
            raise BackendError("no state of this engine") from err
        assert self.cached == list(ids[: len(self.cached)])

    def close(self) -> None:
        pass

    def _answer(
        self, prompt: list[int], sampling: Sampling, cancelled: Callable[[], bool]
    ) -> Iterator[Chunk]:
        cached = shared_prefix(self.cached, prompt[:-1])
        self.cached = list(prompt)
        self.evaluated += len(prompt) - cached
        before = Stats(len(prompt), cached, read_tokens=len(prompt) - cached)
        if cancelled():
            yield Chunk(None, "", "cancelled", before)
            return
        limit = min(sampling.max_tokens or self.context, self.context - len(prompt))
        ids = [*self.vocabulary.tokenize(self._answers.pop(0)), EOS]
        for count, token in enumerate(ids, start=1):
            stats = replace(before, new_tokens=count)
            text = self.vocabulary.piece(token).decode()
            if token == EOS:
                yield Chunk(token, text, "stop", stats)
            elif cancelled():
                yield Chunk(token, text, "cancelled", stats)
                return
            elif count == limit:
                yield Chunk(token, text, "length", stats)
                return
            else:
                yield Chunk(token, text, None, stats)
                self.cached.append(token)
                self.evaluated += 1


def _with_logprobs(chunk: Chunk, top: int | None) -> Chunk:
    """Say of every token that it was certain."""
    if top is None or chunk.token is None:
        return chunk
    return replace(chunk, logprobs=Logprobs(0.0, ((chunk.token, 0.0),)[:top]))
