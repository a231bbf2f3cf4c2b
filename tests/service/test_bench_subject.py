from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from wizard_edge._llama.engine import LlamaEngine
from wizard_edge.engine import LoadOptions
from wizard_edge.errors import BackendError
from wizard_edge.service.bench_subject import EngineSubject, shared_window
from wizard_edge.service.bench_values import Spoken


@pytest.fixture
def subject(
    apprentice: Callable[[str], Path], tmp_path: Path
) -> Iterator[EngineSubject]:
    options = LoadOptions(threads=1, context=256)
    with LlamaEngine(apprentice("Q8_0"), options) as engine:
        yield EngineSubject(engine, sequences=1, folder=tmp_path)


def test_a_prompt_is_new_every_time(subject: EngineSubject) -> None:
    first, second = subject.read(32), subject.read(32)

    # What every prompt begins with.
    assert (first.cached_tokens, first.read_tokens) == (0, 32)
    assert (second.cached_tokens, second.read_tokens) == (1, 31)


def test_a_warm_start_reads_the_question_alone(subject: EngineSubject) -> None:
    subject.read(64)

    for _ in range(2):
        found = subject.follow(48, 16)
        assert (found.cached_tokens, found.read_tokens) == (48, 16)


def test_a_history_comes_back_from_its_file(subject: EngineSubject) -> None:
    subject.read(64)

    for _ in range(2):
        found = subject.resume(48, 16)
        assert found.cached_tokens == 48
        assert 0 < found.restore_s < found.first_token_s


def test_a_history_that_is_not_there_cannot_be_saved(subject: EngineSubject) -> None:
    subject.read(32)
    subject._said = [*subject._said[:16], 5, 5, 5, 5]

    with pytest.raises(BackendError, match="of 18 tokens 16 were in the cache"):
        subject.resume(18, 4)


def test_generation_counts_what_it_timed(subject: EngineSubject) -> None:
    found = subject.generate(64, 16, 60.0)

    assert 4 <= found.tokens <= 16
    assert found.seconds > 0


def test_generation_ends_when_its_time_is_over(subject: EngineSubject) -> None:
    assert subject.generate(0, 10_000, 0.0).tokens < 200


def test_several_are_counted_while_all_of_them_get_tokens() -> None:
    times = [[1.0, 2.0, 3.0, 4.0], [1.5, 2.5, 3.5]]

    # From 1.5 to 3.5: at 2, 2.5, 3 and 3.5.
    assert shared_window(times) == Spoken(4, 2.0)
    assert shared_window([[1.0, 2.0], []]) == Spoken(0, 0.0)
    assert shared_window([[1.0, 2.0], [3.0, 4.0]]) == Spoken(0, 0.0)
