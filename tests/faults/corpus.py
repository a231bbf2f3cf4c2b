"""Every hostile checkpoint, converted the real way in a process of its own.

    python -m tests.faults.corpus FOLDER [--open-allow-list]

Prints a JSON report: how each case was refused, what ran meanwhile as Python's audit
events tell, what was imported from the checkpoint, the peak memory of each case. With
`--open-allow-list` the reader of pickles is broken on purpose: it calls whatever a
pickle names, which the report then must show.
"""

from __future__ import annotations

import importlib
import json
import os
import resource
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tests.converters.checkpoints import write_checkpoint
from tests.faults.archives import hostile_archives, torch_zip
from tests.faults.headers import hostile_safetensors
from tests.faults.memory import forget_peak, peak_memory
from tests.faults.pickles import Trap, malicious_pickles
from tests.faults.side_files import (
    ADDED,
    SETTINGS,
    Spoilt,
    hostile_configs,
    hostile_indexes,
    hostile_settings,
    hostile_vocabularies,
)
from tests.faults.small import SMALL
from wizard_edge.errors import WizardEdgeError
from wizard_edge_converters import pickle_values
from wizard_edge_converters.options import ConvertOptions
from wizard_edge_converters.pipeline import convert

ADDRESS_SPACE = 1 << 30
OPTIONS = ConvertOptions(quants=("F16",), threads=1)
# Files of a repository that a program with trust_remote_code would run, and modules
# that a careless one would find before its own.
PROGRAMS = (
    *("modeling_llama.py", "configuration_llama.py", "tokenization_llama.py"),
    *("tokenizer.py", "numpy.py", "sentencepiece.py", "torch.py", "sitecustomize.py"),
)
# Cases that do harm at once when a pickle may call.
LIVE = (
    "pickle: os.system by reduce",
    "pickle: builtins.exec by reduce",
    "pickle: a connection",
)
_NEVER = (
    *("os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork", "subprocess."),
    *("socket.", "exec", "compile", "import", "pickle.", "marshal.", "ctypes.dlopen"),
    *("code.__new__", "builtins.input", "shutil.rmtree", "webbrowser.", "urllib."),
)


@dataclass(frozen=True, slots=True)
class Case:
    """One spoilt file of one of the base checkpoints."""

    name: str
    base: str
    spoilt: Spoilt


@dataclass(frozen=True, slots=True)
class Refusal:
    """How a case ended; `error` None where it was converted.

    `memory` is the most that was resident meanwhile, less what was before, in bytes.
    """

    error: str | None
    code: int
    message: str
    seconds: float
    memory: int
    changed: bool


def all_cases(trap: Trap, bases: Path) -> Iterator[Case]:
    """Build every case, over the base checkpoints that `write_bases` wrote."""
    single, tensors = "pytorch_model.bin", "model.safetensors"
    for name, data in malicious_pickles(trap).items():
        # A dict of nothing is a good pickle: then the tensors are what is missing.
        said = "is missing" if name == "long binput 2^31" else single
        yield Case(f"pickle: {name}", "bin", Spoilt(single, torch_zip(data), said))
    for name, data in hostile_archives().items():
        yield Case(f"zip: {name}", "bin", Spoilt(single, data, single))
    for name, data in hostile_safetensors().items():
        yield Case(f"safetensors: {name}", "safetensors", Spoilt(tensors, data))
    config = json.loads((bases / "safetensors" / "config.json").read_text())
    index = json.loads((bases / "shards" / f"{single}.index.json").read_text())
    for group, base in (
        (hostile_configs(config), "safetensors"),
        (hostile_settings(), "safetensors"),
        (hostile_vocabularies(), "vocabulary"),
        (hostile_indexes(index["weight_map"]), "shards"),
    ):
        for name, spoilt in group.items():
            yield Case(name, base, spoilt)


def write_bases(folder: Path, trap: Trap) -> None:
    """Write the good checkpoints that cases spoil, with programs lying in them."""
    write_checkpoint(folder / "bin", SMALL, form="bin")
    write_checkpoint(folder / "shards", SMALL, form="bin", shards=2)
    write_checkpoint(folder / "safetensors", SMALL)
    # Without it, the piece behind the last good one counts.
    write_checkpoint(folder / "vocabulary", SMALL)
    (folder / "vocabulary" / ADDED).unlink()
    for base in ("bin", "shards", "safetensors", "vocabulary"):
        add_programs(folder / base, trap)


def add_programs(checkpoint: Path, trap: Trap) -> None:
    """Put programs into a checkpoint, and let its JSON files ask for them."""
    for name in PROGRAMS:
        (checkpoint / name).write_text(f"open({trap.canary!r}, 'w')\n")
    wanted = {
        "AutoConfig": "configuration_llama.LlamaConfig",
        "AutoModelForCausalLM": "modeling_llama.LlamaForCausalLM",
        "AutoTokenizer": ["tokenization_llama.LlamaTokenizer", None],
    }
    for name in ("config.json", SETTINGS):
        path = checkpoint / name
        values = json.loads(path.read_text())
        values |= {"auto_map": wanted, "trust_remote_code": True}
        path.write_text(json.dumps(values))


def run_case(case: Case, bases: Path, output: Path) -> Refusal:
    """Convert a base with one file spoilt, and put the good file back."""
    source = bases / case.base
    path = source / case.spoilt.file
    good = path.read_bytes() if path.exists() else None
    # A new file each time: rewriting one makes ext4 wait for the disk.
    path.unlink(missing_ok=True)
    path.write_bytes(case.spoilt.data)
    before = listing(source), listing(output.parent)
    resident = forget_peak()
    begun = time.process_time()
    error: BaseException | None = None
    try:
        convert(source, [output], OPTIONS)
    except Exception as err:  # noqa: BLE001 - what escapes is what is asked here
        error = err
    seconds = time.process_time() - begun
    memory = peak_memory() - resident
    changed = (listing(source), listing(output.parent)) != before
    output.unlink(missing_ok=True)
    path.unlink()
    if good is not None:
        path.write_bytes(good)
    code = error.exit_code if isinstance(error, WizardEdgeError) else 1
    kind = None if error is None else type(error).__name__
    return Refusal(
        kind, code if error else 0, str(error or ""), seconds, memory, changed
    )


def listing(folder: Path) -> list[tuple[str, int]]:
    """List the files of a folder with their sizes."""
    with os.scandir(folder) as entries:
        return sorted((entry.name, entry.stat().st_size) for entry in entries)


class Watch:
    """Notes audit events of this process that reading a file must not cause."""

    def __init__(self) -> None:
        self.events: list[str] = []
        self._armed = False
        sys.addaudithook(self._hear)

    @contextmanager
    def armed(self) -> Iterator[None]:
        self._armed = True
        try:
            yield
        finally:
            self._armed = False

    def _hear(self, event: str, arguments: tuple[object, ...]) -> None:
        if self._armed and event.startswith(_NEVER):
            self.events.append(f"{event} {arguments!r:.200}")


def open_allow_list() -> None:
    """Break the reader of pickles: it now calls whatever a pickle names."""

    class Everything(dict[tuple[str, str], Any]):
        def get(self, key: tuple[str, str], default: object = None) -> Any:
            module, attribute = key
            if module in ("os", "posix", "subprocess", "socket", "builtins"):
                found = getattr(importlib.import_module(module), attribute, None)
                if attribute in ("system", "exec", "eval", "create_connection"):
                    return lambda arguments: found and found(*arguments)
            return super().get(key, default)

    pickle_values._CALLS = Everything(pickle_values._CALLS)


def main(folder: Path, port: int, *, broken: bool) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE, ADDRESS_SPACE))
    trap = Trap(str(folder / "canary"), port)
    bases, output = folder / "bases", folder / "output" / "model.gguf"
    output.parent.mkdir()
    write_bases(bases, trap)
    # Whatever is imported late is imported now.
    convert(bases / "bin", [output], OPTIONS)
    convert(bases / "safetensors", [output], ConvertOptions(overwrite=True))
    output.unlink()
    if broken:
        open_allow_list()
    watch = Watch()
    refusals = {}
    said: dict[str, str] = {}
    harmless: list[str] = []
    for case in all_cases(trap, bases):
        if broken and case.base != "bin":
            break
        if broken and case.name not in LIVE:
            continue
        said[case.name] = case.spoilt.said or case.spoilt.file
        if case.spoilt.is_harmless:
            harmless.append(case.name)
        with watch.armed():
            refusals[case.name] = asdict(run_case(case, bases, output))
    imported = [
        name
        for name, module in sys.modules.items()
        if str(getattr(module, "__file__", "") or "").startswith(str(folder))
    ]
    report = {
        "refusals": refusals,
        "said": said,
        "harmless": harmless,
        "events": watch.events,
        "imported": imported,
    }
    print(json.dumps(report))


if __name__ == "__main__":
    main(
        Path(sys.argv[1]), int(sys.argv[2]), broken="--open-allow-list" in sys.argv[3:]
    )
