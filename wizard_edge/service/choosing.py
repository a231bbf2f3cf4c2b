"""Which quant of a model suits this machine, without measuring anything.

`pull` and `list --all` ask here; `service.fit` measures and tells everything.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from wizard_edge.engine import KvType, LoadOptions
from wizard_edge.fitting import HIGHEST, Candidate, Choice, Machine, choose
from wizard_edge.hardware import find_cores, find_memory, free_disk
from wizard_edge.low_memory import with_low_memory
from wizard_edge.models import ModelSpec
from wizard_edge.refs import QUANTS
from wizard_edge.service.installation import Installation

# Bits of a weight in a file of each quant, for a file that is to be converted.
# Source: the sizes of wizardlm-13b-v1.2 in models.toml over its parameters.
_BITS = {
    "Q8_0": 8.50,
    "Q6_K": 6.56,
    "Q5_K_M": 5.67,
    "Q4_K_M": 4.83,
    "Q3_K_M": 3.90,
    "Q2_K": 3.34,
}


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
    options = default_options(installation)
    return options.context_for(trained or options.default_context)


def default_kv_type(installation: Installation) -> KvType:
    """Return the type in which `run` keeps the KV cache. Raises: ConfigError."""
    return default_options(installation).kv_type


def default_options(installation: Installation) -> LoadOptions:
    """Return what `run` takes of context and KV cache. Raises: ConfigError."""
    settings = installation.settings
    # Any: each value has the type of the field that it is for.
    said: dict[str, Any] = {
        "context": settings.ctx_size,
        "kv_type": settings.kv_type,
        "flash_attention": settings.flash_attention,
    }
    given = {name: value for name, value in said.items() if value is not None}
    return LoadOptions(**(with_low_memory(given) if settings.low_memory else given))


def ready_candidates(spec: ModelSpec) -> list[Candidate]:
    """Return the ready files of a model whose size is known or can be estimated."""
    estimated = _estimates(spec)
    sizes = {
        variant.quant: variant.size or estimated.get(variant.quant)
        for variant in spec.variants
    }
    return [Candidate(quant, size) for quant, size in sizes.items() if size]


def converted_candidates(spec: ModelSpec) -> list[Candidate]:
    """Return what `pull --from weights` could make, with estimated sizes.

    Nothing where the original weights are nowhere, or the parameters not counted.
    """
    source = spec.source
    if source is None:
        return []
    if source.package is None and (source.repo is None or source.state == "gone"):
        return []
    return [Candidate(quant, size) for quant, size in _estimates(spec).items()]


def all_candidates(spec: ModelSpec) -> list[Candidate]:
    """Return the ready files, or where none is of use what could be made."""
    ready = ready_candidates(spec)
    highest = QUANTS.index(HIGHEST)
    if any(QUANTS.index(item.quant) >= highest for item in ready):
        return ready
    made = {item.quant for item in ready}
    return ready + [
        item for item in converted_candidates(spec) if item.quant not in made
    ]


def _estimates(spec: ModelSpec) -> dict[str, int]:
    """Return the size that a file of each quant would have, in bytes."""
    if spec.parameters is None:
        return {}
    return {quant: int(spec.parameters * bits / 8) for quant, bits in _BITS.items()}
