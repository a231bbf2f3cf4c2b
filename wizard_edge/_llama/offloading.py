"""How many layers of a file go to a GPU here, and fewer where llama.cpp refuses."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from wizard_edge._llama.devices import find_devices
from wizard_edge.engine import LoadOptions
from wizard_edge.errors import BackendError
from wizard_edge.gguf_parts import read_parts
from wizard_edge.gguf_rules import UnsupportedArchitecture, UnsupportedTokenizer
from wizard_edge.memory import BATCH
from wizard_edge.offload import (
    Device,
    Offload,
    attempts,
    layer_count,
    plan_offload,
    usable_devices,
)

_logger = logging.getLogger(__name__)
_Loaded = TypeVar("_Loaded")


def gpu_layers(
    path: Path, options: LoadOptions, devices: Sequence[Device] | None = None
) -> int:
    """Return how many layers of a file to move, as llama.cpp counts them.

    `devices` as in `find_offload`. Raises: MissingFile, Corrupt, BackendError.
    """
    return find_offload(path, options, devices=devices).layers


def load_with_fewer(
    path: Path,
    options: LoadOptions,
    load: Callable[[LoadOptions], _Loaded],
    *,
    cells: int | None = None,
    devices: Sequence[Device] | None = None,
) -> _Loaded:
    """Return what `load` makes of a model with as many layers on a GPU as it takes.

    `load` is called with a number in `gpu_layers` until it does not raise
    BackendError, with fewer layers every time and none at last; a warning tells of
    it. It has to free what it made before it raises. `cells` and `devices` as in
    `find_offload`. Raises: what `load` raises of no layers, and at once what fewer
    layers cannot cure.
    """
    planned = find_offload(path, options, cells=cells, devices=devices)
    reason = ""
    for layers in attempts(planned.layers):
        try:
            loaded = load(replace(options, gpu_layers=layers))
        except (UnsupportedArchitecture, UnsupportedTokenizer):
            raise
        except BackendError as err:
            if layers == 0:
                raise
            reason = reason or err.message
        else:
            if layers < planned.layers:
                _logger.warning(
                    "%s took %d of %d layers, asked for %d: %s",
                    _names(planned.devices),
                    layers,
                    planned.of,
                    planned.layers,
                    reason,
                )
            return loaded
    raise AssertionError("the last attempt returns or raises")


def find_offload(
    path: Path,
    options: LoadOptions,
    *,
    cells: int | None = None,
    devices: Sequence[Device] | None = None,
) -> Offload:
    """Say which layers of a file go to which device: as asked for, or as many as fit.

    `cells` are the tokens of context of all sequences together, None for what the
    options say; `devices` what llama.cpp is told to use, None for what it chooses.
    Raises: MissingFile, Corrupt, BackendError.
    """
    usable = usable_devices(find_devices()) if devices is None else tuple(devices)
    wanted = options.gpu_layers
    if not usable:
        if wanted not in ("auto", 0):
            _logger.warning("llama.cpp finds no GPU: the processor does all layers")
        return Offload(0, 0)
    headers = read_parts(path)
    if wanted == "auto":
        trained = headers[0].context_length or options.default_context
        planned = plan_offload(
            usable,
            headers,
            context=cells or options.context_for(trained) * options.parallel,
            kv_type=options.kv_type,
            batch=options.batch or BATCH,
        )
        _tell(planned, usable)
        return planned
    of = layer_count(headers)
    return Offload(of if wanted == "all" else min(wanted, of), of, usable)


def _tell(planned: Offload, usable: Sequence[Device]) -> None:
    if planned.layers:
        _logger.info(
            "%d of %d layers go to %s",
            planned.layers,
            planned.of,
            _names(planned.devices),
        )
    else:
        _logger.warning(
            "no layer fits on %s: the processor does all of them (--gpu-layers N "
            "asks for N)",
            _names(usable),
        )


def _names(devices: Sequence[Device]) -> str:
    return " and ".join(map(str, devices))
