from __future__ import annotations

from pathlib import Path

import pytest

from tests.service.fakes import an_installation, tree
from wizard_edge.config import SETTINGS
from wizard_edge.errors import ConfigError
from wizard_edge.service.settings import (
    SettingState,
    get_setting,
    list_settings,
    set_setting,
    unset_setting,
)

HELP = SETTINGS["threads"].help


def test_without_a_file_every_setting_is_a_default(tmp_path: Path) -> None:
    states = list_settings(an_installation(tmp_path))

    assert [state.key for state in states] == list(SETTINGS)
    assert {(state.origin, state.value) for state in states} == {("default", None)}
    assert tree(tmp_path) == []


def test_a_setting_is_written_and_named_with_its_file(tmp_path: Path) -> None:
    installation = an_installation(tmp_path)

    state = set_setting(installation, "threads", "4")

    file = str(installation.settings_file)
    assert state == SettingState("threads", 4, "file", file, HELP)
    assert get_setting(installation, "threads") == state
    assert tree(tmp_path) == ["config/config.toml"]


def test_a_variable_that_wins_is_said_so(tmp_path: Path) -> None:
    installation = an_installation(tmp_path, WIZARD_EDGE_THREADS="2")

    state = set_setting(installation, "threads", "4")

    assert state == SettingState(
        "threads", 2, "environment", "WIZARD_EDGE_THREADS", HELP
    )


def test_unset_goes_back_to_the_default(tmp_path: Path) -> None:
    installation = an_installation(tmp_path)
    set_setting(installation, "threads", "4")

    assert unset_setting(installation, "threads").origin == "default"
    assert unset_setting(installation, "threads").origin == "default"


def test_unset_makes_no_file(tmp_path: Path) -> None:
    unset_setting(an_installation(tmp_path), "threads")

    assert tree(tmp_path) == []


def test_a_wrong_value_changes_nothing(tmp_path: Path) -> None:
    installation = an_installation(tmp_path)

    with pytest.raises(ConfigError):
        set_setting(installation, "threads", "many")

    assert tree(tmp_path) == []


@pytest.mark.parametrize("function", [get_setting, unset_setting])
def test_an_unknown_key_offers_near_ones(tmp_path: Path, function: object) -> None:
    assert callable(function)

    with pytest.raises(ConfigError) as caught:
        function(an_installation(tmp_path), "temprature")

    assert caught.value.hint == "did you mean temperature?"
