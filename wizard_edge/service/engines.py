"""Open a model for many callers: what the Python API stands on beside `open_chat`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from itertools import islice
from threading import Event
from typing import TYPE_CHECKING, Self

from wizard_edge._llama.engine import LlamaEngine
from wizard_edge.config import Settings
from wizard_edge.conversation import Conversation
from wizard_edge.engine import Finish, Overflow, Sampling, Stats, never
from wizard_edge.progress import Progress, silent
from wizard_edge.prompt import begin
from wizard_edge.replies import Reply
from wizard_edge.scoring import ScoredToken, score_text
from wizard_edge.service.chat import load_model
from wizard_edge.service.installation import Installation
from wizard_edge.templates import PromptTemplate

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

# So many questions are taken ahead for each that is answered: nobody waits for one.
_AHEAD = 2


@dataclass(frozen=True, slots=True)
class Answered:
    """An answer to one of many questions, whose `index` is counted from 0."""

    index: int
    question: str
    text: str
    finish: Finish
    stats: Stats


class ModelEngine:
    """A loaded model that is talked to as its authors did. Close it, or use `with`.

    Any thread may call: `parallel` answers come at once, others wait their turn.
    """

    def __init__(
        self,
        name: str,
        engine: LlamaEngine,
        template: PromptTemplate,
        sampling: Sampling,
        *,
        parallel: int,
        overflow: Overflow,
    ) -> None:
        """Own `engine`; `sampling` is for those who give none of their own.

        `overflow` says what its conversations do that outgrow their context.
        """
        self.name = name
        self.engine = engine
        self.template = template
        self.sampling = sampling
        self.parallel = parallel
        self.overflow = overflow

    @property
    def context(self) -> int:
        """Tokens that fit into one conversation."""
        return self.engine.context

    def conversation(
        self, *, system: str | None = None, history: bool | None = None
    ) -> Conversation:
        """Begin a conversation, of which there may be any number.

        `history` None keeps earlier turns where the model was trained on several.
        Raises: UsageError for a system text where the template has no place.
        """
        return Conversation(
            self.engine,
            self.template,
            system=system,
            history=history,
            overflow=self.overflow,
        )

    def ask(
        self,
        question: str,
        sampling: Sampling | None = None,
        *,
        system: str | None = None,
        cancelled: Callable[[], bool] = never,
    ) -> Reply:
        """Put a single question and return its answer, for `for` or `async for`.

        Raises: UsageError when the question does not fit into the context.
        """
        conversation = self.conversation(system=system)
        return conversation.ask(
            question, sampling or self.sampling, cancelled=cancelled
        )

    def ask_many(
        self,
        questions: Iterable[str],
        sampling: Sampling | None = None,
        *,
        system: str | None = None,
    ) -> Iterator[Answered]:
        """Put questions that know nothing of each other, and yield answers as they end.

        Questions are taken as they are needed. Whoever leaves early ends those that
        are open.
        Raises: UsageError when a question does not fit into the context.
        """
        stopped = Event()

        def answer(index: int, question: str) -> Answered:
            chunks = list(
                self.ask(question, sampling, system=system, cancelled=stopped.is_set)
            )
            text = "".join(chunk.text for chunk in chunks)
            last = chunks[-1]
            return Answered(
                index, question, text, last.finish or "cancelled", last.stats
            )

        waiting = enumerate(questions)
        running: set[Future[Answered]] = set()
        with ThreadPoolExecutor(self.parallel, "wizard-edge question") as pool:
            try:
                for index, question in islice(waiting, self.parallel * _AHEAD):
                    running.add(pool.submit(answer, index, question))
                while running:
                    done, running = wait(running, return_when=FIRST_COMPLETED)
                    for index, question in islice(waiting, len(done)):
                        running.add(pool.submit(answer, index, question))
                    for future in done:
                        yield future.result()
            finally:
                stopped.set()
                pool.shutdown(wait=False, cancel_futures=True)

    def embed(self, texts: Iterable[str]) -> NDArray[np.float32]:
        """Return a vector for each text; see `Embedder.embed`.

        Raises: UsageError for a text of more tokens than the context takes.
        """
        return self.engine.embed([self._ids(text) for text in texts])

    def score(self, text: str, *, top: int = 0) -> list[ScoredToken]:
        """Return how likely each token of a text was, and the `top` likeliest there.

        Raises: UsageError for a text of more tokens than the context takes.
        """
        return score_text(self.engine, self._ids(text), top=top)

    def close(self) -> None:
        """Free the model. A second call does nothing."""
        self.engine.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _ids(self, text: str) -> list[int]:
        return begin(self.engine.vocabulary) + self.engine.vocabulary.tokenize(text)


def open_engine(
    ref: str,
    *,
    template: str | None = None,
    settings: Settings | None = None,
    parallel: int | None = None,
    installation: Installation | None = None,
    progress: Progress = silent,
) -> ModelEngine:
    """Load an installed model, or a GGUF file, for several conversations at once.

    Each of `parallel` has a context of its own, which takes memory; None is what the
    settings say, else one. `settings` are laid over those of the installation, which
    is the user's own where none is given.
    Raises: as `open_chat`.
    """
    loaded = load_model(
        ref,
        template=template,
        settings=settings,
        parallel=parallel,
        installation=installation,
        progress=progress,
    )
    return ModelEngine(
        loaded.name,
        loaded.engine,
        loaded.template,
        loaded.sampling,
        parallel=loaded.parallel,
        overflow=loaded.settings.overflow or "drop-oldest-turns",
    )
