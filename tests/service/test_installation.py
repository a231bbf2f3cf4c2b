from __future__ import annotations

from pathlib import Path

import pytest

from tests.service.fakes import an_installation
from wizard_edge.config import Settings
from wizard_edge.errors import ConfigError, UnknownModel
from wizard_edge.service.installation import open_installation


def test_opening_reads_and_creates_nothing(tmp_path: Path) -> None:
    installation = an_installation(tmp_path)

    assert installation.home.root == tmp_path / "home"
    assert installation.settings_file == tmp_path / "config" / "config.toml"
    assert list(tmp_path.iterdir()) == []


def test_a_home_that_is_named_wins_over_the_environment(tmp_path: Path) -> None:
    environ = {"WIZARD_EDGE_HOME": "/elsewhere", "WIZARD_EDGE_CONFIG": "/config"}

    installation = open_installation(environ, tmp_path)

    assert installation.home.root == tmp_path


def test_settings_come_from_file_and_environment(tmp_path: Path) -> None:
    installation = an_installation(tmp_path, WIZARD_EDGE_THREADS="2")
    installation.config_dir.mkdir()
    installation.settings_file.write_text("threads = 4\ntop-k = 40\n")

    assert installation.settings == Settings(threads=2, top_k=40)


def test_models_of_the_user_are_added_to_the_registry(tmp_path: Path) -> None:
    installation = an_installation(tmp_path)
    installation.config_dir.mkdir()
    (installation.config_dir / "models.toml").write_text(
        'schema = 1\n[models.mine]\narchitecture = "llama"\n'
        'template = "alpaca"\nlicenses = ["apache-2.0"]\n'
        '[models.mine.source]\nrepo = "me/mine"\n'
    )

    assert installation.registry.find("mine").template == "alpaca"
    assert installation.registry.find("apprentice").template == "vicuna"


def test_what_does_not_need_the_registry_does_not_read_it(tmp_path: Path) -> None:
    installation = an_installation(tmp_path)
    installation.config_dir.mkdir()
    (installation.config_dir / "models.toml").write_text("nonsense")

    assert installation.store.installed() == []
    with pytest.raises(ConfigError):
        _ = installation.registry


def test_the_registry_is_the_shipped_one_without_a_file_of_the_user(
    tmp_path: Path,
) -> None:
    with pytest.raises(UnknownModel):
        an_installation(tmp_path).registry.find("mine")
