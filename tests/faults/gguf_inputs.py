"""How many spoilt GGUF headers the validator survives, and llama.cpp after it.

    python -m tests.faults.gguf_inputs [--full] [--seed N] [--jobs N]

G1 gives mutated headers, every prefix of two small files and one bad file for each
rule to the validator, in processes with little address space. A violation is an error
that is not ours, more than 0.1 s of processor time or 64 MiB, a bad file that was
accepted, or an accepted one that contradicts itself. G2 has the real llama.cpp load
what was accepted and run it for some tokens, in a child; a violation is a signal, and
the file is told. Files count once, however often the dice make them.

Every case follows from seed and number: `--only G2 --first 1234 --count 1` repeats
one. `--break RULE` takes a rule out of the validator, which has to show.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from random import Random
from types import FrameType

from tests.child import ROOT, environment
from tests.faults.memory import forget_peak, peak_memory
from tests.gguf_damage import BAD, mutated
from tests.gguf_files import small_llama, small_starcoder
from wizard_edge import gguf, gguf_rules, gguf_vocabulary
from wizard_edge.errors import Corrupt
from wizard_edge.gguf_rules import (
    UnsupportedArchitecture,
    UnsupportedTokenizer,
    read_valid,
)

FULL, QUICK = 100_000, 2_000
LOADED_FULL, LOADED_QUICK = 10_000, 100
CHUNK = 5_000
# Of the beginnings of a file, every so many in the quick campaign.
STEP = 16
MOST_SECONDS = 0.1
MOST_MEMORY = 64 << 20
# With Python and its libraries; a wild allocation ends in MemoryError.
ADDRESS_SPACE = 512 << 20
# After so much processor time a case is ended.
_HANG_S = 5.0
_SHOWN = 5
_ALLOWED = (Corrupt, UnsupportedArchitecture, UnsupportedTokenizer)


class Hang(Exception):
    """A case took too long to wait for its end."""


@dataclass(slots=True)
class Tally:
    """What some cases came to; `memory` in bytes more than at rest."""

    cases: int = 0
    by_hand: int = 0
    prefixes: int = 0
    accepted: int = 0
    violations: int = 0
    slowest: float = 0.0
    memory: int = 0
    # The last case that was tried.
    last: int = -1
    shown: tuple[str, ...] = ()

    def add(self, other: Tally) -> None:
        self.cases += other.cases
        self.by_hand += other.by_hand
        self.prefixes += other.prefixes
        self.accepted += other.accepted
        self.violations += other.violations
        self.slowest = max(self.slowest, other.slowest)
        self.memory = max(self.memory, other.memory)
        self.last = max(self.last, other.last)
        self.shown = (*self.shown, *other.shown)[:_SHOWN]

    def blame(self, text: str) -> None:
        self.violations += 1
        self.shown = (*self.shown, text)[:_SHOWN]


# Cases ----------------------------------------------------------------------------


def case(seed: int, number: int) -> bytes:
    """Return the mutated file that a seed and a number stand for."""
    return mutated(Random(f"gguf {seed} {number}"))


def bad_files() -> Iterator[tuple[str, bytes]]:
    """Yield a file for each rule that it breaks."""
    for name, (change, _) in BAD.items():
        file = small_llama()
        change(file)
        yield name, file.build()


def prefixes(step: int) -> Iterator[tuple[str, bytes]]:
    """Yield the beginnings of two small files, the whole ones left out."""
    for name, file in (("llama", small_llama()), ("starcoder", small_starcoder())):
        data = file.build()
        for size in range(0, len(data), step):
            yield f"{size} bytes of {name}", data[:size]


def contradiction(path: Path) -> str | None:
    """Say what an accepted header has that cannot be, judged from the file anew."""
    try:
        return _contradiction(path)
    except Corrupt as err:
        return err.message


def _contradiction(path: Path) -> str | None:
    header = gguf.read_header(path)
    size = path.stat().st_size
    end = header.data_offset
    for tensor in header.tensors:
        begin = header.data_offset + tensor.offset
        if begin % 32 or begin < end or begin + tensor.size > size:
            return f"tensor {tensor.name!r} lies wrong"
        end = begin + tensor.size
    if size - end >= header.alignment:
        return "bytes after the last tensor"
    tokens = gguf.read_strings(header, "tokenizer.ggml.tokens")
    if len({token for token in tokens if token}) != sum(map(bool, tokens)):
        return "the same token twice"
    for key in ("bos_token_id", "eos_token_id", "unknown_token_id"):
        if (header.integer(f"tokenizer.ggml.{key}") or 0) >= len(tokens):
            return f"{key} is none of the tokens"
    blocks = header.block_count
    return None if blocks and 0 < blocks <= 512 else "no blocks, or too many"


# G1: the validator ----------------------------------------------------------------


def judge_all(seed: int, first: int, count: int, *, step: int) -> Tally:
    """Give cases to the validator in this process.

    With a `step` also those made by hand, and beginnings that differ by so many bytes.
    """
    signal.signal(signal.SIGVTALRM, _hung)
    tally = Tally()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "m.gguf"
        with file.open("wb", buffering=0) as out:
            judge = Judge(file, out.fileno(), tally)
            # Whatever is imported late is imported now.
            judge(small_llama().build())
            resident = forget_peak()
            for number in range(first, first + count):
                tally.cases += 1
                tally.accepted += judge(case(seed, number), f"case {number}")
            if step:
                for name, data in bad_files():
                    tally.by_hand += 1
                    if judge(data, name):
                        tally.blame(f"{name}: accepted")
                for name, data in prefixes(step):
                    tally.prefixes += 1
                    if judge(data, name):
                        tally.blame(f"{name}: accepted")
            tally.memory = peak_memory() - resident
    if tally.memory > MOST_MEMORY:
        tally.blame(f"cases from {first} on took {tally.memory} bytes of memory")
    return tally


@dataclass(slots=True)
class Judge:
    """Writes one file again and again, and has it judged.

    One open file, since a new one each time costs three times as long.
    """

    path: Path
    descriptor: int
    tally: Tally

    def __call__(self, data: bytes, title: str = "at rest") -> bool:
        """Return whether it was accepted; what is wrong goes to the tally."""
        write(self.descriptor, data)
        accepted, begun = False, time.process_time()
        signal.setitimer(signal.ITIMER_VIRTUAL, _HANG_S)
        try:
            read_valid(self.path)
            accepted = True
        except _ALLOWED:
            pass
        except Exception as err:  # noqa: BLE001 - what escapes is what is asked here
            self.tally.blame(f"{title}: {type(err).__name__}: {err!s:.200}")
        finally:
            signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        seconds = time.process_time() - begun
        self.tally.slowest = max(self.tally.slowest, seconds)
        if seconds > MOST_SECONDS:
            self.tally.blame(f"{title}: took {seconds:.2f} s")
        if accepted and (problem := contradiction(self.path)):
            self.tally.blame(f"{title}: accepted, but {problem}")
        return accepted


def write(descriptor: int, data: bytes) -> None:
    """Make these bytes the content of an open file."""
    os.pwrite(descriptor, data, 0)
    os.ftruncate(descriptor, len(data))


def _hung(number: int, frame: FrameType | None) -> None:
    raise Hang(f"still at it after {_HANG_S:.0f} s")


# G2: llama.cpp after the validator --------------------------------------------------

# Loads each file named on standard input, makes a context, tokenizes and decodes;
# says `begin` before and how it ended after.
LOADER = """
import ctypes, sys, llama_cpp as l
quiet = l.llama_log_callback(lambda level, text, data: None)
l.llama_log_set(quiet, ctypes.c_void_p())
text = "ab \\u00e9 \\u6f22\\n".encode()
for line in sys.stdin:
    path = line.rstrip("\\n").encode()
    model = l.llama_model_load_from_file(path, l.llama_model_default_params())
    said = "refused"
    if model:
        vocab = l.llama_model_get_vocab(model)
        ids = (l.llama_token * 64)()
        count = l.llama_tokenize(vocab, text, len(text), ids, 64, True, True)
        params = l.llama_context_default_params()
        params.n_ctx, params.n_threads, params.n_threads_batch = 32, 1, 1
        context = l.llama_init_from_model(model, params)
        said = "no context"
        if context:
            batch = l.llama_batch_get_one(ids, max(1, min(count, 31)))
            said = f"decoded {l.llama_decode(context, batch)}"
            l.llama_free(context)
        l.llama_model_free(model)
    print(said, flush=True)
"""


class Loader:
    """A child with llama.cpp in it, which may die."""

    def __init__(self) -> None:
        self._process = self._started()

    def load(self, path: Path) -> str:
        """Return what became of a file: words of the child, or its end."""
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(f"{path}\n")
        process.stdin.flush()
        said = process.stdout.readline().strip()
        if said:
            return said
        code = process.wait()
        self._process = self._started()
        return f"signal {-code}" if code < 0 else f"exit code {code}"

    def close(self) -> None:
        self._process.communicate()

    @staticmethod
    def _started() -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-c", LOADER],
            env=environment(GGML_NO_BACKTRACE="1"),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )


def load_all(
    seed: int, first: int, wanted: int, *, by_hand: bool, most: int = 0
) -> Tally:
    """Have llama.cpp run so many files that the validator accepts, all different.

    `most` bounds the cases that are tried.
    """
    tally, seen = Tally(), set[bytes]()
    loader = Loader()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "m.gguf"
        for title, data in _candidates(seed, first, most or 1 << 30, tally, by_hand):
            digest = hashlib.sha256(data).digest()
            if digest in seen:
                continue
            seen.add(digest)
            # Not written over: what the child maps must not change under it.
            file.unlink(missing_ok=True)
            file.write_bytes(data)
            try:
                read_valid(file)
            except _ALLOWED:
                continue
            tally.accepted += 1
            said = loader.load(file)
            if not said.startswith(("decoded", "refused", "no context")):
                tally.blame(f"{title}: {said}")
            if tally.accepted >= wanted:
                break
    loader.close()
    return tally


def _candidates(
    seed: int, first: int, most: int, tally: Tally, by_hand: bool
) -> Iterator[tuple[str, bytes]]:
    if by_hand:
        for name, data in bad_files():
            tally.by_hand += 1
            yield name, data
    for number in range(first, first + most):
        tally.cases += 1
        tally.last = number
        yield f"case {number}", case(seed, number)


# Rules taken out on purpose ---------------------------------------------------------


def _nothing(*arguments: object, **others: object) -> None:
    """Find nothing wrong."""


def _without(module: object, name: str) -> Callable[[], None]:
    return lambda: setattr(module, name, _nothing)


BREAKS: Mapping[str, Callable[[], None]] = {
    "layout": _without(gguf_rules, "_check_layout"),
    "floats": _without(gguf_rules, "_check_floats"),
    "heads": _without(gguf_rules, "_check_heads"),
    "tensors": _without(gguf_rules, "_check_tensors"),
    "embedding": _without(gguf_rules, "_check_embedding"),
    "vocabulary arrays": _without(gguf_vocabulary, "_check_arrays"),
    "special tokens": _without(gguf_vocabulary, "_check_special"),
    "duplicate tokens": _without(gguf_vocabulary, "_check_tokens"),
}


# Running ----------------------------------------------------------------------------


def _apart(words: list[str], first: int, count: int, step: int) -> Tally:
    """Run a chunk in a process of its own, which may die."""
    chunk = ["--first", str(first), "--count", str(count), "--report"]
    # What is made by hand goes with the first.
    chunk += ["--step", str(0 if first else step)]
    done = subprocess.run(
        [sys.executable, "-m", "tests.faults.gguf_inputs", *words, *chunk],
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode == 0:
        values = json.loads(done.stdout)
        return Tally(**values | {"shown": tuple(values["shown"])})
    tally = Tally(cases=count)
    tally.blame(
        f"cases from {first} on: the process ended with {done.returncode}, "
        f"last saying {done.stderr[-300:]!r}"
    )
    return tally


def _validator(options: argparse.Namespace) -> Tally:
    total, tally = FULL if options.full else QUICK, Tally()
    words = ["--only", "G1", "--seed", str(options.seed), *_broken(options)]
    begun = time.monotonic()
    chunks = [(n, min(CHUNK, total - n)) for n in range(0, total, CHUNK)]
    with ThreadPoolExecutor(options.jobs) as pool:
        step = 1 if options.full else STEP
        for part in pool.map(lambda c: _apart(words, c[0], c[1], step), chunks):
            tally.add(part)
    print(
        f"G1 validator: {tally.cases} mutations, {tally.prefixes} prefixes, "
        f"{tally.by_hand} by hand, {tally.violations} violations, "
        f"{tally.accepted} accepted, seed {options.seed}, "
        f"{time.monotonic() - begun:.0f} s, slowest {1000 * tally.slowest:.1f} ms, "
        f"{tally.memory / (1 << 20):.1f} MiB more than at rest",
        flush=True,
    )
    return tally


def _llama(options: argparse.Namespace) -> Tally:
    wanted, tally = LOADED_FULL if options.full else LOADED_QUICK, Tally()
    words = ["--only", "G2", "--seed", str(options.seed), *_broken(options)]
    share = -(-wanted // options.jobs)
    begun = time.monotonic()
    # Far apart, so that no case is tried twice.
    starts = [number * 10_000_000 for number in range(options.jobs)]
    with ThreadPoolExecutor(options.jobs) as pool:
        for part in pool.map(lambda start: _apart(words, start, share, 1), starts):
            tally.add(part)
    print(
        f"G2 llama.cpp: {tally.accepted} accepted files run, of {tally.cases} "
        f"mutations and {tally.by_hand} by hand, {tally.violations} violations, "
        f"seed {options.seed}, {time.monotonic() - begun:.0f} s",
        flush=True,
    )
    return tally


def _broken(options: argparse.Namespace) -> list[str]:
    return ["--break", options.broken] if options.broken else []


FIGURES: Mapping[str, Callable[[argparse.Namespace], Tally]] = {
    "G1": _validator,
    "G2": _llama,
}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults.gguf_inputs")
    parser.add_argument("--full", action="store_true")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--only", choices=FIGURES)
    parser.add_argument("--first", type=int)
    parser.add_argument("--count", type=int, default=1)
    parser.add_argument("--step", type=int, default=0)
    parser.add_argument("--break", dest="broken", choices=BREAKS)
    parser.add_argument("--report", action="store_true")
    options = parser.parse_args()
    if options.first is None:
        names = [options.only] if options.only else list(FIGURES)
        failed = False
        for name in names:
            tally = FIGURES[name](options)
            failed = failed or tally.violations > 0
            for text in tally.shown:
                print(f"  {text}", flush=True)
        return 1 if failed else 0
    if options.broken:
        BREAKS[options.broken]()
    if options.only == "G2":
        most = 0 if options.report else options.count
        tally = load_all(
            *(options.seed, options.first, options.count),
            by_hand=options.step > 0,
            most=most,
        )
    else:
        resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE, ADDRESS_SPACE))
        tally = judge_all(options.seed, options.first, options.count, step=options.step)
    report = {name: getattr(tally, name) for name in Tally.__slots__}
    print(json.dumps(report, indent=None if options.report else 2))
    return 1 if tally.violations and not options.report else 0


if __name__ == "__main__":
    sys.exit(main())
