"""A fake behind the `Engine` seam: a vocabulary of characters, scripted answers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from wizard_edge.engine import Chunk, Sampling, Stats, never
from wizard_edge.errors import UsageError

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
    """

    load_s = 0.0

    def __init__(
        self, *answers: str, context: int = 4096, bos: int | None = BOS
    ) -> None:
        self.vocabulary = CharVocabulary(bos=bos)
        self.context = context
        self.prompts: list[list[int]] = []
        self._answers = list(answers)
        self._cached: list[int] = []

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
        return self._answer(list(prompt), sampling, cancelled)

    def close(self) -> None:
        pass

    def _answer(
        self, prompt: list[int], sampling: Sampling, cancelled: Callable[[], bool]
    ) -> Iterator[Chunk]:
        cached = 0
        while cached < min(len(self._cached), len(prompt) - 1):
            if self._cached[cached] != prompt[cached]:
                break
            cached += 1
        self._cached = list(prompt)
        before = Stats(len(prompt), cached, read_tokens=len(prompt) - cached)
        if cancelled():
            yield Chunk(None, "", "cancelled", before)
            return
        ids = [*self.vocabulary.tokenize(self._answers.pop(0)), EOS]
        for count, token in enumerate(ids, start=1):
            stats = replace(before, new_tokens=count)
            text = self.vocabulary.piece(token).decode()
            if token == EOS:
                yield Chunk(token, text, "stop", stats)
            elif cancelled():
                yield Chunk(token, text, "cancelled", stats)
                return
            elif count == sampling.max_tokens:
                yield Chunk(token, text, "length", stats)
                return
            else:
                yield Chunk(token, text, None, stats)
                self._cached.append(token)
