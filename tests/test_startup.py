"""What is imported to start: nothing heavy for --help, list and show."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.child import environment

HEAVY = {
    "gguf",
    "huggingface_hub",
    "llama_cpp",
    "numpy",
    "prompt_toolkit",
    "rich",
    "sentencepiece",
    "starlette",
    "uvicorn",
    "wizard_edge_converters",
}
# Runs the program, then writes the names of all modules into a file.
RECORD = """
import json, pathlib, sys
target = sys.argv.pop(1)
from wizard_edge.cli import main
try:
    main()
except SystemExit as exit:
    code = exit.code
pathlib.Path(target).write_text(json.dumps([code, sorted(sys.modules)]))
"""

Modules = Callable[..., set[str]]


@pytest.fixture
def modules(tmp_path: Path) -> Modules:
    """Return a function that runs a command and returns what was imported."""

    def run(*words: str, code: int = 0) -> set[str]:
        target = tmp_path / "modules.json"
        subprocess.run(
            [sys.executable, "-c", RECORD, str(target), *words],
            cwd=tmp_path,
            env=environment(tmp_path),
            check=True,
            stdin=subprocess.DEVNULL,
            capture_output=True,
        )
        left, imported = json.loads(target.read_text())
        assert left == code
        return set(imported)

    return run


@pytest.mark.parametrize(
    "line",
    [
        "--help",
        "--version",
        "list",
        "list --json",
        "list --all",
        "show wizardlm-13b-v1.2",
        "show 13b --json",
        "verify",
        "prune",
        "outdated",
        "config",
        "run --help",
        "imatrix --help",
    ],
)
def test_nothing_heavy_is_imported(line: str, modules: Modules) -> None:
    assert {name.split(".")[0] for name in modules(*line.split())} & HEAVY == set()


def test_help_imports_no_command_and_no_service(modules: Modules) -> None:
    ours = {name for name in modules("--help") if name.startswith("wizard_edge")}

    assert ours == {
        "wizard_edge",
        "wizard_edge._llama",
        "wizard_edge._llama.built",
        "wizard_edge.cli",
        "wizard_edge.cli._app",
        "wizard_edge.cli._clean",
        "wizard_edge.cli._failures",
        "wizard_edge.cli._huge_pages",
        "wizard_edge.cli._output",
        "wizard_edge.cli._root",
        "wizard_edge.errors",
        "wizard_edge.progress",
        "wizard_edge.units",
    }


def test_list_reads_no_registry_and_no_settings(modules: Modules) -> None:
    assert not modules("list") & {"wizard_edge.registry", "wizard_edge.config"}


def test_a_heavy_import_is_noticed(modules: Modules, tmp_path: Path) -> None:
    (tmp_path / "m.gguf").write_bytes(b"")

    imported = modules("convert", "./none", code=3)

    assert "wizard_edge_converters.pipeline" not in imported
    assert "numpy" in modules("convert", str(tmp_path), "--dry-run", code=9)
