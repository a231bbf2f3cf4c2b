"""Turns a config.json into hyper-parameters: typed, bounded, named as GGUF means them.

Every value is checked here, once. Each architecture has a module of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Protocol

from wizard_edge.errors import CannotConvert
from wizard_edge_converters.checkpoint import SideFiles
from wizard_edge_converters.config import Config, read_config
from wizard_edge_converters.entries import Entry
from wizard_edge_converters.llama import read_llama
from wizard_edge_converters.rules import TensorRule
from wizard_edge_converters.source_files import shown
from wizard_edge_converters.starcoder import read_starcoder


class Hparams(Protocol):
    """The shape of a model, of whatever architecture.

    `expert_parameters` counts one expert through all layers, 0 without `experts`.
    """

    @property
    def architecture(self) -> str:
        """What `general.architecture` says in GGUF."""

    @property
    def vocabulary(self) -> int:
        """The rows of the embedding."""

    @property
    def special_ids(self) -> Mapping[str, int]: ...

    @property
    def experts(self) -> int: ...

    @property
    def expert_parameters(self) -> int: ...

    def rules(self) -> tuple[TensorRule, ...]:
        """List the tensors of the model."""

    def entries(self) -> Iterable[Entry]:
        """List its metadata in the order in which llama.cpp's converter writes it."""


# `architectures` of config.json -> who reads such a config. The second spelling is
# that of the first LLaMA conversions of 2023.
_READERS: Mapping[str, Callable[[Config], Hparams]] = {
    "LlamaForCausalLM": lambda config: read_llama(config, "llama"),
    "LLaMAForCausalLM": lambda config: read_llama(config, "llama"),
    "MistralForCausalLM": lambda config: read_llama(config, "mistral"),
    "MixtralForCausalLM": lambda config: read_llama(config, "mixtral"),
    "GPTBigCodeForCausalLM": read_starcoder,
}
ARCHITECTURES = tuple(_READERS)

# Some old configs name no architecture, only their class of config.
_BY_TYPE = {"llama": "LlamaForCausalLM"}


def read_hparams(files: SideFiles) -> Hparams:
    """Read config.json of a checkpoint.

    Raises: CannotConvert without a config or for another architecture; Corrupt
    naming the key whose value makes no sense.
    """
    config = read_config(files)
    return _READERS[_architecture(config)](config)


def _architecture(config: Config) -> str:
    names = config.values.get("architectures")
    kind = config.values.get("model_type")
    if names is None and isinstance(kind, str) and kind in _BY_TYPE:
        return _BY_TYPE[kind]
    if isinstance(names, list) and len(names) == 1 and isinstance(names[0], str):
        if names[0] in _READERS:
            return names[0]
        kind = names[0]
    raise CannotConvert(
        f"{config.label} is of the architecture {shown(kind)}, which is not supported",
        hint=f"supported: {', '.join(ARCHITECTURES)}",
    )
