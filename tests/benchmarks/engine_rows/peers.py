"""llama.cpp's own programs: where they are, and one figure from each."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from tools.peers import BUILD
from wizard_edge.cli._huge_pages import VARIABLE as PAGES

# Names the folder, as for tests/reference.
VARIABLE = "LLAMA_CPP_BIN"


def find_program(name: str) -> Path:
    """Return where a program is.

    Raises: SystemExit, saying what to do, where it is not built.
    """
    folder = os.environ.get(VARIABLE, str(BUILD / "bin"))
    found = shutil.which(name, path=folder) or shutil.which(name)
    if found is None:
        raise SystemExit(
            f"error: {name} is neither in {folder} nor on PATH: make peers"
        )
    return Path(found).resolve()


def flash_word(*, flash: bool) -> str:
    return "on" if flash else "off"


def bench(
    model: Path,
    *,
    threads: int,
    flash: bool,
    prompt: int = 0,
    new: int = 0,
    depth: int = 0,
) -> float:
    """Return the tokens/s of one repetition of llama-bench, its warm-up apart."""
    [figures] = _json_lines(
        [
            *(find_program("llama-bench"), "-m", model, "-r", "1", "-o", "jsonl"),
            *("-t", str(threads), "-fa", flash_word(flash=flash)),
            *("-p", str(prompt), "-n", str(new), "-d", str(depth)),
        ]
    )
    return float(str(figures["avg_ts"]))


def batched_bench(
    model: Path,
    *,
    threads: int,
    flash: bool,
    sequences: int,
    prompt: int,
    new: int,
    context: int,
) -> float:
    """Return the tokens/s of llama-batched-bench, all sequences together.

    `context` is in tokens, of each sequence.
    """
    [figures] = _json_lines(
        [
            *(find_program("llama-batched-bench"), "-m", model),
            *("-t", str(threads), "-fa", flash_word(flash=flash)),
            *("-npp", str(prompt), "-ntg", str(new), "-npl", str(sequences)),
            *("-c", str(context * sequences), "--output-format", "jsonl"),
        ]
    )
    return float(str(figures["speed_tg"]))


def completion(model: Path, text: str, *, threads: int, flash: bool) -> list[str]:
    """Return the command by which llama-completion answers with one token."""
    return [
        *(str(find_program("llama-completion")), "-m", str(model), "-p", text),
        *("-n", "1", "-no-cnv", "-t", str(threads)),
        *("-fa", flash_word(flash=flash)),
    ]


def environment() -> dict[str, str]:
    """Return the environment as a user has it: only our CLI asks for large pages."""
    return {name: text for name, text in os.environ.items() if name != PAGES}


def _json_lines(command: Sequence[str | Path]) -> list[dict[str, object]]:
    done = subprocess.run(
        command,
        check=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=environment(),
    )
    lines = (line.strip() for line in done.stdout.splitlines())
    return [json.loads(line) for line in lines if line.startswith("{")]
