"""The settings as `wizard-edge config` shows and changes them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from wizard_edge.config import (
    SETTINGS,
    Settings,
    Value,
    find_setting,
    parse_value,
    read_environment,
    read_file,
    write_setting,
)
from wizard_edge.service.installation import Installation

Origin = Literal["default", "file", "environment"]


@dataclass(frozen=True, slots=True)
class SettingState:
    """One setting: its value now, None where the program decides, and who set it.

    `where` names the file or the variable that set it, "" for a default.
    """

    key: str
    value: Value | None
    origin: Origin
    where: str
    help: str


def list_settings(installation: Installation) -> list[SettingState]:
    """Return every setting there is, in the order of the documentation.

    Raises: ConfigError where file or environment make no sense.
    """
    in_file = read_file(installation.settings_file)
    in_environment = read_environment(installation.environ)
    return [_state(installation, key, in_file, in_environment) for key in SETTINGS]


def get_setting(installation: Installation, key: str) -> SettingState:
    """Return one setting.

    Raises: ConfigError for an unknown key, naming near ones, and as `list_settings`.
    """
    find_setting(key)
    in_file = read_file(installation.settings_file)
    in_environment = read_environment(installation.environ)
    return _state(installation, key, in_file, in_environment)


def set_setting(installation: Installation, key: str, text: str) -> SettingState:
    """Write a setting to the file; the state says if the environment still wins.

    Raises: ConfigError for an unknown key or a value that does not fit.
    """
    write_setting(installation.settings_file, key, parse_value(key, text))
    return get_setting(installation, key)


def unset_setting(installation: Installation, key: str) -> SettingState:
    """Take a setting out of the file; one that is not there is no error.

    Raises: ConfigError for an unknown key.
    """
    write_setting(installation.settings_file, key, None)
    return get_setting(installation, key)


def _state(
    installation: Installation, key: str, in_file: Settings, in_environment: Settings
) -> SettingState:
    setting = SETTINGS[key]
    layers: tuple[tuple[Origin, str, Value | None], ...] = (
        ("environment", setting.variable, in_environment.get(key)),
        ("file", str(installation.settings_file), in_file.get(key)),
    )
    for origin, where, value in layers:
        if value is not None:
            return SettingState(key, value, origin, where, setting.help)
    return SettingState(key, None, "default", "", setting.help)
