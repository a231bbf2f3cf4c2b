"""Which models and quants fit this machine, and how fast they will be."""

from __future__ import annotations

from collections.abc import Sequence

from wizard_edge.engine import DEFAULT_CONTEXT, KvType
from wizard_edge.fitting import Candidate, Choice, Machine, choose
from wizard_edge.hardware import find_cores, find_memory, free_disk
from wizard_edge.models import ModelSpec
from wizard_edge.service.installation import Installation


def choose_quant(
    installation: Installation,
    spec: ModelSpec | None,
    candidates: Sequence[Candidate],
    *,
    context: int | None = None,
    machine: Machine | None = None,
) -> Choice:
    """Choose the quant that suits a machine, this one unless another is given.

    `spec` None means a model that the registry does not know: its KV cache is then
    bounded by the size of each file. `context` None means the settings', else what
    `run` would take. Raises: ConfigError for settings that make no sense.
    """
    return choose(
        spec.shape if spec else None,
        candidates,
        machine or find_machine(installation),
        context=context or default_context(installation, spec),
        kv_type=default_kv_type(installation),
    )


def find_machine(installation: Installation) -> Machine:
    """Look at this machine; measures nothing.

    `free_disk` is that of the store.
    """
    return Machine(
        cores=find_cores(),
        memory=find_memory(),
        free_disk=free_disk(installation.home.models),
    )


def default_context(installation: Installation, spec: ModelSpec | None) -> int:
    """Return the context that `run` takes for a model, in tokens.

    Raises: ConfigError.
    """
    trained = spec.context if spec else None
    wanted = installation.settings.ctx_size
    return wanted or min(trained or DEFAULT_CONTEXT, DEFAULT_CONTEXT)


def default_kv_type(installation: Installation) -> KvType:
    """Return the type in which `run` keeps the KV cache. Raises: ConfigError."""
    return installation.settings.kv_type or "f16"
