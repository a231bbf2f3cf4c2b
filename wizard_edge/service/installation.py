"""One installation: its store, its settings and its registry, each read when asked.

Opening an installation touches no file. Settings and registry are imported when
they are asked for: `list` needs neither, and should start as fast as it can.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from wizard_edge import __version__
from wizard_edge.paths import Home, config_dir, find_home
from wizard_edge.receipts import TIME_FORMAT
from wizard_edge.store import Store

if TYPE_CHECKING:
    from wizard_edge.config import Settings
    from wizard_edge.registry import Registry

# What a receipt says of the program that wrote it.
TOOL = f"wizard-edge {__version__}"
USER_REGISTRY = "models.toml"
SETTINGS_FILE = "config.toml"


@dataclass(frozen=True)
class Installation:
    """Where one user's models, settings and additions to the registry lie.

    `registry`, `settings` and `store` are made on first use and kept. `clock` gives
    seconds since 1970, for what is written down with its time.
    """

    home: Home
    config_dir: Path
    environ: Mapping[str, str]
    clock: Callable[[], float] = time.time

    @property
    def settings_file(self) -> Path:
        return self.config_dir / SETTINGS_FILE

    def now(self) -> str:
        """Return the time in UTC as receipts write it down."""
        return utc(self.clock())

    @cached_property
    def registry(self) -> Registry:
        """The catalogue. Raises: ConfigError when the user's file makes no sense."""
        from wizard_edge.registry import Registry

        return Registry.load(self.config_dir / USER_REGISTRY)

    @cached_property
    def settings(self) -> Settings:
        """File, then environment. Raises: ConfigError naming file, key and value."""
        from wizard_edge.config import load_settings

        return load_settings(self.settings_file, self.environ)

    @cached_property
    def store(self) -> Store:
        """The models that are installed."""
        return Store(self.home)


def utc(seconds: float) -> str:
    """Write a time, in s since 1970, as receipts do."""
    return time.strftime(TIME_FORMAT, time.gmtime(seconds))


def open_installation(
    environ: Mapping[str, str], home: Path | None = None
) -> Installation:
    """Find the installation that `environ` and an explicit `home` point to."""
    return Installation(
        home=find_home(environ, home),
        config_dir=config_dir(environ),
        environ=environ,
    )
