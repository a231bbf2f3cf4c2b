from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import click
import pytest

from tests.cli.conftest import Cli
from wizard_edge import __version__
from wizard_edge.cli._root import COMMANDS, PROGRAM, root
from wizard_edge.store import Installed

HELP = """\
Usage: wizard-edge [OPTIONS] [COMMAND] [ARGS]...

  Run the WizardLM family on small machines, with the exact trained prompt.

Options:
  --home DIR     Keep models in DIR (default: the user's data folder)
  -v, --verbose  Tell more on stderr; -vv adds llama.cpp's own lines
  --quiet        Tell nothing on stderr but warnings and errors
  --version      Show the version
  -h, --help     Show this help

Commands:
  pull        Bring a model into the store
  run         Answer one prompt, or converse on a terminal
  list        List the models in the store
  fit         Predict what fits this machine, and how fast it is
  bench       Measure how fast a model is on this machine
  doctor      Look for what keeps models from running well
  show        Show all that is known about a model
  rm          Remove models from the store
  verify      Check the files of the store, repair them
  prune       Remove what is left over in the store
  outdated    List models that there is something newer of
  prompt      Show the exact text and tokens a model would get
  convert     Convert original weights to a GGUF file
  imatrix     Compute an importance matrix from a text
  eval        Measure how well a model predicts a text
  quantize    Quantize a GGUF file to other types
  import      Bring a GGUF file into the store
  export      Write a model to a folder
  licenses    Show or accept the licences of models
  config      Show or change settings
  completion  Write the completion script for a shell

  'wizard-edge COMMAND --help' shows the options of a command.
"""

_CONTEXT = click.Context(root, info_name=PROGRAM)


def command(name: str) -> click.Command:
    found = root.get_command(_CONTEXT, name)
    assert found is not None
    return found


def helps() -> Iterator[tuple[str, str | None]]:
    """Yield every help text there is, with the place it stands at."""
    for name in COMMANDS:
        yield name, command(name).help
        for item in command(name).params:
            if isinstance(item, click.Option):
                yield f"{name} {item.opts[-1]}", item.help
    for item in root.params:
        if isinstance(item, click.Option):
            yield item.opts[-1], item.help


@pytest.mark.parametrize("words", [["--help"], ["-h"], []], ids=" ".join)
def test_help_shows_every_command(
    cli: Cli, words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As without RPC, whatever this machine's llama.cpp was built with.
    monkeypatch.setenv("LLAMA_CPP_LIB_PATH", str(tmp_path))

    result = cli(*words)

    assert (result.stdout, result.stderr, result.exit_code) == (HELP, "", 0)


def test_version(cli: Cli) -> None:
    assert cli("--version").stdout == f"wizard-edge {__version__}\n"


@pytest.mark.parametrize("name", COMMANDS)
def test_the_table_says_what_the_command_says(name: str) -> None:
    assert command(name).name == name
    assert command(name).help == COMMANDS[name][1]


@pytest.mark.parametrize(
    ("place", "text"), [pytest.param(*item, id=item[0]) for item in helps()]
)
def test_a_help_text_is_one_short_imperative_sentence(
    place: str, text: str | None
) -> None:
    assert text
    assert len(text) <= 60
    assert text[0].isupper()
    assert not text.endswith(".")
    assert not text.split()[0].endswith("s")


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_with_a_value_says_its_default(name: str) -> None:
    silent = [
        item.opts[-1]
        for item in command(name).params
        if isinstance(item, click.Option)
        and not (item.is_flag or item.required)
        and "(default: " not in (item.help or "")
    ]

    assert silent == []


@pytest.mark.parametrize(
    ("word", "hint"),
    [
        ("lst", "did you mean list?"),
        ("cnovert", "did you mean convert?"),
        ("zzz", "wizard-edge --help"),
    ],
)
def test_an_unknown_command_names_near_ones(cli: Cli, word: str, hint: str) -> None:
    result = cli(word)

    assert result.stderr == f"error: unknown command {word!r}\nhint: {hint}\n"
    assert result.exit_code == 2


def test_usage_errors_read_like_all_others(cli: Cli) -> None:
    result = cli("run", "--temprature", "1")

    assert result.stderr == (
        "error: no such option '--temprature'\nhint: did you mean --temperature?\n"
    )
    assert result.exit_code == 2


def test_a_usage_error_is_json_where_json_was_asked_for(cli: Cli) -> None:
    result = cli("run", "--json")

    assert result.stdout == ""
    assert json.loads(result.stderr) == {
        "error": {
            "code": 2,
            "kind": "usage",
            "message": "missing argument 'MODEL'",
            "hint": "wizard-edge run --help",
        }
    }


def test_json_as_the_text_of_an_option_asks_for_nothing(cli: Cli) -> None:
    result = cli("config", "model", "--", "--json")

    assert (result.stderr, result.exit_code) == ("model is --json\n", 0)


@pytest.mark.parametrize(
    "words",
    [("--quiet", "config", "seed", "7"), ("config", "seed", "7", "--quiet")],
    ids=["before", "after"],
)
def test_global_options_stand_on_either_side(cli: Cli, words: tuple[str, ...]) -> None:
    result = cli(*words)

    assert (result.stdout, result.stderr, result.exit_code) == ("", "", 0)


@pytest.mark.parametrize("before", [True, False], ids=["before", "after"])
def test_home_is_where_models_are_looked_for(
    before: bool,
    cli: Cli,
    home: Path,
    installed: Callable[..., Installed],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    installed("tiny")
    monkeypatch.setenv("WIZARD_EDGE_HOME", "elsewhere")
    option = ["--home", str(home)]

    result = cli(*option, "list") if before else cli("list", *option)

    assert "tiny" in result.stdout
    assert "tiny" not in cli("list").stdout


def test_a_bug_is_called_one_and_hides_its_traceback(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(installation: object) -> None:
        raise LookupError("who would have thought")

    monkeypatch.setattr("wizard_edge.service.models.list_installed", broken)

    result = cli("list")

    assert result.exit_code == 1
    assert result.stderr == (
        "error: LookupError: who would have thought\n"
        "hint: this is a bug, please report it with the output of the same command "
        "with -v\n"
    )


def test_verbose_shows_where_a_bug_is(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(installation: object) -> None:
        raise LookupError("who would have thought")

    monkeypatch.setattr("wizard_edge.service.models.list_installed", broken)

    result = cli("list", "-v")

    assert result.stderr.startswith("Traceback (most recent call last):\n")
    assert result.stderr.count("\nerror: ") == 1


def test_an_interruption_says_so(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(installation: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("wizard_edge.service.models.list_installed", interrupted)

    result = cli("list")

    assert (result.stderr, result.exit_code) == ("error: interrupted\n", 130)
