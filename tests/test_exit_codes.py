"""The exit codes of the design as a table, and real commands that fail.

Every failure is one `error:` line and its code, with nothing on stdout and nothing
changed on the disk.
"""

from __future__ import annotations

import hashlib
import inspect
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.child import environment
from tests.converters.checkpoints import SHAPES, write_checkpoint
from tests.gguf_files import small_llama, string
from wizard_edge import errors, gguf_rules
from wizard_edge.errors import WizardEdgeError

# Source: the exit codes of the CLI contract. 1 is a bug, 0 is done.
EXIT_CODES = {
    "UsageError": 2,
    "NotFound": 3,
    "UnknownModel": 3,
    "UnknownQuant": 3,
    "MissingFile": 3,
    "HubError": 4,
    "Refused": 5,
    "Corrupt": 6,
    "NotEnough": 7,
    "BackendError": 8,
    "CannotConvert": 9,
    "ConfigError": 10,
    "Interrupted": 130,
}

# Longer than any file system takes.
LONG = 300 * "a"
VICUNA = ("--template", "vicuna")


@dataclass(frozen=True)
class Case:
    """A command that fails, and how `error` and `hint` begin; None means no hint."""

    id: str
    words: tuple[str, ...]
    code: int
    error: str
    hint: str | None = None
    config: str = ""
    registry: str = ""
    home: str = "../home"


CASES = [
    Case(
        "unknown model",
        ("run", "wizardlm-13b-v1.3", "Hi"),
        3,
        "unknown model 'wizardlm-13b-v1.3'",
        "did you mean wizardlm-13b-v1.2, wizardlm-13b-v1.1 or wizardlm-13b-v1.0?",
    ),
    Case(
        "unknown model of show",
        ("show", "wizzardmath-7b-v1.1"),
        3,
        "unknown model 'wizzardmath-7b-v1.1'",
        "did you mean wizardmath-7b-v1.1, ",
    ),
    Case(
        "unknown model of rm",
        ("rm", "nothing-like-it", "--yes"),
        3,
        "unknown model 'nothing-like-it'",
        "'wizard-edge list --all' shows every model",
    ),
    Case(
        "unknown model of convert",
        ("convert", "wizardlm-13c"),
        3,
        "unknown model 'wizardlm-13c'",
        "did you mean wizardlm-13b-v1.2, ",
    ),
    Case(
        "not installed",
        ("run", "13b", "Hi"),
        3,
        "wizardlm-13b-v1.2 is not installed",
        "get a GGUF and 'wizard-edge import FILE', or 'wizard-edge pull "
        "wizardlm-13b-v1.2 --from weights'",
    ),
    Case(
        "bundled, not installed",
        ("run", "apprentice", "Hi"),
        3,
        "apprentice is not installed",
        "wizard-edge pull apprentice",
    ),
    Case(
        "missing model file",
        ("run", "./none.gguf", "Hi"),
        3,
        "no such file or directory: none.gguf",
    ),
    Case(
        "missing checkpoint",
        ("convert", "./none", "-o", "out.gguf"),
        3,
        "no such file or directory: none",
    ),
    Case(
        "missing messages",
        ("prompt", "./llama.gguf", "--messages", "none.json"),
        3,
        "no such file or directory: none.json",
    ),
    Case(
        "unknown quant",
        ("convert", "./checkpoint", "-q", "Q4_K_X"),
        3,
        "unknown quant 'Q4_K_X'",
        "known: F32, F16, BF16, Q8_0, Q6_K, ",
    ),
    Case(
        "unknown quant in a name",
        ("run", "apprentice:Q9", "Hi"),
        3,
        "unknown quant 'Q9'",
        "known: F32, F16, BF16, Q8_0, Q6_K, ",
    ),
    Case(
        "download",
        ("pull", "wizardlm-13b-v1.2"),
        4,
        "HF_HUB_OFFLINE is set, and this needs the hub",
        "unset HF_HUB_OFFLINE, or use what 'wizard-edge list' shows",
    ),
    Case(
        "truncated shard",
        ("convert", "./truncated", "-q", "F16", "-o", "out.gguf"),
        6,
        "truncated/pytorch_model-00002-of-00002.bin is damaged: ",
        "the file may be cut off: fetch it again",
    ),
    Case(
        "truncated shard to the store",
        ("convert", "./truncated", "-q", "F16"),
        6,
        "truncated/pytorch_model-00002-of-00002.bin is damaged: ",
        "the file may be cut off: fetch it again",
    ),
    Case(
        "truncated GGUF",
        ("run", "./truncated.gguf", "Hi", *VICUNA),
        6,
        "truncated.gguf is damaged at tensor ",
    ),
    Case(
        "no GGUF",
        ("run", "./text.gguf", "Hi", *VICUNA),
        6,
        "text.gguf is damaged at the beginning, offset 0: no GGUF file",
    ),
    Case(
        "wrong architecture",
        ("run", "./mamba.gguf", "Hi", *VICUNA),
        8,
        "mamba.gguf is of the architecture 'mamba', which wizard-edge does not run",
        "it runs: llama, starcoder",
    ),
    Case(
        "no checkpoint",
        ("convert", "./empty", "-o", "out.gguf"),
        9,
        "no checkpoint in empty: ",
        "a checkpoint is a directory with config.json, ",
    ),
    Case(
        "no checkpoint to the store",
        ("convert", "./empty"),
        9,
        "no checkpoint in empty: ",
        "a checkpoint is a directory with config.json, ",
    ),
    Case(
        "a file is no checkpoint",
        ("convert", "./text.txt"),
        9,
        "text.txt is no checkpoint directory",
        "a checkpoint is a folder with config.json and the weights",
    ),
    Case(
        "no template",
        ("run", "./llama.gguf", "Hi"),
        2,
        "nobody says which template llama.gguf was trained on",
        "--template vicuna|wizardlm-7b|alpaca|alpaca-cot",
    ),
    Case(
        "unknown option",
        ("list", "--al"),
        2,
        "no such option '--al'",
        "did you mean --all?",
    ),
    Case(
        "value out of range",
        ("run", "./llama.gguf", "Hi", *VICUNA, "--top-p", "2"),
        2,
        "top-p must be from 0 to 1, got 2",
    ),
    Case(
        "output is there",
        ("convert", "./checkpoint", "-q", "F16", "-o", "text.txt"),
        2,
        "the output is there already: text.txt",
        "name another file, or replace it with --overwrite",
    ),
    Case(
        "missing argument",
        ("rm", "--yes"),
        2,
        "missing argument 'MODEL[:QUANT]...'",
        "wizard-edge rm --help",
    ),
    Case(
        "damaged settings",
        ("run", "./llama.gguf", "Hi", *VICUNA),
        10,
        "/config/config.toml: unknown setting 'temprature'",
        "did you mean temperature?",
        config="schema = 1\ntemprature = 1\n",
    ),
    Case(
        "settings that are no TOML",
        ("config",),
        10,
        "/config/config.toml is not TOML: ",
        config="[",
    ),
    Case(
        "settings of the future",
        ("config", "seed", "1"),
        10,
        "/config/config.toml has schema 99, this version reads up to 1",
        "upgrade with: ",
        config="schema = 99\n",
    ),
    Case(
        "damaged registry",
        ("list", "--all"),
        10,
        "/config/models.toml: models.x.title: ",
        "every key is explained in docs/models.md",
        registry="schema = 1\n[models.x]\ntitle = 1\n",
    ),
    Case(
        "a file for a home",
        ("pull", "apprentice", "--quiet"),
        5,
        "cannot use /folder/text.txt",
        "name another place; --home DIR moves the store",
        home="text.txt",
    ),
    Case(
        "a home inside a file",
        ("pull", "apprentice", "--quiet"),
        5,
        "cannot use /folder/text.txt/home",
        "name another place; --home DIR moves the store",
        home="text.txt/home",
    ),
    Case(
        "a home whose name is too long",
        ("pull", "apprentice", "--quiet"),
        2,
        "file name too long: ",
        home=LONG,
    ),
    Case(
        "a home that leads in a circle",
        ("pull", "apprentice", "--quiet"),
        2,
        "too many levels of symbolic links: ",
        home="circle",
    ),
    Case("long name of convert", ("convert", LONG), 2, f"file name too long: {LONG}"),
    Case(
        "long output of convert",
        ("convert", "./checkpoint", "-q", "F16", "-o", LONG),
        5,
        "cannot use ",
        "name another place; --home DIR moves the store",
    ),
    Case(
        "long name of grammar",
        ("run", "./llama.gguf", "Hi", "--grammar", LONG),
        2,
        f"cannot read {LONG}: File name too long",
    ),
    Case(
        "grammar inside a file",
        ("run", "./llama.gguf", "Hi", "--grammar", "text.txt/x"),
        2,
        "cannot read text.txt/x: Not a directory",
    ),
    Case(
        "messages in a circle",
        ("prompt", "./llama.gguf", "--messages", "circle"),
        2,
        "cannot read circle: Too many levels of symbolic links",
    ),
    Case(
        "long name of messages",
        ("prompt", "./llama.gguf", "--messages", LONG),
        2,
        f"cannot read {LONG}: File name too long",
    ),
]


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with good and bad files to work on."""
    folder = tmp_path_factory.mktemp("inputs")
    (folder / "empty").mkdir()
    (folder / "text.txt").write_text("just text")
    (folder / "text.gguf").write_text("just text")
    small_llama().write(folder / "llama.gguf")
    whole = small_llama().build()
    (folder / "truncated.gguf").write_bytes(whole[: len(whole) - 100])
    mamba = small_llama().set("general.architecture", string("mamba"))
    mamba.write(folder / "mamba.gguf")
    write_checkpoint(folder / "checkpoint", SHAPES["tied"])
    write_checkpoint(folder / "truncated", SHAPES["tied"], form="bin", shards=2)
    shard = folder / "truncated" / "pytorch_model-00002-of-00002.bin"
    shard.write_bytes(shard.read_bytes()[: shard.stat().st_size // 2])
    return folder


def digests(folder: Path) -> dict[str, str]:
    """Return the sha256 of every file under a folder."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(
            path.read_bytes()
        ).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


def run(
    folder: Path, *words: str, home: str = "../home"
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "wizard_edge", *words],
        cwd=folder / "folder",
        env=environment(folder, WIZARD_EDGE_HOME=home, HF_HUB_OFFLINE="1"),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_one_clear_line_the_right_code_and_nothing_left_behind(
    case: Case, inputs: Path, tmp_path: Path
) -> None:
    shutil.copytree(inputs, tmp_path / "folder")
    (tmp_path / "folder" / "circle").symlink_to("circle")
    for name, text in (("config.toml", case.config), ("models.toml", case.registry)):
        if text:
            (tmp_path / "config").mkdir()
            (tmp_path / "config" / name).write_text(text)
    before = digests(tmp_path)

    done = run(tmp_path, *case.words, home=case.home)

    assert (done.returncode, done.stdout) == (case.code, "")
    error, *hints = done.stderr.replace(str(tmp_path), "").splitlines()
    assert error.startswith(f"error: {case.error}")
    assert len(hints) == (case.hint is not None)
    assert case.hint is None or hints[0].startswith(f"hint: {case.hint}")
    assert digests(tmp_path) == before


def test_every_error_class_is_in_the_table() -> None:
    found = {
        name: value.exit_code
        for name, value in inspect.getmembers(errors, inspect.isclass)
        if issubclass(value, WizardEdgeError) and value is not WizardEdgeError
    }

    assert found == EXIT_CODES


def test_every_kind_is_a_name_of_its_own() -> None:
    kinds = [getattr(errors, name).kind for name in EXIT_CODES]

    assert len(set(kinds)) == len(kinds)


def test_errors_defined_elsewhere_keep_the_code_of_their_family() -> None:
    assert gguf_rules.UnsupportedArchitecture.exit_code == 8
