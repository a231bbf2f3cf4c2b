"""A model's vocabulary behind the `Vocabulary` seam.

The point of this file is `tokenize`: no stretch of plain text may become a special
token, not even one of type USER_DEFINED, which llama.cpp matches in plain text
although special parsing is off. `[PAD]` of most WizardLM files is of that type.
"""

from __future__ import annotations

import ctypes
import re
from functools import lru_cache
from types import ModuleType

# A pointer of the binding, whose types are not annotated for checkers.
from typing import Any

from wizard_edge.errors import BackendError, UsageError

# llama_token_attr of llama.h.
_CONTROL = 1 << 3
_USER_DEFINED = 1 << 4
# Characters to lead a fragment with, so that the space SentencePiece puts before a
# text goes to them: one that the fragment does not merge with is found by trying.
_LEADS = ("\n", "\x01", "\x02", "\t")
_INT32_MAX = 2**31 - 1


class LlamaVocabulary:
    """The vocabulary of a loaded `llama_model`, which must outlive it."""

    def __init__(self, library: ModuleType, model: Any) -> None:
        self._library = library
        self._model = model
        self._vocab: Any = library.llama_model_get_vocab(model)
        self.size: int = library.llama_vocab_n_tokens(self._vocab)
        self.eos: int = library.llama_vocab_eos(self._vocab)
        wants_bos = library.llama_vocab_get_add_bos(self._vocab)
        self.bos: int | None = (
            library.llama_vocab_bos(self._vocab) if wants_bos else None
        )
        self.is_end = lru_cache(maxsize=None)(self._is_end)
        self.piece = lru_cache(maxsize=self.size)(self._piece)
        self._cut_point = lru_cache(maxsize=None)(self._best_cut_point)
        self._is_special = lru_cache(maxsize=None)(self._looks_special)

    @property
    def handle(self) -> Any:
        """The `llama_vocab` pointer, for samplers. Raises: UsageError once closed."""
        if self._vocab is None:
            raise UsageError("the engine is closed")
        return self._vocab

    def close(self) -> None:
        """Forget the pointer, whose model is about to be freed."""
        self._vocab = None

    def tokenize(self, text: str) -> list[int]:
        """Tokenize plain text; no part of it becomes a special token.

        Where a special token's spelling stands in the text, the text is cut inside
        it and each part is tokenized as the continuation it is. A special token of
        a single character cannot be cut and stays: it is a letter.
        Raises: UsageError for text that is not valid Unicode.
        """
        ids = self._tokenize(text, special=False)
        marks = self._marks(ids)
        if not marks:
            return ids
        first, *rest = self._cut(text, marks)
        ids = self.tokenize(first) if first else []
        for part in rest:
            ids += self._continue(part)
        return ids

    def control(self, text: str) -> int:
        """Return the id of the control token spelled `text`.

        Raises: BackendError when the vocabulary has no such control token.
        """
        ids = self._tokenize(text, special=True)
        if len(ids) != 1 or not self._attributes(ids[0]) & _CONTROL:
            raise BackendError(f"the model has no control token {text!r}")
        return ids[0]

    def spell(self, token: int) -> str:
        """Return how a token is written, control tokens too."""
        return self._render(token, special=True).decode("utf-8", "replace")

    def _piece(self, token: int) -> bytes:
        return self._render(token, special=False)

    def _is_end(self, token: int) -> bool:
        return bool(self._library.llama_vocab_is_eog(self.handle, token))

    def _cut(self, text: str, marks: list[str]) -> list[str]:
        """Cut `text` inside every mark that stands in it; only the first may be "".

        A mark of one character becomes a part of its own.
        """
        parts, start = [], 0
        for match in re.finditer("|".join(map(re.escape, marks)), text):
            alone = len(match[0]) == 1
            inside = match.start() + (0 if alone else self._cut_point(match[0]))
            for end in (inside, match.end()) if alone else (inside,):
                parts.append(text[start:end])
                start = end
        first, *rest = [*parts, text[start:]]
        return [first, *filter(None, rest)]

    def _best_cut_point(self, mark: str) -> int:
        """Return where a mark falls into the fewest and commonest tokens.

        That is how a vocabulary without the mark would mostly read it: the ids of
        a BPE vocabulary are in the order of its merges.
        """

        def cost(point: int) -> tuple[int, int]:
            ids = self.tokenize(mark[:point]) + self._continue(mark[point:])
            return len(ids), sum(ids)

        return min(range(1, len(mark)), key=cost)

    def _continue(self, text: str) -> list[int]:
        """Tokenize what follows other text: without the space before a beginning."""
        ids = self._tokenize(text, special=False)
        marks = self._marks(ids)
        if marks == [text] and len(text) == 1:
            return ids
        if marks:
            parts = filter(None, self._cut(text, marks))
            return [token for part in parts for token in self._continue(part)]
        for lead in _LEADS:
            head = self._tokenize(lead, special=False)
            ids = self._tokenize(lead + text, special=False)
            tail = ids[len(head) :]
            fits = ids[: len(head)] == head and not self._marks(tail)
            if fits and self._text(tail) == text:
                return tail
        raise BackendError(f"the vocabulary cannot tokenize {text!r} as plain text")

    def _text(self, ids: list[int]) -> str:
        return b"".join(map(self.piece, ids)).decode("utf-8", "replace")

    def _marks(self, ids: list[int]) -> list[str]:
        spelled = {self.spell(token) for token in ids if self._is_special(token)}
        return sorted(spelled, key=len, reverse=True)

    def _looks_special(self, token: int) -> bool:
        return bool(self._attributes(token) & (_CONTROL | _USER_DEFINED))

    def _attributes(self, token: int) -> int:
        return int(self._library.llama_vocab_get_attr(self.handle, token))

    def _tokenize(self, text: str, *, special: bool) -> list[int]:
        try:
            data = text.encode("utf-8")
        except UnicodeEncodeError as err:
            raise UsageError("the text holds a lone surrogate, not Unicode") from err
        # One token a byte, and the space before the text.
        room = len(data) + 8
        if room > _INT32_MAX:
            raise UsageError(f"the text is too long: {len(data)} bytes")
        buffer = (self._library.llama_token * room)()
        count = self._library.llama_tokenize(
            self.handle, data, len(data), buffer, room, False, special
        )
        if count < 0:
            raise BackendError("llama.cpp could not tokenize the text")
        return list(buffer[:count])

    def _render(self, token: int, *, special: bool) -> bytes:
        size = 64
        while True:
            buffer = ctypes.create_string_buffer(size)
            count = self._library.llama_token_to_piece(
                self.handle, token, buffer, size, 0, special
            )
            if count >= 0:
                return buffer.raw[:count]
            size = -count
