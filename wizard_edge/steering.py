"""Keeps the threads of an engine what they should be, from step to step."""

from __future__ import annotations

from collections.abc import Callable

from wizard_edge.drift import Watch
from wizard_edge.governor import Governor
from wizard_edge.pace import Step

# Says with how many threads to generate, and to read prompts.
SetThreads = Callable[[int, int], None]


class Steering:
    """Hears of every step, and lets a governor say what the next one may use.

    For the engine's thread alone.
    """

    def __init__(
        self,
        governor: Governor,
        set_threads: SetThreads,
        *,
        threads: int,
        prompt_threads: int,
        watch: Watch | None = None,
    ) -> None:
        """Use `threads` and `prompt_threads` at most, which are what is used now.

        `watch` hears of the steps that were done with all of them.
        """
        self._governor = governor
        self._set_threads = set_threads
        self._watch = watch
        self._most = self._used = (threads, prompt_threads)
        governor.settle(max(self._most))

    def look(self) -> None:
        """See what others do before the first step."""
        self._governor.look()
        self._apply()

    def observe(self, step: Step) -> None:
        """Take note of a step, and set the threads of the next."""
        whole = self._used == self._most
        if step.rows == 1:
            self._governor.note(step.seconds)
        if whole and self._watch is not None:
            self._watch.note(step)
        self.look()

    def settle(self, threads: int, prompt_threads: int) -> None:
        """Use other numbers from now on. The watch ends: it was for those before."""
        self._most = (threads, prompt_threads)
        self._watch = None
        self._governor.settle(max(self._most))
        self._apply()

    def _apply(self) -> None:
        limit = self._governor.threads
        generate, prompt = self._most
        wanted = (min(generate, limit), min(prompt, limit))
        if wanted != self._used:
            self._set_threads(*wanted)
            self._used = wanted
