"""Many threads of one program at the engine at once: answers, crashes, memory.

    python -m tests.benchmarks.engine_rows.crowd MODEL.gguf [--threads N]

is the child process that does it, so that a crash is seen and its memory is its own;
it writes what it counted as JSON.
"""

from __future__ import annotations

import argparse
import json
import logging
import subprocess
import sys
import threading
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from queue import Empty, SimpleQueue
from random import Random

from tests.benchmarks.engine_rows.results import Result
from tests.benchmarks.engine_rows.setting import Setting
from tools.apprentice.script import conversations
from wizard_edge._llama.engine import LlamaEngine
from wizard_edge.engine import Chunk, LoadOptions, Sampling
from wizard_edge.prompt import begin, encode
from wizard_edge.templates import TEMPLATES

_logger = logging.getLogger(__name__)

CALLERS = 8
# Less than there are callers, so that some wait.
PARALLEL = 4
REQUESTS = 2_000
DISTINCT = 200
WARM_UP = 400
CANCELLED = 0.1
CONTEXT = 512
MOST_GROWTH = 10 * 10**6


@dataclass(frozen=True, slots=True)
class Question:
    """One request, and the tokens that answer it when nobody else asks."""

    prompt: list[int]
    sampling: Sampling
    answer: list[int]


@dataclass(frozen=True, slots=True)
class Counted:
    """What came of all requests; sizes in bytes, resident."""

    answered: int
    cancelled: int
    other: int
    failed: int
    warm: int
    end: int


def crowd(setting: Setting) -> list[Result]:
    """Ask 2,000 times from 8 threads, one in ten cancelled, under `deterministic`."""
    module = "tests.benchmarks.engine_rows.crowd"
    command = [sys.executable, "-m", module, str(setting.model)]
    done = subprocess.run(
        [*command, "--threads", str(setting.threads)],
        stdout=subprocess.PIPE,
        check=False,
    )
    if done.returncode != 0:
        text = f"the child ended with status {done.returncode}"
        figures: dict[str, object] = {"status": done.returncode}
        return [Result("crowd", setting.name, text, False, figures)]
    counted = Counted(**json.loads(done.stdout))
    growth = counted.end - counted.warm
    text = (
        f"{REQUESTS} requests of {CALLERS} threads: {counted.answered} answered, "
        f"{counted.cancelled} cancelled, {counted.other} other than alone, "
        f"{counted.failed} failed; {growth / 1e6:+.1f} MB after {WARM_UP}, at most "
        f"{MOST_GROWTH / 1e6:.0f}"
    )
    ok = counted.other == 0 and counted.failed == 0 and growth <= MOST_GROWTH
    return [Result("crowd", setting.name, text, ok, asdict(counted))]


class Crowd:
    """What the threads share."""

    def __init__(self, engine: LlamaEngine, questions: Sequence[Question]) -> None:
        self._engine = engine
        self._questions = questions
        self._waiting: SimpleQueue[int] = SimpleQueue()
        for number in range(REQUESTS):
            self._waiting.put(number)
        self._lock = threading.Lock()
        self._counts = dict.fromkeys(("answered", "cancelled", "other", "failed"), 0)
        self._done = 0
        self._warm = 0

    def run(self) -> Counted:
        """Let all threads ask until nothing is left."""
        callers = [threading.Thread(target=self._ask_all) for _ in range(CALLERS)]
        for caller in callers:
            caller.start()
        for caller in callers:
            caller.join()
        return Counted(warm=self._warm, end=resident(), **self._counts)

    def _ask_all(self) -> None:
        while True:
            try:
                number = self._waiting.get_nowait()
            except Empty:
                return
            try:
                outcome = self._ask(number)
            # The border of this thread: whatever goes wrong is counted.
            except Exception:
                _logger.exception("request %d failed", number)
                outcome = "failed"
            with self._lock:
                self._counts[outcome] += 1
                self._done += 1
                if self._done == WARM_UP:
                    self._warm = resident()

    def _ask(self, number: int) -> str:
        random = Random(number)
        question = random.choice(self._questions)
        if random.random() >= CANCELLED:
            chunks = self._engine.generate(question.prompt, question.sampling)
            same = tokens_of(chunks) == question.answer
            return "answered" if same else "other"
        after = random.randrange(len(question.answer))
        got = self._ask_in_part(question, after, says=random.random() < 0.5)
        return "cancelled" if got == question.answer[: len(got)] else "other"

    def _ask_in_part(self, question: Question, after: int, *, says: bool) -> list[int]:
        """Give an answer up after some tokens: by saying so, or by going away."""
        got: list[int] = []
        chunks = self._engine.generate(
            question.prompt,
            question.sampling,
            cancelled=lambda: says and len(got) >= after,
        )
        for chunk in chunks:
            if chunk.token is not None:
                got.append(chunk.token)
            if not says and len(got) >= after:
                chunks.close()
                break
        return got


def ask_alone(engine: LlamaEngine, count: int) -> list[Question]:
    """Make questions of the apprentice's own kind and answer each in turn."""
    random = Random(7)
    template = TEMPLATES["vicuna"]
    vocabulary = engine.vocabulary
    questions = []
    for number, said in enumerate(islice(conversations(random, 0.3), count)):
        opening = template.open(said.turns[0].user, system=None)
        prompt = begin(vocabulary) + encode(opening, vocabulary)
        # So hot that the last bits of the logits decide now and then.
        sampling = Sampling(
            temperature=2.0, seed=number, max_tokens=random.randint(8, 32)
        )
        answer = tokens_of(engine.generate(prompt, sampling))
        questions.append(Question(prompt, sampling, answer))
    return questions


def tokens_of(chunks: Iterable[Chunk]) -> list[int]:
    return [chunk.token for chunk in chunks if chunk.token is not None]


def resident() -> int:
    """Return the bytes this process has in memory now; Linux only."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) * 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    options = LoadOptions(
        context=CONTEXT,
        threads=arguments.threads,
        parallel=PARALLEL,
        deterministic=True,
    )
    with LlamaEngine(arguments.model, options) as engine:
        counted = Crowd(engine, ask_alone(engine, DISTINCT)).run()
    print(json.dumps(asdict(counted)))


if __name__ == "__main__":
    main()
