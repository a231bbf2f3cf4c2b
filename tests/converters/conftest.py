"""Checkpoints of every shape, written once per run, and the bundled one."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from tests.conftest import CHECKPOINT
from tests.converters.checkpoints import SHAPES, write_checkpoint
from tests.converters.running import Converted, convert
from wizard_edge_converters.options import ConvertOptions

NAME = "Test Model"


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Return a function that writes the checkpoint of a shape, each once."""
    folder = tmp_path_factory.mktemp("checkpoints")

    @cache
    def written(name: str) -> Path:
        if name == "apprentice":
            return CHECKPOINT
        return write_checkpoint(folder / name, SHAPES[name])

    return written


@pytest.fixture(scope="session")
def converted(
    checkpoint: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str, str], Converted]:
    """Return a function that converts a shape to a quant, each once."""
    folder = tmp_path_factory.mktemp("converted")

    @cache
    def once(name: str, quant: str) -> Converted:
        options = ConvertOptions(quants=(quant,), name=NAME, threads=2)
        return convert(checkpoint(name), folder / f"{name}.{quant}.gguf", options)

    return once


@pytest.fixture(scope="session")
def apprentice_checkpoint() -> Path:
    """The trained checkpoint that comes with the package, in two shards."""
    return CHECKPOINT
