"""Loading with what was measured, over the real llama.cpp and the bundled model."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from tests.service.fakes import an_installation, tree
from wizard_edge._llama.engine import LlamaEngine
from wizard_edge.engine import KvType, LoadOptions, Sampling
from wizard_edge.errors import MissingFile, NotEnough
from wizard_edge.hardware import Cores, Memory
from wizard_edge.progress import ProgressEvent
from wizard_edge.service import tuning
from wizard_edge.service.installation import Installation
from wizard_edge.service.targets import Target, find_target
from wizard_edge.service.tuning import load_engine, tune
from wizard_edge.tuning import Tuned
from wizard_edge.tuning_file import Entry, TuningFile

# Options that give threads: then nothing of this machine is in what is expected.
ONE = LoadOptions(threads=1)
SOME = Sampling(max_tokens=16)


@pytest.fixture(autouse=True)
def one_core(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tuning, "find_cores", lambda: Cores(4, 1, 1))


@pytest.fixture
def quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let nobody else work on this machine."""
    monkeypatch.setattr(tuning, "Neighbours", Nobody)


class Nobody:
    busy = 0.0


class Somebody:
    busy = 3.0


@pytest.fixture
def kept(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Tell when a measurement has been written down."""
    written = threading.Event()

    class Telling(TuningFile):
        def keep(self, key: str, entry: Entry) -> None:
            super().keep(key, entry)
            written.set()

    monkeypatch.setattr(tuning, "TuningFile", Telling)
    return written


@pytest.fixture
def installation(tmp_path: Path) -> Installation:
    return an_installation(tmp_path)


@pytest.fixture
def target(apprentice: Callable[[str], Path], installation: Installation) -> Target:
    return find_target(installation, str(apprentice("Q8_0")))


def file_of(installation: Installation) -> Path:
    return installation.home.root / "tuning.json"


def entry_of(installation: Installation, target: Target) -> Entry | None:
    found = tuning._lookup(installation, target.path, ONE, Cores(4, 1, 1))
    return found.entry


def keep(installation: Installation, target: Target, entry: Entry) -> None:
    found = tuning._lookup(installation, target.path, ONE, Cores(4, 1, 1))
    found.file.keep(found.key, entry)


def talk(engine: LlamaEngine) -> None:
    """Generate enough tokens for a session to be compared."""
    tokens = 0
    while tokens < 80:
        tokens += sum(1 for _ in engine.generate([1, 3, 5], SOME))


def flash_of(engine: LlamaEngine) -> bool:
    return engine.state_kind.endswith("/flash")


@pytest.mark.usefixtures("quiet")
def test_what_is_measured_when_asked_is_kept(
    installation: Installation, target: Target
) -> None:
    events: list[ProgressEvent] = []
    tuned = tune(installation, target, ONE, progress=events.append)

    assert entry_of(installation, target) == Entry(tuned)
    assert tuned.quiet
    assert set(tuned.token_s) == {512, 1024}
    assert set(tuned.batch_cost) == {2, 4, 8}
    assert {event.stage for event in events} == {"load", "tune"}


@pytest.mark.usefixtures("quiet")
def test_a_first_load_is_measured_at_rest(
    installation: Installation, target: Target, kept: threading.Event
) -> None:
    with load_engine(installation, target, ONE, rested_s=0):
        assert kept.wait(60)

    entry = entry_of(installation, target)
    assert entry is not None
    assert entry.tuned.quiet


def test_an_answer_at_once_is_not_kept_waiting(
    installation: Installation, target: Target
) -> None:
    with load_engine(installation, target, ONE, rested_s=1000) as engine:
        list(engine.generate([1, 3, 5], SOME))

    assert tree(installation.home.root) == []


@pytest.mark.parametrize("flash", [False, True])
def test_a_load_takes_what_was_measured(
    installation: Installation, target: Target, flash: bool
) -> None:
    tuned = Tuned(flash, 2, 3, {2: 1.5}, {512: 0.01})
    keep(installation, target, Entry(tuned))
    before = file_of(installation).read_bytes()
    with load_engine(installation, target, LoadOptions(), rested_s=0) as engine:
        # Nothing is measured again.
        list(engine.generate([1, 3, 5], SOME))
        found = flash_of(engine)

    assert found is flash
    assert file_of(installation).read_bytes() == before


@pytest.mark.usefixtures("quiet")
def test_threads_are_those_that_were_measured(
    installation: Installation, target: Target
) -> None:
    keep(installation, target, Entry(Tuned(False, 2, 3, {}, {512: 1.0})))
    with load_engine(installation, target, LoadOptions()) as engine:
        free = engine.settings
    with load_engine(installation, target, ONE) as engine:
        fixed = engine.settings

    assert (free.threads, free.prompt_threads) == (2, 3)
    assert (fixed.threads, fixed.prompt_threads) == (1, 1)


def test_what_somebody_said_wins(installation: Installation, target: Target) -> None:
    keep(installation, target, Entry(Tuned(True, 2, 3, {}, {512: 0.01})))
    said = replace(ONE, flash_attention=False)
    with load_engine(installation, target, said) as engine:
        found = flash_of(engine)

    assert not found


def test_deterministic_answers_depend_on_no_measurement(
    installation: Installation, target: Target
) -> None:
    keep(installation, target, Entry(Tuned(True, 2, 3, {}, {512: 0.01})))
    options = LoadOptions(deterministic=True)
    with load_engine(installation, target, options, rested_s=0) as engine:
        made = engine.settings
        found = flash_of(engine)

    assert (made.threads, made.prompt_threads, found) == (1, 1, False)


def test_another_kind_of_cache_is_measured_by_itself(
    installation: Installation, target: Target
) -> None:
    kv_types: tuple[KvType, ...] = ("f16", "q8_0")
    found = [tune(installation, target, replace(ONE, kv_type=k)) for k in kv_types]
    file = TuningFile(file_of(installation))

    assert [tuned.flash_attention for tuned in found][1] is True
    assert len(file._read()) == 2


@pytest.mark.usefixtures("quiet")
def test_what_a_busy_machine_said_is_measured_again(
    installation: Installation, target: Target, kept: threading.Event
) -> None:
    keep(installation, target, Entry(Tuned(True, 1, 1, {}, {}, quiet=False)))
    kept.clear()
    with load_engine(installation, target, ONE, rested_s=0):
        assert kept.wait(60)

    entry = entry_of(installation, target)
    assert entry is not None
    assert entry.tuned.quiet


def test_while_it_is_busy_it_is_not(
    installation: Installation, target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tuning, "Neighbours", Somebody)
    kept = Entry(Tuned(True, 1, 1, {}, {}, quiet=False))
    keep(installation, target, kept)
    with load_engine(installation, target, ONE, rested_s=0) as engine:
        list(engine.generate([1, 3, 5], SOME))

    assert entry_of(installation, target) == kept


@pytest.mark.usefixtures("quiet")
def test_three_sessions_that_are_off_call_for_a_new_measurement(
    installation: Installation, target: Target, kept: threading.Event
) -> None:
    # No machine takes as long for a token of this model.
    slow = Tuned(False, 1, 1, {}, {512: 1000.0})
    keep(installation, target, Entry(slow))
    options = LoadOptions(lookup=False)
    off = []
    for _ in range(3):
        with load_engine(installation, target, options, rested_s=1000) as engine:
            talk(engine)
        entry = entry_of(installation, target)
        off.append(len(entry.off) if entry else None)
    kept.clear()
    with load_engine(installation, target, options, rested_s=0):
        assert kept.wait(60)
    entry = entry_of(installation, target)

    assert off == [1, 2, 3]
    assert entry is not None
    assert entry.tuned != slow
    assert entry.off == ()


@pytest.mark.usefixtures("quiet")
def test_a_session_as_measured_forgives_those_before(
    installation: Installation, target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tuning, "is_off", lambda ratio: False)
    tuned = Tuned(False, 1, 1, {}, {512: 0.01})
    keep(installation, target, Entry(tuned, off=(1.5, 1.6)))
    with load_engine(installation, target, LoadOptions(lookup=False)) as engine:
        talk(engine)

    assert entry_of(installation, target) == Entry(tuned)


def test_without_memory_to_measure_in_nothing_is(
    installation: Installation, target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tuning, "find_memory", lambda: Memory(10**9, 1000))

    with pytest.raises(NotEnough, match="not enough memory"):
        tune(installation, target, ONE)


def test_what_is_not_there_is_the_engines_to_tell(
    installation: Installation, target: Target
) -> None:
    missing = replace(target, path=target.path.with_name("missing.gguf"))

    with pytest.raises(MissingFile):
        load_engine(installation, missing, ONE)
