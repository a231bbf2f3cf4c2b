"""A model for many callers, with the bundled one."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator

import numpy as np
import pytest

from wizard_edge.config import Settings
from wizard_edge.engine import Sampling
from wizard_edge.errors import UnknownModel, UsageError
from wizard_edge.service.engines import Answered, ModelEngine, open_engine
from wizard_edge.service.installation import Installation, open_installation
from wizard_edge.service.pull import pull
from wizard_edge.service.wanted import PullRequest
from wizard_edge_converters.seam import Pipeline

QUESTIONS = [f"What is {number} plus 5?" for number in range(10)]
# Deterministic: what is answered beside an answer may not change it.
ALONE = Settings(threads=1, ctx_size=256, deterministic=True)


@pytest.fixture(scope="module")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Installation:
    """A home in which the bundled model has been pulled."""
    folder = tmp_path_factory.mktemp("home")
    environ = {
        "WIZARD_EDGE_HOME": str(folder / "home"),
        "WIZARD_EDGE_CONFIG": str(folder / "config"),
    }
    installation = open_installation(environ)
    pull(installation, PullRequest("apprentice"), convert=Pipeline())
    return installation


@pytest.fixture(scope="module")
def model(installation: Installation) -> Iterator[ModelEngine]:
    with open_engine(
        "apprentice", parallel=3, settings=ALONE, installation=installation
    ) as opened:
        yield opened


def text_of(model: ModelEngine, question: str) -> str:
    return "".join(chunk.text for chunk in model.ask(question))


def test_a_single_question_knows_nothing_of_another(model: ModelEngine) -> None:
    first = text_of(model, "Hi, my name is Ada.")
    second = text_of(model, "What is my name?")

    assert "Ada" in first
    assert "Ada" not in second
    assert not first.startswith(" ")


def test_conversations_go_on_beside_each_other(model: ModelEngine) -> None:
    one, two = model.conversation(), model.conversation(system="Be brief.")
    for conversation, name in ((one, "Ada"), (two, "Alan")):
        list(conversation.ask(f"Hi, my name is {name}.", model.sampling))

    *_, last = chunks = list(one.ask("What is my name?", model.sampling))

    assert "Ada" in "".join(chunk.text for chunk in chunks)
    assert last.stats.reread_tokens == 0
    assert len(two.messages) == 2


def test_many_questions_are_answered_like_single_ones(model: ModelEngine) -> None:
    expected = [text_of(model, question) for question in QUESTIONS]

    answers = sorted(model.ask_many(iter(QUESTIONS)), key=lambda item: item.index)

    assert [answer.text for answer in answers] == expected
    assert [answer.question for answer in answers] == QUESTIONS
    assert {answer.finish for answer in answers} == {"stop"}
    assert all(answer.stats.new_tokens for answer in answers)


def test_many_questions_are_taken_as_they_are_needed(model: ModelEngine) -> None:
    taken: list[int] = []

    def endless() -> Iterator[str]:
        for number in range(10**9):
            taken.append(number)
            yield "Hello!"

    answers = model.ask_many(endless())
    found = [next(answers) for _ in range(5)]
    answers.close()  # type: ignore[attr-defined]

    assert {type(answer) for answer in found} == {Answered}
    assert len(taken) < 5 + 4 * model.parallel
    # Nothing is left that would keep the engine busy.
    assert text_of(model, "Hello!") == found[0].text


def test_no_question_has_no_answer(model: ModelEngine) -> None:
    assert list(model.ask_many([])) == []


def test_a_question_that_does_not_fit_ends_the_batch(model: ModelEngine) -> None:
    with pytest.raises(UsageError, match="context"):
        list(model.ask_many(["Hello!", "x " * 300, *QUESTIONS]))

    assert text_of(model, "Hello!")


def test_an_answer_is_for_async_for_too(model: ModelEngine) -> None:
    async def ask(question: str) -> str:
        return "".join([chunk.text async for chunk in model.ask(question)])

    async def ask_all() -> list[str]:
        return await asyncio.gather(*map(ask, QUESTIONS))

    found = asyncio.run(ask_all())

    assert found == [text_of(model, question) for question in QUESTIONS]


def test_any_thread_may_ask(model: ModelEngine) -> None:
    found: dict[str, str] = {}

    def ask(question: str) -> None:
        found[question] = text_of(model, question)

    threads = [threading.Thread(target=ask, args=[q]) for q in QUESTIONS]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert found == {question: text_of(model, question) for question in QUESTIONS}


def test_a_sampling_of_its_own(model: ModelEngine) -> None:
    *_, last = model.ask("Hello!", Sampling(max_tokens=2, logprobs=1))

    assert (last.finish, last.stats.new_tokens) == ("length", 2)
    assert last.logprobs is not None


def test_texts_become_vectors(model: ModelEngine) -> None:
    vectors = model.embed(["What is 7 plus 5?", "What is 3 plus 5?"])

    assert len(vectors) == 2
    assert np.linalg.norm(vectors, axis=1) == pytest.approx([1, 1])


def test_a_text_is_scored_token_by_token(model: ModelEngine) -> None:
    first, *rest = model.score("What is 7 plus 5?", top=1)

    assert (first.token, first.logprobs) == (model.engine.vocabulary.bos, None)
    assert "".join(item.text for item in rest).strip() == "What is 7 plus 5?"
    assert all(item.logprobs and item.logprobs.logprob <= 0 for item in rest)


def test_the_setting_says_how_many_at_once(installation: Installation) -> None:
    settings = Settings(threads=1, ctx_size=64, parallel=2)
    with open_engine(
        "apprentice", settings=settings, installation=installation
    ) as model:
        assert (model.parallel, model.context) == (2, 64)
    with open_engine("apprentice", settings=ALONE, installation=installation) as model:
        assert (model.parallel, model.context) == (1, 256)


def test_what_is_not_there_is_not_found(installation: Installation) -> None:
    with pytest.raises(UnknownModel):
        open_engine("nosuchmodel", installation=installation)


def test_the_setting_says_what_a_long_conversation_does(
    installation: Installation,
) -> None:
    settings = Settings(threads=1, ctx_size=64, overflow="error")
    with open_engine(
        "apprentice", settings=settings, installation=installation
    ) as model:
        conversation = model.conversation()
        list(conversation.ask("Hello!", model.sampling))
        with pytest.raises(UsageError):
            conversation.ask("What is 7 plus 5? " * 3, model.sampling)
