"""What somebody wants otherwise than llama.cpp would choose, read and understood."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from math import prod

from wizard_edge._llama.tensor_types import Override, TypeDecision
from wizard_edge.conversion import QuantRules
from wizard_edge.errors import CannotConvert
from wizard_edge.gguf_types import GgmlType
from wizard_edge_converters.entries import Entry
from wizard_edge_converters.header import TensorEntry
from wizard_edge_converters.imatrix import (
    ImportanceMatrix,
    quantizer_notes,
    read_imatrix,
)
from wizard_edge_converters.overrides import parse_override, parse_type
from wizard_edge_converters.quantize import Weights


@dataclass(frozen=True)
class TypeRules:
    """Rules as llama.cpp's choice of types takes them; by default there are none."""

    importance: ImportanceMatrix | None = None
    tensor_types: tuple[Override, ...] = ()
    output_type: GgmlType | None = None
    embedding_type: GgmlType | None = None
    pure: bool = False

    @property
    def is_default(self) -> bool:
        """Whether all is left to llama.cpp."""
        return self == TypeRules()

    @property
    def notes(self) -> tuple[Entry, ...]:
        """What the metadata of a file made so say of it."""
        return () if self.importance is None else quantizer_notes(self.importance)

    @cached_property
    def identity(self) -> str:
        """A text that another matrix would not have; the types stand in the plan."""
        if self.importance is None:
            return ""
        digest = hashlib.sha256()
        for name, values in sorted(self.importance.values.items()):
            digest.update(f"{name} {len(values)}\n".encode())
            digest.update(values.tobytes())
        return digest.hexdigest()

    def weights(self, tensors: Iterable[TensorEntry]) -> Weights | None:
        """Return how much the columns of each tensor count, where the matrix says it.

        Raises: CannotConvert for a matrix of another model.
        """
        if self.importance is None:
            return None
        weights = {}
        for tensor in tensors:
            if len(tensor.shape) < 2:
                continue
            columns, experts = tensor.shape[-1], prod(tensor.shape[:-2])
            found = self.importance.weights(
                tensor.name, columns=columns, experts=experts
            )
            if found is not None:
                weights[tensor.name] = found.reshape(-1)
        return weights

    def check(self, quant: str, decision: TypeDecision, known: Weights | None) -> None:
        """Refuse a quant some of whose tensors cannot be made without their importance.

        Raises: CannotConvert.
        """
        missing = sorted(decision.imatrix_tensors - (known or {}).keys())
        if not missing:
            return
        if self.importance is None:
            raise CannotConvert(
                f"{quant} needs an importance matrix",
                hint="--imatrix FILE; Q4_K_M, IQ4_XS and all larger quants do without",
            )
        raise CannotConvert(
            f"{self.importance.path} says nothing of {missing[0]}, which "
            f"{decision.types[missing[0]].name} needs",
            hint="compute one on more text: wizard-edge imatrix MODEL --text FILE",
        )


def read_rules(rules: QuantRules) -> TypeRules:
    """Understand rules and read the importance matrix that they name.

    Raises: UsageError for an unknown type or a malformed rule; MissingFile; Corrupt.
    """
    return TypeRules(
        importance=None if rules.importance is None else read_imatrix(rules.importance),
        tensor_types=tuple(map(parse_override, rules.tensor_types)),
        output_type=_type(rules.output_type),
        embedding_type=_type(rules.embedding_type),
        pure=rules.pure,
    )


def _type(name: str | None) -> GgmlType | None:
    return None if name is None else parse_type(name)
