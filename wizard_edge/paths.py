"""Where things lie: the store's home, the settings, and one way to a path.

`place` is the only function that turns text from outside into a path, and takes
nothing but a `RelPath`. Creates nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from wizard_edge.errors import ConfigError
from wizard_edge.names import ModelName, RelPath, SessionName

APP = "wizard-edge"
HOME_VARIABLE = "WIZARD_EDGE_HOME"
CONFIG_VARIABLE = "WIZARD_EDGE_CONFIG"


@dataclass(frozen=True, slots=True)
class Home:
    """The folders of one store."""

    root: Path

    @property
    def models(self) -> Path:
        return self.root / "models"

    @property
    def partial(self) -> Path:
        return self.root / "partial"

    @property
    def licenses(self) -> Path:
        return self.root / "licenses"

    @property
    def run(self) -> Path:
        return self.root / "run"

    @property
    def sessions(self) -> Path:
        return self.root / "sessions"

    def model(self, name: ModelName) -> Path:
        return place(self.models, RelPath.parse(name))

    def session(self, name: SessionName) -> Path:
        return place(self.sessions, RelPath.parse(name))


def find_home(environ: Mapping[str, str], override: Path | None = None) -> Home:
    """Return the store: `override`, else the environment's, else the user's."""
    if override is not None:
        return Home(override.absolute())
    if environ.get(HOME_VARIABLE):
        return Home(_folder(HOME_VARIABLE, environ[HOME_VARIABLE]))
    # Imported here: platformdirs costs milliseconds that --help need not pay.
    from platformdirs import user_data_path

    return Home(user_data_path(APP, appauthor=False))


def config_dir(environ: Mapping[str, str]) -> Path:
    """Return the folder of `config.toml` and the user's `models.toml`."""
    if environ.get(CONFIG_VARIABLE):
        return _folder(CONFIG_VARIABLE, environ[CONFIG_VARIABLE])
    from platformdirs import user_config_path

    return user_config_path(APP, appauthor=False)


def place(root: Path, relative: RelPath) -> Path:
    """Return the path of `relative` inside `root`."""
    return root.joinpath(*relative.split("/"))


def _folder(variable: str, text: str) -> Path:
    try:
        return Path(text).expanduser().absolute()
    except RuntimeError as err:
        # "~nobody/x": there is no such user.
        raise ConfigError(f"{variable}={text}: {err}") from err
