"""Run the WizardLM family on small machines, with the exact trained prompt.

The names below are loaded on first use, so that importing the package costs
nothing: `open_chat` gives a `Chat`, `open_engine` a `ModelEngine` for many
conversations, `Settings` say how to load and to sample, `Sampling` how to sample a
single answer, and every error is a `WizardEdgeError`. See docs/python.md.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from wizard_edge.config import Settings
    from wizard_edge.conversation import Conversation
    from wizard_edge.engine import Chunk, Sampling
    from wizard_edge.errors import WizardEdgeError
    from wizard_edge.service.chat import Chat, open_chat
    from wizard_edge.service.engines import ModelEngine, open_engine

__version__ = "0.1.0"

__all__ = [
    "Chat",
    "Chunk",
    "Conversation",
    "ModelEngine",
    "Sampling",
    "Settings",
    "WizardEdgeError",
    "open_chat",
    "open_engine",
]

_HOMES = {
    "Chat": "wizard_edge.service.chat",
    "Chunk": "wizard_edge.engine",
    "Conversation": "wizard_edge.conversation",
    "ModelEngine": "wizard_edge.service.engines",
    "Sampling": "wizard_edge.engine",
    "Settings": "wizard_edge.config",
    "WizardEdgeError": "wizard_edge.errors",
    "open_chat": "wizard_edge.service.chat",
    "open_engine": "wizard_edge.service.engines",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
