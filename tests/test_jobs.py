"""Work for another thread, and Ctrl-C meanwhile."""

from __future__ import annotations

import _thread
import signal
import threading
from collections.abc import Callable
from time import monotonic
from types import FrameType

import pytest

from tests.backends import FakeBackend
from wizard_edge.backend import Backend
from wizard_edge.jobs import Job


def says_yes(question: Callable[[], bool]) -> bool:
    """Ask as often as a long batch would, for some seconds at most."""
    end = monotonic() + 20
    while monotonic() < end:
        if question():
            return True
    return False


def on_another_thread(
    job: Job[None], begins: threading.Event | None = None
) -> threading.Thread:
    """Do the work, once it may begin: a thread that starts must not be interrupted."""

    def do() -> None:
        if begins is None or begins.wait(20):
            job.do(FakeBackend())

    thread = threading.Thread(target=do)
    thread.start()
    return thread


def test_ctrl_c_ends_the_work_in_its_middle() -> None:
    heard: list[bool] = []

    def work(backend: Backend, stopped: Callable[[], bool]) -> None:
        _thread.interrupt_main()
        heard.append(says_yes(stopped))

    job, begins = Job(work), threading.Event()
    thread = on_another_thread(job, begins)
    begins.set()
    with pytest.raises(KeyboardInterrupt):
        job.wait()

    thread.join(20)
    assert heard == [True]


def test_pressing_it_again_does_not_leave_the_work_behind() -> None:
    pressed = 0
    ended: list[int] = []

    def press(number: int, frame: FrameType | None) -> None:
        nonlocal pressed
        pressed += 1
        raise KeyboardInterrupt

    def work(backend: Backend, stopped: Callable[[], bool]) -> None:
        _thread.interrupt_main()
        says_yes(stopped)
        _thread.interrupt_main()
        says_yes(lambda: pressed == 2)
        ended.append(pressed)

    before = signal.signal(signal.SIGINT, press)
    try:
        job, begins = Job(work), threading.Event()
        thread = on_another_thread(job, begins)
        begins.set()
        with pytest.raises(KeyboardInterrupt):
            job.wait()
        thread.join(20)
    finally:
        signal.signal(signal.SIGINT, before)

    assert ended == [2]


def test_what_the_work_raises_comes_out() -> None:
    def work(backend: Backend, stopped: Callable[[], bool]) -> None:
        raise ValueError("no")

    job = Job(work)
    on_another_thread(job).join(20)

    with pytest.raises(ValueError, match="no"):
        job.wait()
