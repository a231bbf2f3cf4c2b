"""Fixtures that the whole suite shares: the bundled model in any quant."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from tests.converters.running import convert
from wizard_edge_converters.options import ConvertOptions

ROOT = Path(__file__).resolve().parent.parent
CHECKPOINT = ROOT / "wizard_edge" / "apprentice"


@pytest.fixture(scope="session")
def apprentice(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Return a function that converts the bundled checkpoint, each quant once."""
    folder = tmp_path_factory.mktemp("apprentice")

    @cache
    def converted(quant: str) -> Path:
        options = ConvertOptions(
            quants=(quant,), template="vicuna", licenses=("apache-2.0",)
        )
        path = folder / f"apprentice.{quant}.gguf"
        return convert(CHECKPOINT, path, options).path

    return converted
