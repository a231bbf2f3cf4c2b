"""How many spoilt inputs the converter survives: the campaigns M4 to M7.

    python -m tests.faults.converter_inputs [--full] [--seed N] [--jobs N]

Prints a line for each figure and ends with 1 when one has a violation. A violation
is an error that is not ours, something that ran, more than 2 s or 256 MB, a process
that died, or an input that was accepted although it contradicts itself. Every case
follows from figure, seed and number: `--only M5 --first 1234 --count 1` repeats one.
`--break NAME` breaks the reader on purpose, which has to show.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import json
import logging
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import sentencepiece

from tests.converters.checkpoints import (
    Shape,
    safetensors_bytes,
    sentencepiece_model,
    tensor_pickle,
    text,
    write_checkpoint,
)
from tests.faults.archives import (
    Entry,
    hostile_archives,
    torch_zip,
    zip_bytes,
)
from tests.faults.corpus import ADDRESS_SPACE, OPTIONS, Watch, open_allow_list
from tests.faults.headers import hostile_safetensors
from tests.faults.memory import Bytes, MemoryFolder, forget_peak, peak_memory
from tests.faults.mutations import (
    mutate_bytes,
    mutate_fields,
    mutate_json,
    random_program,
)
from tests.faults.pickles import Trap, malicious_pickles
from tests.faults.side_files import (
    Spoilt,
    hostile_configs,
    hostile_indexes,
    hostile_settings,
    hostile_vocabularies,
)
from tests.faults.small import SMALL
from wizard_edge.errors import CannotConvert, Corrupt, MissingFile, WizardEdgeError
from wizard_edge_converters import safetensors, source_files
from wizard_edge_converters.checkpoint import StoredTensor, WeightFile
from wizard_edge_converters.pipeline import plan_checkpoint
from wizard_edge_converters.safetensors import SafetensorsFile
from wizard_edge_converters.torch_zip import TorchFile
from wizard_edge_converters.weights import open_weights

MOST_SECONDS = 2.0
# With the 60 MB that a process takes at rest it stays below 256 MB.
MOST_MEMORY = 196 << 20
_SHOWN = 5
_TRAP = Trap("/nonexistent/canary", 1)


class Contradiction(Exception):
    """An input was accepted that should not have been."""


@dataclass(frozen=True, slots=True)
class Figure:
    """A campaign: how many cases, how one is made and read, what must be refused."""

    title: str
    full: int
    quick: int
    chunk: int
    attempt: Callable[[Random], None]
    by_hand: Callable[[], Mapping[str, Callable[[], None]]]
    # What no case may be refused with is an error of another kind.
    allowed: tuple[type[WizardEdgeError], ...] = (Corrupt, CannotConvert)


@dataclass(slots=True)
class Tally:
    """What some cases of a figure came to."""

    cases: int = 0
    by_hand: int = 0
    accepted: int = 0
    violations: int = 0
    slowest: float = 0.0
    memory: int = 0
    shown: tuple[str, ...] = ()

    def add(self, other: Tally) -> None:
        self.cases += other.cases
        self.by_hand += other.by_hand
        self.accepted += other.accepted
        self.violations += other.violations
        self.slowest = max(self.slowest, other.slowest)
        self.memory = max(self.memory, other.memory)
        self.shown = (*self.shown, *other.shown)[:_SHOWN]

    def blame(self, text: str) -> None:
        self.violations += 1
        self.shown = (*self.shown, text)[:_SHOWN]


# M4, M5: weight files -------------------------------------------------------------


def _read_weights(file: WeightFile, size: int) -> None:
    """Read all of a weight file; see that its tensors lie in it."""
    with closing(file):
        for tensor in file.tensors:
            _check_tensor(tensor, size)
            if len(file.read(tensor, 0, tensor.elements)) != tensor.size:
                raise Contradiction(f"{tensor.name!r} gave another number of bytes")
        file.finish()


def _check_tensor(tensor: StoredTensor, size: int) -> None:
    if tensor.offset < 0 or any(n < 0 for n in tensor.shape) or tensor.size > size:
        raise Contradiction(f"{tensor.name!r} does not lie in the file")


def _read_safetensors(data: bytes) -> None:
    file = SafetensorsFile(Bytes("model.safetensors", data), "model.safetensors")
    end = None
    for tensor in sorted(file.tensors, key=lambda t: (t.offset, t.size)):
        if end is not None and tensor.offset != end:
            raise Contradiction(f"{tensor.name!r} overlaps or leaves a gap")
        end = tensor.offset + tensor.size
    if end is not None and end != len(data):
        raise Contradiction("the tensors do not end where the file does")
    _read_weights(file, len(data))


def _read_torch(data: bytes) -> None:
    file = TorchFile(Bytes("pytorch_model.bin", data), "pytorch_model.bin")
    _read_weights(file, len(data))


_HEADER = {
    "__metadata__": {"format": "pt"},
    "a": {"dtype": "F16", "shape": [2, 3], "data_offsets": [0, 12]},
    "b": {"dtype": "F32", "shape": [4], "data_offsets": [12, 28]},
    "c": {"dtype": "BF16", "shape": [1, 1, 2], "data_offsets": [28, 32]},
}


def _attempt_safetensors(random: Random) -> None:
    data = bytes(32)
    if random.random() < 0.7:
        header = mutate_json(random, _HEADER)
        whole = len(header).to_bytes(8, "little") + header + data
    else:
        whole = mutate_bytes(random, safetensors_bytes(_HEADER, data))
    _read_safetensors(whole)


def _tiny_pickle() -> bytes:
    first = text("a") + tensor_pickle("0", "F16", (2, 3))
    second = text("b") + tensor_pickle("1", "F32", (4,))
    return b"\x80\x02}q\x00(" + first + second + b"u."


def _tiny_zip(pickled: bytes) -> bytes:
    return zip_bytes(
        [
            Entry(b"x/data.pkl", pickled),
            Entry(b"x/byteorder", b"little"),
            Entry(b"x/data/0", bytes(12)),
            Entry(b"x/data/1", bytes(16)),
        ]
    )


def _attempt_torch(random: Random) -> None:
    draw = random.random()
    if draw < 0.4:
        # In a zip with the right sum, else no spoilt pickle would ever be read.
        data = _tiny_zip(mutate_bytes(random, _tiny_pickle()))
    elif draw < 0.6:
        data = _tiny_zip(random_program(random))
    else:
        data = mutate_bytes(random, _tiny_zip(_tiny_pickle()))
    _read_torch(data)


def _hostile_safetensors() -> dict[str, Callable[[], None]]:
    return {
        name: functools.partial(_read_safetensors, data)
        # What is wrong with a name only a model's list of tensors tells.
        for name, data in hostile_safetensors().items()
        if not name.startswith("a name ")
    }


def _hostile_torch() -> dict[str, Callable[[], None]]:
    pickles = malicious_pickles(_TRAP)
    # An empty dict, written in a strange way.
    del pickles["long binput 2^31"]
    files = {name: torch_zip(data) for name, data in pickles.items()}
    files |= hostile_archives()
    return {name: functools.partial(_read_torch, data) for name, data in files.items()}


# M6, M7: side files ---------------------------------------------------------------


def _plan(files: Mapping[str, bytes]) -> None:
    """Plan the conversion of a checkpoint in memory."""
    with open_weights(MemoryFolder(files)) as checkpoint:
        plan = plan_checkpoint(checkpoint, "checkpoint", OPTIONS)
    if not 0 < plan.output_bytes < 1 << 20:
        raise Contradiction(f"{plan.output_bytes} bytes from a few thousand")


@functools.cache
def _small_files(*, bpe: bool = False) -> Mapping[str, bytes]:
    """Return the files of a small checkpoint, in shards with an index."""
    shape = _SMALL_BPE if bpe else SMALL
    with tempfile.TemporaryDirectory() as written:
        path = write_checkpoint(Path(written), shape, form="bin", shards=2)
        return {file.name: file.read_bytes() for file in path.iterdir()}


_JSON_FILES = (
    *("config.json", "config.json", "tokenizer_config.json", "added_tokens.json"),
    "pytorch_model.bin.index.json",
)
# Richer than those of the checkpoint, so that there is more to spoil.
_RICH: Mapping[str, Mapping[str, object]] = {
    "config.json": {
        "rope_scaling": {"type": "linear", "factor": 2.0},
        "rope_theta": 10000.0,
        "head_dim": 16,
        "quantization_config": None,
    },
    "tokenizer_config.json": {
        "add_bos_token": True,
        "add_eos_token": False,
        "add_prefix_space": None,
        "chat_template": "{{ messages[0].content }}",
        "added_tokens_decoder": {
            "0": {"content": "<unk>", "special": True},
            "322": {"content": "[PAD]", "special": False},
        },
    },
}


_SMALL_BPE = Shape(
    hidden=32,
    inner=64,
    layers=1,
    heads=2,
    kv_heads=1,
    vocabulary=303,
    family="starcoder",
    bpe="all",
)


def _attempt_json(random: Random) -> None:
    if random.random() < 0.4:
        _attempt_bpe(random)
        return
    files = dict(_small_files())
    name = random.choice(_JSON_FILES)
    value = json.loads(files[name]) | _RICH.get(name, {})
    files[name] = mutate_json(random, value)
    _plan(files)


def _attempt_bpe(random: Random) -> None:
    files = dict(_small_files(bpe=True))
    # Without tokenizer.json, vocab.json and merges.txt are read.
    if random.random() < 0.3:
        del files["tokenizer.json"]
    names = [name for name in files if name.endswith((".json", ".txt"))]
    name = random.choice(sorted(names))
    if name.endswith(".json"):
        files[name] = mutate_json(random, json.loads(files[name]))
    else:
        files[name] = mutate_bytes(random, files[name])
    _plan(files)


def _attempt_vocabulary(random: Random) -> None:
    files = dict(_small_files())
    # Without it, the piece behind the last good one counts.
    del files["added_tokens.json"]
    good = sentencepiece_model(SMALL.pieces)
    spoil = mutate_fields if random.random() < 0.6 else mutate_bytes
    files["tokenizer.model"] = spoil(random, good)
    _plan(files)


def _hostile_json() -> dict[str, Callable[[], None]]:
    config = json.loads(_small_files()["config.json"])
    index = json.loads(_small_files()["pytorch_model.bin.index.json"])
    return _spoilt(
        hostile_configs(config)
        | hostile_settings()
        | hostile_indexes(index["weight_map"])
    )


def _hostile_vocabularies() -> dict[str, Callable[[], None]]:
    return _spoilt(
        {
            name: spoilt
            for name, spoilt in hostile_vocabularies().items()
            if not spoilt.is_harmless
        },
        without="added_tokens.json",
    )


def _spoilt(
    cases: Mapping[str, Spoilt], without: str = ""
) -> dict[str, Callable[[], None]]:
    good = {name: data for name, data in _small_files().items() if name != without}
    return {
        title: functools.partial(_plan, good | {spoilt.file: spoilt.data})
        for title, spoilt in cases.items()
    }


FIGURES: Mapping[str, Figure] = {
    "M4": Figure(
        "safetensors",
        *(200_000, 1_500, 10_000),
        _attempt_safetensors,
        _hostile_safetensors,
    ),
    "M5": Figure(
        "zips and pickles", *(100_000, 1_000, 5_000), _attempt_torch, _hostile_torch
    ),
    "M6": Figure(
        "config, tokenizer and index JSON",
        *(50_000, 200, 2_500),
        _attempt_json,
        _hostile_json,
        (Corrupt, CannotConvert, MissingFile),
    ),
    "M7": Figure(
        "tokenizer.model",
        *(20_000, 100, 1_000),
        _attempt_vocabulary,
        _hostile_vocabularies,
    ),
}


# Ways to break the reader ---------------------------------------------------------


def _break_overlap() -> None:
    fail = safetensors._fail

    def forgive(file: source_files.ByteSource, tensor: str, problem: str) -> None:
        if "overlaps" not in problem:
            fail(file, tensor, problem)

    safetensors._fail = forgive  # type: ignore[assignment]


def _break_depth() -> None:
    source_files._is_shallow = lambda value: True


def _break_translation() -> None:
    # Any: the package has no annotations.
    processor: Any = sentencepiece.SentencePieceProcessor
    load = processor.LoadFromSerializedProto

    def untranslated(self: object, data: bytes) -> None:
        try:
            load(self, data)
        except RuntimeError as err:
            raise TypeError(str(err)) from err

    processor.LoadFromSerializedProto = untranslated


BREAKS: Mapping[str, Callable[[], None]] = {
    "allow-list": open_allow_list,
    "overlap": _break_overlap,
    "depth": _break_depth,
    "translation": _break_translation,
}


# Running --------------------------------------------------------------------------


def run_chunk(
    name: str, seed: int, first: int, count: int, *, by_hand_count: int = 0
) -> Tally:
    """Run some cases of a figure in this process, and some of the hand-made."""
    figure, tally, watch = FIGURES[name], Tally(), Watch()
    # Whatever is imported late is imported now, before it counts as something run.
    _plan(_small_files())
    _plan(_small_files(bpe=True))
    by_hand = dict(itertools.islice(figure.by_hand().items(), by_hand_count))
    resident = forget_peak()
    for title, attempt in by_hand.items():
        tally.by_hand += 1
        if _judge(figure, title, attempt, watch, tally):
            tally.blame(f"{title}: accepted")
    for case in range(first, first + count):
        tally.cases += 1
        random = Random(f"{name} {seed} {case}")
        attempt = functools.partial(figure.attempt, random)
        tally.accepted += _judge(figure, f"case {case}", attempt, watch, tally)
    tally.memory = peak_memory() - resident
    if tally.memory > MOST_MEMORY:
        tally.blame(f"cases from {first} on took {tally.memory} bytes of memory")
    return tally


def _judge(
    figure: Figure, title: str, attempt: Callable[[], None], watch: Watch, tally: Tally
) -> bool:
    """Whether a case was accepted; what is wrong goes to the tally."""
    known = len(watch.events)
    accepted, begun = False, time.process_time()
    try:
        with watch.armed():
            attempt()
        accepted = True
    except figure.allowed:
        pass
    except Exception as err:  # noqa: BLE001 - what escapes is what is asked here
        tally.blame(f"{title}: {type(err).__name__}: {err!s:.200}")
    seconds = time.process_time() - begun
    tally.slowest = max(tally.slowest, seconds)
    if seconds > MOST_SECONDS:
        tally.blame(f"{title}: took {seconds:.1f} s")
    if len(watch.events) > known:
        tally.blame(f"{title}: ran {watch.events[known]}")
    return accepted


def _run_apart(words: list[str], name: str, first: int, count: int) -> Tally:
    """Run a chunk in a process of its own, which may die."""
    chunk = ["--only", name, "--first", str(first), "--count", str(count), "--report"]
    if first:
        chunk += ["--by-hand", "0"]
    done = subprocess.run(
        [sys.executable, "-m", "tests.faults.converter_inputs", *words, *chunk],
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


def _chunks(figure: Figure, total: int) -> Iterator[tuple[int, int]]:
    for first in range(0, total, figure.chunk):
        yield first, min(figure.chunk, total - first)


def _campaign(name: str, arguments: argparse.Namespace) -> Tally:
    figure, tally = FIGURES[name], Tally()
    total = figure.full if arguments.full else figure.quick
    words = ["--seed", str(arguments.seed)]
    # The quick tests have the hand-made ones in `tests.faults.corpus`.
    by_hand = 10_000 if arguments.full else 0
    if arguments.broken:
        words += ["--break", arguments.broken]
        by_hand = 60
    words += ["--by-hand", str(by_hand)]
    begun = time.monotonic()
    with ThreadPoolExecutor(arguments.jobs) as pool:
        for part in pool.map(
            lambda chunk: _run_apart(words, name, *chunk), _chunks(figure, total)
        ):
            tally.add(part)
    print(
        f"{name} {figure.title}: {tally.cases} mutations, {tally.by_hand} by hand, "
        f"{tally.violations} violations, {tally.accepted} accepted, "
        f"seed {arguments.seed}, {time.monotonic() - begun:.0f} s, "
        f"slowest {1000 * tally.slowest:.0f} ms, "
        f"{tally.memory >> 20} MiB more than at rest",
        flush=True,
    )
    for text_ in tally.shown:
        print(f"  {text_}", flush=True)
    return tally


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults.converter_inputs")
    parser.add_argument("--full", action="store_true")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--only", choices=FIGURES)
    parser.add_argument("--first", type=int)
    parser.add_argument("--count", type=int, default=1)
    parser.add_argument("--by-hand", type=int, default=0)
    parser.add_argument("--break", dest="broken", choices=BREAKS)
    parser.add_argument("--report", action="store_true")
    arguments = parser.parse_args()
    if arguments.first is None:
        names = [arguments.only] if arguments.only else list(FIGURES)
        found = [_campaign(name, arguments).violations for name in names]
        return 1 if any(found) else 0
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE, ADDRESS_SPACE))
    logging.disable()
    if arguments.broken:
        BREAKS[arguments.broken]()
    tally = run_chunk(
        arguments.only,
        arguments.seed,
        arguments.first,
        arguments.count,
        by_hand_count=arguments.by_hand,
    )
    report = {name: getattr(tally, name) for name in Tally.__slots__}
    print(json.dumps(report, indent=None if arguments.report else 2))
    return 1 if tally.violations and not arguments.report else 0


if __name__ == "__main__":
    sys.exit(main())
