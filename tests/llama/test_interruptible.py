"""Ctrl-C and native code, with a library that only takes the callback."""

from __future__ import annotations

import _thread
from collections.abc import Callable, Iterator
from pathlib import Path
from time import monotonic
from types import ModuleType
from typing import Any

import pytest

from wizard_edge._llama.batches import decode
from wizard_edge._llama.engine import LlamaEngine
from wizard_edge._llama.interruptible import interruptible
from wizard_edge.engine import LoadOptions

Callback = Callable[[object], bool]


class CallbackKeeper(ModuleType):
    """Stands for the binding: `asks` is what a running decode would ask."""

    def __init__(self) -> None:
        super().__init__("llama_cpp")
        self.asks: Callback | None = None

    def ggml_abort_callback(self, callback: Callback | None = None) -> Callback | None:
        return callback

    def llama_set_abort_callback(
        self, ctx: object, callback: Callback | None, user_data: object
    ) -> None:
        self.asks = callback

    def says_stop(self) -> bool:
        """Ask as often as a decode would, for some seconds at most."""
        assert self.asks is not None
        end = monotonic() + 20
        while monotonic() < end:
            if self.asks(None):
                return True
        return False


@pytest.fixture
def engine(apprentice: Callable[[str], Path]) -> Iterator[LlamaEngine]:
    with LlamaEngine(apprentice("Q8_0"), LoadOptions(threads=1)) as loaded:
        yield loaded


def test_ctrl_c_ends_the_work_in_its_middle() -> None:
    keeper = CallbackKeeper()
    answers: list[bool] = []

    def work() -> None:
        assert keeper.asks is not None
        answers.append(keeper.asks(None))
        _thread.interrupt_main()
        answers.append(keeper.says_stop())

    with pytest.raises(KeyboardInterrupt), interruptible(keeper, None) as run:
        run(work)

    assert answers == [False, True]
    assert keeper.asks is None


def test_pressing_it_again_does_not_leave_the_work_behind() -> None:
    keeper = CallbackKeeper()
    ended: list[bool] = []

    def work() -> None:
        _thread.interrupt_main()
        ended.append(keeper.says_stop())
        _thread.interrupt_main()

    with pytest.raises(KeyboardInterrupt), interruptible(keeper, None) as run:
        run(work)

    assert ended == [True]


def test_what_the_work_raises_comes_out() -> None:
    def work() -> None:
        raise ValueError("no")

    with (
        pytest.raises(ValueError, match="no"),
        interruptible(CallbackKeeper(), None) as run,
    ):
        run(work)


def test_an_engine_goes_on_after_an_interrupted_score(
    engine: LlamaEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = [1, *range(10, 300)]
    expected = engine.logits(ids)

    # Any: what `decode` takes.
    def interrupted(*given: Any, **named: Any) -> None:
        _thread.interrupt_main()
        decode(*given, **named)

    monkeypatch.setattr("wizard_edge._llama.engine.decode", interrupted)
    with pytest.raises(KeyboardInterrupt):
        engine.logits(ids)
    monkeypatch.undo()

    assert (engine.logits(ids) == expected).all()
