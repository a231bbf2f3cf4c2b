"""Run the WizardLM family on small machines, with the exact trained prompt.

The names below are loaded on first use, so that importing the package costs
nothing: `open_chat` gives a `Chat`, `Settings` say how to load and to sample, and
every error is a `WizardEdgeError`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from wizard_edge.config import Settings
    from wizard_edge.errors import WizardEdgeError
    from wizard_edge.service.chat import Chat, open_chat

__version__ = "0.1.0"

__all__ = ["Chat", "Settings", "WizardEdgeError", "open_chat"]

_HOMES = {
    "Chat": "wizard_edge.service.chat",
    "Settings": "wizard_edge.config",
    "WizardEdgeError": "wizard_edge.errors",
    "open_chat": "wizard_edge.service.chat",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
