"""Open a model for a conversation: what `run`, `chat` and the Python API stand on."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from typing import Any, Self

from wizard_edge._llama.engine import LlamaEngine
from wizard_edge.config import Settings
from wizard_edge.conversation import Conversation
from wizard_edge.endpoints import Endpoint
from wizard_edge.engine import (
    LoadOptions,
    Logprobs,
    Sampling,
    ScoringEngine,
    Vocabulary,
    never,
)
from wizard_edge.errors import BackendError, MissingFile, NotEnough, UsageError
from wizard_edge.hardware import Memory, find_cores, find_memory
from wizard_edge.low_memory import with_low_memory
from wizard_edge.names import SessionName
from wizard_edge.progress import Progress, silent
from wizard_edge.replies import Reply
from wizard_edge.scoring import score_prompt
from wizard_edge.service.consent import refuse_target
from wizard_edge.service.installation import Installation, open_installation
from wizard_edge.service.targets import (
    Target,
    choose_template,
    find_target,
    note_use,
)
from wizard_edge.service.tuning import load_engine
from wizard_edge.sessions import ModelFile, Resumed, Session
from wizard_edge.templates import TEMPLATES, Message, PromptTemplate

_LOAD_KEYS = {
    "ctx_size": "context",
    "threads": "threads",
    "prompt_threads": "prompt_threads",
    "gpu_layers": "gpu_layers",
    "kv_type": "kv_type",
    "flash_attention": "flash_attention",
    "mmap": "mmap",
    "mlock": "mlock",
    "deterministic": "deterministic",
    "lookup": "lookup",
}
_SAMPLING_KEYS = (
    "temperature",
    "top_k",
    "top_p",
    "min_p",
    "repeat_penalty",
    "seed",
    "max_tokens",
)


class Chat:
    """A model that is loaded and talked to. Close it, or use it in a `with`.

    Not for several threads at once: a conversation has one voice.
    """

    def __init__(
        self,
        name: str,
        engine: ScoringEngine,
        conversation: Conversation,
        sampling: Sampling,
        *,
        session: Session | None = None,
    ) -> None:
        self.name = name
        self.sampling = sampling
        self._engine = engine
        self._conversation = conversation
        self._session = session

    @property
    def template(self) -> PromptTemplate:
        """The template the model is talked to in."""
        return self._conversation.template

    @property
    def messages(self) -> tuple[Message, ...]:
        """The turns so far, in order, also those that outgrew the context."""
        return tuple(self._conversation.messages)

    @property
    def keeps_history(self) -> bool:
        """Whether the model sees earlier turns."""
        return self._conversation.keeps_history

    @property
    def session(self) -> str | None:
        """The name under which it is kept, None where it is not."""
        return self._session.name if self._session else None

    @property
    def resumed(self) -> Resumed:
        """What came back of the session."""
        return self._session.resumed if self._session else Resumed()

    @property
    def context(self) -> int:
        """Tokens that fit into the conversation."""
        return self._engine.context

    @property
    def ids(self) -> tuple[int, ...]:
        """The whole history as token ids."""
        return self._conversation.ids

    def spell(self, token: int) -> str:
        """Return how a token is written, control tokens too."""
        return self._engine.vocabulary.spell(token)

    def ask(self, text: str, *, cancelled: Callable[[], bool] = never) -> Reply:
        """Put a question and return the answer as it comes.

        Raises: UsageError when the question does not fit into the context.
        """
        return self._conversation.ask(text, self.sampling, cancelled=cancelled)

    def say(self, text: str) -> str:
        """Put a question and return the whole answer. Raises: as `ask`."""
        return "".join(chunk.text for chunk in self.ask(text))

    def score(self, ids: Sequence[int], *, top: int = 0) -> list[Logprobs | None]:
        """Return how likely each token of a text was after those before it.

        The first has None. Evaluates them anew.
        Raises: UsageError when there is no id, or more than the context takes.
        """
        return list(score_prompt(self._engine, ids, top=top))

    def regenerate(self, *, cancelled: Callable[[], bool] = never) -> Reply:
        """Ask the last question again and return its new answer as it comes.

        Raises: UsageError where nothing was asked yet.
        """
        return self._conversation.regenerate(self.sampling, cancelled=cancelled)

    def edit(
        self, number: int, text: str, *, cancelled: Callable[[], bool] = never
    ) -> Reply:
        """Ask another question in place of number `number`, counted from 1.

        What followed it is forgotten.
        Raises: UsageError where there is no such question, or the new one does not
        fit into the context.
        """
        return self._conversation.edit(number, text, self.sampling, cancelled=cancelled)

    def undo(self) -> str:
        """Forget the last turn and return its question.

        Raises: UsageError where nothing was asked yet.
        """
        return self._conversation.undo().question

    def clear(self) -> None:
        """Start over; model, template and system text stay."""
        self._conversation.clear()

    def restart(self, *, system: str | None) -> None:
        """Start over under another system text; model and template stay.

        Raises: UsageError where the template has no place for it: nothing changes.
        """
        self._conversation.restart(system=system)

    def close(self) -> None:
        """Free the model, and the session for others. An open answer ends."""
        try:
            self._conversation.settle()
            self._engine.close()
        finally:
            if self._session is not None:
                self._session.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


@dataclass(frozen=True, slots=True)
class Loaded:
    """A model that is loaded, how its authors talked to it, and what was set."""

    name: str
    engine: LlamaEngine
    template: PromptTemplate
    sampling: Sampling
    settings: Settings
    parallel: int


def open_chat(
    ref: str,
    *,
    system: str | None = None,
    template: str | None = None,
    settings: Settings | None = None,
    grammar: str | None = None,
    json_schema: str | None = None,
    stop: Sequence[str] = (),
    logit_bias: Sequence[tuple[int | str, float]] = (),
    logprobs: int | None = None,
    history: bool | None = None,
    draft: str | None = None,
    session: str | None = None,
    other_model: bool = False,
    rpc: tuple[Endpoint, ...] = (),
    installation: Installation | None = None,
    progress: Progress = silent,
) -> Chat:
    """Load an installed model, or a GGUF file, for a conversation.

    `settings` are laid over those of the installation, which is the user's own
    where none is given; what neither says is the model authors' choice, or suits
    this machine. `history` None keeps earlier turns where the model was trained on
    several. A `logit_bias` is for a token or a text that is exactly one; the other
    values are those of `Sampling`. `draft` is a smaller model that guesses beside this
    one. `rpc` are workers that compute for this machine.
    Under the name of a `session` every turn is kept, and an earlier conversation of
    that name goes on where it was left: with the same model, unless `other_model`
    (docs/sessions.md).
    Raises: UnknownModel, NotFound, UnknownQuant, MissingFile, Corrupt,
    BackendError; UsageError for a value or template that does not fit; NotEnough
    for weights that can never fit into this machine's memory; Refused for a model
    that is not free for commercial use, where the settings want that, and for a
    session that is in use or with another model.
    """
    # Before the load, which may take a minute.
    asked = Sampling(
        grammar=grammar, json_schema=json_schema, stop=tuple(stop), logprobs=logprobs
    )
    installation = installation or open_installation(os.environ)
    chosen = (settings or Settings()).over(installation.settings)
    name = SessionName.parse(session) if session is not None else None
    target = _wanted(installation, ref, settings)
    helper = None if draft is None else _wanted(installation, draft, settings)
    with ExitStack() as opened:
        kept = None
        if name is not None:
            kept = _open_session(installation, name, target, chosen, other_model)
            opened.callback(kept.close)
        loaded = _load(
            installation,
            target,
            chosen,
            template=choose_template(target, template or _template_of(kept)),
            system=system,
            draft=helper,
            rpc=rpc,
            progress=progress,
        )
        opened.callback(loaded.engine.close)
        sampling = replace(
            loaded.sampling,
            grammar=asked.grammar,
            json_schema=asked.json_schema,
            stop=asked.stop,
            logprobs=asked.logprobs,
            logit_bias=find_biases(loaded.engine.vocabulary, logit_bias),
        )
        begin = Conversation if kept is None else kept.resume
        conversation = begin(
            loaded.engine,
            loaded.template,
            system=system,
            history=history,
            overflow=chosen.overflow,
        )
        opened.pop_all()
    return Chat(loaded.name, loaded.engine, conversation, sampling, session=kept)


def load_model(
    ref: str,
    *,
    system: str | None = None,
    template: str | None = None,
    settings: Settings | None = None,
    parallel: int | None = 1,
    draft: str | None = None,
    rpc: tuple[Endpoint, ...] = (),
    installation: Installation | None = None,
    progress: Progress = silent,
) -> Loaded:
    """Load an installed model, or a GGUF file, for `parallel` conversations at once.

    None of them is what the settings say, else one. A `system` text is only tried.
    Raises: as `open_chat`.
    """
    installation = installation or open_installation(os.environ)
    target = _wanted(installation, ref, settings)
    helper = None if draft is None else _wanted(installation, draft, settings)
    return _load(
        installation,
        target,
        (settings or Settings()).over(installation.settings),
        template=choose_template(target, template),
        system=system,
        parallel=parallel,
        draft=helper,
        rpc=rpc,
        progress=progress,
    )


def _wanted(installation: Installation, ref: str, settings: Settings | None) -> Target:
    target = find_target(installation, ref)
    # The setting alone is left to it, so that the hint names what was said where.
    said = settings.commercial if settings else None
    refuse_target(installation, target, commercial=said)
    return target


def _load(
    installation: Installation,
    target: Target,
    settings: Settings,
    *,
    template: PromptTemplate,
    system: str | None,
    parallel: int | None = 1,
    draft: Target | None = None,
    rpc: tuple[Endpoint, ...] = (),
    progress: Progress,
) -> Loaded:
    sampling = sampling_from(settings, target.sampling)
    # Before the load, which may take a minute.
    template.open("", system=system)
    count = (settings.parallel or 1) if parallel is None else parallel
    options = replace(
        given_options(settings),
        parallel=count,
        draft=None if draft is None else draft.path,
        rpc=rpc,
    )
    opened = [target] if draft is None else [target, draft]
    # A file that is not there is the engine's to tell.
    with suppress(OSError):
        weights = sum(model.path.stat().st_size for model in opened)
        check_memory(weights, options, find_memory())
    engine = load_engine(installation, target, options, draft=draft, progress=progress)
    for model in opened:
        note_use(installation, model)
    return Loaded(target.name, engine, template, sampling, settings, count)


def _open_session(
    installation: Installation,
    name: SessionName,
    target: Target,
    settings: Settings,
    other_model: bool,
) -> Session:
    sha256 = target.installed.receipt.files[0].sha256 if target.installed else None
    try:
        size = target.path.stat().st_size
    except OSError as err:
        raise MissingFile(target.path) from err
    return Session(
        installation.home,
        name,
        ModelFile(target.name, target.path.name, size, sha256),
        other_model=other_model,
        budget=settings.session_disk,
        clock=installation.clock,
    )


def _template_of(session: Session | None) -> str | None:
    """Return the template of an earlier conversation, if it is still known."""
    saved = session.saved if session else None
    return saved.template if saved and saved.template in TEMPLATES else None


def find_biases(
    vocabulary: Vocabulary, biases: Sequence[tuple[int | str, float]]
) -> tuple[tuple[int, float], ...]:
    """Return biases by token id; a text stands for the one token that it is.

    That may be a control token, such as the one that ends an answer.
    Raises: UsageError for a text that is not exactly one token.
    """
    return tuple(
        (token if isinstance(token, int) else _one_token(vocabulary, token), bias)
        for token, bias in biases
    )


def _one_token(vocabulary: Vocabulary, text: str) -> int:
    with suppress(BackendError):
        return vocabulary.control(text)
    ids = vocabulary.tokenize(text)
    if len(ids) != 1:
        raise UsageError(
            f"logit-bias for {text!r}, which is {len(ids)} tokens",
            hint=f"give their ids: {', '.join(map(str, ids))}" if ids else None,
        )
    return ids[0]


def load_options_from(settings: Settings) -> LoadOptions:
    """Return load options: what the settings say, and threads that suit the machine.

    One thread a physical core: more of them fight for the same arithmetic units
    (docs/decisions/003).
    """
    given = given_options(settings)
    return replace(given, threads=given.threads or find_cores().threads)


def given_options(settings: Settings) -> LoadOptions:
    """Return load options as the settings say, and nothing they do not say."""
    # Any: each value has the type of the field that it is for.
    given: dict[str, Any] = {
        option: value
        for key, option in _LOAD_KEYS.items()
        if (value := getattr(settings, key)) is not None
    }
    if settings.low_memory:
        given = with_low_memory(given)
    return LoadOptions(**given)


def check_memory(weights: int, options: LoadOptions, memory: Memory) -> None:
    """Refuse weights, in bytes, that are larger than all memory there is.

    What is in use now does not count: mapped weights take the room as they need it.
    Whoever sends layers to a GPU or to workers by hand knows more than we do.
    Raises: NotEnough.
    """
    elsewhere = options.rpc or options.gpu_layers not in ("auto", 0)
    if memory.total and weights > memory.total and not elsewhere:
        raise NotEnough(
            "memory",
            needed=weights,
            free=memory.total,
            hint="take a smaller quant; a smaller --ctx-size is not enough here",
        )


def sampling_from(settings: Settings, defaults: Sampling) -> Sampling:
    """Return `defaults` with what the settings say laid over them."""
    given = {
        key: value
        for key in _SAMPLING_KEYS
        if (value := getattr(settings, key)) is not None
    }
    return replace(defaults, **given)
