"""A long decode that Ctrl-C can end in its middle.

Python hears a signal on the main thread only, and there only between two steps of
its own, so not while native code runs. The decode therefore runs on another thread,
and llama.cpp asks at every step of its graph whether to go on. That is too much
asking where one token is decoded, and nothing where hundreds are.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from types import ModuleType

# A pointer of the binding, whose types are not annotated for checkers.
from typing import Any

Work = Callable[[], None]

_LISTENS_EVERY_S = 0.2


@contextmanager
def interruptible(library: ModuleType, ctx: Any) -> Iterator[Callable[[Work], None]]:
    """Lend a function that runs work on `ctx`, a `llama_context`, until interrupted.

    What interrupts, such as KeyboardInterrupt, is raised when the work has ended.
    """
    stopped = threading.Event()
    callback = library.ggml_abort_callback(lambda user_data: stopped.is_set())
    library.llama_set_abort_callback(ctx, callback, None)
    pool = ThreadPoolExecutor(max_workers=1)

    def run(work: Work) -> None:
        running = pool.submit(work)
        while not running.done():
            # Windows wakes no thread that waits without an end.
            wait([running], timeout=_LISTENS_EVERY_S)
        running.result()

    try:
        # A pool forgets a thread during whose start it is interrupted.
        pool.submit(lambda: None).result()
        yield run
    except BaseException:
        stopped.set()
        raise
    finally:
        _outlast(pool)
        nothing = library.ggml_abort_callback()
        library.llama_set_abort_callback(ctx, nothing, None)


def _outlast(pool: ThreadPoolExecutor) -> None:
    """Wait for work that was told to end, however often Ctrl-C is pressed."""
    while True:
        with suppress(KeyboardInterrupt):
            pool.shutdown()
            return
