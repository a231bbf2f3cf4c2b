"""The environment of a program that a test starts: this checkout, its own store."""

from __future__ import annotations

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def environment(folder: Path | None = None, **more: str) -> dict[str, str]:
    """Return the environment; store and settings lie below `folder`."""
    paths = os.pathsep.join((str(ROOT), str(ROOT / "converters")))
    found = {**os.environ, "PYTHONPATH": paths}
    # Nobody listens there: no test reaches the real hub.
    found["HF_ENDPOINT"] = "http://127.0.0.1:9"
    found["HF_HUB_DISABLE_IMPLICIT_TOKEN"] = "1"
    if folder is not None:
        found["WIZARD_EDGE_HOME"] = str(folder / "home")
        found["WIZARD_EDGE_CONFIG"] = str(folder / "config")
    return found | more
