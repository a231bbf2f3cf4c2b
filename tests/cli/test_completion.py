from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import click
import pytest
from click.shell_completion import BashComplete, ShellComplete

from tests.cli.conftest import Cli
from wizard_edge.cli._app import App
from wizard_edge.cli._output import Output
from wizard_edge.cli._root import COMPLETE_VARIABLE, PROGRAM, root
from wizard_edge.store import Installed


@pytest.fixture
def complete(home: Path, tmp_path: Path) -> Callable[..., list[str]]:
    """Return a function that completes the last of some words."""
    environ = {
        "WIZARD_EDGE_HOME": str(home),
        "WIZARD_EDGE_CONFIG": str(tmp_path / "config"),
    }

    def run(*words: str) -> list[str]:
        app = App(Output(), environ)
        shell = ShellComplete(root, {"obj": app}, PROGRAM, COMPLETE_VARIABLE)
        found = shell.get_completions(list(words[:-1]), words[-1])
        return [item.value for item in found]

    return run


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_is_clicks_own(shell: str, cli: Cli) -> None:
    result = cli("completion", shell)

    assert f"{COMPLETE_VARIABLE}={shell}_complete" in result.stdout
    assert (result.stderr, result.exit_code) == ("", 0)


def test_bash_gets_the_whole_script(cli: Cli) -> None:
    script = BashComplete(root, {}, PROGRAM, COMPLETE_VARIABLE)

    assert cli("completion", "bash").stdout == ShellComplete.source(script) + "\n"


def test_an_unknown_shell_is_a_usage_error(cli: Cli) -> None:
    result = cli("completion", "tcsh")

    assert result.stderr.splitlines()[0] == (
        "error: invalid value for 'SHELL': 'tcsh' is not one of 'bash', 'zsh', 'fish'"
    )
    assert result.exit_code == 2


def test_commands_are_completed_without_being_imported(
    complete: Callable[..., list[str]],
) -> None:
    assert complete("co") == ["convert", "config", "completion"]


def test_models_of_store_and_catalogue(
    complete: Callable[..., list[str]], installed: Callable[..., Installed]
) -> None:
    installed("wizardmath-tiny")

    assert complete("run", "wizardmath-t") == ["wizardmath-tiny"]
    assert complete("run", "wizardmath-70b") == ["wizardmath-70b-v1.0"]
    assert complete("rm", "") == ["wizardmath-tiny"]
    assert complete("rm", "wizardmath-tiny:") == ["wizardmath-tiny:F32"]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("run", "x", "--template", "alpaca"), ["alpaca", "alpaca-cot"]),
        (("convert", "-q", "q4_k"), ["Q4_K_M", "Q4_K_S"]),
        (("config", "top"), ["top-k", "top-p"]),
        (("run", "x", "--kv-type", "q"), ["q8_0", "q4_0"]),
        (("list", "--a"), ["--all"]),
    ],
    ids=["template", "quant", "setting", "choice", "option"],
)
def test_values_are_completed(
    words: tuple[str, ...], expected: list[str], complete: Callable[..., list[str]]
) -> None:
    assert complete(*words) == expected


def test_a_damaged_registry_completes_nothing(
    complete: Callable[..., list[str]], tmp_path: Path
) -> None:
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "models.toml").write_text("[")

    assert complete("run", "wiz") == []


def test_a_path_is_left_to_the_shell(complete: Callable[..., list[str]]) -> None:
    command = root.get_command(click.Context(root), "run")
    assert command is not None
    argument = next(item for item in command.params if item.name == "model")

    items = argument.shell_complete(click.Context(command), "./m")

    assert [(item.value, item.type) for item in items] == [("./m", "file")]
